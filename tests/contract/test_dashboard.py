"""Pages of the dashboard over a real ledger: what they show, refuse, escape and survive."""

from __future__ import annotations

import asyncio
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.routing import Route

from contract.sql_world import World, world
from kedge.core.access import Access, AccessKind, Role
from kedge.core.errors import Overloaded, Unavailable
from kedge.core.release.commands import Canary, Freeze, Pause, Promote
from kedge.web.auth import PROXIED
from kedge.web.dashboard import live
from kedge.web.dashboard.live import PageStreams, SharedReads, changed, message, step
from kedge.web.dashboard.rates import TrafficSampler
from kedge.web.dashboard.render import Rendered
from kedge.web.readers import Readers
from kedge.workspace import Workplace
from support.pages import Pages, Session, make_dashboard

SCRIPT = "<script>alert('x')</script>"
PATHS = (
    "/",
    "/alerts",
    "/endpoints/flights",
    "/endpoints/flights/decisions",
    "/endpoints/flights/diagnosis",
    "/endpoints/flights/ready",
    "/endpoints/flights/act/rollback",
)


@pytest.fixture
def made(tmp_path: Path) -> World:
    """r1 was production, r2 is, and r3 is a canary at a quarter."""
    made = world(tmp_path)
    made.do(Promote(release=1))
    made.do(Promote(release=2, full=True, override="a test"))
    made.do(Canary(release=3, weight=2500, override="a test"))
    return made


@pytest.fixture
def pages(made: World) -> Iterator[Pages]:
    opened = Pages(made.state_dir)
    yield opened
    opened.close()


def test_the_fleet_says_what_is_live_and_where_a_rollback_lands(pages: Pages) -> None:
    text = pages.get("/").text
    row = text[text.index('id="row-flights"') : text.index("</tr>", text.index('id="row-flights"'))]
    assert "r2 · v2" in row
    assert "r3 · v3" in row
    assert "canary 25 %" in row
    assert "answers now" in row  # a rollback takes the candidate away


@pytest.mark.parametrize("path", PATHS)
def test_a_page_runs_nothing_inline_and_nothing_of_another_host(pages: Pages, path: str) -> None:
    answer = pages.get(path)
    assert answer.status_code == 200
    assert "script-src 'self';" in answer.headers["content-security-policy"]
    assert not re.search(r"<script(?![^>]* src=)", answer.text)
    assert not re.search(r"\son\w+=|\sstyle=|javascript:", answer.text)
    for address in re.findall(r'(?:src|href|action)="([^"]*)"', answer.text):
        assert re.match(r"\.\.?/|#|$", address), address


def test_every_link_works_below_any_prefix(pages: Pages) -> None:
    text = pages.get("/endpoints/flights/ready").text
    assert 'href="../../"' in text
    assert 'href="../../endpoints/flights/decisions"' in text
    assert 'hx-sse:connect="../../endpoints/flights/ready/live"' in text


def test_scripts_in_reasons_names_and_parameters_are_text(made: World, pages: Pages) -> None:
    made.do(Freeze(), reason=SCRIPT, by=SCRIPT)
    pages.session.access = Access(SCRIPT, AccessKind.SESSION, role=Role.OPERATOR)
    for path in (*PATHS, f"/endpoints/flights/decisions?one={SCRIPT}", "/endpoints/x<y"):
        text = pages.get(path).text
        assert SCRIPT not in text
        assert "<y" not in text
    assert "&lt;script&gt;" in pages.get("/endpoints/flights").text
    asked = pages.get(f"/endpoints/flights/segment?name={SCRIPT}")
    assert asked.status_code in (400, 404)
    assert SCRIPT not in asked.text


def test_a_rollback_asks_for_a_reason_and_shows_where_it_lands(pages: Pages) -> None:
    text = pages.get("/endpoints/flights/act/rollback").text
    assert "takes r3 · v3 from 25 % to zero" in text
    epoch = pages.place.ledger.read().states["flights"].epoch
    refused = pages.post("/endpoints/flights/act/rollback", epoch=str(epoch))
    assert "needs a reason" in refused.text
    done = pages.post("/endpoints/flights/act/rollback", epoch=str(epoch), reason="late flights")
    assert "r3 went from 25 % to zero" in done.text
    row = pages.place.ledger.read().states["flights"]
    assert (row.candidate, row.production, row.condemned) == (None, 2, (3,))
    (entry,) = pages.place.ledger.entries("flights", "candidate_rolled_back")
    assert (entry.by, entry.reason, entry.token) == ("ada", "late flights", "session ada")


