"""Faults of the candidate alone: runs of failures, crashes, silence, and withheld requests.

Windows of all workers are folded into one value. Nothing here compares the two releases.

* A run counts only requests that were sent and that production answered. It needs several callers,
  or several seconds where requests have no entity. So one caller's failures are not blamed on the
  model.
* Two workers may report one crash, in neighbouring seconds: it counts once.
* A silence counts when the longest patience of the workers is over, and no worker got an answer
  since it began.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from kedge.core.evidence.windows import CALLERS, CANDIDATE, METRICS, Window
from kedge.core.values import Value

ERRORS = METRICS[0]
BEATS_S = 2
"""Delay of a window, in seconds: it is written up to a second later, and names whole seconds."""
PATIENCE_S = 60
"""Seconds after which a worker's patience expires: a worker that reports none has stopped
serving."""
WORKERS = 64
"""Workers whose patience is stored before stopped ones are dropped."""


class FaultSpread(Value, frozen=True):
    """Spread of bad units over callers and seconds; each is counted up to `CALLERS`."""

    callers: int = 0
    seconds: int = 0
    """Seconds in which requests without an entity went bad."""
    needed: int = CALLERS
    """Required callers: all of them when there are fewer than `CALLERS`."""

    @property
    def enough(self) -> bool:
        """Return whether the spread excludes a single cause outside the candidate."""
        return self.callers >= self.needed or self.seconds >= CALLERS

    @property
    def text(self) -> str:
        """Return the spread as a verdict states it."""
        parts = [
            f"{_at_least(number)} {one if number == 1 else many}"
            for number, one, many in (
                (self.callers, "caller", "callers"),
                (self.seconds, "second without a caller's name", "seconds without callers' names"),
            )
            if number
        ]
        return " and ".join(parts) or "no caller"


def _at_least(number: int) -> str:
    return f"at least {number}" if number >= CALLERS else str(number)


class Sources(Value, frozen=True):
    """Sources of one metric's bad units, as far as they are counted."""

    callers: tuple[int, ...] = ()
    seconds: tuple[int, ...] = ()

    def plus(self, callers: Iterable[int], seconds: Iterable[int]) -> Sources:
        """Return these sources with further ones."""
        return Sources(_some(self.callers, callers), _some(self.seconds, seconds))


class Faults(Value, frozen=True, kw_only=True):
    """Behaviour of the candidate by itself in one comparison."""

    weight: int = -1
    """The stratum of `routed` and `unasked`."""
    routed: int = 0
    unasked: dict[str, int] = {}
    late: int = 0
    callers: tuple[int, ...] = ()
    sources: dict[str, Sources] = {}
    """Sources of bad units, by metric."""
    by_callers: tuple[int, ...] = (0,) * (CALLERS + 1)
    """At n: the longest run of failures over at least n callers."""
    by_seconds: int = 0
    """The longest run over `CALLERS` seconds."""
    crashes: int = 0
    crashed_at: int = 0
    heard_at: int = 0
    silent_s: float = 0.0
    silent_at: int = 0
    patience: dict[str, tuple[int, float]] = {}
    """By worker, when it last reported its patience, and its value."""

    @property
    def patience_s(self) -> float:
        """The longest patience that a worker reported recently."""
        since = self.silent_at - PATIENCE_S
        return max((length for at, length in self.patience.values() if at >= since), default=0.0)

    @property
    def needed(self) -> int:
        """Return the callers that a verdict needs: three, or all when there are fewer."""
        return len(self.callers) or CALLERS

    @property
    def streak(self) -> int:
        """Return the longest run of failures beyond one caller and one instant."""
        return max(self.by_callers[self.needed], self.by_seconds)

    @property
    def silence_s(self) -> float:
        """Return the seconds without a response of the candidate; 0 for a usual silence."""
        began = self.silent_at - self.silent_s
        if not self.silent_s or self.silent_s < self.patience_s or self.heard_at > began + BEATS_S:
            return 0.0
        return self.silent_s

    def spread(self, metric: str) -> FaultSpread:
        """Return the spread of a metric's bad units over callers and seconds."""
        found = self.sources.get(metric, Sources())
        return FaultSpread(len(found.callers), len(found.seconds), self.needed)


