"""The dashboard beside production: how late a page is, what a viewer costs, and what callers notice.

`traffic_to_pixel_s_p95` follows every answer of callers: from its arrival to the first change of the
page's number of answers that includes it. `kedge up` runs as in the demo, with two workers and a
canary in a process of its own, and is bound to no CPU.

`dashboards_p99_ratio` compares the callers' p99 in blocks with 50 viewers and a browser with that in
blocks without. Workers are on one CPU; control, the viewers, Chromium and the generator on the other.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from chromium import log_in as log_browser_in
from common import Bench, cpu_s, memory_mb, quantile, spread, tree
from kedge_site import Site, until
from loadgen import OpenLoad, Record, failures
from shadowing import compare
from watching import Viewers, link_of, log_in

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

VIEWERS = 50
FEW, MANY = 10, 90
"""Streams whose memory is compared; control accepts 100."""
SETTLE_S = 0.8
RATE, CALM_RATE = 300.0, 50.0
PIXEL_RATE = 40.0
MANY_PAIRS = 20
HALF_WIDTH = 0.1
"""Aim of half the width of the interval; blocks are added twice if it is wider."""
WATCH = """() => {
  window.seen = [];
  const read = () => {
    const node = document.querySelector("#live dd.num");
    const n = node ? Number(node.textContent.replaceAll(",", "")) : NaN;
    const last = window.seen.at(-1);
    if (!Number.isNaN(n) && (!last || last[1] !== n)) window.seen.push([Date.now() / 1000, n]);
  };
  read();
  new MutationObserver(read).observe(document.body,
    {subtree: true, childList: true, characterData: true});
}"""
"""Notes each number of answers that the page shows, with the time of the change."""


def control_of(site: Site) -> int:
    """The process of control."""
    assert site.up is not None
    for pid in tree(site.up.pid):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if b"control" in words:
            return pid
    raise RuntimeError("control does not run")


def live_page(browser: Browser, site: Site, endpoint: str) -> Page:
    """A page of an endpoint, once its stream is open."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    root = log_browser_in(context, link_of(site))
    page = context.new_page()
    page.goto(f"{root}endpoints/{endpoint}")
    page.locator(".state.ok #state").wait_for(timeout=15_000)
    return page


# ---------------------------------------------------------------- how late a page is


def delays(records: list[Record], seen: list[tuple[float, int]], ahead_s: float) -> list[float]:
    """Seconds from each answer to the first number on the page that includes it.

    Args:
        records: of the callers.
        seen: Unix times and numbers; the first number is from before the callers began.
        ahead_s: Unix time less the clock of the records.
    """
    base = seen[0][1]
    done = sorted(record.done + ahead_s for record in records if record.ok)
    found, at = [], 0
    for number, answered in enumerate(done, start=1):
        while at < len(seen) and seen[at][1] - base < number:
            at += 1
        if at == len(seen):
            raise RuntimeError(f"the page shows {seen[-1][1] - base} of {len(done)} answers")
        found.append(seen[at][0] - answered)
    return found


def measure_pixels(bench: Bench, site: Site, browser: Browser, endpoint: str, body: bytes) -> None:
    """Measure `traffic_to_pixel_s_p95`."""
    page = live_page(browser, site, endpoint)
    time.sleep(3.0)  # what was sent before is on the page
    page.evaluate(WATCH)
    with (
        bench.phase("traffic to pixel"),
        OpenLoad(site.port, f"/v2/models/{endpoint}/infer", body, rate=PIXEL_RATE) as load,
    ):
        time.sleep(bench.seconds(45.0, 8.0))
        records = load.stop()
    ahead_s = time.time() - time.monotonic()
    answered = sum(record.ok for record in records)

    def shown() -> list[tuple[float, int]]:
        found: list[tuple[float, int]] = [tuple(one) for one in page.evaluate("window.seen")]
        return found if found[-1][1] - found[0][1] >= answered else []

    seen = until(shown, "every answer on the page", 20.0, 0.2)
    found = delays(records, seen, ahead_s)
    bench.note("traffic_to_pixel_s_p95", quantile(found, 0.95), 2)
    bench.detail["traffic_to_pixel_s"] = {
        **spread(found, 2),
        "changes": len(seen),
        "failed": failures(records),
    }
    page.context.close()


# ---------------------------------------------------------------- what a viewer costs


