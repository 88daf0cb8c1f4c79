"""Announcements of successes: sent once for each entry of the ledger, and never an alert."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
from msgspec import UNSET

from contract.receivers import Web
from contract.sql_world import POLICY
from contract.test_alerts import HandClock, Place
from kedge.adapters.channels.alertmanager import alert_group, posted_alert
from kedge.config.load import read
from kedge.config.model import Alerts
from kedge.core.alerts import alerts
from kedge.core.alerts.alerts import NOTICES, SuccessAnnouncement, Topic, message
from kedge.core.alerts.announcements import announced
from kedge.core.codec import fingerprint
from kedge.core.errors import BadConfig
from kedge.core.links import PageLinks
from kedge.core.release import commands
from kedge.core.release.commands import Canary, Drill, Promote, Return, Rollback
from kedge.core.values import ActorKind, AnnouncePolicy, Contact, Escalation, Policy
from kedge.engine.control.alerting import Alerting
from kedge.operations.alerts import outgoing, test_of
from kedge.workspace import Workplace

test_of.__test__ = False  # type: ignore[attr-defined]
BOTH: tuple[Literal["promoted", "rolled_back"], ...] = ("promoted", "rolled_back")
LINKS = PageLinks("https://kedge.example.org")


@pytest.fixture
def web() -> Iterator[Web]:
    made = Web()
    yield made
    made.close()


def policy_of(web: Web, **announce: Any) -> Policy:
    return msgspec.structs.replace(
        POLICY,
        escalation=(Escalation("0s", (f"{web.url}/0",)), Escalation("5m", (f"{web.url}/1",))),
        announce=AnnouncePolicy(**{"events": BOTH, "to": (f"{web.url}/news",), **announce}),
    )


@pytest.fixture
def place(tmp_path: Path, web: Web) -> Place:
    """A place that has seen the announcement of its first promotion."""
    made = Place(tmp_path, policy_of(web))
    made.look()
    web.got.clear()
    return made


def news(web: Web, path: str = "/news") -> list[str]:
    return [got.body["title"] for got in web.got if got.path == path]


def test_promotions_and_rollbacks_are_announced_once_each_with_their_page(
    place: Place, web: Web
) -> None:
    place.one._channels.links = LINKS
    (entry,) = place.world.do(Promote(release=2, full=True, override="tested"), by="ada")
    for _ in range(3):
        place.look()
    (got,) = [got.body for got in web.got if got.path == "/news"]
    assert got["title"] == "[kedge promoted] flights: r2 is production, r1 is the way back"
    assert (got["status"], got["level"], got["number"]) == ("announced", "info", 0)
    assert got["dedup_key"] == f"kedge/flights/promoted:{entry.seq}"
    assert got["link"] == LINKS.decision("flights", entry.seq)
    assert "by ada" in got["text"]
    assert "kedge ack" not in got["text"]
    web.got.clear()
    place.world.do(Rollback(), reason="late flights", by="ben")
    place.look()
    assert news(web) == [
        "[kedge rolled back] flights: production went back from r2 to r1; r2 is condemned"
    ]
    assert "by ben: late flights" in web.bodies[0]["text"]


def test_an_announcement_is_no_alert_and_no_further_level_gets_it(place: Place, web: Web) -> None:
    place.world.do(Canary(release=2, weight=500))
    place.world.do(Rollback())
    place.look()
    place.clock.go(3_600)
    place.look()
    assert place.open() == {}
    assert place.store.listed("flights", over=True, limit=9) == ()
    assert place.notes() == []
    assert [got.path for got in web.got] == ["/news"]
    assert place.store.announcements() == ()


def test_without_channels_of_its_own_the_first_level_gets_it(tmp_path: Path, web: Web) -> None:
    made = Place(tmp_path, policy_of(web, to=()))
    made.look()
    assert [got.path for got in web.got] == ["/0"]


def test_only_the_named_events_are_announced(tmp_path: Path, web: Web) -> None:
    made = Place(tmp_path, policy_of(web, events=("rolled_back",)))
    made.world.do(Promote(release=2, full=True, override="a test"))
    made.look()
    assert news(web) == []
    made.world.do(Rollback())
    made.look()
    assert len(news(web)) == 1


def test_by_default_nothing_is_announced(tmp_path: Path, web: Web) -> None:
    policy = msgspec.structs.replace(policy_of(web), announce=UNSET)
    made = Place(tmp_path, policy)
    made.look()
    assert web.got == []


def test_a_drill_is_neither_a_promotion_nor_a_rollback(place: Place, web: Web) -> None:
    place.world.do(Promote(release=2, full=True, override="a test"))
    place.look()
    web.got.clear()
    until = place.clock.unix() + 10
    place.world.do(Drill(until=until))
    place.world.do(Return(until=until))
    place.look()
    assert news(web) == []


def test_a_canary_that_is_rolled_back_is_announced_beside_the_patrols_alert(
    place: Place, web: Web
) -> None:
    place.world.do(Canary(release=2, weight=500))
    place.world.do(Rollback(), by="patrol@host", actor=ActorKind.PATROL)
    place.look()
    assert news(web) == ["[kedge rolled back] flights: r2 went from 5 % to zero and is condemned"]
    assert [alert.topic for alert in place.open().values()] == [Topic.ROLLED_BACK]


class Killed(BaseException):
    """The process dies here."""


@pytest.mark.parametrize("before_sending", [True, False])
def test_a_control_that_dies_loses_no_announcement_and_the_next_one_repeats_none_that_was_recorded(
    place: Place, web: Web, before_sending: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It dies after the entry was read: before the message was sent, or with it recorded."""
    place.world.do(Promote(release=2, full=True, override="a test"))
    if before_sending:

        def dies(self: Alerting) -> None:
            raise Killed

        with monkeypatch.context() as patched:
            patched.setattr(Alerting, "_send_due", dies)
            with pytest.raises(Killed):
                place.one.look()
        assert len(place.store.announcements()) == 1
    else:
        place.look()
    place.look(place.fresh("two"))
    place.look(place.fresh("three"))
    assert len(news(web)) == 1


