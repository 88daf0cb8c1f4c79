"""The endpoint's page over stored evidence: its charts, segments and examples, and live changes."""

from __future__ import annotations

import asyncio
import html
import json
import re
import shutil
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from contract.sql_world import World, at
from kedge.core.access import Access, AccessKind, Role
from kedge.core.release.commands import Frozen, Thawed
from kedge.engine.watch import Watch
from kedge.operations.evidence.read import evidence_of
from kedge.web.dashboard.routes import Dashboard
from support.comparison import EXAMPLE, SECONDS, SEGMENT, Shadowed, make_shadowed
from support.pages import Pages


@pytest.fixture
def shadowed(tmp_path: Path) -> Shadowed:
    return make_shadowed(tmp_path)


@pytest.fixture
def pages(shadowed: Shadowed) -> Iterator[Pages]:
    opened = Pages(shadowed.state_dir)
    yield opened
    opened.close()


def charts(text: str) -> dict[str, Any]:
    """The charts of a page by their labels."""
    found = re.findall(r'data-chart="([^"]*)"[^>]*aria-label="([^"]*)"', text)
    return {label: json.loads(html.unescape(data)) for data, label in found}


def chart(text: str, label: str) -> Any:
    (found,) = [data for name, data in charts(text).items() if name.startswith(label)]
    return found


# ---------------------------------------------------------------- figures


def test_the_path_of_the_e_value_begins_with_the_comparison(
    shadowed: Shadowed, pages: Pages
) -> None:
    """Also if control started later, and the first windows are no longer stored."""
    state = shadowed.world.row()
    watch = Watch(state)
    watch.cursor, windows = shadowed.place.windows.read("flights", 0, 60)
    for one in windows:
        watch.fold(one)
    shadowed.place.windows.keep("flights", watch.key, watch.snapshot())
    path = chart(pages.get("/endpoints/flights").text, "Path of the e-value")
    assert path["at"][0] == shadowed.began
    assert path["at"][-1] == shadowed.began + SECONDS - 1
    assert path["at"] == sorted(path["at"])
    assert len(path["at"]) >= SECONDS / 5
    found = evidence_of(shadowed.place, "flights")
    assert path["level"] == pytest.approx(2.718281828**found.overall.needed, rel=1e-3)
    assert path["series"][0][-1] == pytest.approx(2.718281828**found.overall.log_e, rel=1e-3)


def test_a_tile_has_both_releases_over_time(shadowed: Shadowed, pages: Pages) -> None:
    errors = chart(pages.get("/endpoints/flights").text, "Errors over time")
    assert errors["names"] == ["r1", "r3"]
    assert errors["at"][0] >= shadowed.began - 10
    assert set(errors["series"][0]) == {0}
    assert set(errors["series"][1]) == {5.0}


def test_the_page_says_what_the_command_says(shadowed: Shadowed, pages: Pages) -> None:
    found = evidence_of(shadowed.place, "flights")
    text = html.unescape(pages.get("/endpoints/flights").text)
    assert found.decision.reason in text
    for verdict in found.metrics:
        assert verdict.reason in text
    assert found.agreement is not None
    assert f"of {found.agreement.pairs:,} answers agree" in text
    assert f"{found.coverage.share:.1%}".replace("%", " %") in text


def test_the_fleet_names_owner_and_on_call(pages: Pages) -> None:
    text = html.unescape(pages.get("/").text)
    assert "Ada <img" in text
    assert "on call: Grace" in text


def test_the_fleet_has_the_verdict_on_a_rollout(shadowed: Shadowed, pages: Pages) -> None:
    watch = Watch(shadowed.world.row())
    _, windows = shadowed.place.windows.read("flights", 0, 1_000)
    for one in windows:
        watch.fold(one)
    shadowed.place.windows.keep("flights", watch.key, watch.snapshot())
    text = pages.get("/").text
    row = text[text.index('id="row-flights"') :]
    assert "shadow 100 %" in row
    assert ">worse<" in row


