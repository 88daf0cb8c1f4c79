"""Which outcomes and columns of the facts are asked for hidden faults."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kedge.core.diagnosis.association import MOST_COLUMNS, MOST_INPUTS, Relations
from kedge.core.diagnosis.facts import Facts, Sample
from kedge.core.diagnosis.findings import Cause, Estimate, Kind, Suspect
from kedge.core.diagnosis.hidden import alike, broken, hidden
from kedge.core.diagnosis.suspects import NOTHING, SuspectFindings
from kedge.core.values import Output

N = 3_000


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def columns(seed: int) -> dict[str, Any]:
    z = rng(seed).normal(size=(N, 3))
    return {"a": z[:, 0] + z[:, 1], "b": z[:, 0] + z[:, 2], "c": rng(seed + 50).normal(size=N)}


def truth(kind: str, c: dict[str, Any], seed: int) -> Any:
    y = 1.5 * c["a"] + c["b"] + rng(seed).normal(size=N)
    if kind == "binary":
        return (y > 0).astype(np.float64)
    return np.digitize(y, [-1.5, 0.0, 1.5]).astype(np.float64) if kind == "exact" else np.exp(y)


def facts(kind: Any, now: dict[str, Any], outcomes: Any) -> Facts:
    before = columns(1)
    return Facts(
        output=Output(kind=kind),
        metric="error_rate",
        new="r1",
        reference_of="new",
        current=Sample(columns=now, truth=outcomes),
        reference=Sample(columns=before, truth=truth(kind, before, 2), scores=before["a"]),
    )


@pytest.mark.parametrize("kind", ["binary", "score", "exact"])
def test_every_kind_of_outcome_is_looked_at(kind: str) -> None:
    true = columns(11)
    known = truth(kind, true, 12)
    assert hidden(facts(kind, true, known), set()) == NOTHING._replace(asked=True)
    found = hidden(facts(kind, {**true, "a": rng(5).permutation(true["a"])}, known), set())
    assert [each.column for each in found.proven] == ["a"]


def test_a_known_defect_explains_the_change() -> None:
    true = columns(11)
    known = truth("binary", true, 12)
    found = hidden(facts("binary", {**true, "a": rng(5).permutation(true["a"])}, known), {"a"})
    assert found.explained
    assert not found.proven
    assert not found.alike


def test_without_a_reference_or_with_few_rows_nothing_is_said() -> None:
    true = columns(11)
    given = facts("binary", true, truth("binary", true, 12))
    few = {name: column[:50] for name, column in true.items()}
    assert hidden(facts("binary", few, truth("binary", true, 12)[:50]), set()) == NOTHING
    alone = Facts(output=given.output, metric="error_rate", new="r1", current=given.current)
    assert hidden(alone, set()) == NOTHING


def test_findings_carry_the_suspects_as_fields() -> None:
    suspects = (Suspect("a", "stale", "a is old"), Suspect("b", "recoded", "b is turned"))
    told = broken(SuspectFindings(suspects, (), "said"))
    assert (told.cause, told.kind, told.columns) == (Cause.DATA, Kind.STALE, ("a", "b"))
    effect = Estimate(0.1, 0.05, 0.15, 500)
    unclear = alike(SuspectFindings((), suspects, "said"), effect)
    assert (unclear.cause, unclear.kind) == (Cause.CANNOT_TELL, Kind.WORLD_OR_DATA)
    assert unclear.statement == "world or data: cannot tell; check a, b: said"
    assert unclear.suspects == suspects
    assert unclear.effect == effect


def test_what_was_not_looked_at_is_said() -> None:
    """Too few labels, or more columns and codes than a regression holds: no column is cleared."""
    true = columns(11)
    few = np.where(np.arange(N) < 150, truth("binary", true, 12), np.nan)
    assert not hidden(facts("binary", true, few), set()).asked
    many = {f"c{n}": rng(n).normal(size=500) for n in range(MOST_COLUMNS + 10)}
    assert Relations(many, many, list(many)).left_out == 10
    codes = {f"c{n}": rng(n).integers(0, 40, 500).astype(float) for n in range(MOST_COLUMNS)}
    wide = Relations(codes, codes, list(codes))
    assert wide.x.shape[1] <= MOST_INPUTS
    assert wide.left_out == MOST_COLUMNS - len(wide.names) > 0
