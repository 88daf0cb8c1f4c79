"""Comparison of two transformations on real rows; without any the outcome is untested."""

from __future__ import annotations

from typing import Any, NamedTuple

from kedge.core.errors import KedgeError, Refused
from kedge.core.features.schema import (
    Difference,
    Outcome,
    TransformVersion,
    compared,
    outcome_of,
    worst,
)
from kedge.core.golden import count, distinct, is_real, joined, made_rows, unlike, whole
from kedge.core.values import Origin, Signature, Value
from kedge.operations.features.golden import GoldenRows, answers, by_key, real_rows
from kedge.transforms.authoring import spec_of
from kedge.workspace import Workplace


class TransformationDiff(Value, frozen=True):
    """The difference of two transformations' answers to the same rows."""

    old: str
    new: str
    outcome: Outcome
    """The worst outcome of the columns."""
    columns: tuple[Difference, ...]
    compared_on: dict[Origin, int]
    """Rows of the comparison, by origin."""
    made: tuple[str, ...]
    """Columns read by key, which were filled with made numbers."""


class Comparison(NamedTuple):
    """The difference of two transformations' answers to the same rows."""

    outcome: Outcome
    columns: tuple[Difference, ...]
    on: dict[Origin, int]
    """Rows of the comparison, by origin."""
    made: tuple[str, ...]
    """Columns read by key, which were filled with made numbers."""
    why: str
    """Why it is untested; empty if it was tested."""

    def between(self, old: str, new: str) -> TransformationDiff:
        """Return the difference with the names of the two versions."""
        return TransformationDiff(old, new, self.outcome, self.columns, self.on, self.made)


def comparison_of(place: Workplace, old: TransformVersion, new: TransformVersion) -> Comparison:
    """Compare two versions on the golden rows of both, on logged rows and on rows of a training set.

    Without any of these, or if all rows are identical, the outcome is `untested`.

    Raises:
        Refused: `raw_differs`: the versions take a column as different types.
    """
    specs = [spec_of(place.artifacts.verify(one.digest)) for one in (old, new)]
    fields = {field.name: field for spec in specs for field in spec.bare.inputs}
    clash = [f.name for spec in specs for f in spec.bare.inputs if fields[f.name] != f]
    if clash:
        raise Refused(
            f"{old.label} and {new.label} take {', '.join(clash)} as different types",
            code="raw_differs",
            hint="shadow it: what callers send decides",
        )
    both = Signature(tuple(fields.values()), ())
    proofs = [place.artifacts.proof(one.digest) for one in (old, new)]
    kept = [
        GoldenRows({name: one.inputs[name] for name in fields}, one.origin)
        for one in proofs
        if fields.keys() <= one.inputs.keys()
    ]
    found = [one for one in kept if is_real(one.rows, one.origin)]
    rows, real = _each_once([*found, *real_rows(place, old.schema, both)])
    tested = distinct(rows) > 1
    why = ""
    if not tested:
        why = (
            "all rows to compare them on are the same"
            if real
            else "there are only made rows to compare them on"
        )
        spare = [one for one in kept if one.origin in ("made", "unknown")]
        spare = spare or [GoldenRows(whole(made_rows(both.inputs, {})), "made")]
        rows, real = joined([rows, *(one.rows for one in spare)]), [*real, *spare]
    # If an answer depends on the other rows, rows are also asked alone, as most callers do.
    groupings = (False,) if all(one.rows == "independent" for one in proofs) else (False, True)
    names = list(specs[0].schema.fields)
    columns: tuple[Difference, ...] = ()
    try:
        for single in groupings:
            before, after = (
                answers(
                    place,
                    one.digest,
                    one.label,
                    {f.name: rows[f.name] for f in spec.bare.inputs},
                    single=single,
                )
                for one, spec in zip((old, new), specs, strict=True)
            )
            differ = compared(before, after, names, tested=tested)
            columns = worst(columns, differ) if columns else differ
    except KedgeError:
        if tested:
            raise
        # Rows that kedge made may be senseless to either version.
        columns = tuple(Difference(name, "untested", 0, None, None) for name in names)
    on: dict[Origin, int] = {}
    for one in real:
        on[one.origin] = on.get(one.origin, 0) + count(one.rows)
    return Comparison(outcome_of(columns), columns, on, by_key(both), why)


def _each_once(parts: list[GoldenRows]) -> tuple[dict[str, list[Any]], list[GoldenRows]]:
    """Join real rows, each once: a logged row may be a golden row already."""
    rows: dict[str, list[Any]] = {}
    found = []
    for one in parts:
        fresh = unlike(one.rows, rows)
        found.append(GoldenRows(fresh, one.origin))
        rows = joined([rows, fresh])
    return rows, [one for one in found if count(one.rows)]
