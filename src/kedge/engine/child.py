"""Child of the supervisor: a process, its pipes, and the count of its deaths."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from kedge.core.values import State
from kedge.system.door import ModelDoor
from kedge.system.streams import LogFile

BACKOFF_S = (0.0, 0.2, 1.0, 5.0, 15.0, 30.0)
"""Wait before the n-th start in a row of a child that lived for less than `STEADY_S`."""


SPARE = 16
"""Descriptors reserved for the start of a child when no others are left: it takes about eight."""


Command = tuple[str, ...]


class Launch(NamedTuple):
    """How a process is started."""

    command: Command
    told: bytes = b""
    """Its standard input: a command line is no place for a URL with a password."""


HostLaunch = Callable[[State, int, Path], Launch]


def is_alive(pid: int) -> bool:
    """Return whether a process with this number runs, whatever its user."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # it belongs to another user
    return True


class Died(Exception):
    """The fault in `status` of a child that ended by itself."""


CAUSES: dict[int, str] = {
    -signal.SIGPROF: (
        "cpu_exceeded: a request used more processor time than its caller waits, and than 10 s"
    ),
    -signal.SIGALRM: "hung: it was busy with one request for 120 s",
}
"""Why a model process ended, by its exit code: the kernel's timers in it name the fault."""


class Spare:
    """Descriptors that are held open, and closed when no others are left."""

    def __init__(self) -> None:
        self._held: list[int] = []
        self.take()

    def take(self) -> None:
        """Open as many as there are, up to `SPARE`."""
        with suppress(OSError):
            while len(self._held) < SPARE:
                self._held.append(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC))

    def release(self) -> None:
        """Close all of them."""
        while self._held:
            os.close(self._held.pop())


class WorkerHung(Exception):
    """The kernel ended a worker whose serving loop stood still."""


class Child:
    """A process that should run."""

    def __init__(
        self,
        name: str,
        launch: Launch,
        *,
        log_path: Path,
        environment: Mapping[str, str],
        fds: tuple[int, ...] = (),
    ) -> None:
        self.name = name
        self.command, self._told = launch
        self.fds = fds
        self.process: subprocess.Popen[bytes] | None = None
        self.started_at = 0.0
        self.deaths = 0
        self.unneeded_at: float | None = None
        self.memory_limit: int | None = None
        """Limit in bytes. Workers have one too; None: control."""
        self.over_at: float | None = None
        """Since when it holds more."""
        self.log = LogFile(log_path)
        self.door: ModelDoor | None = None
        """The door of a model process: what is handed to it, and renewed."""
        self.log_fault: OSError | None = None
        """Why its output does not go to its log file; None if it does."""
        self.log_at = 0  # its size when the process was started
        self._environment = environment
        self._open_log()  # while it is possible: a later start can continue with it

    def _open_log(self) -> int:
        out, self.log_fault = self.log.descriptor()
        return out

    def start(self, now: float, spare: Spare) -> None:
        """Start the process; its output goes to its log file or, if that is impossible, nowhere.

        Raises:
            OSError: there are no processes, memory or descriptors left.
        """
        try:
            self._start(self._open_log())
        except OSError as error:
            if error.errno not in {errno.EMFILE, errno.ENFILE}:
                raise
            spare.release()
            try:
                self._start(self._open_log())
            finally:
                spare.take()
        self.started_at = now
        self.over_at = None

    def _start(self, out: int) -> None:
        door, self.log_at = self.door, self.log.size()
        with telling(self._told) if door is None else door.handed(self._told) as heard:
            self.process = subprocess.Popen(  # noqa: S603 - our own command
                self.command,
                stdin=heard,
                stdout=out,
                stderr=out,
                pass_fds=self.fds,
                start_new_session=True,
                env=self._environment,
            )

    @property
    def pid(self) -> int | None:
        """Its process id; None while there is none."""
        return self.process.pid if self.process is not None else None

    def last_line(self) -> str:
        """Return the last line of its log, to be appended; of a model, only its host's report.

        A model may print callers' data.
        """
        told = self.log.last_error(self.log_at) if self.door is None else self.door.read_detail()
        return f", which ends with: {told}" if told else ""

    def due(self, now: float) -> bool:
        """Return whether it should be started now."""
        if self.process is not None and self.process.poll() is None:
            return False
        return now - self.started_at >= BACKOFF_S[min(self.deaths, len(BACKOFF_S) - 1)]

    def memory(self) -> int:
        """Return its resident bytes; 0 if it is gone."""
        try:
            with Path(f"/proc/{self.process.pid}/statm").open() as file:  # type: ignore[union-attr]
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError, ValueError, AttributeError):
            return 0

    def tell(self, sig: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(sig)


@contextmanager
def telling(words: bytes) -> Iterator[int]:
    """Yield the end of a pipe at which a child reads these words, and then the end."""
    heard, told = os.pipe2(os.O_CLOEXEC)
    try:
        os.write(told, words)  # far less than a pipe holds
    finally:
        os.close(told)
    try:
        yield heard
    finally:
        os.close(heard)