def folded(faults: Faults, window: Window, *, own: bool = True) -> Faults:
    """Return the faults with one window folded.

    Args:
        faults: the faults before.
        window: one second of one worker.
        own: whether its conduct is that of the judged release. After a promotion it is that of the
            release that was left.
    """
    conduct, at = window.conduct, window.at
    faults = _sourced(faults, window, own=own)
    if conduct.callers and len(faults.callers) < CALLERS:
        faults = msgspec.structs.replace(faults, callers=_some(faults.callers, conduct.callers))
    if not own:
        return faults
    if window.weight != faults.weight:  # an earlier step's withheld requests do not count
        faults = msgspec.structs.replace(faults, weight=window.weight, routed=0, unasked={})
    unasked = faults.unasked
    if conduct.unasked:
        unasked = dict(unasked)
        for cause, number in conduct.unasked.items():
            unasked[cause] = unasked.get(cause, 0) + number
    many = conduct.streak_seconds >= CALLERS
    crashed = conduct.crashes > 0 and not 0 <= at - faults.crashed_at <= 1
    return msgspec.structs.replace(
        faults,
        routed=faults.routed + conduct.routed,
        unasked=unasked,
        late=faults.late + conduct.late,
        by_callers=tuple(
            max(longest, window.streak) if least <= len(conduct.streak_callers) else longest
            for least, longest in enumerate(faults.by_callers)
        ),
        by_seconds=max(faults.by_seconds, window.streak) if many else faults.by_seconds,
        crashes=faults.crashes + conduct.crashes if crashed else faults.crashes,
        crashed_at=at if crashed else faults.crashed_at,
        heard_at=max(faults.heard_at, at) if conduct.answered else faults.heard_at,
        silent_s=conduct.silent_s or faults.silent_s,
        silent_at=at if conduct.silent_s else faults.silent_at,
        patience=_patience(faults, window),
    )


def _patience(faults: Faults, window: Window) -> dict[str, tuple[int, float]]:
    """Return the patience of each worker, with that in this window."""
    known, told_s = faults.patience, window.conduct.patience_s
    if not told_s:
        return known
    if len(known) >= WORKERS and window.replica not in known:
        known = {name: told for name, told in known.items() if told[0] >= window.at - PATIENCE_S}
    return {**known, window.replica: (window.at, told_s)}


def _sourced(faults: Faults, window: Window, *, own: bool) -> Faults:
    """Return the faults with the sources of the candidate's bad units of this window.

    In a canary an error counts here only if production answered the same request. If both fail, the
    request is at fault; so callers who send such requests condemn no release.
    """
    callers: dict[str, set[int]] = {}
    alone: set[str] = set()
    for unit in window.units:
        if unit.arm == CANDIDATE:
            callers.setdefault(METRICS[unit.metric], set()).add(unit.unit)
    for metric, cells in window.bad.items():
        if cells.get("", (0, 0))[CANDIDATE]:
            alone.add(metric)
    if own and not window.paired:
        callers[ERRORS] = set(window.conduct.failed_callers)
        alone.discard(ERRORS)
        if window.conduct.failed:
            alone.add(ERRORS)
    if not alone and not any(callers.values()):
        return faults
    sources = dict(faults.sources)
    for metric in alone.union(callers):
        seconds = (window.at,) if metric in alone else ()
        sources[metric] = sources.get(metric, Sources()).plus(
            sorted(callers.get(metric, ())), seconds
        )
    return msgspec.structs.replace(faults, sources=sources)


def _some(known: tuple[int, ...], more: Iterable[int]) -> tuple[int, ...]:
    """Return the first `CALLERS` distinct items."""
    for one in more:
        if len(known) >= CALLERS:
            break
        if one not in known:
            known = (*known, one)
    return known
