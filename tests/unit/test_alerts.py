"""Alerts, as values: their conditions, their recipients and times, and their ends."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kedge.core.alerts import alerts
from kedge.core.alerts.alerts import Alert, AlertTarget, Delivery, Raise, Rung, Topic
from kedge.core.automation import Decision
from kedge.core.release.commands import Canary, Promote, Rollback
from kedge.core.values import Contact, Escalation, Policy, Rota
from kedge.testing.samples import AT, endpoint, release, run

NOW = 1_800_000_000.0
LEASE_S = 21.0
ADA, BEN = Contact("Ada", "ada@example.org"), Contact("Ben", "mailto:ben@example.org")
POLICY = Policy(
    owner=ADA,
    rota=Rota(start="2026-11-23T09:00:00Z", each="7d", people=(ADA, BEN)),
    escalation=(
        Escalation("0s", ("owner",)),
        Escalation("5m", ("https://hooks.example.org/a", "rota")),
        Escalation("15m", ("alertmanager://am:9093",)),
    ),
)
LEVELS = alerts.rungs(POLICY, NOW)
ONE = run(endpoint(release(1), release(2)), Promote(1))
CANARY = run(ONE, Canary(2, 100, override="a test"))
FAIL = Decision("fail", "guardrail", "errors: 3 times", Rollback())
PAGE = Raise(
    key="failing:r2",
    topic=Topic.FAILING,
    level="page",
    lasts="condition",
    summary="r2 fails",
    subject=2,
)


def alert(found: Raise = PAGE, **changes: Any) -> Alert:
    made = alerts.opened(found, "flights", at=AT, now=NOW, number=17)
    return msgspec.structs.replace(made, **changes)


def due(one: Alert, elapsed: float, now: float = NOW, levels: Any = LEVELS) -> list[str]:
    found = alerts.due(one, levels, elapsed, now=now, lease_s=LEASE_S)
    return [target.channel for target, _ in found]


def target(level: int, number: int = 0) -> AlertTarget:
    return LEVELS[level].targets[number]


def sent(
    one: Alert, to: AlertTarget, *, fault: str = "", elapsed: float = 0.0, kind: Any = "told"
) -> Alert:
    """Claimed and recorded."""
    claimed = alerts.claim(one, to, kind, elapsed_s=elapsed, now=NOW, lease_s=LEASE_S, by="me")
    return alerts.record(claimed, to, kind, fault=fault, elapsed_s=elapsed, now=NOW, at=AT)


def failed(one: Alert, to: AlertTarget, times: int = 3, **how: Any) -> Alert:
    for attempt in range(times):
        one = sent(one, to, fault="refused", elapsed=100.0 * attempt, **how)
    return one


# ---------------------------------------------------------------- an alert's life


def test_the_same_thing_again_is_no_second_alert() -> None:
    assert alerts.again(alert(), PAGE) == alert()
    other = msgspec.structs.replace(PAGE, summary="r2 fails; held", detail="new")
    assert alerts.again(alert(), other).summary == "r2 fails; held"
    assert alerts.again(alert(lasts="event"), PAGE).times == 2


def test_an_acknowledged_condition_stays_open_and_an_event_is_over() -> None:
    known = alerts.acknowledge(alert(), by="ada", at=AT)
    assert (known.open, known.acknowledged_by) == (True, "ada")
    assert alerts.acknowledge(known, by="ben", at=AT) == known
    event = alerts.acknowledge(alert(lasts="event"), by="ada", at=AT)
    assert (event.open, event.resolved) == (False, "ada has seen it")
    assert alerts.acknowledge(event, by="ben", at=AT) == event
    assert alerts.resolve(event, reason="other", at=AT) == event


def test_a_message_has_the_condition_the_recipients_and_the_command_to_stop_it() -> None:
    said = alerts.message(alert(detail="errors"), "told")
    assert said.title == "[kedge page] flights: r2 fails (#17)"
    assert "kedge ack 17 --by NAME" in said.text
    over = alerts.message(alerts.resolve(alert(), reason="r2 left", at=AT), "resolved")
    assert over.title == "[kedge resolved] flights: r2 fails (#17)"
    assert f"resolved: {AT}: r2 left" in over.text
    gone = alerts.resolve(alert(), reason="continued by ada: hurry", at=AT, ended="continued")
    on = alerts.message(gone, "resolved")
    assert (on.status, on.title) == ("continued", "[kedge continued] flights: r2 fails (#17)")
    assert f"{AT}: continued by ada: hurry" in on.text
    assert "resolved" not in on.text + on.title


# ---------------------------------------------------------------- whom


@pytest.mark.parametrize(
    ("days", "who"), [(-30, "Ada"), (0, "Ada"), (6.9, "Ada"), (7, "Ben"), (14, "Ada"), (702, "Ada")]
)
def test_people_take_turns(days: float, who: str) -> None:
    assert POLICY.rota is not None
    start = 1_795_424_400.0
    assert alerts.on_duty(POLICY.rota, start + days * 86_400).name == who


def test_a_person_who_is_twice_in_a_level_gets_one_message() -> None:
    twice = msgspec.structs.replace(
        POLICY, escalation=(Escalation("0s", ("owner", "mailto:ada@example.org")),)
    )
    ((_, targets, _),) = alerts.rungs(twice, NOW)
    assert [(t.channel, t.url) for t in targets] == [("owner", "mailto:ada@example.org")]


@pytest.mark.parametrize(
    ("channel", "said"),
    [
        ("owner", "owner"),
        ("mailto:ada@example.org?x=secret", "mailto:ada@example.org"),
        ("https://x.org", "https://x.org"),
        ("slack://${SLACK}/#ops", "slack://${SLACK}/#ops"),
        ("https://a:${P}@x.org/hook?k=secret", "https://a:${P}@x.org/hook"),
        ("alertmanager://am:9093/prefix", "alertmanager://am:9093/prefix"),
    ],
)
def test_a_channel_is_shown_without_its_secrets(channel: str, said: str) -> None:
    assert alerts.shown(channel) == said


def test_what_may_be_a_secret_is_a_few_digits_that_tell_one_from_another() -> None:
    one, two = (alerts.shown(f"https://u:secret@hooks.x.org/T/{n}") for n in "AB")
    assert one != two
    assert one.startswith("https://***@hooks.x.org/…")
    assert "discord" in alerts.shown("discord://token/secret")
    assert "token" not in alerts.shown("discord://token/secret")


def test_variables_are_found() -> None:
    assert alerts.variables("https://${A}@x/${B_2}/$C") == ("A", "B_2")


# ---------------------------------------------------------------- when


def test_a_page_climbs_and_a_warning_does_not() -> None:
    """Everybody of the levels that are reached, each once."""
    assert due(alert(), 0) == ["owner"]
    told = sent(alert(), target(0))
    assert due(told, 299) == []
    assert due(told, 300) == [target(1).channel, "rota"]
    assert due(sent(sent(told, target(1)), target(1, 1)), 900) == ["alertmanager://am:9093"]
    assert due(sent(alert(level="warn"), target(0)), 9_999) == []


def test_an_acknowledged_page_escalates_no_further() -> None:
    known = alerts.acknowledge(alert(), by="ada", at=AT)
    assert due(known, 9_999) == []
    assert (
        alerts.claim(known, target(0), "told", elapsed_s=0, now=NOW, lease_s=LEASE_S, by="x")
        == known
    )


def test_retries_back_off_and_never_end() -> None:
    one, waits, elapsed = alert(), [], 0.0
    for _ in range(14):
        one = sent(one, target(0), fault="refused", elapsed=elapsed)
        waits.append(one.deliveries[0].due_s - elapsed)
        elapsed = one.deliveries[0].due_s
    assert waits[:4] == [2, 4, 8, 16]
    assert waits[-1] == alerts.LONGEST_RETRY_S
    assert "owner" in due(one, elapsed)


def test_a_dead_level_falls_to_the_next_at_once_also_for_a_warning() -> None:
    assert due(failed(alert(), target(0), 2), 250) == ["owner"]
    for level in ("page", "warn"):
        dead = failed(alert(level=level), target(0))
        assert due(dead, 205) == [target(1).channel, "rota"]
    everyone = failed(alert(level="warn"), target(0))
    for rung in LEVELS[1:]:
        for one in rung.targets:
            everyone = failed(everyone, one)
    assert due(everyone, 299) == ["owner", target(1).channel, "rota", "alertmanager://am:9093"]


def test_a_level_in_which_one_channel_works_does_not_fall() -> None:
    half = sent(failed(alert(), target(0)), target(1, 1), elapsed=205)
    half = failed(half, target(1))
    assert "alertmanager://am:9093" not in due(half, 299)


def test_the_alert_about_a_channel_does_not_go_through_it() -> None:
    found = alerts.dead_channel("flights", Delivery(level=0, channel="owner", state="failed"))
    assert due(alert(found), 0) == [target(1).channel, "rota"]


def test_a_claim_holds_others_off_and_runs_out_whatever_the_clock_does() -> None:
    held = alerts.claim(alert(), target(0), "told", elapsed_s=0, now=NOW, lease_s=LEASE_S, by="one")
    assert alerts.claimed(held, target(0), "told", by="one", until=NOW + LEASE_S)
    other = alerts.claim(
        held, target(0), "told", elapsed_s=1, now=NOW + 1, lease_s=LEASE_S, by="two"
    )
    assert other == held
    assert due(held, 20, now=NOW + 20) == []
    assert due(held, 22, now=NOW + 22) == ["owner"], "its sender died"
    assert due(held, 1, now=NOW - 86_400) == ["owner"], "a clock that was set back does not silence"
    assert due(held, 1, now=NOW + 86_400) == ["owner"]


def test_a_delivered_message_is_not_claimed_again() -> None:
    told = sent(alert(), target(0))
    again = alerts.claim(
        told, target(0), "told", elapsed_s=0, now=NOW + 99, lease_s=LEASE_S, by="two"
    )
    assert again == told


# ---------------------------------------------------------------- clocks


def test_within_a_process_only_the_monotonic_clock_counts() -> None:
    """The wall clock jumps a day either way: ten seconds have passed."""
    for wall in (NOW - 86_400, NOW + 86_400):
        assert alerts.passed(alert(), LEVELS, 40.0, 10.0, wall) == 50.0


def test_between_processes_a_clock_that_went_back_silences_no_alert() -> None:
    old = alert(elapsed_s=290.0)
    began = alerts.passed(old, LEVELS, 0.0, None, NOW - 86_400)
    assert began == 290.0
    assert alerts.passed(old, LEVELS, began, 10.0, NOW - 86_390) == 300.0


def test_between_processes_a_clock_that_went_forward_brings_one_level_and_nothing_twice() -> None:
    old = sent(alert(), target(0))
    assert alerts.passed(old, LEVELS, 0.0, None, NOW + 60) == 60.0
    jumped = alerts.passed(old, LEVELS, 0.0, None, NOW + 30 * 86_400)
    assert jumped == 300.0
    assert due(old, jumped, now=NOW + 30 * 86_400) == [target(1).channel, "rota"]


def test_without_levels_time_still_passes() -> None:
    assert alerts.passed(alert(), (), 0.0, None, NOW + 9) == 9.0


_steps = st.lists(
    st.tuples(
        st.floats(0.1, 200.0),  # seconds that pass
        st.sampled_from([0.0, 0.0, 0.0, -1e6, -400.0, 250.0, 1e6]),  # the wall clock jumps
        st.booleans(),  # control is killed and started again
    ),
    max_size=40,
)


@given(_steps)
def test_however_clocks_jump_and_control_dies_every_recipient_gets_one_message(steps: Any) -> None:
    """And not later than the time that passed says, but for a minute for each death."""
    one, wall, elapsed, spent, deaths = alert(), NOW, 0.0, 0.0, 0
    since: float | None = None
    told: list[str] = []
    for seconds, jump, dies in [*steps, (1.0, 0.0, False)]:
        wall += seconds + jump
        spent += seconds
        since = None if dies else seconds
        deaths += dies
        before = elapsed
        elapsed = alerts.passed(one, LEVELS, elapsed, since, wall)
        if dies:
            assert sum(r.after_s <= elapsed for r in LEVELS) <= 1 + sum(
                r.after_s <= before for r in LEVELS
            )
        for to, kind in alerts.due(one, LEVELS, elapsed, now=wall, lease_s=LEASE_S, anew=dies):
            one = alerts.claim(one, to, kind, elapsed_s=elapsed, now=wall, lease_s=LEASE_S, by="x")
            one = alerts.record(one, to, kind, fault="", elapsed_s=elapsed, now=wall, at=AT)
            told.append(to.channel)
        if elapsed - one.elapsed_s >= 60:
            one = msgspec.structs.replace(one, elapsed_s=elapsed, seen=wall)
    assert len(told) == len(set(told))
    least = spent - sum(min(s, 200.0) + 60.0 for s, _, dies in steps if dies)
    wanted = [t.channel for rung in LEVELS if rung.after_s <= least for t in rung.targets]
    assert set(wanted) <= set(told)


# ---------------------------------------------------------------- the end


def test_only_recipients_of_an_alert_get_its_end() -> None:
    over = alerts.resolve(sent(alert(), target(0)), reason="r2 left", at=AT)
    assert due(over, 9_999) == ["owner"]
    assert not alerts.finished(over, LEVELS, 9_999)
    told = sent(over, target(0), kind="resolved", elapsed=9_999)
    assert alerts.finished(told, LEVELS, 9_999)


def test_the_person_who_was_on_duty_gets_the_end_though_another_is_now() -> None:
    rota = target(1, 1)
    other = alerts.rungs(POLICY, NOW + 7 * 86_400)
    over = alerts.resolve(sent(alert(), rota), reason="r2 left", at=AT)
    ((found, _),) = alerts.due(over, other, 400, now=NOW, lease_s=LEASE_S)
    assert (found.who, found.url) == (rota.who, rota.url)


def test_an_undelivered_page_is_sent_at_its_end_and_a_warning_is_not() -> None:
    quick = alerts.resolve(failed(alert(), target(0), 1), reason="r2 left", at=AT)
    assert due(quick, 10) == ["owner"]
    dead = failed(quick, target(0), kind="resolved")
    assert due(dead, 205) == [target(1).channel, "rota"]
    heard = sent(dead, target(1, 1), kind="resolved", elapsed=205)
    assert "rota" not in due(heard, 9_999)
    warn = alerts.resolve(alert(level="warn"), reason="r2 left", at=AT)
    assert alerts.finished(warn, LEVELS, 10)


def test_a_notice_to_an_unreachable_recipient_is_given_up() -> None:
    over = alerts.resolve(sent(alert(), target(0)), reason="r2 left", at=AT)
    assert not alerts.finished(failed(over, target(0), 11, kind="resolved"), LEVELS, 1e6)
    assert alerts.finished(failed(over, target(0), 12, kind="resolved"), LEVELS, 1e6)


def test_without_an_escalation_an_alert_is_open_until_it_is_over() -> None:
    none: tuple[Rung, ...] = ()
    assert due(alert(), 9_999, levels=none) == []
    assert not alerts.finished(alert(), none, 0)
    assert alerts.finished(alerts.resolve(alert(), reason="x", at=AT), none, 0)
