"""What is wrong with the answer of a materialised function."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kedge.core.features import Feature, Spec, View, declared
from kedge.materialising import misfit, outside

SCHEMA = declared("delays/1", {
    "mean": Feature("float32", null=True, range=(0, 10)), "pair": Feature("float32", (2,), default=0.0),
}, ["carrier", "hour"])  # fmt: skip
SPEC = Spec(schema=SCHEMA, entry="a:b", raw=(), view=View(source="x.parquet", time="at"))


def answer(**other: Any) -> dict[str, Any]:
    return {"carrier": np.array(["AA", "UA"]), "hour": np.array([1, 1]), "mean": [1.0, np.nan],
            "pair": np.ones((2, 2)), **other}  # fmt: skip


def test_what_the_schema_promises_is_no_fault() -> None:
    assert misfit(answer(), SPEC) is None


@pytest.mark.parametrize(("other", "fault"), [
    ({"carrier": ["AA", "AA"]}, "1 keys are there twice"),
    ({"hour": [1]}, "hour has the shape (1,), not (2,)"),
    ({"mean": [1.0]}, "mean has the shape (1,), not (2,)"),
    ({"pair": [1.0, 2.0]}, "pair has the shape (2,), not (2, 2)"),
    ({"pair": [[1, 2], [3, np.nan]]}, "pair is null, and may not be"),
    ({"mean": ["x", "y"]}, "mean: could not convert"),
])  # fmt: skip
def test_a_fault_names_the_column(other: dict[str, Any], fault: str) -> None:
    assert fault in str(misfit(answer(**other), SPEC))


def test_columns_that_are_not_there_are_named_together() -> None:
    assert misfit({"carrier": ["AA"]}, SPEC) == "it gave no hour, mean, pair"
    assert misfit([1, 2], SPEC) == "it gave a list, not columns by name"


def test_what_is_out_of_range_is_counted_and_not_refused() -> None:
    wide = answer(mean=np.array([11.0, np.nan], np.float32))
    assert misfit(wide, SPEC) is None
    assert outside(wide, SPEC) == {"mean": 1}
    assert outside({}, SPEC) == {}
