"""Comparison of two releases: model, features, source of the transformation, and policy."""

from __future__ import annotations

import difflib
from itertools import islice

import msgspec

from kedge.core.values import Release, Value
from kedge.operations.status.view import features_of
from kedge.web.dashboard.pages.flat import flatten
from kedge.web.dashboard.pages.quantities import milliseconds, span
from kedge.web.dashboard.pages.readings import ReleaseReading

MOST_LINES = 400
"""Lines of a difference of sources that are shown."""
TONES = {"+": "added", "-": "removed", "@": "place"}


class ReleaseRow(Value, frozen=True):
    """One property of two releases."""

    what: str
    one: str
    other: str
    differs: bool


class SourceLine(Value, frozen=True):
    """One line of the difference of two sources."""

    tone: str
    text: str


class ReleaseComparison(Value, frozen=True, kw_only=True):
    """Two releases side by side."""

    rows: tuple[ReleaseRow, ...]
    fields: tuple[ReleaseRow, ...]
    """Inputs and outputs that only one of them has, or with another type."""
    policy: tuple[ReleaseRow, ...]
    """Settings that differ between the policies under which they last started."""
    policy_known: bool
    source: tuple[SourceLine, ...]
    """The difference of the sources of their transformations; empty: there is none."""
    source_note: str
    source_cut: bool
    """Whether the difference has more lines."""


def compare(one: ReleaseReading, other: ReleaseReading) -> ReleaseComparison:
    """Return two releases side by side."""
    ours, theirs = _properties(one), _properties(other)
    source, cut = _difference(one, other)
    note = ""
    if not source:
        note = "the same source" if one.source or other.source else "neither has a transformation"
    elif not one.source or not other.source:
        note = "only one of them has a transformation, or its source is missing"
    return ReleaseComparison(
        rows=_rows(ours, theirs),
        fields=tuple(
            row for row in _rows(_fields(one.release), _fields(other.release)) if row.differs
        ),
        policy=tuple(row for row in _rows(_policy(one), _policy(other)) if row.differs),
        policy_known=one.policy is not None and other.policy is not None,
        source=source,
        source_note=note,
        source_cut=cut,
    )


def _rows(ours: dict[str, str], theirs: dict[str, str]) -> tuple[ReleaseRow, ...]:
    names = dict.fromkeys([*ours, *theirs])
    return tuple(
        ReleaseRow(
            name, ours.get(name, "–"), theirs.get(name, "–"), ours.get(name) != theirs.get(name)
        )
        for name in names
    )


def _properties(reading: ReleaseReading) -> dict[str, str]:
    release, policy = reading.release, reading.policy
    signature = release.signature
    load_s = release.load_s
    load = milliseconds(load_s * 1e3) if load_s < 1 else span(load_s)
    return {
        "version": f"v{release.version}",
        "model": release.model,
        "model digest": _short(release.model_digest),
        "flavour": release.flavour,
        "features": features_of(release) or "none",
        "feature values": release.generation or "none computed ahead",
        "inputs": f"{len(signature.inputs)}",
        "outputs": f"{len(signature.outputs)}",
        "runs": release.placement.value,
        "load": load if load_s else "not measured",
        "policy": _short(policy.digest) if policy is not None else "not known",
    }


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]


def _fields(release: Release) -> dict[str, str]:
    signature = release.signature
    found = {f"input {field.name}": str(field.dtype) for field in signature.inputs}
    return found | {f"output {field.name}": str(field.dtype) for field in signature.outputs}


def _policy(reading: ReleaseReading) -> dict[str, str]:
    if reading.policy is None:
        return {}
    return dict(flatten(msgspec.to_builtins(reading.policy.policy)))


def _difference(one: ReleaseReading, other: ReleaseReading) -> tuple[tuple[SourceLine, ...], bool]:
    """Return the difference of two sources, and whether it is longer than what is shown."""
    ours, theirs = dict(one.source), dict(other.source)
    found: list[SourceLine] = []
    for name in dict.fromkeys([*ours, *theirs]):
        lines = difflib.unified_diff(
            ours.get(name, "").splitlines(),
            theirs.get(name, "").splitlines(),
            f"{one.release.label}/{name}",
            f"{other.release.label}/{name}",
            lineterm="",
        )
        left = MOST_LINES + 1 - len(found)
        found += [SourceLine(TONES.get(line[:1], ""), line) for line in islice(lines, max(left, 0))]
    return tuple(found[:MOST_LINES]), len(found) > MOST_LINES
