"""Memory bounds of a host's processes: the limit of each, and what happens above it."""

from __future__ import annotations

import resource
import signal
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Protocol

import structlog

from kedge.engine.loop import Net
from kedge.engine.process_faults import ProcessFaults
from kedge.engine.serving.last_asked import MUCH, STARVED, path_of, read_last_asked
from kedge.system.machine import Machine

log = structlog.get_logger("kedge.supervisor")

OVER_S = 5.0
"""How long a worker above its limit may answer its open requests before it is killed."""
NEARLY = 0.9
"""Share of its limit from which a worker is ended. At the limit an allocation fails, and one
request with it; a worker that stayed just below the limit would fail request after request."""


class TooLarge(Exception):
    """The fault in `status` of a process that held more memory than its limit."""


class KeptProcess(Protocol):
    """A process under a memory bound."""

    name: str
    memory_limit: int | None
    over_at: float | None
    fds: tuple[int, ...]

    @property
    def pid(self) -> int | None:
        """Its process id; None while there is none."""

    def memory(self) -> int:
        """Return its resident bytes."""

    def tell(self, sig: signal.Signals) -> None:
        """Send a signal."""


class MemoryBounds:
    """The bounds of one supervisor's processes."""

    def __init__(
        self,
        machine: Machine,
        workers: int,
        *,
        run_dir: Path,
        faults: ProcessFaults,
        net: Net,
        move: Callable[..., None],
    ) -> None:
        """Start without bounds.

        Args:
            machine: the processors and memory.
            workers: how many share it.
            run_dir: where workers note which release they ask.
            faults: shows what was ended.
            net: of a step that may fail.
            move: moves a release into a process on this host.
        """
        self._machine = machine
        self._workers = workers
        self._run_dir = run_dir
        self._faults = faults
        self._net = net
        self._move = move
        self._told: dict[str, tuple[int, int]] = {}
        """By worker: the process to which a limit was set, and the limit."""
        self.inline: dict[str, tuple[int, int]] = {}
        """By endpoint with a release inline: the MB that its policy allows, and its newest
        release."""

    def hold(self, endpoint: str, release: int, memory_mb: int) -> None:
        """Note a release that workers hold."""
        newest = max(release, self.inline.get(endpoint, (0, 0))[1])
        self.inline[endpoint] = memory_mb, newest

    def for_model(self, memory_mb: int) -> int:
        """Return the limit of a model process in bytes."""
        return self._machine.for_model(memory_mb)

    def limit(self, workers: Iterable[KeptProcess]) -> None:
        """Set the limit of each worker, by what is inline now."""
        inline_mb = sum(memory_mb for memory_mb, _ in self.inline.values())
        for worker in workers:
            worker.memory_limit = self._machine.for_worker(inline_mb, self._workers)

    def tend(self, child: KeptProcess, now: float) -> None:
        """End a process above its limit: a model at once, a worker after its open requests."""
        if child.memory_limit is None or child.pid is None:
            return
        starved, most = None, child.memory_limit
        held = child.memory()
        if child.fds:
            self._net.run(f"supervisor.bound.{child.name}", partial(self._tell_kernel, child))
            most = int(most * NEARLY)
            if held > child.memory_limit * MUCH:
                starved = read_last_asked(path_of(self._run_dir, child.name), STARVED)
        if held <= most and starved is None:
            return
        if child.over_at is None:
            child.over_at = now
            self._end(child, held, starved)
        if not child.fds or now - child.over_at > OVER_S:
            child.tell(signal.SIGKILL)

    def _end(self, child: KeptProcess, held: int, starved: tuple[str, int] | None) -> None:
        assert child.memory_limit is not None
        place, of = f"supervisor.memory.{child.name}", child.memory_limit >> 20
        self._faults.note(place, TooLarge(f"it held {held >> 20} of {of} MB, and was ended"))
        self._faults.clear(place)  # the next one holds little; the count stays
        log.warning("supervisor.too_much_memory", child=child.name, limit=child.memory_limit)
        if not child.fds:
            return
        why = f"{child.name} held {held >> 20} MB with it"
        move = partial(self._move, starved or self._suspect(child.name), code="memory", why=why)
        self._net.run(f"supervisor.move.{child.name}", move)
        child.tell(signal.SIGTERM)

    def _suspect(self, worker: str) -> tuple[str, int] | None:
        """Return the release that a worker is asking, or the only one that it could ask."""
        asked = read_last_asked(path_of(self._run_dir, worker))
        if asked is None and len(self.inline) == 1:
            ((endpoint, (_, release)),) = self.inline.items()
            return endpoint, release
        return asked

    def _tell_kernel(self, worker: KeptProcess) -> None:
        """Set a worker's limit of allocations in the kernel.

        The limit is on data (RLIMIT_DATA), not on addresses (RLIMIT_AS). Maps of files, stacks and
        reserved heaps are addresses without memory, and would fail a worker that holds little.

        Raises:
            OSError: the kernel refuses.
        """
        if worker.pid is None or worker.memory_limit is None:
            return
        wanted = worker.pid, worker.memory_limit
        if wanted != self._told.get(worker.name):
            _, hard = resource.prlimit(worker.pid, resource.RLIMIT_DATA)
            resource.prlimit(worker.pid, resource.RLIMIT_DATA, (worker.memory_limit, hard))
            self._told[worker.name] = wanted
