"""The fleet page with 200 endpoints: the time of its first paint, and its size; and axe on every page.

Control runs as `kedge control`, on the server's CPU, over a ledger with 200 endpoints, of which every
tenth has a canary. A replica reports itself and new counts each second, so that each line has its
figures. Each load is by a browser without a cache.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import material
import msgspec
from chromium import PAGES, excess_px, log_in, read_axe, serious_faults
from common import SERVER_CPU, Bench, on, quantile, spread
from kedge_site import Site, environment, kedge_command, post, until
from msgspec.structs import replace
from scraping import make
from watching import link_of

from kedge.adapters.sql.sqlite.create import create
from kedge.core.errors import KedgeError
from kedge.core.release.commands import Canary
from kedge.core.stored.roster import Tally
from kedge.demo.processes import get
from kedge.engine.recording.recorder import latency_bin
from kedge.workspace import Workplace, new_member

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WORDS, REQUESTS = "words", 60
ENDPOINTS = 200
CANARY_EACH = 10
PAINTED = """() => new Promise((done) => {
  let last = 0;
  new PerformanceObserver((list) => { last = list.getEntries().at(-1).startTime; })
    .observe({type: "largest-contentful-paint", buffered: true});
  const look = () => {
    const first = performance.getEntriesByName("first-contentful-paint")[0];
    if (first) done(Math.max(first.startTime, last)); else setTimeout(look, 20);
  };
  setTimeout(look, 300);
})"""
"""Milliseconds from the navigation to the first and to the largest paint, the later of both."""


class Replica:
    """A replica that reports itself, and the counts of every endpoint, each second."""

    def __init__(self, site: Site, names: list[str]) -> None:
        self._site, self._names = site, names
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join(20)

    def _work(self) -> None:
        place = Workplace(self._site.root / ".kedge")
        rows = place.ledger.read().states
        member = new_member("gateway", "w0", place.clock.now(), address="127.0.0.1:1")
        member = replace(member, epochs={name: rows[name].epoch for name in self._names})
        count = 0
        while not self._ending.wait(1.0):
            count += 1
            now = place.clock.unix()
            place.roster.publish(replace(member, beat_at=now, ledger_at=now))
            bins = {latency_bin(us): count for us in range(500, 20_000, 500)}
            place.evidence.publish(
                [
                    Tally(
                        member.name,
                        name,
                        1,
                        rows[name].candidate,
                        rows[name].salt,
                        {"requests.production": count * (7 + number), "rows.production": count},
                        {"production": bins},
                    )
                    for number, name in enumerate(self._names)
                ]
            )


@contextmanager
def fleet(bench: Bench) -> Iterator[Site]:
    """Control over 200 endpoints."""
    names = [f"endpoint-{number:03d}" for number in range(ENDPOINTS)]
    with Site(dict.fromkeys(names, ""), workers=1) as site:
        create(site.root / ".kedge")
        with bench.phase("fleet, its ledger"):
            for number, name in enumerate(names):
                make(site.workplace, name, is_canary=number % CANARY_EACH == 0)
        with (site.root / "up.log").open("ab") as log, on({SERVER_CPU}):
            site.up = subprocess.Popen(
                [*kedge_command(), "control"],
                cwd=site.root,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until(lambda: get(site.control_port, "/health") == 200, "control")
        until(lambda: _has_link(site), "a login link")
        with Replica(site, names):
            yield site


def _has_link(site: Site) -> bool:
    try:
        return bool(link_of(site))
    except KedgeError:
        return False


def load_once(browser: Browser, site: Site) -> tuple[float, dict[str, float]]:
    """Load the fleet in a browser without a cache: seconds to its paint, and kB by kind."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    root = log_in(context, link_of(site))
    page = context.new_page()
    session = context.new_cdp_session(page)
    session.send("Network.enable")
    session.send("Network.setCacheDisabled", {"cacheDisabled": True})
    kinds: dict[str, str] = {}
    sizes: dict[str, float] = {}
    session.on("Network.responseReceived", lambda e: kinds.update({e["requestId"]: e["type"]}))

    def add(event: dict[str, Any]) -> None:
        kind = kinds.get(event["requestId"], "Other")
        sizes[kind] = sizes.get(kind, 0.0) + event["encodedDataLength"] / 1024

    session.on("Network.loadingFinished", add)
    page.goto(root)
    painted = float(page.evaluate(PAINTED)) / 1e3
    rows = page.locator("#fleet tbody tr").count()
    assert rows == ENDPOINTS, rows
    context.close()
    return painted, sizes


