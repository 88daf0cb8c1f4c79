"""Process faults: what failed in the loops of this process, and what its bounds refused.

A loop that survives an exception notes it here; the process publishes the notes with its row in
the roster, and `kedge status` shows them. Nothing in here raises, and nothing grows.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import msgspec
import structlog

from kedge.ports import Clock, ProcessFault

log = structlog.get_logger("kedge.faults")

PLACES = 64
"""Most places and bounds that are kept; further ones are counted under `OTHER`."""
OTHER = "other"
TEXT = 500
"""Characters of an error's text that are kept."""


class ProcessFaults:
    """The faults of one process; any thread may use it."""

    def __init__(self, clock: Clock, changed: Callable[[], None] = lambda: None) -> None:
        """Start without faults; `changed` is called after a fault at a new place, or an end of one."""
        self._clock = clock
        self._changed = changed
        self._lock = threading.Lock()
        self._faults: dict[str, ProcessFault] = {}
        self._limited: dict[str, int] = {}

    def note(self, place: str, error: BaseException) -> None:
        """Count a fault of a step, and log the first of a series."""
        text = f"{type(error).__name__}: {error}"[:TEXT]
        with self._lock:
            if place not in self._faults and len(self._faults) >= PLACES:
                place = OTHER
            before = self._faults.get(place)
            self._faults[place] = ProcessFault(
                place=place,
                text=text,
                count=before.count + 1 if before else 1,
                at=self._clock.now(),
            )
        if before is None or not before.standing or before.text != text:
            log.error("process.fault", place=place, fault=text, exc_info=error)
            self._changed()

    def clear(self, place: str) -> None:
        """Note that a step succeeded: its fault is history, and its count stays."""
        if place not in self._faults:
            return
        with self._lock:
            before = self._faults[place]
            self._faults[place] = msgspec.structs.replace(before, standing=False)
        if before.standing:
            log.info("process.fault_ended", place=place, count=before.count)
            self._changed()

    def limit(self, bound: str, count: int = 1) -> None:
        """Count what a bound refused or dropped."""
        with self._lock:
            if bound not in self._limited and len(self._limited) >= PLACES:
                bound = OTHER
            self._limited[bound] = self._limited.get(bound, 0) + count

    @property
    def faults(self) -> tuple[ProcessFault, ...]:
        """Every fault since the process started, by place."""
        with self._lock:
            return tuple(self._faults[place] for place in sorted(self._faults))

    @property
    def limited(self) -> dict[str, int]:
        """How often each bound refused or dropped something."""
        with self._lock:
            return dict(self._limited)
