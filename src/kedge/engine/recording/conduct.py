"""Conduct of the candidate at one worker: runs of failures, crashes, and requests it was not asked.

The serving loop writes; the recording's thread takes what is new once a second. Counts only grow,
so a count that is read while it is written is reported at most a second later.
"""

from __future__ import annotations

from math import inf

from kedge.core.evidence.windows import CALLERS, INSTANT_S, Conduct
from kedge.core.routing import key_of, unit_of

CRASH_S = 1.0
"""Requests that died within this time died of one crash."""


class FailureRun:
    """Failures in a row."""

    __slots__ = ("at", "callers", "events", "seconds")

    def __init__(self) -> None:
        self.events = 0
        self.at = -inf
        """When the newest event began."""
        self.callers: tuple[int, ...] = ()
        self.seconds: tuple[int, ...] = ()
        """Seconds in which requests without an entity failed."""

    def failed(self, caller: int | None, now: float) -> None:
        """Count one failure."""
        if now - self.at >= INSTANT_S:
            self.events += 1
            self.at = now
        if caller is None:
            self.seconds = _with(self.seconds, int(now))
        else:
            self.callers = _with(self.callers, caller)


class Tracker:
    """The conduct of one comparison's candidate, as one worker saw it."""

    def __init__(self, salt: str) -> None:
        self._key = key_of(salt)
        self._run = FailureRun()
        self._longest = FailureRun()
        """The longest run that ended since the last look."""
        self._routed = self._answered = self._late = self._failed = self._crashes = 0
        self._unasked: dict[str, int] = {}
        self._callers: tuple[int, ...] = ()
        self._failing: tuple[int, ...] = ()
        self._crashed_at = -inf
        self._told: tuple[int, ...] = (0,) * 5
        self._told_unasked: dict[str, int] = {}
        self.silent_s = 0.0
        """The silence at the newest request; reported once."""
        self.patience_s = 0.0

    def routed(self, entity: str | None) -> None:
        """Count a request that the candidate must answer, or of which it must get a copy."""
        self._routed += 1
        if entity and len(self._callers) < CALLERS:
            self._callers = _with(self._callers, unit_of(self._key, entity)[0])

    def unasked(self, cause: str) -> None:
        """Count such a request that never reached it."""
        self._unasked[cause] = self._unasked.get(cause, 0) + 1

    def answered(self) -> None:
        """Count an answer that fits; it ends the run of failures."""
        self._answered += 1
        if self._run.events:
            self._end_run()

    def alive(self) -> None:
        """Count a sign of life that is no valid answer."""
        self._answered += 1

    def late(self) -> None:
        """Count an answer that came after its deadline."""
        self._late += 1

    def crashed(self, now: float) -> None:
        """Note that the process died with a request under way."""
        if now - self._crashed_at >= CRASH_S:
            self._crashes += 1
            self._crashed_at = now

    def failed(self, entity: str | None, now: float) -> None:
        """Note a request that the candidate failed and production answered."""
        caller = unit_of(self._key, entity)[0] if entity else None
        self._run.failed(caller, now)
        if caller is None:
            self._failed += 1
        else:
            self._failing = _with(self._failing, caller)

    def _end_run(self) -> None:
        run, self._run = self._run, FailureRun()
        if run.events > self._longest.events:
            self._longest = run

    def taken(self) -> tuple[int, Conduct]:
        """Return the longest run of failures, and what else is new since the last call."""
        counts = (self._routed, self._answered, self._late, self._failed, self._crashes)
        before, self._told = self._told, counts
        routed, answered, late, failed, crashes = (
            now - was for now, was in zip(counts, before, strict=True)
        )
        causes = dict(self._unasked)
        unasked = {
            cause: number - self._told_unasked.get(cause, 0)
            for cause, number in causes.items()
            if number > self._told_unasked.get(cause, 0)
        }
        self._told_unasked = causes
        longest, self._longest = self._longest, FailureRun()
        run = self._run
        if run.events >= longest.events:
            longest = run
        failing, self._failing = self._failing, ()
        silent_s, self.silent_s = self.silent_s, 0.0
        return longest.events, Conduct(
            routed=routed,
            unasked=unasked,
            answered=answered,
            late=late,
            callers=self._callers,
            failed=failed,
            failed_callers=failing,
            streak_callers=longest.callers,
            streak_seconds=len(longest.seconds),
            crashes=crashes,
            silent_s=silent_s,
            patience_s=self.patience_s,
        )


def _with(known: tuple[int, ...], one: int) -> tuple[int, ...]:
    """Return the first `CALLERS` distinct ones."""
    return known if one in known or len(known) >= CALLERS else (*known, one)
