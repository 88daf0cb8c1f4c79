"""Loop timer: ends a control that hangs, so that its supervisor starts it again.

Theory of operation
-------------------
* The interpreter's own timer (`faulthandler`, a thread in C) ends the process and writes where each
  thread stood. It needs no lock of the interpreter, so it also ends one that native code holds.
* The timer is set anew as long as the loops that protect production turn. A loop in one step for
  longer than `STEP_S` lets it run out.
* A stopped process (SIGSTOP) or one that waits for a dead disk cannot end itself: `kedge status`
  shows it as silent.
"""

from __future__ import annotations

import faulthandler
from collections.abc import Mapping
from typing import Protocol

from kedge.engine.process_faults import ProcessFaults
from kedge.ports import Clock

STEP_S = 60.0
"""A step of patrol or alerting takes milliseconds; waiting for a lock, or for the receipts of a rollback,
it takes seconds."""
END_S = 60
"""From then on until the process ends: a machine that swaps gets as much again."""
AGAIN_S = 5.0
"""How often the timer is set anew at most: each time costs a thread."""


class Hung(Exception):
    """What stands in `status` of a loop that stands still."""


class Turning(Protocol):
    """A loop as the timer sees it."""

    @property
    def began(self) -> float | None:
        """When the step under way began (monotonic seconds); None between steps."""


class LoopTimer:
    """Sets the timer anew while every loop turns; `look` is called in turns of another thread."""

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
            loops: by name.
            clock: of the same monotonic time.
            faults: where a loop that stands still is noted.
            step_s: seconds that a step may take.
            end_s: seconds after which the process ends once a loop stands still.
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
        """Set the timer anew if it is due and every loop turns."""
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
        """Let the process end in its own time."""
        self._stopped = True
        faulthandler.cancel_dump_traceback_later()

    def _stands(self, began: float | None, now: float) -> bool:
        return began is not None and now - began > self._step_s
