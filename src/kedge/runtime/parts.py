"""Parts of the control process: each is a thread that runs until it is stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Protocol

from kedge.engine.loop import Net
from kedge.engine.process_faults import ProcessFaults
from kedge.ports import Clock

END_S = 10.0
"""Seconds that all parts together have to end. They are daemons: the process ends slower ones."""
PAUSE_S = 0.1


class Ended(Exception):
    """The fault that `status` shows for a part that returned without being stopped."""


class Part(Protocol):
    """A loop that runs until it is stopped."""

    def run(self) -> None:
        """Run until `stop` is called."""

    def stop(self) -> None:
        """Make `run` return soon."""


class Parts:
    """The parts; a part that ends without being stopped is run again, whatever it raised."""

    def __init__(self, clock: Clock, faults: ProcessFaults) -> None:
        """Start without parts."""
        self._clock = clock
        self._faults = faults
        self._stopping = threading.Event()
        self._parts: list[tuple[threading.Thread, Callable[[], None], bool]] = []

    def start(self, name: str, part: Part, *, waits: bool = True) -> None:
        """Run a part on its own thread. If not `waits`, `stop` does not wait for it."""
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
        """Stop every part, and wait for those that were started with `waits`."""
        self._stopping.set()
        for _, stop, _ in self._parts:
            self._faults.attempt("control.stop", stop)
        until = self._clock.monotonic() + END_S
        for thread, _, waits in self._parts:
            if waits:
                thread.join(max(until - self._clock.monotonic(), 0.0))
