"""Losses as pages and commands show them: figures in their own unit, compared as the margin is."""

from __future__ import annotations

from typing import Any

import pytest

from kedge.cli.text.evidence import compared, get_cells
from kedge.core.evidence.rules import JudgeRules, Rail
from kedge.operations.evidence.view import MetricVerdict
from kedge.web.dashboard.pages.guardrails import cell_of, difference_of, shown_ratio
from kedge.web.dashboard.pages.quantities import ratio

RULES = JudgeRules(rails={"quality": Rail(worse_by=0.05, mean=True)})


def verdict(**more: Any) -> MetricVerdict:
    """The verdict on a log loss of 0.69 against 0.46."""
    found: dict[str, Any] = {
        "metric": "quality",
        "segment": "",
        "verdict": "inconclusive",
        "reason": "too early",
        "units": (300, 310),
        "bad": (300, 310),
        "difference": 0.0333,
        "interval": (0.02, 0.0466),
        "losses": (0.0666, 0.0999),
        "loss_ratio": 1.5,
        "loss_interval": (1.3, 1.7),
        "figures": (0.46, 0.69),
        "e": 1.0,
    }
    return MetricVerdict(**(found | more))


def test_a_command_shows_the_declared_figures_and_their_ratio() -> None:
    """It showed 300 of 300 labels as wrong: every probability has some log loss."""
    cells = get_cells(verdict(), percent=True)
    assert cells == ["quality", "0.46", "0.69", "1.50 (1.30 to 1.70)", "too early"]
    assert compared(verdict(loss_ratio=None, loss_interval=None)) == "-"


def test_a_page_compares_losses_in_the_unit_of_their_margin() -> None:
    assert difference_of(verdict(), "r2") == "+50 %"
    assert shown_ratio(verdict()) == (1.5, (1.3, 1.7))
    assert difference_of(verdict(loss_ratio=None, bad=(0, 0)), "r2") == "–"


@pytest.mark.parametrize(
    ("loss_ratio", "tone"),
    [(1.0, "even"), (1.03, "worse-1"), (0.96, "better-1"), (0.9, "better-3")],
)
def test_the_shade_of_a_segment_is_measured_by_the_margin(loss_ratio: float, tone: str) -> None:
    assert cell_of(verdict(loss_ratio=loss_ratio), RULES, "r2").tone == tone


def test_rates_are_compared_as_before() -> None:
    rates = verdict(losses=None, loss_ratio=None, figures=None, ratio=2.0, interval=(1.5, None))
    assert shown_ratio(rates) == (2.0, (1.5, None))
    assert get_cells(rates, percent=False)[1:3] == ["300/300", "310/310"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "+0 %"),
        (1.05, "+5 %"),
        (1.016, "+1.6 %"),
        (0.9974, "-0.26 %"),
        (1.5, "+50 %"),
        (3.2, "3.2 times"),
        (None, "–"),
    ],
)
def test_a_ratio_is_a_relative_difference(value: float | None, text: str) -> None:
    assert ratio(value) == text
