"""Process faults: what failed in the loops of this process, and what its bounds refused.

What a step of a loop raises is noted here (`engine/loop.py`). The process publishes the notes with
its row in the roster, and `kedge status` shows them. Nothing in here raises, and nothing grows.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

import msgspec
import structlog

from kedge.core.stored.roster import ProcessFault
from kedge.ports import Clock
from kedge.system.streams import lost

log = structlog.get_logger("kedge.faults")

LOG_WRITES = "log_writes"
"""The bound that counts writes which standard output and error could not take."""
PLACES = 64
"""Limit of places and bounds that are stored; further ones are counted under `OTHER`."""
OTHER = "other"
TEXT = 500
"""Limit of characters of an error's text."""
CAUSES = 10
"""Limit of errors followed from one to its cause: more than any of our chains has."""


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
        text = _text(error)
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
            with suppress(Exception):
                log.error("process.fault", place=place, fault=text, exc_info=error)
            with suppress(Exception):
                self._changed()

    def passed(self, place: str, text: str) -> None:
        """Count a fault that was handled and logged where it happened.

        Unlike `note` it wakes no loop: what a loop logs in each turn must not make it turn faster.
        A fault that stands under another place is the same one, and is not counted twice.
        """
        text = text[:TEXT]
        with self._lock:
            if any(text in one.text for one in self._faults.values() if one.place != place):
                return
            if place not in self._faults and len(self._faults) >= PLACES:
                place = OTHER
            before = self._faults.get(place)
            if before is not None and before.standing:
                return
            self._faults[place] = ProcessFault(
                place=place,
                text=text,
                count=before.count + 1 if before else 1,
                at=self._clock.now(),
                standing=False,
            )

    def attempt(
        self,
        place: str,
        step: Callable[[], object],
        passing: tuple[type[BaseException], ...] = (),
    ) -> bool:
        """Run a step, and note the error that it raises; return whether it succeeded.

        An error that is no `Exception` also costs the step only: a library's `sys.exit` ends no
        loop. Exceptions of the types in `passing` are raised to the caller, which expects them.
        """
        try:
            step()
        except passing:
            raise
        # That is the purpose of a net; the fault is published.
        except BaseException as error:  # noqa: BLE001
            self.note(place, error)
            return False
        return True

    def standing(self, place: str) -> str:
        """Return the text of the fault that stands at a place; empty if none does."""
        with self._lock:
            fault = self._faults.get(place)
        return fault.text if fault is not None and fault.standing else ""

    def clear(self, place: str) -> None:
        """Note that a step succeeded: its fault no longer stands, and its count stays."""
        if place not in self._faults:
            return
        with self._lock:
            before = self._faults[place]
            self._faults[place] = msgspec.structs.replace(before, standing=False)
        if before.standing:
            with suppress(Exception):
                log.info("process.fault_ended", place=place, count=before.count)
            with suppress(Exception):
                self._changed()

    def limit(self, bound: str, count: int = 1) -> None:
        """Count what a bound refused or dropped."""
        with self._lock:
            if bound not in self._limited and len(self._limited) >= PLACES:
                bound = OTHER
            self._limited[bound] = self._limited.get(bound, 0) + count

    @property
    def faults(self) -> tuple[ProcessFault, ...]:
        """Return every fault since the process started, by place."""
        with self._lock:
            return tuple(self._faults[place] for place in sorted(self._faults))

    @property
    def limited(self) -> dict[str, int]:
        """Return how often each bound refused or dropped something, and the lost log writes."""
        with self._lock:
            found = dict(self._limited)
        if lost():
            found[LOG_WRITES] = lost()
        return found


def _text(error: BaseException) -> str:
    """Return the class and message of an error, and those of its causes if they say more."""
    try:
        text = f"{type(error).__name__}: {error}"
        first = error
        for _ in range(CAUSES):  # `raise error from error` makes an error its own cause
            first = first.__cause__ or first
        if str(first) not in text:
            text = f"{text[: TEXT // 2]} ({type(first).__name__}: {first})"
        return text[:TEXT]
    except Exception:  # noqa: BLE001 - the text of another library's error may raise anything
        return type(error).__name__
