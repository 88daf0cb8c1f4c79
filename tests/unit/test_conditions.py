"""Conditions of an endpoint: when an alert is raised, and when it ends."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kedge.core.alerts import conditions
from kedge.core.alerts.alerts import Raise, Topic
from kedge.core.automation import Decision
from kedge.core.diagnosis.findings import Cause
from kedge.core.release.commands import (
    Abort,
    AnyCommand,
    AnyEvent,
    Canary,
    Freeze,
    Pause,
    Promote,
    Resume,
    Rollback,
    SetWeight,
    Shadow,
)
from kedge.core.release.machine import decide
from kedge.core.values import ActorKind, State
from kedge.testing.samples import AT, run
from unit.test_alerts import CANARY, FAIL, ONE, alert
from unit.test_summary import finding


def test_a_failure_is_reported_with_the_action() -> None:
    frozen = run(CANARY, Freeze())
    held = run(CANARY, Pause())
    said = {
        "under way": conditions.conditions(CANARY, FAIL),
        "held": conditions.conditions(held, msgspec.structs.replace(FAIL, command=None)),
        "frozen": conditions.conditions(frozen, Decision("fail", "frozen", "would roll back")),
    }
    assert {k: (f[0].summary, f[0].after_s) for k, f in said.items()} == {
        "under way": (
            "r2 fails; the patrol's command was not carried out",
            conditions.UNDER_WAY_S,
        ),
        "held": ("r2 fails; the rollout is held", 0.0),
        "frozen": ("r2 fails; automation is frozen, so nothing was done", 0.0),
    }
    assert {f[0].level for f in said.values()} == {"page"}


def test_a_shadow_and_production_fail_in_words_of_their_own() -> None:
    shadow = run(ONE, Shadow(2))
    left = run(shadow, Promote(2, override="a test"))
    words = [conditions.conditions(s, Decision("fail", "x", ""))[0].summary for s in (shadow, left)]
    assert words == [
        "r2 fails; no caller received its answers",
        "r2 fails; it is production, and nothing was done",
    ]


@pytest.mark.parametrize(
    ("decision", "key", "after_s"),
    [
        (Decision("broken input", "unread", "gone"), "broken", 60.0),
        (Decision("pass", "ask", "proven"), "waiting:r2@1 %", 0.0),
    ],
)
def test_a_warning_is_raised(decision: Decision, key: str, after_s: float) -> None:
    (found,) = conditions.conditions(CANARY, decision)
    assert (found.key, found.level, found.after_s) == (key, "warn", after_s)


def test_the_quiet_case_is_quiet() -> None:
    assert conditions.conditions(CANARY, Decision("inconclusive", "waiting", "")) == ()
    assert conditions.conditions(CANARY, None) == ()
    assert conditions.conditions(ONE, FAIL) == ()


def test_a_blind_patrol_is_reported_where_releases_are_compared() -> None:
    (found,) = conditions.conditions(CANARY, FAIL, fault="evidence_locked")
    assert (found.key, found.detail) == ("blind", "evidence_locked")
    assert conditions.conditions(ONE, None, fault="evidence_locked") == ()


def events(
    state: State, command: Any, by: str, why: str = "", actor: ActorKind = ActorKind.PERSON
) -> list[Raise | None]:
    found = decide(state, command, AT)
    assert isinstance(found, tuple | list)
    return [conditions.happened(event, by=by, actor=actor, reason=why) for event in found]


def test_a_rollback_by_the_patrol_is_a_page_and_one_by_a_person_is_none() -> None:
    (found,) = events(CANARY, Rollback(), "p", "errors", ActorKind.PATROL)
    assert found is not None
    assert (found.key, found.level, found.detail) == ("rolled_back:r2", "page", "errors")
    (late,) = events(run(CANARY, Promote(2, full=True)), Rollback(), "p", "", ActorKind.PATROL)
    assert late is not None
    assert late.summary == "production went back from r2 to r1"
    assert events(CANARY, Rollback(), "ada@host") == [None]
    assert events(CANARY, Rollback(), "patrol@host") == [None], "a name says nothing"


def test_an_override_is_a_warning_and_an_ordinary_step_is_none() -> None:
    (found,) = events(ONE, Canary(2, 100, override="hurry"), "ada@host")
    assert found is not None
    assert (found.key, found.level, found.detail) == ("override:r2", "warn", "hurry")
    assert "ada@host" in found.summary
    assert events(CANARY, Promote(2), "ada@host") == [None]


def test_every_override_raises_an_alert_and_evidence_is_no_override() -> None:
    """A roll of features that answer as today's do overrides nothing."""
    held = run(CANARY, Pause())
    for state, command, word in (
        (CANARY, SetWeight(200, override="hurry"), "set-weight"),
        (CANARY, Promote(override="hurry"), "promote"),
        (held, Resume(override="hurry"), "resume"),
    ):
        (found,) = events(state, command, "ada@host")
        assert found is not None, word
        assert (found.key, found.subject, found.detail) == ("override:r2", 2, "hurry")
    rolled = events(ONE, Promote(2, equivalence="view/1#2 is bit-equal"), "ada@host")
    assert rolled == [None]


