"""Loops: what a fault costs one, how long it rests, whether it leads, and how it stops.

Theory of operation
-------------------
* A loop takes one step again and again. A step runs in a `Net`: whatever it raises is noted in the
  `ProcessFaults` of the process, which publishes it, and costs that step alone.
* A step that failed waits before it is tried again, longer after each failure in a row. A step may
  have steps of its own in the same net: one endpoint's fault costs no other endpoint its step.
* Only one process of a state directory leads. A loop that needs the lead asks before each step;
  without it, it forgets what it knew, since another process acts meanwhile.
* A loop ends after its present step once it is told to, and then takes its last step.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from kedge.engine.process_faults import ProcessFaults
from kedge.ports import Clock

WAITS_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Before a step that failed so many times in a row is tried again. Short at first: most faults pass
(a full table of processes, a locked file); bounded, so that production waits 5 s at most after it."""


class Net:
    """Runs the steps of one loop; it belongs to one thread."""

    def __init__(self, faults: ProcessFaults, clock: Clock) -> None:
        """Note faults there, and take the time from this clock."""
        self._faults = faults
        self._clock = clock
        self._failed: dict[str, tuple[int, float]] = {}
        """By place: how often in a row its step failed, and when it is due again (monotonic)."""
        self._depth = 0
        self.began: float | None = None
        """When the loop last began or ended a step (monotonic); None while no step is under way."""

    def run(
        self,
        place: str,
        step: Callable[[], object],
        passing: tuple[type[BaseException], ...] = (),
    ) -> bool:
        """Run a step, unless it waits after a fault; return whether it was run and succeeded.

        `passing`: see `ProcessFaults.attempt`.
        """
        count, due = self._failed.get(place, (0, 0.0))
        if count and self._clock.monotonic() < due:
            return False
        if not self._attempt(place, step, passing):
            wait = WAITS_S[min(count, len(WAITS_S) - 1)]
            self._failed[place] = (count + 1, self._clock.monotonic() + wait)
            return False
        if count:
            del self._failed[place]
        self._faults.clear(place)
        return True

    def _attempt(
        self, place: str, step: Callable[[], object], passing: tuple[type[BaseException], ...]
    ) -> bool:
        """Run it, within the step that runs it if there is one; another thread sees since when."""
        self._depth += 1
        self.began = self._clock.monotonic()
        try:
            return self._faults.attempt(place, step, passing)
        finally:
            self._depth -= 1
            self.began = self._clock.monotonic() if self._depth else None

    def forget(self, place: str) -> None:
        """Let a step be tried at once, or be gone: its fault does not stand any more."""
        self._failed.pop(place, None)
        self._faults.clear(place)


def _always() -> bool:
    return True


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Duty:
    """What a process gives each of its loops."""

    clock: Clock
    faults: ProcessFaults
    leads: Callable[[], bool] = _always
    """Whether this process is the one that acts; asked before each step."""
    by: str = ""
    """Who acts, for the ledger."""


class Loop:
    """Takes one step again and again until it is stopped."""

    def __init__(
        self,
        duty: Duty,
        place: str,
        step: Callable[[], bool | None],
        *,
        every_s: float,
        rests_first: bool = False,
        forget: Callable[[], None] = _nothing,
        told: Callable[[str], None] | None = None,
        last: Callable[[], None] | None = None,
    ) -> None:
        """Prepare it; `run` or `start` begins.

        Args:
            duty: of the process that it runs in.
            place: under which faults of the step are noted.
            step: what it does; returns True when the next step is due at once.
            every_s: seconds between two steps.
            rests_first: whether it waits for as long before the first step.
            forget: done instead of the step while another process leads.
            told: told of the fault that stands after each step; empty when none does.
            last: done once when it was stopped.
        """
        self.net = Net(duty.faults, duty.clock)
        self._duty = duty
        self._place = place
        self._step = step
        self._every_s = every_s
        self._rests_first = rests_first
        self._forget = forget
        self._told = told
        self._last = last
        self._again = False
        self.is_stopped = False
        # An event would be shorter, but its `set` in a signal handler can wait for ever for the
        # `wait` that it interrupts.
        self._stop: SimpleQueue[None] = SimpleQueue()

    @property
    def began(self) -> float | None:
        """When the step under way began (monotonic); None between steps."""
        return self.net.began

    def start(self, name: str) -> threading.Thread:
        """Run it on a thread of its own, which dies with the process."""
        thread = threading.Thread(target=self.run, name=name, daemon=True)
        thread.start()
        return thread

    def stop(self) -> None:
        """End after the present step; any thread and signal handler may call it."""
        self.is_stopped = True
        self._stop.put(None)

    def rest(self, seconds: float) -> None:
        """Wait for so long, or until it is stopped."""
        with suppress(Empty):
            self._stop.get(timeout=seconds)
            self._stop.put(None)  # another thread that waits need not

    def run(self) -> None:
        """Take steps until stopped, and then the last one."""
        if self._rests_first:
            self.rest(self._every_s)
        while not self.is_stopped:
            self._again = False
            done = self.net.run(self._place, self.turn)
            if self._told is not None:
                self._told(self._duty.faults.standing(self._place))
            if not (done and self._again):
                self.rest(self._every_s)
        if self._last is not None:
            self._duty.faults.attempt(f"{self._place}.last", self._last)

    def turn(self) -> None:
        """Take one step; forget instead where another process leads."""
        if self._duty.leads():
            self._again = bool(self._step())
        else:
            self._forget()
