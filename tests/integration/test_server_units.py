"""The units of deploy/systemd, as systemd itself reads them."""

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from lakehouse.cli import main

DEPLOY = Path(__file__).parents[2] / "deploy" / "systemd"
UNITS = sorted(path.name for path in DEPLOY.glob("*.service"))
PROGRAM = "/opt/lakehouse/venv/bin/lakehouse"
LANDLOCK = {"landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", "seccomp"}


def service(name):
    """The section `[Service]`: every value of every key."""
    found = {}
    for line in (DEPLOY / name).read_text().splitlines():
        key, sign, value = line.partition("=")
        if sign and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def analyzed(tmp_path, name, *command):
    """What systemd-analyze says to a unit whose program is there."""
    program = shutil.which("systemd-analyze")
    assert program, "systemd-analyze is missing: scripts/system-packages.sh says how to get it"
    text = (DEPLOY / name).read_text()
    assert PROGRAM in text
    unit = tmp_path / name
    unit.write_text(text.replace(PROGRAM, sys.executable))
    return subprocess.run([program, *command, unit], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", UNITS)
def test_systemd_finds_no_fault(tmp_path, name):
    done = analyzed(tmp_path, name, "verify", "--man=no")
    assert (done.returncode, done.stderr) == (0, "")


def test_systemd_does_find_faults(tmp_path):
    """So that the test above can fail."""
    (tmp_path / "x.service").write_text("[Service]\nExecStart=/nowhere/at/all\nProtectEverything=yes\n")
    done = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / "x.service"], capture_output=True, text=True, check=False
    )
    assert "ProtectEverything" in done.stderr
    assert "not executable" in done.stderr


@pytest.mark.parametrize("name", UNITS)
def test_little_is_left_to_take_from_it(tmp_path, name):
    """Of 10, systemd's own measure of what a service could do."""
    done = analyzed(tmp_path, name, "security", "--offline=yes", "--threshold=20")
    assert done.returncode == 0, done.stdout
    assert "Overall exposure level" in done.stdout


@pytest.mark.parametrize("name", UNITS)
def test_the_sandbox_of_sql_can_be_built_in_it(name):
    found = service(name)
    assert set(found["SystemCallFilter"][0].split()) >= LANDLOCK
    assert found["NoNewPrivileges"] == ["yes"]
    assert not any(value.startswith("~") for value in found["SystemCallFilter"])


@pytest.mark.parametrize("name", UNITS)
def test_it_stays_down_when_it_must_not_start(name):
    found = service(name)
    assert found["Restart"] == ["on-failure"]
    assert found["RestartPreventExitStatus"] == ["2"]
    assert "TRAITLETS_APPLICATION_RAISE_CONFIG_FILE_ERROR=1" in " ".join(found["Environment"])
    assert found["EnvironmentFile"] == ["/etc/lakehouse/auth.env"]  # without a dash: it must be there


@pytest.mark.parametrize("name", UNITS)
def test_its_command_is_one_that_there_is(name):
    """Every option of the command line, and every variable in it, is known."""
    (command,) = service(name)["ExecStart"]
    program, *arguments = command.split()
    assert program == PROGRAM
    known = variables()
    assert set(re.findall(r"\$\{(\w+)\}", command)) <= set(known)
    which = next(word for word in arguments if word in ("serve", "lab"))
    told = CliRunner().invoke(main, [which, "--help"]).output
    ours = arguments[arguments.index(which) :]
    ours = ours[: ours.index("--")] if "--" in ours else ours
    for option in (word for word in ours if word.startswith("--")):
        assert option in told.replace("/", " ").split() or f"{option} " in told, option
    assert arguments[arguments.index("--ip") + 1] == "127.0.0.1"


def test_the_example_of_the_tokens_is_one_that_can_be_filled_in():
    """No variable that lakehouse would not know, and none with a token in it."""
    known = variables()
    assert set(known) == {
        "LAKEHOUSE_PATH", "PUBLIC_NAME", "AUTH_TOKEN_FILE", "AUTH_TOKEN_SECONDARY_FILE", "AUTH_TOKEN_READ_FILE", "JUPYTER_TOKEN",
    }  # fmt: skip
    assert known["JUPYTER_TOKEN"] == "", "whoever installs it has to choose one: an empty one does not start"


def variables():
    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None)
    parser.optionxform = str
    parser.read_string("[all]\n" + (DEPLOY / "auth.env.example").read_text())
    return dict(parser["all"])
