"""Relief of earlier workers: they serve until new ones do, then drain and end.

A predecessor is what an earlier supervisor started, or this process before it executed itself
again: workers, the model processes that they ask, and the folder of their sockets. A predecessor
ends in this order: the new workers are ready; its workers drain; its model processes end; its
folder is removed. Nothing that runs is touched before the new workers are ready.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec
import structlog

from kedge.ports import Clock

log = structlog.get_logger("kedge.supervisor")

RELIEVE = signal.SIGUSR1
"""The signal which tells a worker that others serve in its place; SIGTERM tells it to stop."""
DRAIN_S = 60.0
"""How long a relieved worker may take: 30 s for idle connections, the rest of its drain, and as
much again. After that it counts as hanging."""
END_S = 15.0
"""How long a model process may take to end."""


class Process(msgspec.Struct, frozen=True):
    """A process, distinguished by its start time from a later one with the same number."""

    pid: int
    started: str = ""
    """Clock ticks since boot, from /proc."""

    @property
    def alive(self) -> bool:
        """Whether it still runs; a process that only waits to be reaped does not."""
        found = _stat(self.pid)
        return found is not None and found[0] not in "ZX" and found[1] == self.started

    def tell(self, sig: signal.Signals) -> None:
        """Send a signal if it is still the same process."""
        if self.alive:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, sig)


def process_of(pid: int) -> Process:
    """Return the process that has a number now."""
    found = _stat(pid)
    return Process(pid, found[1] if found else "")


def _stat(pid: int) -> tuple[str, str] | None:
    """Return the state of a process and its start time."""
    try:
        raw = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = raw.rpartition(")")[2].split()
    return fields[0], fields[19]


def takes(process: Process, sig: signal.Signals) -> bool:
    """Return whether a process handles a signal; a worker of an older kedge does not."""
    return _has(process, "SigCgt", sig)


def defers(process: Process, sig: signal.Signals) -> bool:
    """Return whether a signal is pending: an image that starts obeys it once its handler is set."""
    return _has(process, "SigBlk", sig)


def _has(process: Process, mask: str, sig: signal.Signals) -> bool:
    try:
        raw = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    masks = dict(line.split(":", 1) for line in raw.splitlines() if ":" in line)
    return bool(int(masks.get(mask, "0"), 16) >> (sig - 1) & 1)


class Predecessor(msgspec.Struct):
    """What one image of a supervisor started."""

    folder: str = ""
    workers: tuple[Process, ...] = ()
    hosts: tuple[Process, ...] = ()
    others: tuple[Process, ...] = ()
    """Control: only one can run, so it ends before the new one starts."""
    served: bool = True
    """Whether its workers were ever ready. Workers that never were are not waited for."""
    relieved_at: float | None = None
    ended_at: float | None = None


class Relief:
    """Relieves earlier predecessors, one small step at a time."""

    def __init__(self, predecessors: list[Predecessor], remove: Callable[[Path], None]) -> None:
        """Start with what runs, oldest first; `remove` removes the folder of an ended one."""
        self._predecessors = predecessors
        self._remove = remove
        self.relieved: Callable[[], None] = lambda: None
        """Called once the new workers serve."""
        self._others_at: float | None = None
        self._began = False
        self.waiting = bool(predecessors)
        """Whether the new workers are not ready yet."""

    @property
    def predecessors(self) -> list[Predecessor]:
        """Predecessors that have not ended yet."""
        return self._predecessors

    @property
    def workers(self) -> set[int]:
        """The process ids of the workers that still run."""
        return {w.pid for one in self._predecessors for w in one.workers if w.alive}

    def others_alive(self, now: float) -> bool:
        """Return whether an earlier control still runs, and end it: only one can run."""
        alive = [other for one in self._predecessors for other in one.others if other.alive]
        if alive and self._others_at is None:
            self._others_at = now
            for other in alive:
                other.tell(signal.SIGTERM)
        elif self._others_at is not None and now - self._others_at > END_S:
            for other in alive:
                other.tell(signal.SIGKILL)
        return bool(alive)

    def step(self, now: float, *, ready: Callable[[], bool]) -> None:
        """Relieve and end what is due; forget predecessors that have ended."""
        if self.waiting and not self._began:
            self._began = True
            self._tell_useless(now)
        if self.waiting and ready():
            self.waiting = False
            for one in self._predecessors:
                self._tell(one, now)
            self.relieved()
        for one in list(self._predecessors):
            if one.relieved_at is not None and self._end(one, now):
                self._predecessors.remove(one)
                if one.folder:
                    self._remove(Path(one.folder))

    def _tell_useless(self, now: float) -> None:
        """Relieve at once predecessors that were never ready, while an older one still serves."""
        if any(one.served and any(w.alive for w in one.workers) for one in self._predecessors):
            for one in self._predecessors:
                if not one.served:
                    self._tell(one, now)

    def _tell(self, one: Predecessor, now: float) -> None:
        again = one.relieved_at is not None  # it has had its time
        for worker in one.workers:
            gently = not again and takes(worker, RELIEVE)
            worker.tell(RELIEVE if gently else signal.SIGTERM)
            log.info("supervisor.relieved", pid=worker.pid)
        one.relieved_at = now

    @staticmethod
    def _end(one: Predecessor, now: float) -> bool:
        """Return whether a relieved predecessor has ended; end its models after its workers."""
        left = [worker for worker in one.workers if worker.alive]
        if left:
            if one.relieved_at is not None and now - one.relieved_at > DRAIN_S:
                for worker in left:
                    worker.tell(signal.SIGKILL)
            return False
        hosts = [host for host in one.hosts if host.alive]
        if one.ended_at is None:
            one.ended_at = now
            for host in hosts:
                host.tell(signal.SIGTERM)
        elif now - one.ended_at > END_S:
            for host in hosts:
                host.tell(signal.SIGKILL)
        return not hosts

    # ------------------------------------------------------------ stopping

    def stop(self, kind: Literal["workers", "hosts"]) -> None:
        """Tell every earlier worker, or every earlier model process, to stop."""
        for process in self._all(kind):
            process.tell(signal.SIGTERM)

    def wait(self, kind: Literal["workers", "hosts"], clock: Clock, until: float) -> None:
        """Wait until they have ended; kill the rest."""
        left = self._all(kind)
        while clock.monotonic() < until and any(process.alive for process in left):
            clock.sleep(0.05)
        for process in left:
            process.tell(signal.SIGKILL)

    def _all(self, kind: Literal["workers", "hosts"]) -> list[Process]:
        if kind == "hosts":
            return [process for one in self._predecessors for process in one.hosts]
        return [p for one in self._predecessors for p in (*one.workers, *one.others)]

    def clear(self) -> None:
        """Remove the folders of stopped predecessors."""
        for one in self._predecessors:
            if one.folder:
                self._remove(Path(one.folder))
        self._predecessors.clear()