def test_a_stale_button_does_nothing_and_says_who_did_what(made: World, pages: Pages) -> None:
    shown = pages.place.ledger.read().states["flights"].epoch
    made.do(Pause(), by="grace", reason="wait for me")
    answer = pages.post("/endpoints/flights/act/rollback", epoch=str(shown), reason="mine")
    assert "Nothing happened" in answer.text
    assert "grace" in answer.text
    assert "wait for me" in answer.text
    row = pages.place.ledger.read().states["flights"]
    assert (row.epoch, row.candidate) == (shown + 1, 3)


@pytest.mark.parametrize(
    "act, form, field, value",
    [
        ("pause", {}, "paused", True),
        ("weight", {"weight": "40"}, "weight", 4000),
        ("abort", {}, "candidate", None),
        ("promote", {"override": "tested by hand"}, "weight", 10_000),
    ],
)
def test_each_command_is_carried_out_once(
    pages: Pages, act: str, form: dict[str, str], field: str, value: object
) -> None:
    epoch = pages.place.ledger.read().states["flights"].epoch
    answer = pages.post(f"/endpoints/flights/act/{act}", epoch=str(epoch), **form)
    row = pages.place.ledger.read().states["flights"]
    assert answer.status_code == 200
    if act == "promote":
        assert row.epoch == epoch + 1
    else:
        assert getattr(row, field) == value
    again = pages.post(f"/endpoints/flights/act/{act}", epoch=str(epoch), **form)
    assert "Nothing happened" in again.text
    assert pages.place.ledger.read().states["flights"].epoch == row.epoch


def test_a_viewer_sees_why_a_button_is_disabled_and_cannot_press_it(pages: Pages) -> None:
    pages.session.access = Access("eve", AccessKind.SESSION, role=Role.VIEWER)
    text = pages.get("/endpoints/flights").text
    assert 'aria-describedby="why-rollback">Roll back' in text
    assert "your role is viewer" in text
    epoch = pages.place.ledger.read().states["flights"].epoch
    answer = pages.post("/endpoints/flights/act/rollback", epoch=str(epoch), reason="x")
    assert answer.status_code == 403
    assert pages.place.ledger.read().states["flights"].epoch == epoch


