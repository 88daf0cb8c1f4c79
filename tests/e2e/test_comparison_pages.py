"""Pages of a comparison in a real browser: markup as text, a lost ledger, clocks, a reader's tools."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from chromium import CHROMIUM, excess_px, serious_faults

from contract.sql_world import Other, at, locks
from e2e.place import free_port
from e2e.test_dashboard import (
    Served,
    axe,
    browser,
    live,
    open_page,
)
from kedge.core.release.commands import Freeze
from kedge.core.time.instants import read_instant
from support.comparison import EXAMPLE, SCRIPT, SEGMENT, Shadowed, make_shadowed
from support.pages import Session

if TYPE_CHECKING:
    from playwright.sync_api import Page

__all__ = ["axe", "browser", "open_page"]
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium"),
]
PAGES = {
    "": ("Ada <img", "Grace <img"),
    "endpoints/flights": (SEGMENT, SCRIPT, f"7{SCRIPT}", f"late {SCRIPT}"),
    f"endpoints/flights/segment?name={quote(SEGMENT)}": (SEGMENT, f"7{SCRIPT}"),
    f"endpoints/flights/example?id={quote(EXAMPLE)}": (SEGMENT, f"7{SCRIPT}"),
}
"""Pages, and the texts with markup that each must show."""


@pytest.fixture(scope="module")
def shadowed(tmp_path_factory: pytest.TempPathFactory) -> Shadowed:
    made = make_shadowed(tmp_path_factory.mktemp("shadowed"))
    made.world.do(Freeze(), reason=f"late {SCRIPT}", by=SCRIPT)
    return made


@pytest.fixture(scope="module")
def served(shadowed: Shadowed) -> Iterator[Served]:
    made = Served(shadowed.state_dir, Session(), free_port())
    yield made
    made.end()


@pytest.mark.parametrize("path", PAGES)
def test_markup_is_text_and_the_page_serves_assistive_technology(
    served: Served, open_page: Callable[..., Page], axe: str, path: str
) -> None:
    """At a phone's width in both themes; a script that runs would open a dialog."""
    asked: list[str] = []
    for scheme in ("light", "dark"):
        page = open_page("about:blank", scheme=scheme, width=360)
        page.on("dialog", lambda one: asked.append(one.message))
        page.goto(served.url + path)
        live(page)
        for text in PAGES[path]:
            page.get_by_text(text).first.wait_for()
        assert page.locator("main img").count() == 0
        assert serious_faults(page, axe) == []
        assert excess_px(page) <= 0
        page.context.close()
    assert asked == []


def test_the_keyboard_leads_from_a_segment_to_an_example(
    served: Served, open_page: Callable[..., Page]
) -> None:
    page = open_page(served.url + "endpoints/flights")
    live(page)
    for name, target in ((SEGMENT, "**/segment?**"), (EXAMPLE, "**/example?**")):
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.textContent") == name:
                break
        page.keyboard.press("Enter")
        page.wait_for_url(target)
        live(page)
    assert "Request" in page.inner_text("h2 >> nth=0")


def test_an_update_keeps_a_chart_and_what_is_open(
    shadowed: Shadowed, served: Served, open_page: Callable[..., Page]
) -> None:
    page = open_page(served.url + "endpoints/flights")
    live(page)
    page.get_by_text("What is this?").click()
    page.locator(".evalue canvas").wait_for()
    page.evaluate("document.querySelector('.evalue canvas').dataset.mine = '1'")
    before = page.inner_text("#rollout .facts")
    shadowed.write(20)
    page.wait_for_function(
        "before => document.querySelector('#rollout .facts').innerText !== before", arg=before
    )
    assert page.locator(".evalue canvas[data-mine]").count() == 1
    assert page.locator(".evalue details").get_attribute("open") is not None


def test_a_page_says_that_the_ledger_is_gone_and_recovers(
    shadowed: Shadowed, served: Served, open_page: Callable[..., Page]
) -> None:
    page = open_page(served.url + "endpoints/flights")
    live(page)
    path, away = shadowed.world.path, shadowed.world.path.with_suffix(".away")
    shadowed.world.ledger.close()
    shutil.move(path, away)
    try:
        page.get_by_text("Not live.").wait_for(timeout=30_000)
        assert page.inner_text("#state") == "last state"
        assert re.search(r"read at .* ago", page.inner_text("#stale"))
        assert "r1 · v1" in page.inner_text("#head"), "the last state stays"
    finally:
        shutil.move(away, path)
    live(page)
    assert page.get_by_text("Not live.").count() == 0


def test_a_page_stays_live_while_another_process_writes_the_ledger(
    shadowed: Shadowed, served: Served, open_page: Callable[..., Page]
) -> None:
    page = open_page(served.url + "endpoints/flights")
    live(page)
    other = Other(locks, shadowed.world.path)
    assert other.heard() == "locked"
    try:
        before = page.inner_text("#rollout .facts")
        shadowed.write(20)
        page.wait_for_function(
            "before => document.querySelector('#rollout .facts').innerText !== before",
            arg=before,
        )
        live(page)
        assert page.get_by_text("Not live.").count() == 0
    finally:
        other.told.send("go")
        other.end()


def test_a_clock_that_jumps_in_the_browser_changes_neither_ages_nor_the_state(
    served: Served, open_page: Callable[..., Page]
) -> None:
    page = open_page("about:blank")
    page.add_init_script(
        "const real = Date.now; window.ahead = -3 * 86400e3; Date.now = () => real() + window.ahead;"
    )
    page.goto(served.url + "endpoints/flights")
    live(page)
    age = page.locator("#events time").last
    for ahead in (86_400_000, -86_400_000):
        page.evaluate("ahead => { window.ahead = ahead; }", ahead)
        page.wait_for_timeout(1_200)  # the page shows ages and its state once a second
        assert page.inner_text("#state") == "live"
        began = (time.time() - read_instant(at())) // 86_400
        days = re.search(r"(\d+) days ago", age.inner_text())
        assert days is not None
        assert abs(int(days[1]) - began) <= 1
