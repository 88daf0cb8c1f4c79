"""The web side of control: its pages, streams, scrapes and remote commands. It takes 15 to 27 minutes.

`scrape_ms` is in `scraping.py`; `remote_rollback_ms` in `remoting.py`; `traffic_to_pixel_s_p95`,
`viewer_kb` and `dashboards_p99_ratio` in `viewing.py`; `fleet_paint_s`, `fleet_kb` and `axe_serious` in
`painting.py`. `python bench/web.py PART ...` measures only some of: scrape, remote, pixel, viewer,
dashboards, axe, fleet. Without Chromium only scrape, remote and viewer are measured. With --quick it
takes a minute and a half.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import chromium
import material
from common import LOAD_CPU, Bench, on, talk
from kedge_site import Site, post, until
from painting import WORDS, measure_axe, measure_fleet, prepare_words
from remoting import measure_remote
from scraping import measure_scrapes
from viewing import (
    VIEWERS,
    log_viewers_in,
    measure_dashboards,
    measure_memory,
    measure_pixels,
)

from kedge.core.release.commands import Abort, Canary

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ENDPOINT = "flights"
WORKERS = 2
"""As many as `kedge init` and the demo have."""
PARTS = ("scrape", "remote", "pixel", "viewer", "dashboards", "axe", "fleet")


def measure_site(bench: Bench, parts: Collection[str], browser: Browser | None) -> None:
    """Everything that needs real workers: one site, with a rollout and then without."""
    endpoints = {ENDPOINT: ""} | ({WORDS: 'segments = ["word"]\n'} if "axe" in parts else {})
    with tempfile.TemporaryDirectory() as made, Site(endpoints, workers=WORKERS) as site:
        site.start(gathered=False)
        for number in (1, 2):
            flip = number == 2
            site.register(ENDPOINT, material.write_onnx(Path(made) / f"v{number}", flip=flip))
        site.promote(ENDPOINT, 1)
        body = material.body("FP32")
        path = f"/v2/models/{ENDPOINT}/infer"
        until(lambda: post(site.port, path, body) == 200, "an answer")
        if browser is not None and {"pixel", "axe"} & {*parts}:
            release = site.release(ENDPOINT, 2)
            site.submit(ENDPOINT, Canary(release=release, weight=5_000, override="bench"))
            if "axe" in parts:
                prepare_words(site, Path(made))
                measure_axe(bench, site, browser)
                site.submit(WORDS, Abort())
            if "pixel" in parts:
                measure_pixels(bench, site, browser, ENDPOINT, body)
            site.submit(ENDPOINT, Abort())
        if "remote" in parts:
            site.gather()
            measure_remote(bench, site, ENDPOINT)
        cookies: list[str] = []
        if "viewer" in parts:
            cookies = measure_memory(bench, site, f"/endpoints/{ENDPOINT}/live")
        if browser is not None and "dashboards" in parts:
            cookies = cookies or log_viewers_in(site, VIEWERS)
            measure_dashboards(bench, site, browser, ENDPOINT, body, cookies)


def main() -> None:
    """Measure and write the result."""
    with Bench("web", __doc__, parts=PARTS) as bench, on({LOAD_CPU}), ExitStack() as stack:
        parts = bench.parts
        if "scrape" in parts:
            with tempfile.TemporaryDirectory(prefix="kedge-web-") as root:
                measure_scrapes(bench, Path(root))
        browser = None
        if chromium.CHROMIUM is None:
            talk("  no chromium: only scrapes, remote commands and viewers are measured")
        elif {*parts} - {"scrape", "remote", "viewer"}:
            browser = stack.enter_context(chromium.started())
            bench.detail["chromium"] = chromium.version()
        if {*parts} - {"scrape", "fleet"}:
            measure_site(bench, parts, browser)
        if browser is not None and "fleet" in parts:
            measure_fleet(bench, browser)


if __name__ == "__main__":
    main()
