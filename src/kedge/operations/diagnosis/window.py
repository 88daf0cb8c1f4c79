"""Window of the prediction log for a diagnosis: columns, answers, outcomes, loss of the log.

All reads are bounded. The newest requests of a window are read first, and those beyond a limit
are counted. Damaged parts are skipped, and their share is reported.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import isfinite, nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kedge.core.diagnosis.contrast import LEAST
from kedge.core.evidence.answers import Target, normal, number, spelled, truth, unfit
from kedge.core.evidence.labels import MEASURED
from kedge.core.evidence.records import HOUR_S, JoinRow, Known, live_version
from kedge.core.values import Arm, Field, Output, State
from kedge.operations.diagnosis.document import LogWindow
from kedge.operations.replay.model import decoded
from kedge.workspace import Workplace

REQUESTS = 100_000
"""Limit of requests of a window, newest first. They hold 2,000 labels if a fiftieth is labelled,
and take some 150 MB."""
READ = 1_000_000
"""Limit of predictions that are read for them; the rest of a window is only counted."""
LABELS = 200_000
"""Limit of labels of a window that are read, newest hours first."""
IDS = 0.5
"""Share of different words from which on a column is an id."""
TIMES = 0.95
"""Rank correlation with the time of the request from which a column of numbers is a time."""
ABSENT = 0.99
"""Share of requests without a field in one window, from which on it is not compared."""

Floats = NDArray[np.float64]


class AnswerReading:
    """The reading of answers and outcomes as numbers; both number classes alike."""

    def __init__(self, output: Output, metric: str = "error_rate") -> None:
        self.output = output
        self._measured = metric in MEASURED
        self._words: dict[str, float] = {}
        self._in_words = isinstance(output, Target) and output.reads in ("class", "place")
        self._in_words = self._in_words and not self._measured
        self._apart = 1.0 + 2.0 * output.tolerance
        """Distance between the numbers of two classes: more than the tolerance."""

    def outcomes(self, values: Sequence[Known]) -> Floats:
        """Return the outcomes as numbers; NaN if there is none or it does not fit."""
        if self.output.kind not in ("binary", "score") and not self._in_words:
            self._in_words = not self._measured and any(
                isinstance(v, str) and number(v) is None for v in values
            )
        return np.array([self._outcome(value) for value in values], np.float64)

    def _outcome(self, value: Known) -> float:
        if value is None or unfit(self.output, value, measured=self._measured) is not None:
            return nan
        if self._in_words:
            return self._word(self._spelled(value))
        if self.output.kind == "binary":
            return float(bool(truth(value, self.output.classes)))
        found = number(value)
        return nan if found is None else found

    def _spelled(self, value: str | float | bool) -> str:
        """Return an outcome as answers spell it: whole numbers in one form, words unchanged."""
        known = normal(self.output if isinstance(self.output, Target) else None, value)
        return spelled(value if known is None else known)

    def answer(self, score: float | None, decision: str | None) -> float:
        """Return an answer as a number; infinite if it cannot be read."""
        if self._in_words:
            return self._word(decision) if decision is not None else np.inf
        if score is not None:
            return score if isfinite(score) else np.inf
        said = truth(decision) if self.output.kind == "binary" else number(decision)
        return np.inf if said is None else float(said)

    def _word(self, text: str) -> float:
        return self._words.setdefault(text, len(self._words) * self._apart)


@dataclass
class Logged:
    """The n requests of one window, newest first."""

    since: float
    until: float
    rows: list[JoinRow]
    outcomes: list[Known]
    fields: tuple[Field, ...] = ()
    columns: dict[str, NDArray[Any]] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    """Columns that are ids or times, not inputs."""
    lost: float = 0.0
    """Share of the log that is damaged, 0 to 1."""
    unread: int = 0
    """Requests that exceeded the limit."""
    beyond: int = 0
    """Those with a label, if known."""
    torn_hours: int = 0
    without_inputs: int = 0
    """Requests that were dropped because their inputs are not stored."""

    @property
    def labelled(self) -> int:
        """The number of requests with an outcome."""
        return sum(value is not None for value in self.outcomes)

    def summary(self) -> LogWindow:
        """Return the window's description, without the rows."""
        return LogWindow(
            since=self.since,
            until=self.until,
            requests=len(self.rows),
            labelled=self.labelled,
            lost=self.lost,
            unread=self.unread,
            beyond=self.beyond,
            torn_hours=self.torn_hours,
            without_inputs=self.without_inputs,
            left_out=self.left_out,
        )

    def only(self, keep: Sequence[int]) -> None:
        """Keep only these rows; called before any column is made."""
        self.rows = [self.rows[n] for n in keep]
        self.outcomes = [self.outcomes[n] for n in keep]

    def units(self) -> NDArray[Any]:
        """Return the caller of each request."""
        found = np.empty(len(self.rows), dtype=object)
        found[:] = [row.unit for row in self.rows]
        return found

    def times(self) -> NDArray[np.float64]:
        """Return the time of each request, Unix seconds."""
        return np.array([row.at for row in self.rows], np.float64)


def asked(row: JoinRow) -> int | None:
    """Return the release that answered the caller."""
    return row.production if row.arm == Arm.PRODUCTION else row.candidate