def test_a_segment_leads_to_a_worked_example(pages: Pages) -> None:
    """The example is kept although it is old; an operator alone would see inputs."""
    text = pages.get("/endpoints/flights").text
    link = re.search(r'href="\.\./(endpoints/flights/segment\?name=[^"]*)"', text)
    assert link is not None
    text = pages.get("/" + link[1]).text
    assert "25.00 % of 720 answers differ" in text
    link = re.search(r'href="\.\./\.\./(endpoints/flights/example\?id=[^"]*)"', text)
    assert link is not None
    text = pages.get("/" + link[1]).text
    assert "8 <span" in text
    assert "the log does not have this request" in text
    pages.session.access = Access("eve", AccessKind.SESSION, role=Role.VIEWER)
    assert "an operator sees them" in pages.get("/" + link[1]).text
    assert pages.get("/endpoints/flights/example?id=unknown").status_code in (400, 404)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "endpoints/flights",
        f"endpoints/flights/segment?name={quote(SEGMENT)}",
        f"endpoints/flights/example?id={quote(EXAMPLE)}",
    ],
)
def test_markup_in_segments_answers_and_names_is_text(pages: Pages, path: str) -> None:
    answer = pages.get(f"/{path}")
    assert answer.status_code == 200
    assert "<img" not in answer.text
    assert "&lt;img" in answer.text


# ---------------------------------------------------------------- live


def streamed(pages: Pages, path: str, work: Any) -> list[str]:
    """The messages of a page's stream while `work` runs, up to the end of the session."""

    async def read() -> str:
        answer = asyncio.create_task(pages.http.get(path))
        await asyncio.sleep(1.2)
        await asyncio.to_thread(work)
        await asyncio.sleep(2.5)
        pages.session.over = True
        return (await asyncio.wait_for(answer, 30)).text

    return [one for one in pages.run(read).split("\n\n") if one.startswith("data: ")]


@pytest.mark.parametrize("path", ["/live", "/endpoints/flights/live"])
def test_an_open_page_is_told_that_the_ledger_is_gone(
    shadowed: Shadowed, pages: Pages, path: str
) -> None:
    def lose() -> None:
        pages.place.ledger.close()
        shutil.move(shadowed.world.path, shadowed.world.path.with_suffix(".away"))

    first, *later = streamed(pages, path, lose)
    assert "Not live" not in first
    assert any('id="stale"' in one and "Not live" in one for one in later), later


def test_the_stream_of_a_form_never_replaces_the_form(pages: Pages) -> None:
    """What a person types is in it."""
    epoch = pages.place.ledger.read().states["flights"].epoch
    path = f"/endpoints/flights/act/freeze/live?epoch={epoch}"
    for one in streamed(pages, path, lambda: None):
        assert 'hx-target="#content"' not in one


def test_what_a_viewer_does_not_read_is_not_kept(
    shadowed: Shadowed, pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After 10,000 entries an unread stream goes on with the present page, as one message."""
    dashboard: Dashboard = pages.dashboard
    sizes: list[int] = []

    async def work() -> None:
        async def asleep(_: bytes) -> None:
            await released.wait()

        released = asyncio.Event()
        scope = _scope("/endpoints/flights/live")
        started = asyncio.Event()

        async def receive() -> dict[str, Any]:
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: MutableMapping[str, Any]) -> None:
            body = message.get("body", b"")
            sizes.append(len(body))
            if b"hx-partial" in body:
                started.set()
                await asleep(body)

        stream = asyncio.create_task(pages.app(scope, receive, send))
        await asyncio.wait_for(started.wait(), 30)
        before = len(sizes)
        await asyncio.to_thread(_append, shadowed.world, 10_000)
        other = await asyncio.wait_for(pages.http.get("/endpoints/flights"), 30)
        assert other.status_code == 200
        assert len(sizes) == before, "nothing is made for a viewer who does not read"
        assert len(dashboard._shared) <= 2
        pages.session.over = True
        released.set()
        await asyncio.wait_for(stream, 30)

    pages.run(work)
    assert max(sizes) < 200_000


def _scope(path: str) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"127.0.0.1")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }


def _append(made: World, entries: int) -> None:
    for _ in range(entries // 1_000):
        row = made.row()
        events = tuple(Frozen() if n % 2 == 0 else Thawed() for n in range(1_000))
        made.ledger.append("flights", events, expect=row.epoch, by="ada", reason="a test", at=at())
