"""Observation: what the serving loop saw of a request; and many observations column by column.

A loop in C over a column (`map`, `zip`, `compress`) is several times faster than one in Python over
observations. No other part of the recording takes as long.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, repeat
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from kedge.core.values import Output
from kedge.engine.recording.agreement import Sayings, differing, sayings
from kedge.engine.recording.segments import Segments

if TYPE_CHECKING:
    from kedge.core.evidence.windows import Differing
    from kedge.engine.request import Request
    from kedge.typing import Columns

T = TypeVar("T")


class Observation(NamedTuple):
    """One answered request, as the serving loop saw it."""

    at: float
    request: Request
    arm: int
    micros: int
    failed: bool
    weight: int
    """Stratum in which it was answered, in buckets."""
    ours: Columns | None = None
    mirrored: bool = False
    theirs: Columns | None = None
    their_micros: int = 0
    dropped: bool = False
    """The release, or the copy, was never asked, or its result is reported separately (`settles`):
    no failure of a release, but no coverage."""
    again: bool = False
    """`theirs` is production's second answer: its noise, and evidence for no release."""
    violated: bool = False
    """A feature of it violated its schema."""
    their_violated: bool = False
    settles: bool = False
    """The result of a release for a request whose caller was answered, and observed, before."""


class ObservationColumns:
    """Observations, column by column; a column by row has an item for each of their rows."""

    __slots__ = (
        "_said",
        "_said_by_copy",
        "arms",
        "at",
        "dropped",
        "failed",
        "micros",
        "mirrored",
        "ours",
        "requests",
        "rows",
        "seen",
        "segments",
        "settles",
        "slices",
        "their_micros",
        "their_violated",
        "theirs",
        "units",
        "violated",
    )

    def __init__(self, seen: Sequence[Observation], segments: Segments) -> None:
        self.seen = seen
        (
            self.at,
            requests,
            self.arms,
            self.micros,
            self.failed,
            _,
            self.ours,
            self.mirrored,
            self.theirs,
            self.their_micros,
            self.dropped,
            _,
            self.violated,
            self.their_violated,
            self.settles,
        ) = zip(*seen, strict=True)
        self.requests: tuple[Request, ...] = requests
        self.rows = [one.rows for one in requests]
        self.units = [one.entity or "" for one in requests]
        self._said: Sayings | None = None
        self._said_by_copy: Sayings | None = None
        self.segments, self.slices = segments.cut([one.columns for one in requests], self.rows)

    def by_row(self, column: Sequence[T]) -> Sequence[T]:
        """Return a column by request as one by row."""
        if len(self.segments) == len(column):
            return column
        return list(chain.from_iterable(map(repeat, column, self.rows)))

    def ids(self) -> list[str]:
        """Return the prediction's id of each row."""
        if len(self.segments) == len(self.rows):
            return [f"{one.id}/0" for one in self.requests]
        return [f"{one.id}/{row}" for one in self.requests for row in range(one.rows)]

    def differing(self, output: Output, row: int) -> tuple[Differing, ...]:
        """Return the outputs of one row in which production and the copy differ."""
        for rows, ours, theirs in zip(self.rows, self.ours, self.theirs, strict=True):
            if row < rows:
                return differing(output, ours or {}, theirs or {}, row)
            row -= rows
        return ()

    def said(self, output: Output) -> Sayings:
        """Return production's answers by row: read once, for the comparison and for the record."""
        if self._said is None:
            self._said = sayings(output, self.ours, self.rows)
        return self._said

    def said_by_copy(self, output: Output) -> Sayings:
        """Return the copy's answers by row."""
        if self._said_by_copy is None:
            self._said_by_copy = sayings(output, self.theirs, self.rows)
        return self._said_by_copy
