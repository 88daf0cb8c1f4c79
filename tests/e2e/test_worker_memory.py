"""`memory_mb` limits inline releases: a burst costs its request, lasting memory costs the worker."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import pytest

from e2e.place import Site
from kedge.system.machine import read_machine

pytestmark = pytest.mark.e2e

ALLOWED_MB = 256
POLICY = f"memory_mb = {ALLOWED_MB}\n"
LIMIT = read_machine().for_worker(ALLOWED_MB, 2)


def inline(site: Site, kind: str) -> None:
    """A release that does it on a word, inside the workers."""
    site.start()
    model = site.model("one", kind, trigger=kind)
    site.run("register", site.endpoint, model, "--trust-inline", "a test of the limit")
    site.run("promote", site.endpoint, "v1")
    site.until(lambda: site.infer()[0] == 200, "the first answer")


def ask(site: Site, word: str) -> int:
    """The status; 0 where the connection was lost."""
    given: dict[str, tuple[str, list[Any]]] = {"x": ("FP64", [1.0]), "word": ("BYTES", [word])}
    with suppress(OSError, http.client.HTTPException):
        return site.infer(given)[0]
    return 0


class Peaks:
    """The most that any worker of a site held, while it lasts."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.most = 0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ending.wait(0.02):
            for pid in self._site.processes("gateway-worker"):
                with suppress(OSError, ValueError, IndexError):  # it may have ended
                    words = Path(f"/proc/{pid}/status").read_text().partition("VmRSS:")[2].split()
                    self.most = max(self.most, int(words[0]) << 10)


def test_a_burst_beyond_the_limit_fails_its_request_and_no_other(
    make_site: Callable[..., Site],
) -> None:
    site = make_site(policy=POLICY)
    inline(site, "grab")
    workers = site.processes("gateway-worker")
    with Peaks(site) as peaks, site.load(rate=50) as load:
        time.sleep(0.3)
        answers = [ask(site, "grab") for _ in range(4)]
    assert answers == [500] * 4
    assert load.failures == []
    assert site.processes("gateway-worker") == workers
    assert peaks.most < LIMIT


def test_a_worker_that_holds_too_much_is_started_again_and_the_release_moves(
    make_site: Callable[..., Site],
) -> None:
    site = make_site(policy=POLICY)
    inline(site, "leak")
    workers = site.processes("gateway-worker")
    with Peaks(site) as peaks:
        until = time.monotonic() + 60
        while time.monotonic() < until and site.processes("gateway-worker") == workers:
            ask(site, "leak")
        site.until(lambda: len(site.processes("gateway-worker")) == 2, "two workers")
        site.until(lambda: site.infer()[0] == 200, "an answer of the next one")
    assert site.processes("gateway-worker") != workers
    assert peaks.most < LIMIT + (256 << 20)  # pages of files are not data
    told = f"of {LIMIT >> 20} MB, and was ended"
    site.until(lambda: told in site.run("status", site.endpoint).stdout, "the reason in status")
    (apart,) = (site.root / ".kedge/apart").glob("*.json")
    assert '"memory"' in apart.read_text()
    assert f"{LIMIT - (ALLOWED_MB << 20) >> 20} MB" in site.run("doctor").stdout
    for _ in range(4):  # its own process may hold as much as the policy says, and no worker ends
        ask(site, "leak")
    workers = site.processes("gateway-worker")
    site.until(lambda: site.infer()[0] == 200, "an answer")
    assert site.processes("gateway-worker") == workers