def window(
    place: Workplace,
    state: State,
    since: float,
    until: float,
    wanted: Callable[[JoinRow], bool],
    *,
    segment: str | None = None,
    requests: int = REQUESTS,
) -> Logged:
    """Return the newest wanted requests of [since, until), with their outcomes.

    Args:
        place: the state directory.
        state: the row.
        since: Unix time.
        until: Unix time.
        wanted: whether a prediction is wanted.
        segment: the only segment to read, such as origin=JFK.
        requests: limit of requests.
    """
    known, seen = _labels(place, state.endpoint, since, until, segment), 0
    rows: list[JoinRow] = []
    oldest, met = until, 0
    for row in place.records.rows(state.endpoint, since, until, newest=True):
        if len(rows) >= requests or seen >= READ:
            break
        seen, oldest = seen + 1, min(oldest, row.at)
        met += row.id in known
        if wanted(row) and (segment is None or segment in row.segments):
            rows.append(row)
    # Whole hours are counted, so only if a limit ended the reading.
    bounded = len(rows) >= requests or seen >= READ
    whole = place.records.counted(state.endpoint, since, until) if bounded else seen
    within = sum(at >= oldest for _, at in known.values()) if bounded else len(known)
    torn = place.records.torn(since, until)
    found = Logged(
        since,
        until,
        rows,
        [known[row.id][0] if row.id in known else None for row in rows],
        lost=_lost(within, met, torn, since, until),
        unread=max(whole - seen, 0),
        beyond=len(known) - within,
        torn_hours=len(torn),
    )
    _with_inputs(found)
    return found


def _labels(
    place: Workplace, endpoint: str, since: float, until: float, segment: str | None
) -> dict[str, tuple[Known, float]]:
    """Return outcomes by id, of the most frequent label version, with their requests' times."""
    labels = place.records.labelled(endpoint, since, until, LABELS)
    versions = Counter(one.outcome.label_version for one in labels)
    version = live_version(versions)
    return {
        one.row.id: (one.outcome.value, one.row.at)
        for one in labels
        if one.outcome.label_version == version
        and one.outcome.value is not None
        and (segment is None or segment in one.row.segments)
    }


def _lost(within: int, met: int, torn: Sequence[int], since: float, until: float) -> float:
    """Return the lost share of the log: of labels whose prediction is lost; else by the hour.

    A label stores the needed part of its prediction in another file.
    """
    if within >= LEAST:
        return max(within - met, 0) / within
    if not torn:
        return 0.0
    return min(len(torn) / max((until - since) / HOUR_S, 1.0), 1.0)


def _with_inputs(found: Logged) -> None:
    """Drop requests without inputs, if enough labels remain; else keep all, without columns."""
    full = [n for n, row in enumerate(found.rows) if row.inputs]
    labelled = sum(found.outcomes[n] is not None for n in full)
    if len(full) == len(found.rows):
        return
    if labelled >= LEAST or (full and found.labelled < LEAST):
        found.without_inputs = len(found.rows) - len(full)
        found.only(full)


# ---------------------------------------------------------------- columns


def read_columns(state: State, *windows: Logged) -> None:
    """Make the same raw columns in each of the compared windows; none if one lacks inputs."""
    if not all(row.inputs for each in windows for row in each.rows):
        return
    redacted = {*state.policy.log.redact, state.policy.entity}
    fields = tuple(f for f in state.fields if not f.shape and f.name not in redacted)
    absent: set[str] = set()
    for each in windows:
        each.columns, missing = _columns(fields, each.rows)
        absent |= missing
    names = [f.name for f in fields if f.name not in absent]
    ids = {name for name in names for each in windows if _identifies(each, name)}
    for each in windows:
        each.columns = {name: each.columns[name] for name in names if name not in ids}
        each.left_out = tuple(sorted(ids))


def _columns(
    fields: Sequence[Field], rows: Sequence[JoinRow]
) -> tuple[dict[str, NDArray[Any]], set[str]]:
    """Return scalar fields as columns, and the fields that almost no request has."""
    parts: dict[str, list[NDArray[Any]]] = {f.name: [] for f in fields}
    lacking = dict.fromkeys(parts, 0)
    for start in range(0, len(rows), 4_096):
        inputs = [decoded(row.inputs) for row in rows[start : start + 4_096]]
        for f in fields:
            values = [given.get(f.name) for given in inputs]
            lacking[f.name] += sum(f.name not in given for given in inputs)
            parts[f.name].append(_column(f, values))
    empty = {f.name: _column(f, []) for f in fields}
    columns = {name: np.concatenate([empty[name], *some]) for name, some in parts.items()}
    return columns, {n for n, count in lacking.items() if rows and count > ABSENT * len(rows)}


def _column(of: Field, values: Sequence[Any]) -> NDArray[Any]:
    if of.dtype == "string":
        words = np.empty(len(values), dtype=object)
        words[:] = values
        return words
    return np.array([nan if value is None else float(value) for value in values], np.float64)


def _identifies(each: Logged, name: str) -> bool:
    """Return whether a column is an id or a time: it would make windows seem not to overlap."""
    column = each.columns[name]
    if len(column) < LEAST:
        return False
    if column.dtype == object:
        words = [word for word in column.tolist() if word is not None]
        return len(words) >= LEAST and len(set(words)) > IDS * len(words)
    known = np.isfinite(column)
    if len(np.unique(column[known])) <= IDS * len(column):
        return False
    at = np.array([row.at for row in each.rows])[known]
    ranks = np.stack([np.argsort(np.argsort(values)) for values in (at, column[known])])
    return bool(abs(np.asarray(np.corrcoef(ranks.astype(np.float64)))[0, 1]) > TIMES)
