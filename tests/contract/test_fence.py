"""The fence around a probe: a model that tries each of what it may not do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kedge.adapters.process import command, fence, first_words
from kedge.adapters.process.launch import fenced_environment
from kedge.core.generations import Online

TRIES = {
    "read": "open({secret!r}).read()",
    "shadow": "open('/etc/shadow').read()",
    "parent": "open(f'/proc/{{os.getppid()}}/environ').read()",
    "root": "open('/proc/self/root/etc/shadow').read()",
    "write": "open({secret!r}, 'w')",
    "remove": "os.unlink({secret!r})",
    "mode": "os.chmod({secret!r}, 0o777)",
    "tcp": "socket.create_connection(('127.0.0.1', 9))",
    "unix": "socket.socket(socket.AF_UNIX).connect('/run/x')",
    "abstract": "socket.socket(socket.AF_UNIX).connect(chr(0) + 'x')",
    "exec": "os.execv('/bin/true', ['true'])",
    "spawn": "subprocess.run(['/bin/true'])",
    "fork": "os.fork()",
    "ptrace": "libc.ptrace(16, os.getppid(), 0, 0) and (_ for _ in ()).throw(PermissionError)",
    "signal": "os.kill(os.getppid(), 0)",
    "pidfd": "os.pidfd_open(os.getppid())",
    "alarm": "signal.signal(signal.SIGALRM, signal.SIG_IGN)",
}
CHILD = """
import ctypes, os, signal, socket, subprocess, threading
from pathlib import Path
from kedge.adapters.process import command, fence, first_words
libc = ctypes.CDLL(None)
own = Path({own!r})
print(fence.enter(fence.Openings(write=(own,), hidden=own.parent)))
try:
    {tried}
    print("done")
except PermissionError:
    print("refused")
(own / "file").write_text("its own")
thread = threading.Thread(target=print, args=("thread",))
thread.start()
thread.join()
"""

needs_all = pytest.mark.skipif(bool(fence.missing()), reason=f"no {', '.join(fence.missing())}")


@needs_all
@pytest.mark.parametrize("what", TRIES)
def test_what_a_model_may_not_do_is_refused(tmp_path: Path, what: str) -> None:
    secret, own = tmp_path / "secret", tmp_path / "own"
    secret.write_text("hunter2")
    own.mkdir()
    script = CHILD.format(own=str(own), tried=TRIES[what].format(secret=str(secret)))
    ran = subprocess.run(
        [sys.executable, "-c", script],
        check=False,
        env=fenced_environment(),
        capture_output=True,
        text=True,
    )
    assert ran.stdout.splitlines() == ["()", "refused", "thread"], ran.stderr
    assert secret.read_text() == "hunter2"


def test_passwords_of_this_machine_are_not_in_its_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KEDGE_SMTP_URL", "smtp://ada:hunter2@mail")
    monkeypatch.setenv("KEDGE_ONLINE_URL", "redis://:hunter2@cache")
    monkeypatch.setenv("HOOK_TOKEN", "hunter2")
    assert "hunter2" not in str(fenced_environment())


def test_the_url_of_a_store_is_told_and_stands_on_no_command_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whether it is kedge.toml's or the environment's; only a release that reads by key is told."""
    url = "redis://:hunter2@cache"
    for where in (url, ""):
        monkeypatch.setenv("KEDGE_ONLINE_URL", "" if where else url)
        online = Online("redis", where)
        line = command(
            socket=tmp_path / "m.sock",
            artifacts=tmp_path,
            digest="sha256:0",
            flavour="test",
            generation="delays/1#1@1",
            online=online,
        )
        assert "hunter2" not in str(line)
        assert first_words("delays/1#1@1", online) == f"{url}\n".encode()
        assert first_words(None, online) == b"\n"
