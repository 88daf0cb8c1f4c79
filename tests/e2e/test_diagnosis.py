"""Why did it become worse? Asked of logs in which somebody knows: the verb, the note, and the faults."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from e2e.past import Past
from e2e.place import Site

pytestmark = pytest.mark.e2e

POLICY = (
    'output = {kind = "score", score = "score", tolerance = 1.0}\n'
    'guardrails = {quality = {metric = "absolute_error", worse_by = 0.05}}\n'
    "log = {sample = 100}\n"
)


def twice(x: Any) -> Any:
    return 2.0 * x


def thrice(x: Any) -> Any:
    return 3.0 * x


@pytest.fixture
def past(make_site: Callable[..., Site]) -> Past:
    """r1 says 2 * x, which was true; r2, which says 3 * x, is production now."""
    site = make_site(policy=POLICY)
    site.run("init", "flights")
    site.run("apply")
    site.run("register", "flights", site.model("one"))
    site.run("register", "flights", site.model("two", scale=3.0))
    site.run("promote", "flights", "v1")
    site.run("promote", "flights", "v2", "--override", "a test")
    return Past(site)


def diagnosed(past: Past, *words: str) -> Any:
    return past.site.data("diagnose", "flights", "--since", "2h", *words)


def causes(told: Any) -> list[str]:
    return [one["cause"] for one in told["diagnosis"]["findings"]]


def test_a_worse_model_is_found_by_replay_and_a_rollback_would_help(past: Past) -> None:
    past.given(400, 30.0, production=1, truth=twice, answer=twice)
    past.given(400, 1.0, production=2, truth=twice, answer=thrice)
    told = diagnosed(past)
    assert causes(told) == ["model"]
    effect = told["diagnosis"]["effect"]
    assert effect["high"] < -2
    assert told["diagnosis"]["action"]["code"] == "roll_back_model"
    assert told["replayed"] == {"old": 400}
