"""Screenshots of the dashboard for the docs, from a real run of the demo: `make screenshots`.

It starts the demo, logs a browser in, and takes each picture when the demo reaches its stage.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path

from chromium import CHROMIUM, started
from playwright.sync_api import Browser, BrowserContext

WORK = Path(".kedge/demo")
IMAGES = Path("docs/images")
LONGEST_S = 1800.0
CANARY_S = 12.0
"""Seconds of a canary before its picture: by then the charts have lines."""


def kedge(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "kedge", *words],
        cwd=WORK,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout if done.returncode == 0 else ""


def stage() -> tuple[str, str]:
    """Return the stage of the demo's endpoint, and its candidate; empty before there is one."""
    text = kedge("status", "flights", "--json")
    if not text:
        return "", ""
    found = json.loads(text)
    candidate = found["candidate"]
    return found["stage"], candidate["release"] if candidate else ""


def log_in(context: BrowserContext, within_s: float) -> str:
    """Log a browser in; return the root of the pages."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        link = re.search(r"http://\S+", kedge("login"))
        if link is not None:
            page = context.new_page()
            page.goto(link[0])
            page.close()
            return link[0].split("login")[0]
        time.sleep(2)
    raise SystemExit("the demo did not start")


def take(context: BrowserContext, url: str, name: str, *, height: int = 0) -> None:
    """Take one picture of a page once it is live."""
    page = context.new_page()
    page.goto(url)
    page.wait_for_timeout(4_000)
    path = IMAGES / f"{name}.png"
    if height:
        width = page.evaluate("window.innerWidth")
        page.screenshot(path=path, clip={"x": 0, "y": 0, "width": width, "height": height})
    else:
        page.screenshot(path=path)
    page.close()
    print(path)


def contexts(browser: Browser) -> dict[str, BrowserContext]:
    return {
        "light": browser.new_context(color_scheme="light", viewport={"width": 1280, "height": 860}),
        "dark": browser.new_context(color_scheme="dark", viewport={"width": 1280, "height": 860}),
        "phone": browser.new_context(
            color_scheme="dark", viewport={"width": 390, "height": 844}, device_scale_factor=2
        ),
    }


def shoot(browser: Browser, demo: subprocess.Popen[bytes]) -> None:
    made = contexts(browser)
    root = ""
    for context in made.values():
        root = log_in(context, 600.0)
    endpoint = root + "endpoints/flights"
    began, since = time.monotonic(), 0.0
    while demo.poll() is None and time.monotonic() - began < LONGEST_S:
        at, candidate = stage()
        canary = at == "canary" and bool(candidate)
        since = (since or time.monotonic()) if canary else 0.0
        if since and time.monotonic() - since > CANARY_S:
            for name in ("light", "dark"):
                take(made[name], endpoint, f"canary-{name}", height=860)
            take(made["phone"], endpoint, "phone-dark")
            return
        time.sleep(1)


def main() -> None:
    parser = argparse.ArgumentParser(description="Take the screenshots of the docs.")
    parser.parse_args()
    if CHROMIUM is None:
        raise SystemExit("needs chromium: apt-get install chromium")
    IMAGES.mkdir(parents=True, exist_ok=True)
    demo = subprocess.Popen([sys.executable, "-m", "kedge", "demo"])
    try:
        with started() as browser:
            shoot(browser, demo)
    finally:
        demo.terminate()
        demo.wait(60)


if __name__ == "__main__":
    main()
