"""Runs kedge's short commands in forks of a process that has imported everything already.

A story types dozens of commands, and starting Python takes longer than what most of them do. The
child is a process of its own, with its own directory, environment and output; only its imports
are its parent's. What is about processes themselves (`up`, a killed command) is started for real.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from kedge.cli.pages import COMMANDS

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_IMPORTS = (
    "duckdb",
    "kedge.adapters.models.flavours",
    "kedge.adapters.records.files",
    "kedge.adapters.records.store",
    "kedge.cli",
    "kedge.operations.releases",
    "kedge.operations.setup",
    "kedge.operations.status.read",
    "kedge.cli.text.diagnosis",
    "kedge.operations.registration",
    "kedge.operations.evidence.read",
    "kedge.operations.alerts",
    "kedge.operations.readiness.check",
    "kedge.operations.drills",
    "kedge.operations.diagnosis.run",
    "kedge.operations.outcomes",
    "kedge.operations.features.apply",
    "kedge.operations.features.head",
    "kedge.operations.doctor",
    "kedge.operations.replay.run",
    "kedge.operations.export",
)


class Zygote:
    """The process that is forked. Started at the first command, ended with this one."""

    def __init__(self) -> None:
        self._path = Path(tempfile.mkdtemp(prefix="kedge-zygote-")) / "s"
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(self._path))
        listening.listen(64)
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(listening.fileno())],
            pass_fds=[listening.fileno()],
            env={**os.environ, **dict.fromkeys(_THREADS, "1")},
        )
        listening.close()
        atexit.register(self.end)

    def end(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.wait()
        self._path.unlink(missing_ok=True)
        self._path.parent.rmdir()

    def run(
        self, words: list[str], *, cwd: Path, env: dict[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Run one command to its end.

        Raises:
            subprocess.TimeoutExpired: it takes longer, and was killed.
        """
        with (
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
            socket.socket(socket.AF_UNIX) as wire,
        ):
            wire.connect(str(self._path))
            wire.settimeout(timeout)
            asked = json.dumps(
                {"words": words, "cwd": str(cwd), "env": env, "within_s": timeout}
            ).encode()
            socket.send_fds(wire, [len(asked).to_bytes(4, "big")], [out.fileno(), err.fileno()])
            wire.sendall(asked)
            try:
                said = wire.makefile().read()
            except TimeoutError:
                raise subprocess.TimeoutExpired(words, timeout) from None
            for file in (out, err):
                file.seek(0)
            code = int(said) if said else -9
            return subprocess.CompletedProcess(
                words, code, out.read().decode(), err.read().decode()
            )


def _serve(listening: socket.socket) -> None:
    """Fork for each command; the fork answers with its exit code."""
    for module in (*_IMPORTS, *{f"kedge.cli.{listed.module}" for listed in COMMANDS.values()}):
        importlib.import_module(module)
    gc.freeze()  # a fork does not copy what no collection touches
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        wire, _ = listening.accept()
        if os.fork() == 0:
            listening.close()
            _watched(wire)
        wire.close()


def _watched(wire: socket.socket) -> None:
    """In a child: run the command in a grandchild, so that its own children can be waited for."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    size, fds, _, _ = socket.recv_fds(wire, 4, 2)
    asked = b""
    while len(asked) < int.from_bytes(size, "big"):
        asked += wire.recv(65_536)
    pid = os.fork()
    if pid == 0:
        _become(json.loads(asked), fds)
    _, status = os.waitpid(pid, 0)
    wire.sendall(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _become(asked: dict[str, Any], fds: list[int]) -> None:
    """Be the command."""
    signal.alarm(int(asked["within_s"]) + 2)  # no test waits for it any longer
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    empty = os.open(os.devnull, os.O_RDONLY)
    for number, fd in enumerate((empty, *fds)):
        os.dup2(fd, number)
    sys.path[1:1] = [p for p in asked["env"].get("PYTHONPATH", "").split(os.pathsep) if p]
    sys.argv = ["kedge", *asked["words"]]
    from kedge.cli import main

    code: Any = 1
    try:
        main(asked["words"], prog_name="kedge")
        code = 0
    except SystemExit as error:
        code = error.code
    except BaseException:  # noqa: BLE001 - as the interpreter itself would
        import traceback

        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
