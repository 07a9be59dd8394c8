"""`kill -9` of runners and of nodes' processes at random moments: the rows equal what is there, and nothing is there twice."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("workflow_killing.py")


def test_fifty_rounds(tmp_path):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path), "50", "1"],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    told = json.loads(done.stdout)
    # Of fifty kills at random moments, which of the two a moment meets is chance; each must have been met.
    assert told["runner"] + told["node"] <= 50, told
    assert min(told["runner"], told["node"], told["resumed"]) >= 1, told
