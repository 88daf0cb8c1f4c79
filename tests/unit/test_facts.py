"""Every array of a window has one row a request."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kedge.core.diagnosis.facts import Facts, Sample, checked
from kedge.core.values import Output

ROWS = Sample(columns={"x": np.zeros(3)}, truth=np.zeros(3))
LESS = np.zeros(2)


def facts(**more: Any) -> Facts:
    return Facts(
        **{"output": Output(kind="binary"), "metric": "brier", "new": "r1", "current": ROWS, **more}
    )


def test_only_todays_requests_have_to_be_there() -> None:
    checked(facts())


@pytest.mark.parametrize(
    "more",
    [
        {"answers": {("new", "new"): LESS}},
        {"swaps": {"x": (None, LESS)}},
        {"inputs": {"new": {"x": LESS}}},
        {"current": Sample(columns={"x": LESS}, truth=np.zeros(3))},
        {"current": Sample(columns={}, truth=np.zeros(3), units=LESS)},
        {"reference": Sample(columns={}, truth=np.zeros(3), scores=LESS)},
    ],
)
def test_an_array_of_another_length_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="one row a request"):
        checked(facts(**more))
