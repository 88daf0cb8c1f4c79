"""Loop timer: it ends a control process that hangs, so that its supervisor starts it again.

Theory of operation
-------------------
* The interpreter's own timer (`faulthandler`, a thread in C) ends the process and writes the stack
  of each thread. It needs no interpreter lock, so it works even while native code holds that lock.
* The timer is reset while the loops that protect production make progress. A loop that spends more
  than `STEP_S` in one step lets it expire.
* A stopped process (SIGSTOP), or one that waits for a dead disk, cannot end itself: `kedge status`
  shows it as silent.
"""

from __future__ import annotations

import faulthandler
from collections.abc import Mapping
from typing import Protocol

from kedge.engine.process_faults import ProcessFaults
from kedge.ports import Clock

STEP_S = 60.0
"""Seconds that one step may take. A step of patrol or alerting takes milliseconds, or seconds while
it waits for a lock or for the receipts of a rollback."""
END_S = 60
"""Seconds from then until the process ends: a machine that swaps gets the same time again."""
AGAIN_S = 5.0
"""Minimum seconds between two resets of the timer: each reset costs a thread."""


class Hung(Exception):
    """The fault that `status` shows for a loop that makes no progress."""


class Turning(Protocol):
    """The part of a loop that the timer reads."""

    @property
    def began(self) -> float | None:
        """Start of the present step (monotonic seconds); None between steps."""


class LoopTimer:
    """Resets the timer while every loop makes progress; another thread's loop calls `look`."""

    def __init__(
        self,
        loops: Mapping[str, Turning],
        clock: Clock,
        faults: ProcessFaults,
        *,
        step_s: float = STEP_S,
        end_s: float = END_S,
    ) -> None:
        """Watch these loops.

        Args:
            loops: the loops by name.
            clock: the clock that the loops use for monotonic time.
            faults: where a loop without progress is recorded.
            step_s: maximum seconds of one step.
            end_s: seconds until the process ends once a loop makes no progress.
        """
        self._loops = loops
        self._clock = clock
        self._faults = faults
        self._step_s = step_s
        self._end_s = end_s
        self._again_s = min(AGAIN_S, end_s / 4)
        self._set_at: float | None = None
        self._stopped = False
        self._hung: set[str] = set()

    def look(self) -> None:
        """Reset the timer if it is due and every loop makes progress."""
        now = self._clock.monotonic()
        hung = {name for name, loop in self._loops.items() if self._stands(loop.began, now)}
        for name in hung - self._hung:
            told = f"it is in one step for {self._step_s:g} s; control ends in {self._end_s:g} s"
            self._faults.note(f"control.{name}.turning", Hung(told))
        for name in self._hung - hung:
            self._faults.clear(f"control.{name}.turning")
        self._hung = hung
        if (
            not hung
            and not self._stopped
            and (self._set_at is None or now - self._set_at >= self._again_s)
        ):
            faulthandler.dump_traceback_later(self._end_s, exit=True)
            self._set_at = now

    def stop(self) -> None:
        """Cancel the timer: the process may take any time to end."""
        self._stopped = True
        faulthandler.cancel_dump_traceback_later()

    def _stands(self, began: float | None, now: float) -> bool:
        return began is not None and now - began > self._step_s
