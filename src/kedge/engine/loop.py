"""Loops: the cost of a fault, the rest after it, the lead, and the end.

Theory of operation
-------------------
* A loop takes one step again and again. A step runs in a `Net`: any exception is noted in the
  `ProcessFaults` of the process, which publishes it, and costs only that step.
* A step that failed waits before it is tried again, longer after each failure in a row. A step may
  run steps in the same net: one endpoint's fault does not cost another endpoint its step.
* Only one process of a state directory leads. A loop that needs the lead asks before each step.
  Without the lead it forgets its state, since another process acts meanwhile.
* A loop that is stopped ends after its current step, and then takes its last step.
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
"""Waits before a step is tried again, by its failures in a row. Short at first: most faults pass (a
full table of processes, a locked file). Bounded, so that production waits 5 s at most after it."""


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
        """Run a step within the step that runs it, if any; other threads can read its start."""
        self._depth += 1
        self.began = self._clock.monotonic()
        try:
            return self._faults.attempt(place, step, passing)
        finally:
            self._depth -= 1
            self.began = self._clock.monotonic() if self._depth else None

    def forget(self, place: str) -> None:
        """Allow a step at once, or remove it: its fault no longer stands."""
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
    """The actor, for the ledger."""


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
        """Prepare the loop; `run` or `start` begins.

        Args:
            duty: of the process that it runs in.
            place: under which faults of the step are noted.
            step: the work; returns True if the next step is due at once.
            every_s: seconds between two steps.
            rests_first: whether it waits for this time before the first step.
            forget: called instead of the step while another process leads.
            told: called after each step with the fault that stands; empty if none does.
            last: called once after the loop was stopped.
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
        # An event would be shorter, but its `set` in a signal handler can deadlock with the `wait`
        # that it interrupts.
        self._stop: SimpleQueue[None] = SimpleQueue()

    @property
    def began(self) -> float | None:
        """When the step under way began (monotonic); None between steps."""
        return self.net.began

    def start(self, name: str) -> threading.Thread:
        """Run it on a daemon thread, which dies with the process."""
        thread = threading.Thread(target=self.run, name=name, daemon=True)
        thread.start()
        return thread

    def stop(self) -> None:
        """End after the current step; any thread and signal handler may call this."""
        self.is_stopped = True
        self._stop.put(None)

    def rest(self, seconds: float) -> None:
        """Wait for this time, or until the loop is stopped."""
        with suppress(Empty):
            self._stop.get(timeout=seconds)
            self._stop.put(None)  # another waiting thread then ends at once

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
        """Take one step, or forget the state if another process leads."""
        if self._duty.leads():
            self._again = bool(self._step())
        else:
            self._forget()