def measure_fleet(bench: Bench, browser: Browser) -> None:
    """Measure `fleet_paint_s` and `fleet_kb`."""
    with fleet(bench) as site:
        time.sleep(bench.seconds(10.0, 4.0))  # the lines of traffic have points
        load_once(browser, site)  # control and Chromium have read their code
        with bench.phase("fleet"):
            loads = [load_once(browser, site) for _ in range(bench.rounds(20, 2))]
    paints = [paint for paint, _ in loads]
    sizes = [sum(size.values()) for _, size in loads]
    bench.note("fleet_paint_s", quantile(paints, 0.95), 2)
    bench.note("fleet_kb", max(sizes), 1)
    bench.detail["fleet"] = {
        "paint_s": spread(paints, 2),
        "kb": spread(sizes, 1),
        "kb_by_kind": {kind: round(size, 1) for kind, size in loads[-1][1].items()},
    }


# ---------------------------------------------------------------- every page


def prepare_words(site: Site, folder: Path) -> None:
    """A canary whose evidence is split by a word, so that there is a segment to look at."""
    for number in (1, 2):
        scale = float(number)
        graph = material.write_graph(folder / f"words{number}", word=True, scale=scale)
        site.register(WORDS, graph)
    site.promote(WORDS, 1)
    candidate = site.release(WORDS, 2)
    site.submit(WORDS, Canary(release=candidate, weight=5_000, override="bench"))
    row = {"name": "X", "datatype": "FP32", "shape": [1, 20], "data": [0.5] * 20}
    for number in range(REQUESTS):
        word = f"word-{number % 3}"
        said = {"name": "word", "datatype": "BYTES", "shape": [1], "data": [word]}
        body = msgspec.json.encode({"inputs": [row, said]})
        until(lambda raw=body: post(site.port, f"/v2/models/{WORDS}/infer", raw) == 200, "words")  # type: ignore[misc]


def find_segment(page: Page, root: str) -> str:
    """The page of a segment, once the evidence has one."""

    def look() -> str:
        page.goto(f"{root}endpoints/{WORDS}")
        link = page.locator("a[href*='segment?']")
        return str(link.first.evaluate("link => link.href")) if link.count() else ""

    return str(until(look, "a segment", 30.0, 0.5))


def act(page: Page, root: str, command: str) -> None:
    """Carry a command out, so that its receipt is on the page."""
    page.goto(f"{root}endpoints/flights/act/{command}")
    page.locator("form.form button[type=submit]").click()
    page.wait_for_url("**/acts/**")


def measure_axe(bench: Bench, site: Site, browser: Browser) -> None:
    """Measure `axe_serious`: each page at 360 px, light and dark; the login; a receipt."""
    axe = read_axe()
    faults: dict[str, list[Any]] = {}
    looked: list[str] = []

    def look(page: Page, scheme: str) -> None:
        name = f"{scheme} {urlsplit(page.url).path}"
        looked.append(name)
        wide = excess_px(page)
        found = [*serious_faults(page, axe), *([f"{wide} px too wide"] if wide > 0 else [])]
        if found:
            faults[name] = found

    with bench.phase("axe"):
        for scheme, command in (("light", "freeze"), ("dark", "thaw")):
            context = browser.new_context(
                color_scheme=scheme,  # type: ignore[arg-type]
                viewport={"width": 360, "height": 800},
            )
            page = context.new_page()
            page.goto(f"http://127.0.0.1:{site.control_port}/login")
            look(page, scheme)
            root = log_in(context, link_of(site))
            for url in (*(root + path for path in PAGES), find_segment(page, root)):
                page.goto(url)
                look(page, scheme)
            act(page, root, command)
            look(page, scheme)
            context.close()
    bench.note("axe_serious", sum(map(len, faults.values())), 0)
    bench.detail["axe"] = {"pages": looked, "faults": faults}
