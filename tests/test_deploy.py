"""The unit files and the commands in the deployment notes are ones that exist."""

import re
import shlex
import shutil
import subprocess
import sys
from argparse import ArgumentParser
from configparser import RawConfigParser
from pathlib import Path

import pytest
from earmark.runtime import verbs

DOCS = Path(__file__).parents[1] / "docs"
UNITS = sorted((DOCS / "systemd").glob("*.service"))
NEWER = ("RestartSteps", "RestartMaxDelaySec")
"""What old versions of systemd pass over with a warning."""


def parse(command: str) -> None:
    """Parse a command line as the verb would; an unknown verb or option raises."""
    program, verb, *options = shlex.split(command)
    assert Path(program).name == "earmark"
    parser = ArgumentParser(exit_on_error=False)
    getattr(verbs, verb).configure(parser)
    parser.parse_args(options)


def read(unit: Path) -> RawConfigParser:
    parser = RawConfigParser(strict=True)
    parser.optionxform = str  # type: ignore[assignment]
    parser.read(unit, encoding="utf-8")
    return parser


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_runs_a_command_that_exists_and_comes_back(unit: Path) -> None:
    service = read(unit)["Service"]
    parse(service["ExecStart"])
    assert service["Restart"] == "always"
    assert service["DynamicUser"] == service["NoNewPrivileges"] == "yes"
    assert service["ProtectSystem"] == "strict"
    assert "MemoryMax" in service
    # The commands do not speak systemd's notification protocol.
    assert "WatchdogSec" not in service and service["Type"] == "exec"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_takes_a_unit(unit: Path, tmp_path: Path) -> None:
    command = read(unit)["Service"]["ExecStart"].split()[0]
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text(encoding="utf-8").replace(command, sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", copy], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if unit.name in line]
    assert [line for line in told if not any(key in line for key in NEWER)] == []


def test_there_are_units_and_the_notes_name_them() -> None:
    text = (DOCS / "deploy.md").read_text(encoding="utf-8")
    assert [unit.name for unit in UNITS] == ["earmark-listen.service", "earmark-wyoming.service"]
    assert all(unit.name in text for unit in UNITS)


def test_the_commands_in_the_notes_exist() -> None:
    text = (DOCS / "deploy.md").read_text(encoding="utf-8")
    commands = re.findall(r"(?:^|ExecStart=)((?:/opt/earmark/bin/)?earmark [^\n#|]*)", text, re.M)
    assert len(commands) >= 4
    for command in commands:
        parse(command)
