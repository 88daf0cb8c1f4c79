"""PageLinks in alerts, runbooks, receipts, drills and status: each opens its page in the real app."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from msgspec.json import encode

from contract.sql_world import World, world
from kedge.adapters.channels.alertmanager import alert_group, posted_alert
from kedge.adapters.channels.webhook import webhook_alert
from kedge.cli.text.alerts import alerts_text
from kedge.cli.text.receipt import receipt_text
from kedge.cli.text.status import status_text
from kedge.core.access import Access, AccessKind, Role
from kedge.core.alerts.alerts import Message, Raise, Topic, message
from kedge.core.links import PageLinks
from kedge.core.release.commands import Canary, Promote, Rollback
from kedge.core.runbook import Site, markdown, page
from kedge.core.stored.notes import DrillResult
from kedge.operations.alerts import alerts_of, runbook_of
from kedge.operations.drills import _file
from kedge.operations.receipts import describe_receipt
from kedge.operations.status.read import status_without_estimates
from kedge.workspace import Workplace
from support.pages import Pages

PUBLIC = "https://kedge.example.org/models"
LINKS = PageLinks(PUBLIC)
FAILING = Raise(
    key="failing:3",
    topic=Topic.FAILING,
    level="page",
    lasts="condition",
    summary="r3 fails on flights",
    detail="<b>errors</b>",
)


@pytest.fixture
def made(tmp_path: Path) -> World:
    made = world(tmp_path)
    made.do(Promote(release=1))
    made.do(Promote(release=2, full=True, override="a test"))
    made.do(Canary(release=3, weight=2500, override="a test"))
    return made


@pytest.fixture
def place(made: World) -> Workplace:
    return Workplace(made.state_dir, site=Site("host-1", None, PUBLIC))


@pytest.fixture
def pages(made: World) -> Iterator[Pages]:
    opened = Pages(made.state_dir)
    yield opened
    opened.close()


def told(place: Workplace) -> Message:
    """The message of an alert that is open in the ledger."""
    at, now = place.clock.now(), place.clock.unix()
    (alert,) = place.alerts.raise_all([("flights", FAILING)], by="patrol", at=at, now=now)
    return message(alert, "told", place.site.links)


def open_link(pages: Pages, link: str) -> str:
    """The page behind a link, as a proxy below its prefix asks for it."""
    assert link.startswith(f"{PUBLIC}/"), link
    parts = urlsplit(link)
    assert not parts.query
    assert not parts.fragment
    answer = pages.get(parts.path.removeprefix("/models"))
    assert answer.status_code == 200, link
    return re.sub(r"\s+", " ", answer.text)


def test_every_kind_of_link_opens_its_page(place: Workplace, pages: Pages) -> None:
    alert = told(place)
    receipt = place.control(lambda _: None, None).submit("flights", Rollback(), by="ada")
    done = describe_receipt(receipt, place.site.links)
    drill = _file(place, "flights", DrillResult(ok=True, release=1, total_s=0.2))
    (status,) = status_without_estimates(place, "flights")
    book = runbook_of(place, "flights", by="ada")
    (listed,) = alerts_of(place, "flights", over=False)
    shown = {
        alert.link: ("<title>Alert 1", "r3 fails on flights", "&lt;b&gt;errors"),
        listed.link: ("<title>Alert 1",),
        alert.runbook: ("Could it be rolled back now?", "Runbook"),
        book.link: ("Could it be rolled back now?",),
        done.link: (f'<h2 id="decision-h">Entry {done.seq}</h2>', "r3 went from 25 % to zero"),
        drill.link: ("a drill went back in 200 ms to r1",),
        status.link: ("<h1>flights</h1>", "Rollback lands on"),
    }
    for link, words in shown.items():
        text = open_link(pages, link)
        for word in words:
            assert word in text, (link, word)
    kinds = {name for name in vars(PageLinks) if not name.startswith("_")}
    assert kinds - set(dir(tuple)) == {"public_url", "to", "endpoint", "decision", "ready", "alert"}


def test_messages_have_the_link_in_the_field_of_their_format(place: Workplace) -> None:
    alert = told(place)
    assert f"dashboard: {LINKS.alert('flights', 1)}" in alert.text
    assert f"runbook: {LINKS.ready('flights')}" in alert.text
    hook = json.loads(encode(webhook_alert(alert)))
    assert (hook["link"], hook["runbook"]) == (alert.link, alert.runbook)
    posted = json.loads(encode(posted_alert(alert)))
    assert posted["generatorURL"] == alert.link
    assert posted["annotations"]["dashboard_url"] == alert.link
    assert posted["annotations"]["runbook_url"] == alert.runbook
    assert json.loads(encode(alert_group(alert)))["alerts"][0]["generatorURL"] == alert.link


def test_without_a_public_url_there_is_no_link_and_no_empty_field(made: World) -> None:
    place = Workplace(made.state_dir)
    alert = told(place)
    assert "dashboard:" not in alert.text
    posted = json.loads(encode(posted_alert(alert)))
    assert "generatorURL" not in posted
    assert posted["annotations"].keys() == {"summary", "description"}
    receipt = place.control(lambda _: None, None).submit("flights", Rollback(), by="ada")
    for text in (
        receipt_text(describe_receipt(receipt, place.site.links)),
        status_text(status_without_estimates(place, "flights")[0]),
        alerts_text(alerts_of(place, "flights", over=False)),
        markdown(runbook_of(place, "flights", by="ada")),
    ):
        assert "http" not in text


def test_terminals_print_the_link(place: Workplace) -> None:
    told(place)
    receipt = place.control(lambda _: None, None).submit("flights", Rollback(), by="ada")
    done = describe_receipt(receipt, place.site.links)
    assert receipt_text(done).splitlines()[-1].strip() == LINKS.decision("flights", done.seq)
    assert LINKS.alert("flights", 1) in alerts_text(alerts_of(place, "flights", over=False))
    status = status_text(status_without_estimates(place, "flights")[0])
    assert LINKS.endpoint("flights") in status.splitlines()[-1]
    book = runbook_of(place, "flights", by="ada")
    assert LINKS.ready("flights") in markdown(book)
    assert LINKS.ready("flights") in page(book)


def test_a_link_shows_a_viewer_nothing_of_another_endpoint(place: Workplace, pages: Pages) -> None:
    told(place)
    pages.session.access = Access(
        "ben", AccessKind.SESSION, role=Role.VIEWER, endpoints=("credit",)
    )
    refused = pages.get("/alerts/1")
    assert refused.status_code == 404
    assert "r3 fails" not in refused.text
    assert pages.get("/endpoints/flights/decisions/3").status_code in (403, 404)


@pytest.mark.parametrize(
    "path",
    [
        "/alerts/0",
        "/alerts/99",
        "/alerts/x",
        "/alerts/99999999999999999999999",
        "/endpoints/flights/decisions/0",
        "/endpoints/flights/decisions/999",
        "/endpoints/flights/decisions/x",
        "/endpoints/nothing/decisions/1",
    ],
)
def test_a_link_to_nothing_says_so(pages: Pages, path: str) -> None:
    answer = pages.get(path)
    assert answer.status_code == 404, answer.text
    assert "<h1>Not found</h1>" in answer.text


def test_every_entry_of_a_history_has_its_page(made: World, pages: Pages) -> None:
    place = Workplace(made.state_dir)
    place.control(lambda _: None, None).submit("flights", Rollback(), by="ada")
    for entry in place.ledger.history("flights"):
        text = pages.get(f"/endpoints/flights/decisions/{entry.seq}").text
        assert f"Entry {entry.seq}</h2>" in text