# ---------------------------------------------------------------- when it is over


def test_a_condition_is_over_with_its_reason() -> None:
    well = Decision("inconclusive", "waiting", "100 of 1000 pairs")
    assert conditions.settled(alert(), CANARY, FAIL, {"failing:r2"}) == ""
    assert conditions.settled(alert(), ONE, None, ()) == "r2 left the rollout"
    promoted = run(CANARY, Promote(2, full=True))
    assert conditions.settled(alert(subject=3), promoted, well, ()) == "r3 left the rollout"
    found = conditions.settled(alert(), CANARY, well, ())
    assert found == "the verdict is inconclusive now: 100 of 1000 pairs"
    broken = alert(key="broken", topic=Topic.BROKEN, subject=None)
    assert conditions.settled(broken, CANARY, well, ()) == "it can be judged again: inconclusive"
    assert conditions.settled(broken, ONE, None, ()) == "nothing is compared any more"
    assert conditions.ends_after_s(broken) > conditions.ends_after_s(alert())


def test_what_waits_for_a_person_waits_though_the_verdict_wavers() -> None:
    waiting = alert(key="k", topic=Topic.WAITING, step="1 %")
    assert conditions.settled(waiting, CANARY, Decision("inconclusive", "", ""), ()) == ""
    gone = conditions.settled(
        waiting, run(CANARY, Promote(2)), Decision("inconclusive", "", ""), ()
    )
    assert gone.startswith("r2 went on to ")
    assert conditions.settled(waiting, CANARY, FAIL, ()).startswith("the verdict is fail")


def test_only_a_condition_ends_by_itself() -> None:
    event = alert(lasts="event", key="rolled_back:r2")
    assert conditions.settled(event, ONE, None, ()) == ""


def test_a_diagnosis_with_harm_is_reported_and_each_harm_separately() -> None:
    told = conditions.found_by(finding(Cause.WORLD, Cause.LABEL_MIX))
    assert told is not None
    assert (told.level, told.lasts, told.subject) == ("page", "event", 3)
    assert told.summary == "r3 gives worse answers: world, label mix"
    assert told.detail == "said; train again"
    assert conditions.found_by(finding(Cause.NOISE)) is None
    warned = conditions.found_by(finding(Cause.DATA, harms=(None,)))
    known = conditions.found_by(finding(Cause.DATA))
    assert warned is not None
    assert known is not None
    assert (warned.level, known.level) == ("warn", "page")
    assert len({told.key, warned.key, known.key}) == 3


def test_a_failure_that_is_not_the_releases_says_so() -> None:
    held = Decision("fail", "not_the_release", "quality; the diagnosis found world")
    (one,) = conditions.conditions(CANARY, held)
    assert (one.level, one.after_s) == ("page", 0.0)
    assert "a diagnosis found another cause" in one.summary


def since(state: State, *commands: tuple[AnyCommand, str, str]) -> list[tuple[AnyEvent, str, str]]:
    """What the commands write, newest first."""
    told: list[tuple[AnyEvent, str, str]] = []
    for command, by, reason in commands:
        found = decide(state, command, AT)
        assert isinstance(found, tuple)
        told += [(event, by, reason) for event in found]
        state = run(state, command)
    return told[::-1]


def test_a_page_ends_with_the_operator_and_reason_that_continued_it() -> None:
    shadow = run(ONE, Shadow(2))
    page = alert()
    went = since(shadow, (Canary(2, 100, override="an incident"), "ada@host", ""))
    assert conditions.continued(page, went) == "continued by ada@host: an incident"
    went = since(shadow, (Promote(2, override="it is better"), "ada@host", ""))
    assert conditions.continued(page, went) == "continued by ada@host: it is better"
    raced = since(shadow, (Canary(2, 100), "ada@host", ""))
    assert conditions.continued(page, raced) == "continued by ada@host: no reason given"


def test_a_failure_that_ended_otherwise_is_resolved() -> None:
    shadow = run(ONE, Shadow(2))
    on = (Canary(2, 100, override="an incident"), "ada@host", "")
    assert conditions.continued(alert(), since(shadow, (Abort(), "ada@host", ""))) == ""
    assert conditions.continued(alert(), since(shadow, on, (Rollback(), "patrol@h", ""))) == ""
    assert conditions.continued(alert(subject=3), since(shadow, on)) == ""
    assert (
        conditions.continued(alert(key="waiting:r2@shadow", topic=Topic.WAITING), since(shadow, on))
        == ""
    )
    assert conditions.continued(alert(), []) == ""
