"""Text at a terminal: lines that fit, figures that align, and sentences about the remaining time."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from kedge.cli.text.estimate import estimate_text, next_text, rollout_lines, shown_by
from kedge.cli.text.evidence import compared, course_text, evidence_text
from kedge.cli.text.layout import rate, rough, shorten, wrap
from kedge.cli.text.models import registered_text
from kedge.cli.text.plan import plan_text
from kedge.core.automation import decide
from kedge.core.estimate import RolloutEstimate, UnmetCondition
from kedge.core.evidence.rules import Verdict
from kedge.core.evidence.windows import Agreement, Differing, DisagreeingPair
from kedge.core.release.commands import Canary, Pause, Promote, Shadow
from kedge.core.values import Automation, Field, Signature, Stage, State
from kedge.engine.watch import Watch
from kedge.operations.evidence.read import PlannedStep, RolloutPlan
from kedge.operations.evidence.view import ComparisonView, CoursePoint, describe
from kedge.operations.registration import LabelReading, RegisteredVersion
from kedge.operations.status.view import describe as status
from kedge.testing.samples import endpoint, release, run
from unit.test_watch import CANARY, SETTLED, SHADOW, after, paired, window

change = msgspec.structs.replace
RELEASES = {1: release(1), 2: release(2)}
SMALL = change(CANARY, weight=500, releases=RELEASES, automation=Automation(auto=True))
LONG = "a_long_field_name=and a value of many words that goes on and on"


def watched(state: State, seconds: int, errors: float = 0.0) -> ComparisonView:
    """A canary at 60 requests a second, with a segment whose name is long."""
    random, watch = np.random.default_rng(1), Watch(state)
    for at in range(1_000, 1_000 + seconds):
        n = random.poisson([57, 3])
        bad = random.binomial(n, errors)
        pair = (int(n[0]), int(n[1]))
        cells = {"": pair, "origin=JFK": pair, LONG: (1, 1)}
        watch.fold(
            window(
                at,
                weight=state.weight,
                exposed=cells,
                answered=cells,
                bad={"errors": {"": (int(bad[0]), int(bad[1]))}},
            )
        )
    facts = watch.facts(1_000.0 + seconds + 2)
    return describe(state, watch, decide(state, facts), facts)


# ---------------------------------------------------------------- evidence


def test_evidence_says_how_much_came_and_how_long_it_still_takes() -> None:
    found = watched(SMALL, 140)
    lines = evidence_text(found).splitlines()
    text = " ".join(" ".join(lines).split())
    assert f"too early: {found.requests[1]} requests to r2, 0 failed" in text
    assert "step 2 of 4, automatic" in text
    assert "About 8 min more until the step's least time of 10 min is over; then 25 %" in text
    assert found.estimate is not None
    assert found.estimate.waits_for == "dwell"
    assert found.estimate.seconds == pytest.approx(461, abs=2)
    assert (found.step, found.steps, found.next_weight) == (2, 4, 25.0)


def test_it_says_what_is_to_be_shown_at_which_rate() -> None:
    found = watched(SMALL, 140, errors=0.01)
    assert found.estimate is not None
    assert found.estimate.waits_for == "errors.doubled"
    text = " ".join(evidence_text(found).split())
    assert "more at 60 requests/s to show that errors are not doubled; then 25 %" in text


def test_a_replay_of_production_itself_names_it_as_the_candidate() -> None:
    found = watched(change(SMALL, candidate=SMALL.production), 10)
    assert [(arm.release, arm.role) for arm in found.arms] == [("r1", "candidate")] * 2


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_is_wider_than_the_terminal_and_all_columns_align(width: int) -> None:
    lines = evidence_text(watched(SMALL, 140, errors=0.01), width).splitlines()
    assert max(map(len, lines)) <= width
    figures = [line for line in lines if "too early" in line and "/" in line]
    assert len(figures) >= 6
    assert len({line.index("too early") for line in figures}) == 1
    assert len({line.rindex("/", 0, line.index("too early")) for line in figures}) == 1


def test_a_disagreement_names_the_output_and_both_values() -> None:
    watch = Watch(change(SHADOW, releases=RELEASES))
    example = DisagreeingPair(
        "q1/0",
        ("origin=JFK",),
        "0.9",
        "0.1",
        (Differing("churn", "0.9", "not given"), Differing("p_churn", "not given", "0.9")),
    )
    for at in range(100, 110):
        watch.fold(paired(at, agreement={"": Agreement(1)}, examples=(example,)))
    facts = watch.facts(112.0)
    state = change(SHADOW, releases=RELEASES)
    found = describe(state, watch, decide(state, facts), facts)
    text = " ".join(evidence_text(found).split())
    assert (
        "for example q1/0 (origin=JFK): churn is 0.9 by r1 and not given by r2; "
        "p_churn is not given by r1 and 0.9 by r2"
    ) in text
    assert found.agreement is not None
    assert found.agreement.examples[0].differs[0].output == "churn"


def test_releases_keep_their_names_after_a_promotion() -> None:
    state = change(SETTLED, releases=RELEASES)
    watch = Watch(state)
    for at in range(100, 130):
        watch.fold(after(at, bad={"errors": {"": (1, 0)}}))
    watch.end()
    facts = watch.facts(130.0)
    found = describe(state, watch, decide(state, facts), facts)
    assert [(arm.release, arm.role) for arm in found.arms] == [
        ("r1", "previous"),
        ("r2", "production"),
    ]
    text = evidence_text(found)
    assert text.startswith("flights: r2 (v2, production) against r1 (v1, previous), settled")
    assert "12 bad units of r2 in at least 3 separate seconds, 0 of r1" in " ".join(text.split())
    assert "the candidate" not in text


@pytest.mark.parametrize(
    "item, said",
    [
        ({"ratio": 0.98, "interval": (0.61, 1.72)}, "0.98 (0.61 to 1.72)"),
        ({"ratio": None, "interval": (0.0, 3.1)}, "at most 3.10"),
        ({"ratio": None, "interval": (1.2, None)}, "at least 1.20"),
        ({"ratio": None, "interval": (0.0, None)}, "-"),
        ({"ratio": 1.5, "interval": (0.0, None)}, "1.50, no bound yet"),
        (
            {
                "difference": 0.012,
                "interval": (-0.03, 0.05),
                "losses": (0.12, 0.132),
                "loss_ratio": 1.1,
                "loss_interval": (0.75, 1.42),
            },
            "1.10 (0.75 to 1.42)",
        ),
        ({"ratio": None, "interval": None}, "-"),
    ],
)
def test_an_interval_is_written_as_it_is_read(item: dict[str, Any], said: str) -> None:
    verdict = Verdict(
        metric="errors",
        segment="",
        verdict="inconclusive",
        reason="",
        units=(100, 100),
        bad=(1, 1),
        **item,
    )
    assert compared(verdict) == said


def test_the_course_of_time_fits_eighty_columns() -> None:
    row = CoursePoint(
        at=0,
        span_s=3600,
        production="r11",
        candidate="r12",
        weight=25.0,
        paired=False,
        units=(1_234_567, 123_456),
        bad={"errors": (1_234, 12)},
        agreement=None,
        coverage=None,
        lost=0,
        segments={},
    )
    lines = course_text([row]).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[1].split() == [
        "1970-01-01",
        "00:00",
        "1",
        "h",
        "r12/r11",
        "25",
        "%",
        "12/123,456",
        "1,234/1,234,567",
        "-",
    ]
    assert "nothing yet" in course_text([])


# ---------------------------------------------------------------- estimates


def told(part: UnmetCondition, **more: Any) -> RolloutEstimate:
    known = {
        "seconds": part.seconds,
        "waits_for": part.waits_for,
        "cause": part.cause,
        "rate": 60.0,
    }
    return RolloutEstimate(**{**known, **more}, parts=(part,))


@pytest.mark.parametrize(
    "part, said",
    [
        (
            UnmetCondition("errors", 14_400.0, margin=0.5),
            "about 4 h more at 60 requests/s to show that errors are not 50 % more frequent",
        ),
        (
            UnmetCondition("latency.p99", 300.0, margin=2.0),
            "about 5 min more at 60 requests/s to show that slow answers are not 3 times as frequent",
        ),
        (
            UnmetCondition("window", 500_000.0, needed=604_800.0),
            "about 6 days more until the shadow window of 7 days is over",
        ),
        (
            UnmetCondition("pairs", 9.0, needed=1_000.0),
            "about 10 s more at 60 requests/s until 1,000 answers are compared",
        ),
        (
            UnmetCondition("errors", None, "beyond", 1.0),
            "not within a month of this traffic; it waits to show that errors are not doubled",
        ),
        (
            UnmetCondition("quality", None, "no_labels", 0.05),
            "no estimate: no outcome came yet (kedge outcomes hands them in); it waits to show that wrong answers are not 5 % more frequent",
        ),
        (
            UnmetCondition("requests", None, "no_traffic", needed=100.0),
            "no estimate: no requests come; it waits until each release had 100 requests",
        ),
    ],
)
def test_an_estimate_is_a_sentence(part: UnmetCondition, said: str) -> None:
    assert estimate_text(told(part)) == said


def test_an_estimate_without_one_of_its_parts_is_a_least_time() -> None:
    part = UnmetCondition("errors", 60.0, margin=1.0)
    assert estimate_text(told(part, at_least=True), "25 %").startswith("at least about 60 s more")
    assert shown_by("cost", 0.2) == "an inference is not 20 % dearer"


TWO = run(endpoint(release(1), release(2), release(3)), Promote(1), Promote(2, override="a test"))


@pytest.mark.parametrize(
    "state, line, then",
    [
        (run(TWO, Canary(3, 500, auto=True)), "step 2 of 4, automatic", "25 %"),
        (run(TWO, Canary(3, 500)), "step 2 of 4, by hand", "kedge promote flights (to 25 %)"),
        (
            run(TWO, Canary(3, 5_000, auto=True)),
            "step 4 of 4, automatic",
            "kedge promote flights (to production)",
        ),
        (run(TWO, Canary(3, 50, auto=True)), "before step 1 of 4, automatic", "1 %"),
        (
            run(TWO, Canary(3, 500, auto=True), Pause()),
            "step 2 of 4, held",
            "kedge promote flights (to 25 %)",
        ),
        (run(TWO, Shadow(3)), "shadow, by hand", "kedge canary flights or kedge promote flights"),
    ],
)
def test_status_names_the_step_of_a_rollout_and_its_actor(
    state: State, line: str, then: str
) -> None:
    item = status(state, (), (), {}, now=0.0)
    assert rollout_lines(item, 66) == [line]
    assert next_text(item) == then
    estimate = told(UnmetCondition("errors", 600.0, margin=1.0))
    estimated = rollout_lines(change(item, estimate=estimate), 66)
    text = " ".join(estimated)
    assert (
        f"about 10 min more at 60 requests/s to show that errors are not doubled; then {then}"
        in text
    )
    assert max(map(len, estimated)) <= 66


def test_a_settled_endpoint_has_no_rollout() -> None:
    assert TWO.stage is Stage.SETTLED
    assert rollout_lines(status(TWO, (), (), {}, now=0.0), 66) == []


# ---------------------------------------------------------------- plan and layout


def test_a_plan_says_what_is_found_and_what_is_proven_and_fits() -> None:
    step = PlannedStep(
        weight=25.0, seconds=55.0, harmed=32, excess=16, callers=90, proven_s=14_000.0
    )
    found = RolloutPlan(
        endpoint="flights",
        rate=60.0,
        errors=0.01,
        counted=1_000,
        times=2.0,
        alpha=0.01,
        callers=400,
        provable=700,
        steps=(step, change(step, weight=50.0, seconds=None, proven_s=None)),
    )
    narrow = plan_text(found, 60).splitlines()
    assert max(map(len, narrow)) <= 60
    assert ["found", "failed", "caused", "proven", "its"] in [line.split() for line in narrow]
    lines = plan_text(found).splitlines()
    assert max(map(len, lines)) <= 80
    assert (
        "weight  found after  failed requests  caused by it  proven after  its callers" in lines[3]
    )
    assert lines[4].split() == ["25", "%", "60", "s", "32", "16", "4", "h", "90"]
    assert lines[5].split() == [
        "50",
        "%",
        ">",
        "30",
        "days",
        "32",
        "16",
        ">",
        "30",
        "days",
        "90",
    ]


@pytest.mark.parametrize(
    "seconds, said",
    [
        (3, "about 10 s"),
        (84, "about 80 s"),
        (95, "about 2 min"),
        (5_300, "about 88 min"),
        (14_000, "about 4 h"),
        (200_000, "about 2 days"),
    ],
)
def test_an_estimated_span_has_two_digits_at_most(seconds: float, said: str) -> None:
    assert rough(seconds) == said


def test_lines_are_broken_between_words_and_no_unit_is_parted() -> None:
    lines = wrap("It takes about 25 % of all callers at 60 requests/s in 10 min", 18, "  ")
    assert max(map(len, lines)) <= 18
    assert "25 %" in "\n".join(lines)
    assert "60 requests/s" in "\n".join(lines)
    assert "10 min" in "\n".join(lines)
    assert shorten("abcdefghij", 5) == "ab…ij"
    assert [rate(60.0), rate(2.5), rate(0.01)] == [
        "60 requests/s",
        "2.5 requests/s",
        "36 requests/h",
    ]


LABELS = LabelReading(
    output="score",
    dtype="float64",
    reads="number",
    declared=False,
    code="",
    tolerance=0.5,
    threshold=0.5,
    among=(),
    proposed=(),
)
AGE, BOUNDED = Field("age", "float64"), Field("age", "float64", range=(0.0, 120.0))


@pytest.mark.parametrize(
    ("taken", "new", "said"),
    [
        (BOUNDED, True, "are in force from its promotion on where there is no contract yet"),
        (BOUNDED, False, "are in force from its promotion on where there is no contract yet"),
        (AGE, False, "are not part of this version, which was registered without them"),
    ],
)
def test_bounds_learned_for_a_version_that_has_none_are_not_called_in_force(
    taken: Field, new: bool, said: str
) -> None:
    """The same bytes keep the signature of their first registration, so only kedge.toml can bound them."""
    found = RegisteredVersion(
        endpoint="flights",
        version="v1",
        flavour="sklearn",
        digest="sha256:ab",
        size=1,
        load_s=0.0,
        golden="training",
        signature=Signature((taken,), (Field("score", "float64"),)),
        schema=None,
        trained_on=None,
        rows="independent",
        rows_tested=8,
        rows_why="",
        plain=None,
        allowed="",
        inline="",
        labels=LABELS,
        example="",
        libraries=(),
        assumed=(),
        tolerant=(),
        new=new,
        contract=("[endpoints.flights.fields]", 'age = {dtype = "float64", range = [0, 120]}'),
    )
    text = registered_text(found)
    assert f"bounds    {said}" in text
    assert "range = [0, 120]" in text
