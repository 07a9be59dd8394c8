"""The notebooks run as tests (nbval) on a lake of their own, so that snapshot numbers are always the same."""

import os
import tempfile


def pytest_configure(config):
    folder = tempfile.TemporaryDirectory(prefix="lakehouse-notebooks-")
    config.add_cleanup(folder.cleanup)
    os.environ["LAKEHOUSE_PATH"] = os.path.join(folder.name, "lake")
