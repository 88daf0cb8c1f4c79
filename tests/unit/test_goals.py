"""Waits: each goal is reached, missed for a named reason, or open."""

from __future__ import annotations

import pytest

from kedge.core.goals import End, Goal, Watched, follow, look
from kedge.core.values import Stage

SETTLED = Watched(Stage.SETTLED, "r2", None, frozenset(), None, is_acknowledged=True)
SHADOW = Watched(Stage.SHADOW, "r2", "r3", frozenset(), "inconclusive", is_acknowledged=True)
CANARY = SHADOW._replace(stage=Stage.CANARY)
PROMOTED = SETTLED._replace(production="r3")
BACK = SETTLED._replace(condemned=frozenset({"r3"}))
ANOTHER = SHADOW._replace(candidate="r4")


@pytest.mark.parametrize(
    ("goal", "watched", "end"),
    [
        (Goal.CANARY, SHADOW, End.OPEN),
        (Goal.CANARY, CANARY, End.REACHED),
        (Goal.CANARY, PROMOTED, End.REACHED),
        (Goal.CANARY, SETTLED, End.ABORTED),
        (Goal.CANARY, BACK, End.CONDEMNED),
        (Goal.PASSED, CANARY, End.OPEN),
        (Goal.PASSED, CANARY._replace(verdict="pass"), End.REACHED),
        (Goal.PASSED, CANARY._replace(verdict="fail"), End.FAILED),
        (Goal.PASSED, CANARY._replace(verdict="broken input"), End.OPEN),
        (Goal.PASSED, CANARY._replace(verdict=None), End.OPEN),
        (Goal.PASSED, BACK, End.CONDEMNED),
        (Goal.PROMOTED, CANARY._replace(verdict="pass"), End.OPEN),
        (Goal.PROMOTED, PROMOTED, End.REACHED),
        (Goal.PROMOTED, PROMOTED._replace(stage=Stage.SHADOW, candidate="r4"), End.REACHED),
        (Goal.PROMOTED, ANOTHER, End.ABORTED),
        (Goal.PROMOTED, BACK, End.CONDEMNED),
        (Goal.ROLLED_BACK, CANARY, End.OPEN),
        (Goal.ROLLED_BACK, BACK, End.REACHED),
        (Goal.ROLLED_BACK, SETTLED, End.ABORTED),
        (Goal.ROLLED_BACK, PROMOTED, End.PROMOTED),
        (Goal.SETTLED, CANARY, End.OPEN),
        (Goal.SETTLED, SETTLED, End.REACHED),
        (Goal.SETTLED, SETTLED._replace(is_acknowledged=False), End.OPEN),
        (Goal.SETTLED, SETTLED._replace(stage=Stage.DRILL), End.OPEN),
    ],
)
def test_a_wait_that_follows_a_candidate(goal: Goal, watched: Watched, end: End) -> None:
    assert follow(goal, SHADOW) == "r3"
    assert look(goal, "r3", watched, was_candidate=True) is end


@pytest.mark.parametrize(
    ("watched", "end"),
    [
        (SETTLED, End.OPEN),
        (SETTLED._replace(stage=Stage.DRILL, production="r1"), End.OPEN),
        (SETTLED._replace(production="r1", condemned=frozenset({"r2"})), End.REACHED),
        (PROMOTED, End.REPLACED),
    ],
)
def test_a_wait_for_the_rollback_of_production(watched: Watched, end: End) -> None:
    assert follow(Goal.ROLLED_BACK, SETTLED) == "r2"
    assert look(Goal.ROLLED_BACK, "r2", watched, was_candidate=False) is end


def test_without_a_candidate_nothing_is_there_to_be_promoted() -> None:
    for goal in (Goal.CANARY, Goal.PASSED, Goal.PROMOTED):
        assert follow(goal, SETTLED) is None
