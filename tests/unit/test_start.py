"""The start of the command on a system that is not Linux: one sentence with a code, and no traceback."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from kedge.cli import main
from kedge.cli.root import walk

OTHERS = "asyncio, click, duckdb, msgspec, numpy, sqlalchemy, structlog, subprocess, uvicorn"
"""Have builds for every system, and are imported before the system is another one."""
COMMANDS = [path for path, _ in walk(main)]


def start(system: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command as if it were on another system; what only Linux has cannot be imported there."""
    code = (
        f"import sys, {OTHERS}\n"
        f"sys.platform, sys.argv = {system!r}, ['kedge', *{list(words)!r}]\n"
        "for name in ('fcntl', 'pwd', 'resource', 'termios'): sys.modules[name] = None\n"
        "from kedge.__main__ import run\n"
        "run()\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_a_command_refuses_where_only_linux_would_do(system: str) -> None:
    done = start(system, "up")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: kedge runs on Linux, and this is {system}: ")
    assert "hint: run it in a Linux container" in done.stderr
    assert "Traceback" not in done.stderr
    told = json.loads(start(system, "status", "--json").stdout)
    assert told["error"]["code"] == "linux_only"


def test_every_command_explains_itself_on_any_system() -> None:
    """Their modules are imported for it, and what is missing there stands in as an empty module."""
    code = (
        f"import sys, {OTHERS}\n"
        "sys.platform = 'win32'\n"
        "for name in ('fcntl', 'pwd', 'resource', 'termios'): sys.modules[name] = None\n"
        "from kedge.__main__ import run\n"
        f"for path in {COMMANDS!r}:\n"
        "    sys.argv = ['kedge', *path.split(), '--help']\n"
        "    try:\n"
        "        run()\n"
        "    except SystemExit as end:\n"
        "        assert not end.code, path\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    ).stdout
    assert told.count("Usage: ") == len(COMMANDS) > 50


def test_help_and_features_files_work_on_any_system() -> None:
    assert "Usage: " in start("darwin", "--help").stdout
    assert "Usage: " in start("win32", "up", "--help").stdout
    assert "Usage: " in start("win32", "help", "rollback").stdout
    code = (
        "import sys; sys.platform = 'win32'; sys.modules['fcntl'] = sys.modules['resource'] = None; "
        "import kedge; kedge.schema('a/1', keys=['k'], fields={'x': kedge.Field('float32')})"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
