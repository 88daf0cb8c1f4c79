"""Facts of a diagnosis: the requests of two windows, and each release's answers to them.

Plain arrays and values, so that any reader of a log can fill them in, row by row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any, Literal, NamedTuple

from numpy.typing import NDArray

from kedge.core.diagnosis.contrast import Cell, Floats, Swap
from kedge.core.diagnosis.defects import Trained, risen
from kedge.core.values import Output


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Logged requests of one window: n rows.

    `columns` are the raw columns of the requests, before any transformation, (n,) each: numbers
    with NaN for null, or words with None. After it, a fault of the transformation would look like
    one of the source. Leave out ids and times: they are never alike, so that no rows would overlap.
    `truth` is NaN where no label came; words are numbered, the same way as in the scores. Only a
    reference needs `scores`. `units` is the entity of each request; with None or "" the request is
    its own.
    """

    columns: Mapping[str, NDArray[Any]]
    truth: Floats
    scores: Floats | None = None
    units: NDArray[Any] | None = None
    at: Floats | None = None
    """Time of each request, Unix seconds: it only shows how long a column did not change."""


class LabelImbalance(NamedTuple):
    """Whether one arm has surely fewer labels than the other, and the shares in words."""

    uneven: bool
    text: str


@dataclass(frozen=True, kw_only=True)
class Instruments:
    """State of the log itself, and of the split."""

    split_fault: str = ""
    """Why the split between the arms is not the configured one; empty when it is."""
    lost: float = 0.0
    """Share of the log that was torn or dropped, 0 to 1."""
    coverage: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """By arm: requests with a label, and all."""

    def labelled(self) -> LabelImbalance | None:
        """Return whether labels come for both arms alike; None where no arm had a request."""
        shares = {arm: (known / rows, rows) for arm, (known, rows) in self.coverage.items() if rows}
        if not shares:
            return None
        (less, rows), (more, others) = min(shares.values()), max(shares.values())
        text = ", ".join(f"{arm} {share:.0%}" for arm, (share, _) in sorted(shares.items()))
        return LabelImbalance(less < 0.9 * more and risen(less, more, (rows, others)), text)


class Source(NamedTuple):
    """Lag of the values that a release reads by key."""

    name: str
    """Name of the run, such as carrier_delays/1#2@1."""
    lag_s: float
    """Seconds behind; infinite where it has no values."""
    limit_s: float
    """Limit of the lag, in seconds."""

    @property
    def late(self) -> bool:
        """Return whether the lag exceeds its limit."""
        return self.lag_s > self.limit_s

    @property
    def text(self) -> str:
        """Return the lag in words."""
        far = f"{self.lag_s / 60:.0f} min behind" if self.lag_s < inf else "gone"
        return f"{self.name} is {far} (limit {self.limit_s / 60:g} min)"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Input of a diagnosis. Only `output`, `metric`, `new` and `current` are required.

    `new` is the release that answers now, `old` the way back; labels such as r3 and r2.

    answers: by (model, features), each "new" or "old", the answers to the rows of `current`, (n,).
        NaN: not asked. Infinity: asked, but failed. ("old", "old") is the old release, by
        reverse shadow, holdback or replay. A cell that does not exist (two schemas) is left out.
    changed: the parts that differ between the two releases; with one only, nothing is divided.
    reference: a labelled window of an earlier time, with the answers that it got. Take the same
        hour and weekday, since a season is a change of the world too. Give the columns that both
        times have: one that is in the reference only counts as lost.
    reference_of: the release of the two that gave those answers.
    swaps: by feature, the answers with this one exchanged (`contrast.Swap`).
    training: by release ("new", "old"), its training set's columns.
    inputs: by release, its model's inputs today; without it, `current.columns`.
    ranges: the least and the largest value that the schema allows a column.
    sources: the runs that the release that answers now reads by key, with their lag.
    """

    output: Output
    metric: str
    new: str
    current: Sample
    old: str | None = None
    answers: Mapping[Cell, Floats] = field(default_factory=dict)
    changed: frozenset[Literal["model", "features"]] = frozenset({"model", "features"})
    reference: Sample | None = None
    reference_of: Literal["new", "old"] = "old"
    swaps: Mapping[str, Swap] = field(default_factory=dict)
    training: Mapping[str, Mapping[str, Trained]] = field(default_factory=dict)
    inputs: Mapping[str, Mapping[str, NDArray[Any]]] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    instruments: Instruments = Instruments()
    sources: tuple[Source, ...] = ()


def checked(facts: Facts) -> None:
    """Raise if columns or answers do not have one row for each request.

    Raises:
        ValueError: columns or answers of one window are not of one length.
    """
    pairs = [answers for swap in facts.swaps.values() for answers in swap if answers is not None]
    today = [*facts.answers.values(), *pairs]
    today += [column for columns in facts.inputs.values() for column in columns.values()]
    for sample, more in ((facts.current, today), (facts.reference, [])):
        if sample is None:
            continue
        given = [*sample.columns.values(), *more]
        given += [a for a in (sample.scores, sample.units, sample.at) if a is not None]
        if any(len(array) != len(sample.truth) for array in given):
            raise ValueError("every column, answer and outcome of a window has one row a request")
