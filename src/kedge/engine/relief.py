"""The relief of earlier workers: they serve until new ones do, then drain and end.

What an earlier supervisor started, or this process before it executed itself again, is a
generation: workers, the model processes that they ask, and the folder of their sockets. A
generation ends in this order: the new workers are ready; its workers drain; its model processes
end; its folder is removed. What is running before the new workers are ready is never touched.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import structlog

log = structlog.get_logger("kedge.supervisor")

RELIEVE = signal.SIGUSR1
"""What tells a worker that others serve in its place; SIGTERM tells it to stop."""
DRAIN_S = 60.0
"""How long a relieved worker may take: 30 s for idle connections, the rest of its drain, and as
much again. Then it hangs."""
END_S = 15.0
"""How long a model process may take to end."""


class Process(msgspec.Struct, frozen=True):
    """A process, told from a later one with its number by when it started."""

    pid: int
    started: str = ""
    """Clock ticks since boot, as /proc has it."""

    @property
    def alive(self) -> bool:
        """Whether it still runs; one that only waits to be reaped does not."""
        found = _stat(self.pid)
        return found is not None and found[0] not in "ZX" and found[1] == self.started

    def tell(self, sig: signal.Signals) -> None:
        """Send a signal, if it is still this one."""
        if self.alive:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, sig)


def process_of(pid: int) -> Process:
    """Return the process that has a number now."""
    found = _stat(pid)
    return Process(pid, found[1] if found else "")


def _stat(pid: int) -> tuple[str, str] | None:
    """Return the state of a process and when it started."""
    try:
        raw = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = raw.rpartition(")")[2].split()
    return fields[0], fields[19]


def takes(process: Process, sig: signal.Signals) -> bool:
    """Return whether a process has a function for a signal; a worker of an older kedge has none."""
    try:
        raw = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    masks = dict(line.split(":", 1) for line in raw.splitlines() if ":" in line)
    return bool(int(masks.get("SigCgt", "0"), 16) >> (sig - 1) & 1)


class Generation(msgspec.Struct):
    """What one image of a supervisor started."""

    folder: str = ""
    workers: tuple[Process, ...] = ()
    hosts: tuple[Process, ...] = ()
    others: tuple[Process, ...] = ()
    """Control: only one can run, so it ends before the new one starts."""
    relieved_at: float | None = None
    ended_at: float | None = None


class Relief:
    """Takes care of earlier generations, one small step at a time."""

    def __init__(self, generations: list[Generation], remove: Callable[[Path], None]) -> None:
        """Start with what runs, oldest first; `remove` removes the folder of what has ended."""
        self._generations = generations
        self._remove = remove
        self.relieved: Callable[[], None] = lambda: None
        """Called once the new workers serve."""
        self._others_at: float | None = None
        self.waiting = bool(generations)
        """Whether the new workers are not ready yet."""

    @property
    def generations(self) -> list[Generation]:
        """What has not ended yet."""
        return self._generations

    @property
    def workers(self) -> set[int]:
        """The process ids of the workers that still run."""
        return {w.pid for one in self._generations for w in one.workers if w.alive}

    def others_alive(self, now: float) -> bool:
        """Return whether an earlier control still runs, and end it: there can be only one."""
        alive = [other for one in self._generations for other in one.others if other.alive]
        if alive and self._others_at is None:
            self._others_at = now
            for other in alive:
                other.tell(signal.SIGTERM)
        elif self._others_at is not None and now - self._others_at > END_S:
            for other in alive:
                other.tell(signal.SIGKILL)
        return bool(alive)

    def step(self, now: float, *, ready: Callable[[], bool]) -> None:
        """Relieve what can be relieved, end what has drained, forget what is gone."""
        if self.waiting and ready():
            self.waiting = False
            for one in self._generations:
                self._tell(one, now)
            self.relieved()
        for one in list(self._generations):
            if one.relieved_at is not None and self._end(one, now):
                self._generations.remove(one)
                if one.folder:
                    self._remove(Path(one.folder))

    def _tell(self, one: Generation, now: float) -> None:
        again = one.relieved_at is not None  # it has had its time
        for worker in one.workers:
            gently = not again and takes(worker, RELIEVE)
            worker.tell(RELIEVE if gently else signal.SIGTERM)
            log.info("supervisor.relieved", pid=worker.pid)
        one.relieved_at = now

    @staticmethod
    def _end(one: Generation, now: float) -> bool:
        """Return whether nothing of a relieved generation runs any more; end what has served its turn."""
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

    def stop_workers(self) -> None:
        """Tell every earlier worker and control to stop."""
        for one in self._generations:
            for process in (*one.workers, *one.others):
                process.tell(signal.SIGTERM)

    def finish(self, within_s: float, sleep: Callable[[float], None]) -> None:
        """Wait until they have, then end their model processes; what does not end is killed."""
        for kind in ("workers", "hosts"):
            left = [p for one in self._generations for p in getattr(one, kind)]
            if kind == "hosts":
                for process in left:
                    process.tell(signal.SIGTERM)
            waited = 0.0
            while waited < within_s and any(process.alive for process in left):
                sleep(0.05)
                waited += 0.05
            for process in left:
                process.tell(signal.SIGKILL)
        for one in self._generations:
            if one.folder:
                self._remove(Path(one.folder))
        self._generations.clear()