def test_a_user_of_a_proxy_is_not_offered_to_log_out_here(
    pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "Log out" in pages.get("/").text
    monkeypatch.setattr(pages.session, "csrf", lambda _: PROXIED)
    assert "Log out" not in pages.get("/").text


def test_other_endpoints_are_neither_listed_nor_shown(pages: Pages) -> None:
    pages.session.access = Access(
        "eve", AccessKind.SESSION, role=Role.OPERATOR, endpoints=("other",)
    )
    assert "row-flights" not in pages.get("/").text
    assert pages.get("/endpoints/flights").status_code == 403


@pytest.mark.parametrize("act", ["promote", "pause", "weight"])
def test_an_impossible_command_says_why(tmp_path: Path, act: str) -> None:
    made = world(tmp_path)
    made.do(Promote(release=1))
    pages = Pages(made.state_dir)
    try:
        text = pages.get(f"/endpoints/flights/act/{act}").text
        assert "is not possible" in text
        assert "disabled" in text
    finally:
        pages.close()


def test_without_the_ledger_the_last_state_is_shown_with_its_age(
    made: World, pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "EVERY_S", 0.0)
    monkeypatch.setattr(live, "SPARED", 0.0)
    assert "Not live" not in pages.get("/endpoints/flights").text
    pages.place.ledger.close()
    shutil.move(made.path, made.path.with_suffix(".away"))
    for path in ("/endpoints/flights",):
        text = pages.get(path).text
        assert "Not live" in text
        assert "r2 · v2" in text
        assert re.search(r"read at <time datetime=", text)


def test_a_path_leaves_no_folder(pages: Pages) -> None:
    for path in ("/assets/x/kedge.css", "/assets/x/..%2f..%2frender.py", "/endpoints/..%2f/act/x"):
        answer = pages.get(path)
        assert answer.status_code == 404
        assert "import" not in answer.text
    style = re.search(r'href="\./(assets/[^"]*kedge\.css)"', pages.get("/").text)
    assert style is not None
    served = pages.get(f"/{style[1]}")
    assert "immutable" in served.headers["cache-control"]
    assert "--bg" in served.text


# ---------------------------------------------------------------- streams


def test_a_stream_sends_only_the_parts_that_changed() -> None:
    first = Rendered({"a": "<p id=a>1</p>", "b": "<p id=b>1</p>"}, "<p id=a>1</p><p id=b>1</p>")
    second = Rendered({"a": "<p id=a>1</p>", "b": "<p id=b>2</p>"}, "")
    whole = changed({}, first)
    assert 'hx-target="#content"' in whole
    assert changed(first.parts, first) == ""
    assert changed(first.parts, second) == (
        '<hx-partial id="b" hx-swap="outerMorph"><p id=b>2</p></hx-partial>'
    )
    assert message("one\n\ntwo") == b"data: one\ndata: two\n\n"


def test_streams_are_bounded_and_end_with_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "STREAMS", 1)
    monkeypatch.setattr(live, "EVERY_S", 0.0)

    async def work() -> None:
        over = False

        async def render() -> Rendered:
            return Rendered({"a": "x"}, "x")

        def no() -> bool:
            return False

        streams = PageStreams(lambda: 1.0, time.monotonic)
        stream = aiter(streams.open(render, lambda: over))
        assert b"retry" in await anext(stream)
        with pytest.raises(Overloaded):
            streams.open(render, lambda: over)
        assert b"hx-partial" in await anext(stream)
        over = True
        rest = [part async for part in stream]
        assert rest[-1].startswith(b"event: ended")
        assert streams.count == 0
        # When control stops, the page must not reload: it reconnects.
        stream = aiter(PageStreams(lambda: 1.0, time.monotonic, lambda: True).open(render, no))
        assert [b"retry" in part async for part in stream] == [True]

    asyncio.run(work())


def test_viewers_share_a_rendering_and_keep_their_own_token(made: World, pages: Pages) -> None:
    """The page with its form: rendered once for two sessions, with the token of each in it."""

    class Sessions(Session):
        def csrf(self, scope: Mapping[str, Any]) -> str:
            return str(scope["state"]["token"])

    def request(token: str) -> Request:
        scope: dict[str, Any] = {"type": "http", "method": "GET", "query_string": b""}
        scope |= {"path": "/endpoints/flights/diagnosis/live", "headers": []}
        scope |= {"path_params": {"endpoint": "flights"}, "state": {"token": token}}
        return Request(scope)

    async def first(route: Route, token: str) -> str:
        answer = await route.endpoint(request(token))
        stream = aiter(answer.body_iterator)
        await anext(stream)
        text = (await anext(stream)).decode()
        await stream.aclose()
        return str(text.partition("event: pulse")[0])

    async def look() -> list[str]:
        board = make_dashboard(made.state_dir, Sessions(), TrafficSampler())
        found = {route.path: route for route in board.routes()}
        route = found["/endpoints/{endpoint}/diagnosis/live"]
        return await asyncio.gather(*(first(route, token) for token in ("one", "two")))

    one, two = asyncio.run(look())
    assert 'name="csrf" value="one"' in one
    assert one.replace("one", "two") == two.replace("one", "two")
    parts = Rendered({"a": "x"}, "x")
    assert step(live.NOTHING, parts) is step(live.NOTHING, parts)


def test_all_viewers_share_one_reading(made: World) -> None:
    read: list[int] = []

    def work(place: Workplace) -> int:
        read.append(1)
        if len(read) > 1:
            raise Unavailable("gone", code="ledger_locked")
        return len(read)

    async def ask() -> None:
        now = 0.0
        readers = Readers(lambda: Workplace(made.state_dir))
        source = SharedReads(readers, lambda: 1000.0 + now, lambda: now)
        found = await asyncio.gather(*(source.read("x", work) for _ in range(20)))
        assert {one.value for one in found} == {1}
        assert len(read) == 1
        now = 60.0
        late = await source.read("x", work)
        assert (late.value, late.at) == (1, 1000.0)
        assert "ledger_locked" in late.fault
        readers.close()

    asyncio.run(ask())
