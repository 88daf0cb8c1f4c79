"""Chromium for benches, tests and screenshots: its start, its login, and axe on its pages."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from common import ROOT

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

CHROMIUM = shutil.which("chromium")
"""None: it is not installed (Debian's package chromium)."""
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--no-first-run",
]
PAGES = (
    "",
    "alerts",
    "endpoints/flights",
    "endpoints/flights/decisions",
    "endpoints/flights/diagnosis",
    "endpoints/flights/ready",
    "endpoints/flights/act/rollback",
    "endpoints/flights/act/weight",
    "endpoints/missing",
)
"""The pages of a site whose endpoint `flights` is in a canary; the last one is an error."""
AXE = ROOT / ".cache" / "axe"
SERIOUS = ("serious", "critical")


@contextmanager
def started() -> Iterator[Browser]:
    """A running Chromium, on the CPU of its parent."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - only what needs a browser

    assert CHROMIUM is not None, "needs chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield opened
        opened.close()


def log_in(context: BrowserContext, link: str) -> str:
    """Log a browser in by the link of `kedge login`; the root of the pages."""
    page = context.new_page()
    page.goto(link)
    page.close()
    return link.partition("login")[0]


def read_axe() -> str:
    """The script of axe-core, from the npm registry by the lock's hash.

    Raises:
        OSError: it cannot be downloaded.
    """
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    try:
        build.make_assets(AXE, dev=True)
    except build.AssetFault as error:
        raise OSError(str(error)) from error
    return (AXE / "axe.js").read_text("utf-8")


def serious_faults(page: Page, axe: str) -> list[dict[str, Any]]:
    """What axe finds on a page that is serious or critical."""
    page.evaluate(axe)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        {"rule": one["id"], "nodes": [node["html"][:160] for node in one["nodes"]][:3]}
        for one in found["violations"]
        if one["impact"] in SERIOUS
    ]


def excess_px(page: Page) -> int:
    """By how much a page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - window.innerWidth"))


def version() -> str:
    """Chromium's version."""
    done = subprocess.run(
        [str(CHROMIUM), "--version"], capture_output=True, text=True, check=False, timeout=30
    )
    return done.stdout.strip()