def measure_memory(bench: Bench, site: Site, path: str) -> list[str]:
    """Measure `viewer_kb`: what control's memory grows by with each viewer, session and stream.

    The cookies of all viewers are returned.
    """
    pid, found = control_of(site), {}
    cookies = log_viewers_in(site, FEW)
    with bench.phase("memory of viewers"):
        for count in (FEW, FEW, MANY):  # the first time is not counted: it starts threads
            cookies += log_viewers_in(site, count - len(cookies))
            with Viewers(site.control_port, cookies, path) as viewers:
                time.sleep(bench.seconds(8.0, 3.0))
                found[count] = memory_mb(pid)[1] * 1e6
                assert viewers.ended == 0
    bench.note("viewer_kb", (found[MANY] - found[FEW]) / (MANY - FEW) / 1024, 1)
    bench.detail["control_mb"] = {str(count): size / 1e6 for count, size in found.items()}
    return cookies


# ---------------------------------------------------------------- what callers notice


class Watched:
    """Turns the viewers on and off, and remembers when they were there."""

    def __init__(
        self, site: Site, cookies: list[str], page: Page, url: str, seconds: float
    ) -> None:
        self.site = site
        self.spans: list[tuple[bool, float, float]] = []
        self.control_s: dict[bool, float] = {False: 0.0, True: 0.0}
        self.received = 0
        self._cookies, self._page, self._url, self._seconds = cookies, page, url, seconds
        self._pid = control_of(site)

    def block(self, *, on: bool) -> None:
        """One block."""
        with ExitStack() as stack:
            if on:
                path = urlsplit(self._url).path + "/live"
                viewers = stack.enter_context(
                    Viewers(self.site.control_port, self._cookies[:VIEWERS], path)
                )
                self._page.goto(self._url)
            else:
                viewers = None
                self._page.goto("about:blank")
            time.sleep(SETTLE_S)
            began, used = time.monotonic(), cpu_s([self._pid])
            time.sleep(self._seconds)
            self.spans.append((on, began, time.monotonic()))
            self.control_s[on] += cpu_s([self._pid]) - used
            if viewers is not None:
                assert viewers.ended == 0
                self.received += viewers.received

    def cores(self) -> dict[str, float]:
        """What control used of a CPU in the blocks."""
        sums = {on: sum(end - begin for o, begin, end in self.spans if o == on) for on in (0, 1)}
        return {
            "control_core_without": self.control_s[False] / sums[0],
            "control_core_with": self.control_s[True] / sums[1],
        }


def half_width(found: dict[str, Any]) -> float:
    """Of the interval of a ratio."""
    low, high = found["interval"]
    return float(high - low) / 2


def measure_callers(
    bench: Bench, watched: Watched, path: str, body: bytes, rate: float, pairs: int
) -> dict[str, Any]:
    """Blocks in turn: so many pairs; of many, twice as many more while the interval is too wide."""
    records: list[Record] = []
    found: dict[str, Any] = {}
    for more in (pairs, pairs, pairs) if pairs >= MANY_PAIRS else (pairs,):
        with (
            bench.phase(f"{VIEWERS} viewers, {rate:g} requests/s"),
            OpenLoad(watched.site.port, path, body, rate=rate) as load,
        ):
            time.sleep(SETTLE_S)
            for number in range(more):
                for turn in (False, True) if number % 2 == 0 else (True, False):
                    watched.block(on=turn)
            records += load.stop()
        found = {**compare(records, watched.spans), "realtime_generator": load.realtime}
        if half_width(found) <= HALF_WIDTH:
            break
    return {**found, **watched.cores(), "half_width": half_width(found)}


def measure_dashboards(
    bench: Bench, site: Site, browser: Browser, endpoint: str, body: bytes, cookies: list[str]
) -> None:
    """Measure `dashboards_p99_ratio` at 300 requests/s, and at 50."""
    site.separate()
    found: dict[str, Any] = {}
    page = live_page(browser, site, endpoint)
    url, seconds = page.url, bench.seconds(8.0, 1.0)
    for name, rate, pairs in (
        ("dashboards", RATE, bench.rounds(MANY_PAIRS, 1)),
        ("dashboards_calm", CALM_RATE, bench.rounds(12, 1)),
    ):
        watched = Watched(site, cookies, page, url, seconds)
        path = f"/v2/models/{endpoint}/infer"
        found[name] = measure_callers(bench, watched, path, body, rate, pairs)
        bench.note(f"{name}_p99_ratio", found[name]["ratio"])
        bench.note(f"{name}_p99_ratio_low", found[name]["interval"][0])
        bench.note(f"{name}_p99_ratio_half_width", found[name]["half_width"])
    bench.detail["dashboards"] = found
    page.context.close()


def log_viewers_in(site: Site, count: int) -> list[str]:
    """The cookies of so many sessions."""
    return [log_in(link_of(site)) for _ in range(count)]
