"""A real pseudo-terminal with one process in it: what a person sees and types."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from kedge.cli import main

COLOUR = re.compile("\x1b\\[[0-9;]*m")
CONTROL = re.compile("[\x00-\x08\x0b-\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
ASKING = ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "COLORTERM", "COLUMNS", "LINES")
"""Variables with which the terminal of the suite asks for something."""


class Terminal:
    """The other end of the pseudo-terminal of a process."""

    def __init__(self, master: int, pid: int) -> None:
        self._master, self.pid = master, pid
        self.shown = ""
        """What the process has written and `until` has not found yet, with control sequences."""

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def kill(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def resize(self, columns: int, lines: int) -> None:
        """Change the size, as a window manager does; the kernel sends SIGWINCH."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def until(self, pattern: str, *, within_s: float = 30.0) -> re.Match[str]:
        """Wait until the process has written what the pattern finds behind what was found before."""
        ends = time.monotonic() + within_s
        while (found := re.search(pattern, self.shown, re.DOTALL)) is None:
            left = ends - time.monotonic()
            assert left > 0, f"{pattern} is not in {self.shown[-500:]!r}"
            assert self._read(left), f"{pattern} is not in {self.shown[-500:]!r}; it ended"
        self.shown = self.shown[found.end() :]
        return found

    def end(self, *, within_s: float = 30.0) -> int:
        """Wait for the end of the process; return its exit code."""
        ends = time.monotonic() + within_s
        while self._read(max(ends - time.monotonic(), 0)):
            assert time.monotonic() < ends, f"it still runs: {self.shown[-500:]!r}"
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return os.waitstatus_to_exitcode(status)

    def _read(self, within_s: float) -> bool:
        """Read what was written; False: every process has closed the terminal."""
        # Not `select.select`: this process may have more than 1,024 descriptors.
        ready = select.poll()
        ready.register(self._master, select.POLLIN)
        if not ready.poll(within_s * 1000):
            return True
        try:
            got = os.read(self._master, 65_536)
        except OSError:  # EIO: Linux says so when the last process closes it
            return False
        self.shown += got.decode(errors="replace")
        return bool(got)


@contextlib.contextmanager
def terminal(
    work: Callable[[], object], *, columns: int = 80, lines: int = 24, **environ: str | None
) -> Iterator[Terminal]:
    """Run a function in a fork with a terminal of its own; it is killed if it has not ended."""
    pid, master = pty.fork()
    if pid == 0:
        _run(work, environ)
    one = Terminal(master, pid)
    one.resize(columns, lines)
    try:
        one.type("\n")  # the size is known now: the fork may begin
        yield one
    finally:
        if one.pid:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        os.close(master)


def _run(work: Callable[[], object], environ: dict[str, str | None]) -> None:
    """Do the work of a fork, and end it without returning to the test."""
    code = 1
    try:
        os.read(0, 1)
        for name in ASKING:
            os.environ.pop(name, None)
        named = {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8", **environ}
        os.environ.update({name: value for name, value in named.items() if value is not None})
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
        sys.__stdout__ = sys.stdout  # type: ignore[misc]
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        work()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    finally:
        if sys.exc_info()[0] is not None:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def kedge(folder: Path, *words: str) -> Callable[[], None]:
    """Return a function that runs a command in a directory."""

    def work() -> None:
        os.environ.pop("KEDGE_CONFIG", None)
        os.chdir(folder)
        sys.argv = ["kedge", *words]
        main(prog_name="kedge")

    return work


def shown(folder: Path, words: Sequence[str], *, columns: int = 80, **environ: str | None) -> str:
    """Run a command to its end in a terminal; return what it showed, with its colours."""
    with terminal(kedge(folder, *words), columns=columns, lines=24, **environ) as one:
        one.end()
        return re.sub("\r+\n", "\n", one.shown).removeprefix("\n")
