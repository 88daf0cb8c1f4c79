"""Production answers while what runs is stopped, started and replaced."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from e2e.place import Site
from kedge.running import run_dir_of

pytestmark = pytest.mark.e2e

TWO = """
[endpoints.other]
audience = "internal"
"""


class Strangers:
    """Callers that open a connection for each request, as fast as they are answered."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.ok = 0
        self.failures: list[str] = []
        self.ending = threading.Event()
        self.threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(2)]

    def _ask(self) -> None:
        raw = json.dumps(
            {"inputs": [{"name": "x", "datatype": "FP64", "shape": [1], "data": [1.0]}]}
        ).encode()
        while not self.ending.wait(0.02):
            try:
                status, _, _ = self.site.request("POST", "/v2/models/flights/infer", raw)
                if status == 200:
                    self.ok += 1
                else:
                    self.failures.append(f"HTTP {status}")
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(f"{type(error).__name__}: {error}")


@contextlib.contextmanager
def strangers(site: Site) -> Iterator[Strangers]:
    asking = Strangers(site)
    for thread in asking.threads:
        thread.start()
    try:
        yield asking
    finally:
        asking.ending.set()
        for thread in asking.threads:
            thread.join(10)


def folders(site: Site) -> list[Path]:
    return [path for path in run_dir_of(site.root / ".kedge").iterdir() if path.is_dir()]


def test_one_endpoint_that_cannot_be_loaded_makes_no_other_unready(
    make_site: Callable[..., Site],
) -> None:
    """A load balancer that asks for readiness leaves the host in, and nobody waits for the load."""
    site = make_site(policy=TWO)
    site.start(patrol=False)
    site.release()
    site.run("register", "other", site.model("third", scale=5.0))
    site.run("promote", "other", "v1")
    digest = site.data("versions", "other")[0]["digest"].removeprefix("sha256:")
    assert site.stop() == 0
    for path in (site.root / ".kedge/artifacts" / digest / "files").iterdir():
        path.chmod(0o600)
        path.write_bytes(b"{}")
    began = time.monotonic()
    site.start(patrol=False)
    site.until(lambda: site.infer()[0] == 200, "the first answer")
    assert time.monotonic() - began < 20
    assert site.request("GET", "/v2/health/ready")[0] == 200
    assert site.request("GET", "/v2/models/flights/ready")[0] == 200
    assert site.request("GET", "/v2/models/other/ready")[0] == 404


def test_a_restart_fails_no_request_and_keeps_the_process(site: Site) -> None:
    """Several in a row, with a canary under way, callers on kept and on new connections."""
    assert site.up is not None
    site.run("canary", "flights", "v2", "--weight", "20")
    pid = site.up.pid
    began = Path(f"/proc/{pid}/stat").read_text().split()[21]
    with site.load(rate=200) as kept, strangers(site) as new:
        for _ in range(3):
            workers = set(site.processes("gateway-worker"))
            done = site.data("restart")
            assert (done["pid"], done["workers"]) == (pid, 2)
            assert len(set(site.processes("gateway-worker")) - workers) == 2
    assert (kept.failures, new.failures) == ([], [])
    assert kept.ok > 200
    assert new.ok > 200
    assert kept.releases["r2"] > 0
    assert Path(f"/proc/{pid}/stat").read_text().split()[21] == began
    site.until(lambda: len(site.processes("gateway-worker")) == 2, "those before them to end", 60)
    site.until(lambda: len(folders(site)) == 1, "their folders to go", 30)
    assert site.stop() == 0
    assert site.processes("kedge") == []
