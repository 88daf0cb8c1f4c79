"""Events that the judge folds: bad units, first requests and labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from kedge.core.evidence.rules import Cells


class Caller(NamedTuple):
    """A caller that went bad in one second."""

    unit: int
    bucket: int
    metric: str
    arm: int
    times: int
    segments: Sequence[str]


class First(NamedTuple):
    """A caller's first request in a step, as one worker saw it."""

    unit: int
    bucket: int
    arm: int
    bad: frozenset[str]
    """The metrics in which it went bad; in pairs, only the candidate's answer."""
    segments: Sequence[str]
    ours: frozenset[str] = frozenset()
    """In pairs, the metrics in which only production's answer was bad."""


class Second(NamedTuple):
    """Counts of all workers in one second of one step."""

    at: float
    callers: Sequence[Caller] = ()
    keyless: Mapping[str, Cells] = {}
    """By metric: bad requests without an entity."""
    met: Cells = {}
    """Requests without an entity."""
    timed: Cells = {}
    """Of these, those that have a latency."""
    first: Sequence[First] = ()
    given: tuple[int, int] = (0, 0)
    """Answered predictions, by arm: the whole of which labels are a share."""


class Label(NamedTuple):
    """Losses that follow from one outcome, in [0, 1]."""

    unit: int | None
    """None: a prediction without an entity."""
    bucket: int
    arm: int
    ours: float
    """Production's loss; in arms 0 where the candidate answered."""
    theirs: float
    second: float
    """Time of the prediction, Unix seconds."""
    segments: Sequence[str]
