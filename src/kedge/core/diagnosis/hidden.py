"""Hidden faults of columns: stale and recoded ones in the two windows of a diagnosis."""

from __future__ import annotations

from collections.abc import Collection
from math import inf

import numpy as np
from numpy.typing import NDArray

from kedge.core.diagnosis.defects import plain, stepped
from kedge.core.diagnosis.facts import Facts, Sample
from kedge.core.diagnosis.findings import Cause, Estimate, Evidence, Finding, Kind, Suspect
from kedge.core.diagnosis.shift import ranked
from kedge.core.diagnosis.staleness import Windows
from kedge.core.diagnosis.stretches import LEAST_ROWS, Column, Floats
from kedge.core.diagnosis.suspects import NOTHING, SuspectFindings, SuspectWindow, judged

CLASSES = 5
"""Most frequent outcomes that are examined one by one, where outcomes are names."""
NAMES = 20
"""Distinct values up to which outcomes that are compared for equality are names."""


def hidden(facts: Facts, known: Collection[str]) -> SuspectFindings:
    """Return the columns that are stale or recoded, and those that may be.

    Args:
        facts: the facts of the diagnosis.
        known: columns that are known to be broken in another way.
    """
    found = _columns(facts, known)
    late = tuple(
        Suspect(source.name, "stale", source.text) for source in facts.sources if source.late
    )
    if found.proven or not late:
        return found
    told = "; ".join(each.text for each in (*found.alike, *late))
    return found._replace(alike=(*found.alike, *late), text=told)


def freshness(facts: Facts) -> list[Evidence]:
    """Return the age of the values that are read by key, a row of evidence for each source."""
    return [
        Evidence(
            question="freshness",
            answer=source.text,
            verdict="yes" if source.late else "no",
            figure=source.lag_s if source.lag_s < inf else None,
        )
        for source in facts.sources
    ]


def _columns(facts: Facts, known: Collection[str]) -> SuspectFindings:
    """Return the hidden faults of the requests' columns."""
    ref, now = facts.reference, facts.current
    if ref is None or min(len(ref.truth), len(now.truth)) < LEAST_ROWS:
        return NOTHING
    before = {name: plain(column) for name, column in ref.columns.items()}
    after = {name: plain(column) for name, column in now.columns.items()}
    times = None if ref.at is None or now.at is None else (ref.at, now.at)
    names = [
        name
        for name, one in before.items()
        if name in after
        and (one.dtype.kind == "O") is (after[name].dtype.kind == "O")
        and not stepped(one, after[name], (ref.at, now.at))
    ]
    repeats = Windows((ref.units, now.units), times).repeats(
        {name: before[name] for name in names if name not in known}, after
    )
    if repeats:
        proven = tuple(
            Suspect(name, "stale", f"{name}: {told.text}") for name, told in repeats.items()
        )
        return SuspectFindings(proven, (), "; ".join(each.text for each in proven))
    truth, truth_now = _numbers(facts, ref, now)
    ordered = sorted(names, key=lambda name: -_says(before[name], ref.scores))
    return judged(
        SuspectWindow(before, truth, ref.units, ref.at),
        SuspectWindow(after, truth_now, now.units, now.at),
        ordered,
        known,
    )


def broken(found: SuspectFindings) -> Finding:
    """Return the finding that columns are stale or recoded."""
    return Finding(
        cause=Cause.DATA,
        kind=Kind(found.proven[0].kind),
        statement=found.text,
        columns=tuple(each.column for each in found.proven),
        suspects=found.proven,
    )


def alike(found: SuspectFindings, effect: Estimate) -> Finding:
    """Return the finding that a changed world and such columns look the same."""
    names = tuple(each.column for each in found.alike)
    return Finding(
        cause=Cause.CANNOT_TELL,
        kind=Kind.WORLD_OR_DATA,
        effect=effect,
        columns=names,
        statement=f"world or data: cannot tell; check {', '.join(names)}: {found.text}",
        suspects=found.alike,
    )


def _numbers(facts: Facts, ref: Sample, now: Sample) -> tuple[Floats, Floats]:
    """Return both windows' outcomes as bounded numbers, (n, q) and (m, q); NaN if unknown."""
    values, counts = np.unique(ref.truth[~np.isnan(ref.truth)], return_counts=True)
    if facts.output.kind == "binary":
        return ref.truth[:, None], now.truth[:, None]
    if facts.output.kind == "score" or len(values) > NAMES:
        return (
            _ranks(values, counts, ref.truth)[:, None],
            _ranks(values, counts, now.truth)[:, None],
        )
    top = values[np.argsort(-counts, kind="stable")[:CLASSES]]
    found = [
        np.where(np.isnan(side.truth)[:, None], np.nan, side.truth[:, None] == top)
        for side in (ref, now)
    ]
    return found[0], found[1]


def _ranks(values: Floats, counts: NDArray[np.intp], truth: Floats) -> Floats:
    """Return each outcome's rank in the reference, 0 to 1, so that outliers weigh no more."""
    ends = np.concatenate([[0.0], np.cumsum(counts)]) / max(counts.sum(), 1)
    at = np.searchsorted(values, truth), np.searchsorted(values, truth, side="right")
    return np.where(np.isnan(truth), np.nan, (ends[at[0]] + ends[at[1]]) / 2)


def _says(column: Column, scores: Floats | None) -> float:
    """Return a column's rough relation to the answers: it decides which come first."""
    if scores is None or column.dtype.kind == "O":
        return 1.0
    known = np.isfinite(scores)
    rank = ranked(column)[known]
    score = ranked(scores)[known]
    if len(rank) < 2 or not rank.std() or not score.std():
        return 0.0
    return abs(float(np.corrcoef(rank, score)[0, 1]))
