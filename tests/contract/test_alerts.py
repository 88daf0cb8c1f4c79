"""Alerts on a real ledger, with a clock of the test's own and real receivers at the other end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from contract.receivers import Mail, Web
from contract.sql_world import POLICY, World, world
from kedge.adapters.channels.dispatch import Outgoing
from kedge.adapters.sql.alerts import SqlAlerts
from kedge.cli.text.alerts import alert_test_text, alerts_text
from kedge.config.model import Alerts
from kedge.core.alerts import alerts, conditions
from kedge.core.alerts.alerts import Alert, Message, Raise, Sight, Topic
from kedge.core.alerts.conditions import of_replicas
from kedge.core.automation import Decision
from kedge.core.errors import Refused, Unavailable
from kedge.core.links import NO_LINKS
from kedge.core.release.commands import Canary, Drill, Promote, Return, Rollback, Shadow, Thaw
from kedge.core.stored.ledger import Note
from kedge.core.values import ActorKind, Contact, Escalation, Policy, Rota, Stage
from kedge.engine.control.alerting import BLIND_S, Alerting
from kedge.engine.loop import Duty
from kedge.engine.process_faults import ProcessFaults
from kedge.operations.alerts import (
    acknowledge,
    alerts_of,
    outgoing,
    test_of,
)
from kedge.workspace import Workplace
from support.waiting import wait_until

test_of.__test__ = False  # type: ignore[attr-defined]

PAGE = Raise(
    key="failing:r2",
    topic=Topic.FAILING,
    level="page",
    lasts="condition",
    summary="r2 fails",
    subject=2,
)
FAIL = Decision("fail", "guardrail", "errors: 3 times")
WELL = Decision("inconclusive", "waiting", "100 of 1000 pairs")
AT = "2026-11-23T12:00:00.000000Z"


class HandClock:
    """A clock that is set by hand; both of its faces apart."""

    def __init__(self) -> None:
        self.wall = 1_800_000_000.0
        self.ticks = 1_000.0

    def now(self) -> str:
        return datetime.fromtimestamp(self.wall, UTC).isoformat(timespec="microseconds")

    def unix(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.ticks

    def sleep(self, seconds: float) -> None:
        self.go(seconds)

    def go(self, seconds: float) -> None:
        """Time passes."""
        self.wall += seconds
        self.ticks += seconds


class Place:
    """A world whose flights escalates over three channels of one web server."""

    def __init__(self, tmp_path: Path, policy: Policy) -> None:
        self.world: World = world(tmp_path, releases=2, configured=False)
        self.world.configure(policy)
        self.world.do(Promote(release=1))
        self.clock = HandClock()
        self.sight = Sight()
        self.leads = True
        self.one = self.fresh("one")
        self.store = Workplace(self.world.state_dir).alerts

    def fresh(self, by: str, timeout_s: float = 2.0, *, stands_in: bool = False) -> Alerting:
        """Another control on the same files: what takes over when one has died."""
        place = Workplace(self.world.state_dir, patience_s=0.2, actor=ActorKind.CONTROL)
        return Alerting(
            Duty(
                self.clock, ProcessFaults(self.clock), leads=lambda: self.leads, by=f"alerting@{by}"
            ),
            store=place.alerts,
            ledger=place.ledger,
            stamp=place.ledger.stamp,
            channels=Outgoing(smtp=None, sender="kedge@x.org", timeout_s=timeout_s, environ={}),
            sight=lambda: self.sight,
            remembered=dict,
            stands_in=stands_in,
        )

    def sees(self, decision: Decision) -> None:
        """The patrol looks, and decides."""
        self.sight = Sight({"flights": (self.world.row().epoch, decision)})

    def look(self, who: Alerting | None = None) -> None:
        """A look, and another one when what it sent has landed."""
        who = who or self.one
        who.look()
        wait_until(lambda: who._landed.qsize() == len(who._flying), "messages to land")
        who.look()
        wait_until(lambda: who._landed.qsize() == len(who._flying), "messages to land")
        who.look()

    def canary(self) -> None:
        self.world.do(Canary(release=2, weight=500, override="a test"))
        self.look()
        for alert in self.store.listed("flights", over=False, limit=9):
            acknowledge(Workplace(self.world.state_dir), alert.number, "ada")
        self.look()

    def open(self) -> dict[str, Alert]:
        return {a.key: a for a in self.store.listed("flights", over=False, limit=99)}

    def notes(self) -> list[str]:
        entries = self.world.ledger.history("flights", 100)
        kinds = [getattr(e.event, "kind", "") for e in sorted(entries, key=lambda e: e.seq)]
        return [kind for kind in kinds if kind.startswith("alert_")]


@pytest.fixture
def web() -> Iterator[Web]:
    made = Web()
    yield made
    made.close()


def policy_of(web: Web, **more: Any) -> Policy:
    return msgspec.structs.replace(
        POLICY,
        escalation=(
            Escalation("0s", (f"{web.url}/0",)),
            Escalation("5m", (f"{web.url}/1",)),
            Escalation("15m", (f"{web.url}/2",)),
        ),
        **more,
    )


@pytest.fixture
def place(tmp_path: Path, web: Web) -> Place:
    """A place whose canary is under way; what its override told is forgotten."""
    made = Place(tmp_path, policy_of(web))
    made.canary()
    web.got.clear()
    return made


def heard(web: Web, status: str = "firing") -> list[tuple[str, str]]:
    return [(got.path, got.body["key"]) for got in web.got if got.body["status"] == status]


# ---------------------------------------------------------------- the store


def test_an_alert_is_opened_once_however_many_raise_it(tmp_path: Path) -> None:
    """Eight at once, each on a connection of its own."""
    made = world(tmp_path)
    found: list[Alert] = []

    def raises() -> None:
        store = Workplace(made.state_dir).alerts
        found.extend(store.raise_all([("flights", PAGE)], by="me", at=AT, now=1.0))

    threads = [threading.Thread(target=raises) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [alert.number for alert in found] == [1]
    assert len(SqlAlerts(made.database).live()) == 1


def test_a_number_is_never_given_twice_and_a_key_again_when_it_is_over(tmp_path: Path) -> None:
    made = world(tmp_path)
    store = SqlAlerts(made.database)
    (first,) = store.raise_all([("flights", PAGE)], by="me", at=AT, now=1.0)
    assert store.raise_all([("flights", PAGE)], by="me", at=AT, now=1.0) == ()
    store.change(first.number, lambda a: alerts.resolve(a, reason="gone", at=AT), by="me", at=AT)
    (second,) = store.raise_all([("flights", PAGE)], by="me", at=AT, now=1.0)
    assert (first.number, second.number) == (1, 2)
    assert [a.number for a in store.listed(None, over=True, limit=9)] == [2, 1]
    assert store.change(99, lambda a: a, by="me", at=AT) is None
    assert store.find(99) is None


def test_the_history_has_its_opening_its_acknowledgement_and_its_end(tmp_path: Path) -> None:
    made = world(tmp_path)
    store = SqlAlerts(made.database)
    event = msgspec.structs.replace(PAGE, lasts="event", detail="3 times the errors")
    store.raise_all([("flights", event)], by="alerting@x", at=AT, now=1.0)
    acknowledge(Workplace(made.state_dir), 1, "ada")
    found = {
        e.event.kind: (e.by, e.reason)  # type: ignore[union-attr]
        for e in made.ledger.history("flights", 3)
    }
    assert found == {
        "alert_opened": ("alerting@x", "3 times the errors"),
        "alert_acknowledged": ("ada", ""),
        "alert_resolved": ("ada", "ada has seen it"),
    }
    assert made.ledger.verify() == []


def test_an_event_is_raised_once_though_two_processes_read_it(tmp_path: Path) -> None:
    made = world(tmp_path)
    one, two = (Workplace(made.state_dir).alerts for _ in range(2))
    last = made.ledger.history("flights", 1)[0].seq
    event = msgspec.structs.replace(PAGE, lasts="event")
    assert len(one.raise_all([("flights", event)], by="me", at=AT, now=1.0, seen=last)) == 1
    acknowledge(Workplace(made.state_dir), 1, "ada")
    assert two.raise_all([("flights", event)], by="me", at=AT, now=1.0, seen=last) == ()
    news = [getattr(e.event, "kind", "") for e in two.news(0, 99)]
    assert news == ["alert_opened", "alert_acknowledged", "alert_resolved"]


def test_an_acknowledgement_is_refused_when_there_is_nothing_to_have(tmp_path: Path) -> None:
    made = world(tmp_path)
    place = Workplace(made.state_dir)
    place.alerts.raise_all([("flights", PAGE)], by="me", at=AT, now=1.0)

    def code(number: int) -> str:
        with pytest.raises(Refused) as refused:
            acknowledge(place, number, "ben")
        return refused.value.code

    assert code(7) == "unknown_alert"
    acknowledge(place, 1, "ada")
    assert code(1) == "already_acknowledged"
    place.alerts.raise_all([("taxis", PAGE)], by="me", at=AT, now=1.0)
    place.alerts.change(2, lambda a: alerts.resolve(a, reason="x", at=AT), by="me", at=AT)
    assert code(2) == "already_resolved"


# ---------------------------------------------------------------- raising and resolving


def test_news_that_are_none_are_marked_as_read_now_and_then(place: Place) -> None:
    for _ in range(600):
        place.world.ledger.note("flights", Note(kind="verdict", body={}), by="x", reason="", at=AT)
    place.look()
    assert len(place.fresh("second")._store.news(0, 9_999)) < 500


def test_an_override_is_sent_to_the_first_level(tmp_path: Path, web: Web) -> None:
    place = Place(tmp_path, policy_of(web))
    place.world.do(Canary(release=2, weight=500, override="hurry"))
    place.look()
    assert heard(web) == [("/0", "override:r2")]
    assert web.bodies[0]["detail"] == "hurry"


def test_a_page_is_sent_and_its_end_too_with_its_reason(place: Place, web: Web) -> None:
    place.sees(FAIL)
    place.look()
    assert heard(web) == [("/0", "failing:r2")]
    place.world.do(Rollback())
    place.look()
    assert "failing:r2" in place.open(), "the patrol has not seen this row yet"
    place.sight = Sight()
    place.look()
    assert heard(web, "resolved") == [("/0", "failing:r2")]
    assert web.bodies[-1]["reason"] == "r2 left the rollout"
    assert place.open() == {}
    assert place.store.live() == ()


def test_a_page_of_a_failed_shadow_ends_with_the_operator_and_never_as_resolved(
    tmp_path: Path, web: Web
) -> None:
    place = Place(tmp_path, policy_of(web))
    place.world.do(Shadow(release=2))
    place.sees(FAIL)
    place.look()
    assert heard(web) == [("/0", "failing:r2")]
    place.world.do(Canary(release=2, weight=500, override="an incident"))
    place.sees(Decision("inconclusive", "waiting", "0 of 10 s at this step"))
    another = place.fresh("another")
    place.look(another)
    assert heard(web, "continued") == [("/0", "failing:r2")]
    (end,) = (body for body in web.bodies if body["status"] == "continued")
    assert end["reason"] == "continued by ada: an incident"
    assert heard(web, "resolved") == []
    assert place.notes()[-1] == "alert_continued"
    (over,) = (a for a in place.store.listed("flights", over=True, limit=9) if not a.open)
    assert (over.ended, over.resolved) == ("continued", "continued by ada: an incident")


def test_a_rollback_by_the_patrol_is_alerted_though_it_died_right_after(
    place: Place, web: Web
) -> None:
    place.world.do(Rollback(), by="patrol@here", actor=ActorKind.PATROL, reason="errors: 3 times")
    place.look(place.fresh("another"))
    place.look(place.fresh("third"))
    assert heard(web) == [("/0", "rolled_back:r2")]
    assert web.bodies[0]["detail"] == "errors: 3 times"


def test_a_flicker_of_broken_input_is_no_alert(place: Place, web: Web) -> None:
    broken = Decision("broken input", "unread", "the disk is full")
    for decision in (broken, WELL, broken):
        place.sees(decision)
        place.look()
        place.clock.go(40)
    place.look()
    assert heard(web) == []
    place.clock.go(25)
    place.look()
    assert heard(web) == [("/0", "broken")]
    place.sees(WELL)
    place.look()
    assert "broken" in place.open()
    place.clock.go(11)
    place.look()
    assert heard(web, "resolved") == [("/0", "broken")]


def test_a_rollback_under_way_is_not_reported_as_a_failure(place: Place, web: Web) -> None:
    place.sees(msgspec.structs.replace(FAIL, command=Rollback()))
    place.look()
    assert place.open() == {}
    place.clock.go(6)
    place.look()
    assert "was not carried out" in place.open()["failing:r2"].summary


def test_a_blind_patrol_is_reported(place: Place, web: Web) -> None:
    place.sight = Sight(fault="evidence_locked: another process holds it")
    place.look()
    place.clock.go(61)
    place.look()
    assert heard(web) == [("/0", "blind")]


def test_no_alert_of_a_restored_endpoint_is_sent_until_a_person_confirms_it(
    place: Place, web: Web
) -> None:
    """Neither what was open in the backup nor what happens there; and no level comes nearer meanwhile."""
    place.sees(FAIL)
    place.look()
    web.got.clear()
    place.world.ledger.begin_restored(backup=AT, above=1_000, by="ada", reason="a test", at=AT)
    place.world.do(Promote(full=True, override="a test"), at=AT)
    there = place.fresh("there")
    for _ in range(3):
        place.sees(FAIL)
        place.clock.go(3_600)
        place.look(there)
    assert web.got == []
    assert place.notes() == ["alert_opened", "alert_acknowledged", "alert_resolved", "alert_opened"]
    place.world.do(Thaw(), at=AT)
    place.sees(Decision("fail", "late_regression", "quality: twice"))
    place.look(there)
    place.clock.go(60)
    place.look(there)
    assert web.got, "it is the real one now"


# ---------------------------------------------------------------- escalating


def test_a_page_climbs_until_it_is_acknowledged(place: Place, web: Web) -> None:
    place.sees(FAIL)
    place.look()
    place.clock.go(301)
    place.look()
    assert [path for path, _ in heard(web)] == ["/0", "/1"]
    acknowledge(Workplace(place.world.state_dir), place.open()["failing:r2"].number, "ada")
    place.clock.go(10_000)
    place.look()
    assert [path for path, _ in heard(web)] == ["/0", "/1"]
    assert place.notes()[-2:] == ["alert_opened", "alert_acknowledged"]


@pytest.mark.parametrize("jump", [-86_400.0, 86_400.0])
def test_a_clock_that_jumps_silences_no_alert_and_sends_none_twice(
    place: Place, web: Web, jump: float
) -> None:
    """In the middle of an escalation, and while a message is under way."""
    place.sees(FAIL)
    place.one.look()
    place.clock.wall += jump
    place.look()
    place.clock.go(100)
    place.look()
    assert [path for path, _ in heard(web)] == ["/0"]
    place.clock.wall -= 2 * jump
    place.clock.go(201)
    place.look()
    assert [path for path, _ in heard(web)] == ["/0", "/1"]
    place.clock.go(600)
    place.look()
    assert [path for path, _ in heard(web)] == ["/0", "/1", "/2"]


@pytest.mark.parametrize(("jump", "paths"), [(-86_400.0, ["/0"]), (30 * 86_400.0, ["/0", "/1"])])
def test_a_clock_that_jumped_while_control_was_dead_brings_one_level_at_most(
    place: Place, web: Web, jump: float, paths: list[str]
) -> None:
    place.sees(FAIL)
    place.look()
    place.clock.wall += jump
    second = place.fresh("second")
    place.look(second)
    assert [path for path, _ in heard(web)] == paths
    place.clock.go(301)
    place.look(second)
    assert [path for path, _ in heard(web)] == ["/0", "/1"]


def test_time_passes_while_control_is_dead(place: Place, web: Web) -> None:
    place.sees(FAIL)
    place.look()
    place.clock.go(299)
    second = place.fresh("second")
    place.look(second)
    place.clock.go(2)
    place.look(second)
    assert [path for path, _ in heard(web)] == ["/0", "/1"]


def test_two_at_once_tell_everybody_once(place: Place, web: Web) -> None:
    """Should the lock ever fail: the claim does not."""
    two = place.fresh("two")
    place.sees(FAIL)
    for _ in range(3):
        for who in (place.one, two):
            place.look(who)
        place.clock.go(150.5)
    for who in (place.one, two):
        place.look(who)
    assert [path for path, _ in heard(web)] == ["/0", "/1"]
    assert len(place.open()) == 1


def test_of_two_that_claim_in_the_same_instant_one_does(place: Place, web: Web) -> None:
    rivals = [place.fresh(f"rival {number}") for number in range(4)]
    place.sees(FAIL)
    place.one._send_due = lambda: None  # type: ignore[method-assign] # it only opens
    place.one.look()
    together = threading.Barrier(len(rivals))

    def race(who: Alerting) -> None:
        together.wait()
        place.look(who)

    threads = [threading.Thread(target=race, args=(who,)) for who in rivals]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert heard(web) == [("/0", "failing:r2")]


def test_a_recipient_in_the_instant_of_the_end_gets_it_too(place: Place, web: Web) -> None:
    web.delay_s = 0.001
    place.sees(FAIL)
    place.one.look()
    place.world.do(Rollback())
    place.sight = Sight()
    place.one.look()
    place.look()
    assert heard(web, "resolved") == [("/0", "failing:r2")]


def test_one_that_does_not_lead_raises_and_sends_nothing(place: Place, web: Web) -> None:
    place.sees(FAIL)
    place.leads = False
    thread = threading.Thread(target=place.one.loop.run)
    thread.start()
    thread.join(0.2)
    place.one.loop.stop()
    thread.join()
    assert place.open() == {}


def test_a_message_claimed_by_a_dead_sender_is_sent_when_the_claim_expires(
    place: Place, web: Web
) -> None:
    """It may have been sent: at least once."""
    place.sees(FAIL)
    place.one._fly = lambda *_: None  # type: ignore[method-assign] # it dies between claim and send
    place.one.look()
    second = place.fresh("second")
    place.look(second)
    assert heard(web) == []
    place.clock.go(second._lease_s + 0.1)
    place.look(second)
    assert heard(web) == [("/0", "failing:r2")]


# ---------------------------------------------------------------- channels that do not deliver


def dying(place: Place, times: int = 3) -> None:
    """Long enough that a channel fails so often."""
    for attempt in range(times):
        place.look()
        place.clock.go(2.0 ** (attempt + 1) + 0.1)
    place.look()


def test_a_dead_channel_falls_to_the_next_level_and_is_itself_an_alert(
    place: Place, web: Web
) -> None:
    web.down = {"/0"}
    place.sees(FAIL)
    dying(place)
    keys = [(path, key.partition(":")[0]) for path, key in heard(web)]
    assert keys[:3] == [("/0", "failing")] * 3
    assert set(keys[3:]) >= {("/1", "failing"), ("/1", "channel")}
    channel = next(key for key in place.open() if key.startswith("channel:"))
    assert "/0" not in channel, "a path may be a secret"
    web.down.clear()
    place.clock.go(300)
    place.look()
    assert channel not in place.open(), "it delivers again"


def test_when_every_channel_is_down_the_alert_stays_and_arrives_in_the_end(
    place: Place, web: Web
) -> None:
    web.close()
    place.sees(FAIL)
    for _ in range(5):
        dying(place)
    found = alerts_of(Workplace(place.world.state_dir), "flights", over=False)
    assert [one.key.partition(":")[0] for one in found] == ["channel"] * 3 + ["failing"]
    assert "COULD NOT BE SENT" in alerts_text(found)
    again = Web(web.port)
    place.clock.go(301)
    place.look()
    again.close()
    assert {path for path, key in heard(again) if key == "failing:r2"} >= {"/0", "/1"}


def test_a_control_that_just_started_retries_failed_deliveries_at_once(
    place: Place, web: Web
) -> None:
    """It may know a password that the one before it did not."""
    web.down = {"/0"}
    place.sees(FAIL)
    dying(place, 1)
    before = len(heard(web))
    web.down.clear()
    place.look(place.fresh("second"))
    assert len(heard(web)) == before + 1
    assert len(place.open()["failing:r2"].told) == 1


def test_a_channel_that_no_level_names_any_more_is_no_alert(place: Place, web: Web) -> None:
    web.down = {"/0"}
    place.sees(FAIL)
    dying(place)
    (channel,) = [a for a in place.open().values() if a.lasts == "channel"]
    other = msgspec.structs.replace(POLICY, escalation=(Escalation("0s", (f"{web.url}/9",)),))
    place.world.configure(other)
    place.sees(FAIL)
    place.look()
    found = place.store.find(channel.number)
    assert found is not None
    assert found.resolved == "no level names it now"


# ---------------------------------------------------------------- without the ledger


def test_the_loss_of_the_ledger_is_alerted_from_memory_and_recorded_when_it_is_back(
    place: Place, web: Web
) -> None:
    place.look()
    ledger = place.world.path
    away = ledger.with_suffix(".away")
    ledger.rename(away)
    place.one.look()
    place.clock.go(BLIND_S + 1)
    place.look()
    assert heard(web) == [("/0", "ledger")]
    place.clock.go(301)
    place.look()
    assert heard(web) == [("/0", "ledger"), ("/1", "ledger")]
    away.rename(ledger)
    place.look()
    assert sorted(heard(web, "resolved")) == [("/0", "ledger"), ("/1", "ledger")]
    (kept,) = [a for a in place.store.listed(None, over=True, limit=9) if a.key == "ledger"]
    assert kept.resolved.startswith("it is back after")
    assert place.notes()[-2:] == ["alert_opened", "alert_resolved"]


# ---------------------------------------------------------------- trying it out


def test_a_test_goes_through_every_level_and_its_result_is_kept(tmp_path: Path, web: Web) -> None:
    mail = Mail()
    start = "2020-01-01T00:00:00Z"
    people = (Contact("Ada", "ada@example.org"),)
    policy = msgspec.structs.replace(
        POLICY,
        owner=Contact("Ben", "ben@example.org"),
        rota=Rota(start, people),
        escalation=(Escalation("0s", ("owner", f"{web.url}/a")), Escalation("1m", ("rota",))),
    )
    place = Place(tmp_path, policy)
    here = Workplace(place.world.state_dir)
    ways = outgoing(Alerts(smtp=mail.url, timeout="2s"))
    found = test_of(here, "flights", ways, by="ada")
    assert found.delivered
    assert mail.recipients == ["ben@example.org", "ada@example.org"]
    assert web.bodies[0]["status"] == "test"
    assert "level 1  delivered  rota (Ada)" in alert_test_text(found)
    mail.close()
    web.close()
    found = test_of(here, "flights", ways, by="ada")
    assert not found.delivered
    kept = list(place.world.ledger.history("flights", 2))
    assert [e.event.body.delivered for e in kept] == [False, True]  # type: ignore[union-attr]
    assert place.notes() == ["alert_tested"] * 2


def test_a_test_that_is_delivered_ends_the_alert_about_its_channel(place: Place, web: Web) -> None:
    web.down = {"/0"}
    place.sees(FAIL)
    dying(place)
    assert any(a.lasts == "channel" for a in place.open().values())
    ways = Outgoing(smtp=None, sender="kedge@x.org", timeout_s=2, environ={})
    web.down.clear()
    test_of(Workplace(place.world.state_dir), "flights", ways, by="ada")
    assert not any(a.lasts == "channel" for a in place.open().values())


def test_without_an_escalation_a_test_is_refused_and_an_alert_says_so(tmp_path: Path) -> None:
    place = Place(tmp_path, POLICY)
    here = Workplace(place.world.state_dir)
    ways = Outgoing(smtp=None, sender="kedge@x.org", timeout_s=2, environ={})
    with pytest.raises(Refused) as refused:
        test_of(here, "flights", ways, by="ada")
    assert refused.value.code == "no_escalation"
    with pytest.raises(Refused) as refused:
        alerts_of(here, "taxis", over=False)
    assert refused.value.code == "unknown_endpoint"
    place.world.do(Canary(release=2, weight=500, override="hurry"))
    place.look()
    (one,) = alerts_of(here, None, over=False)
    assert one.standing == "not sent: the policy has no escalation"
    assert place.world.row().stage is Stage.CANARY


def test_a_delivery_while_the_ledger_is_away_is_recorded_later(place: Place, web: Web) -> None:
    """The ledger goes between the sending and the record."""
    place.sees(FAIL)
    place.one.look()
    wait_until(place.one._landed.qsize, "the message")
    away = place.world.path.with_suffix(".away")
    place.world.path.rename(away)
    place.one.look()
    away.rename(place.world.path)
    place.look()
    assert heard(web) == [("/0", "failing:r2")]
    assert len(place.open()["failing:r2"].told) == 1


def test_a_channel_that_raises_nothing_we_know_is_a_failed_attempt(place: Place) -> None:
    class Odd:
        timeout_s = 1.0
        links = NO_LINKS

        def send(self, url: str, message: Message) -> None:
            raise Unavailable("odd", code="channel_failed")

    place.one._channels = Odd()
    place.sees(FAIL)
    place.look()
    (delivery,) = place.open()["failing:r2"].deliveries
    assert (delivery.state, delivery.fault) == ("failed", "odd")


def test_a_drill_ends_no_alert_and_begins_none(tmp_path: Path, web: Web) -> None:
    """What is compared pauses; it is not over."""
    place = Place(tmp_path, policy_of(web))
    place.world.do(Promote(release=2, override="a test"))
    broken = Decision("broken input", "unwritten", "w0 cannot write what it counts")

    def pass_time(decision: Decision | None) -> None:
        for _ in range(8):
            place.sight = Sight()
            if decision is not None:
                place.sees(decision)
            place.look()
            place.clock.go(10)

    pass_time(broken)
    opened = place.open()["broken"]
    place.world.do(Drill(until=2_000_000_000.0))
    pass_time(None)
    assert place.open()["broken"].number == opened.number
    place.world.do(Return())
    pass_time(broken)
    assert place.open()["broken"].number == opened.number
    pass_time(WELL)
    assert "broken" not in place.open()


def test_faults_of_replicas_are_reported_at_an_endpoint_without_a_comparison(
    place: Place, web: Web
) -> None:
    """A worker that follows no ledger, and one that counts nothing: by name, until neither says so."""
    place.world.do(Rollback())
    place.sight = Sight(replicas=of_replicas({"w0": "an older copy"}, {"w1": "it is silent"}))
    place.look()
    assert set(place.open()) == {"history"}
    place.clock.go(conditions.UNWRITTEN_S)
    place.look()
    assert set(place.open()) == {"history", "recording"}
    assert "w1: it is silent" in place.open()["recording"].detail
    told = next(body for body in web.bodies if body["key"] == "history")
    assert "w0: an older copy" in told["detail"]
    place.sight = Sight()
    place.look()
    assert place.open() == {}


def test_an_alert_carries_the_ledgers_head_from_before_it(place: Place, web: Web) -> None:
    """So a mail holds a copy of it that cannot be changed with the ledger."""
    head = place.world.ledger.read().head
    assert head is not None
    place.sees(FAIL)
    place.look()
    assert place.open()["failing:r2"].head == head.short
    assert web.bodies[-1]["head"] == head.short
    assert f"ledger head: {head.short}" in web.bodies[-1]["text"]
