"""Parts of the control process: one thread each, which runs until it is stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Protocol

from kedge.engine.loop import Net
from kedge.engine.process_faults import ProcessFaults
from kedge.ports import Clock

END_S = 10.0
"""How long parts have in all to end. They are daemons: what takes longer dies with the process."""
PAUSE_S = 0.1


class Ended(Exception):
    """What stands in `status` of a part that returned although it was not stopped."""


class Part(Protocol):
    """What runs until it is stopped: a loop."""

    def run(self) -> None:
        """Run until stopped."""

    def stop(self) -> None:
        """End soon; `run` returns then."""


class Parts:
    """The parts; one that ends by itself, whatever it raised, is run again."""

    def __init__(self, clock: Clock, faults: ProcessFaults) -> None:
        """Have no parts yet."""
        self._clock = clock
        self._faults = faults
        self._stopping = threading.Event()
        self._parts: list[tuple[threading.Thread, Callable[[], None], bool]] = []

    def start(self, name: str, part: Part, *, waits: bool = True) -> None:
        """Run a part on a thread of its own. Without `waits` it dies with the process."""
        thread = threading.Thread(
            target=self._run, args=(f"control.{name}", part.run), name=name, daemon=True
        )
        thread.start()
        self._parts.append((thread, part.stop, waits))

    def _run(self, place: str, run: Callable[[], None]) -> None:
        net = Net(self._faults, self._clock)
        while not self._stopping.is_set():
            net.run(place, partial(self._run_once, run))
            self._stopping.wait(PAUSE_S)

    def _run_once(self, run: Callable[[], None]) -> None:
        run()
        if not self._stopping.is_set():
            raise Ended("it returned, and is run again")

    def stop(self) -> None:
        """Stop every part, and wait for those that are waited for."""
        self._stopping.set()
        for _, stop, _ in self._parts:
            self._faults.attempt("control.stop", stop)
        until = self._clock.monotonic() + END_S
        for thread, _, waits in self._parts:
            if waits:
                thread.join(max(until - self._clock.monotonic(), 0.0))