def test_two_controls_at_once_announce_an_entry_once(place: Place, web: Web) -> None:
    two = place.fresh("two")
    place.world.do(Promote(release=2, full=True, override="a test"))
    for who in (place.one, two, place.one, two):
        place.look(who)
    assert len(news(web)) == 1


def test_a_dead_channel_is_an_alert_and_the_announcement_ends(place: Place, web: Web) -> None:
    web.down.add("/news")
    place.world.do(Promote(release=2, full=True, override="a test"))
    place.look()
    for _ in range(NOTICES + 2):
        place.clock.go(alerts.LONGEST_RETRY_S)
        place.look()
    (dead,) = (alert for alert in place.open().values() if alert.topic is Topic.CHANNEL)
    assert "does not deliver" in dead.summary
    assert ("/0", dead.key) in [(got.path, got.body["key"]) for got in web.got]
    assert len(news(web)) == NOTICES
    assert place.store.announcements() == ()
    web.down.clear()
    place.world.do(Rollback())
    place.look()
    assert dead.key not in place.open()  # it delivers again


def test_a_test_of_the_alerts_tries_the_channels_of_announcements_too(
    place: Place, web: Web
) -> None:
    found = test_of(Workplace(place.world.state_dir), "flights", outgoing(Alerts()), by="ada")
    assert [[one.channel for one in level.channels] for level in found.levels][-1:] == [
        [alerts.shown(f"{web.url}/news")]
    ]


def test_alertmanager_gets_news_that_opens_no_incident() -> None:
    clock = HandClock()
    sent = SuccessAnnouncement(
        number=7,
        endpoint="flights",
        key="promoted:7",
        topic=Topic.PROMOTED,
        level="warn",
        lasts="event",
        summary="r2 is production",
        opened_at=clock.now(),
    )
    news = message(sent, "told", LINKS)
    assert posted_alert(news).labels["severity"] == "info"
    assert alert_group(news).status == "resolved"


def test_of_all_events_promotions_and_rollbacks_are_announced() -> None:
    at = "2026-11-23T12:00:00Z"
    news: tuple[commands.AnyEvent, ...] = (
        commands.Promoted(2, 1, at),
        commands.RolledBack(1, 2, at),
        commands.CandidateRolledBack(2, 500),
    )
    assert [announced(event) for event in news] == ["promoted", "rolled_back", "rolled_back"]
    others: tuple[commands.AnyEvent, ...] = (
        commands.DrillStarted(1, 2, 1.0),
        commands.DrillEnded(2),
        commands.Aborted(2),
        commands.Paused(),
    )
    assert [announced(event) for event in others] == [None] * 4


def test_a_policy_without_it_has_the_digest_of_a_kedge_that_does_not_know_it() -> None:
    assert b"announce" not in msgspec.json.encode(Policy())
    assert fingerprint(Policy()) == fingerprint(msgspec.to_builtins(Policy()))


@pytest.mark.parametrize(
    "text, fault",
    [
        ('{events = ["promotd"], to = ["https://x.org/y"]}', "did you mean promoted?"),
        ('{events = [], to = ["https://x.org/y"]}', "at least one"),
        ('{events = ["promoted"]}', "has no recipient"),
        ('{events = ["promoted"], to = ["owner"]}', "there is no endpoints.flights.owner"),
        ('{events = ["promoted"], to = ["somewhere"]}', "is not a channel"),
        ('{to = ["https://x.org/y"]}', "is missing"),
        ('["promoted"]', "expected a table"),
    ],
)
def test_a_fault_of_the_setting_is_named(text: str, fault: str) -> None:
    with pytest.raises(BadConfig, match="announce") as raised:
        read(f"[endpoints.flights]\nannounce = {text}\n")
    assert fault in str(raised.value)


def test_the_setting_is_read_and_inherited() -> None:
    text = (
        '[defaults]\nannounce = {events = ["promoted", "rolled_back"]}\n'
        'owner = {name = "Ada Lovelace", contact = "mailto:ada@example.org"}\n'
        'escalation = [{after = "0s", to = ["owner"]}]\n[endpoints.flights]\n'
    )
    policy = read(text).endpoints["flights"]
    assert policy.announce == AnnouncePolicy(events=BOTH)
    assert policy.owner == Contact("Ada Lovelace", "mailto:ada@example.org")
    (level,) = alerts.announced_to(policy, 0.0)
    assert [target.url for target in level.targets] == ["mailto:ada@example.org"]
