"""A model that runs inside a worker and never returns costs its own requests, and moves to a process."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from e2e.place import Site
from kedge.gateway.watchdog import HANG_S, WAIT_TICKS


@pytest.mark.parametrize(
    ("kind", "limit_s"),
    [("grip", HANG_S), pytest.param("hang", WAIT_TICKS, marks=pytest.mark.soak)],
)
def test_a_worker_whose_loop_stands_still_is_restarted_and_the_release_moves(
    make_site: Callable[..., Site], kind: str, limit_s: float
) -> None:
    """One works without end and holds the interpreter; the other waits and holds only the loop."""
    word: dict[str, tuple[str, list[Any]]] = {"x": ("FP64", [1.0]), "word": ("BYTES", [kind])}
    site = make_site(workers=1)
    site.start()
    model = site.model("one", kind, trigger=kind)
    site.run("register", site.endpoint, model, "--trust-inline", "a test of the watchdog")
    site.run("promote", site.endpoint, "v1")
    site.until(lambda: site.infer()[0] == 200, "the first answer")

    began = time.monotonic()
    with suppress(OSError, http.client.HTTPException):
        site.infer(word)
    site.until(lambda: _answers(site), "an answer of the next worker", within_s=limit_s + 20)
    assert time.monotonic() - began < limit_s + 20

    apart = site.until(lambda: list((site.root / ".kedge/apart").glob("*.json")), "its move")
    assert [path.name for path in apart] == [f"{site.endpoint}-r1.json"]
    assert '"hung"' in apart[0].read_text()
    log = (site.root / "up.log").read_text()
    assert "worker.hung" in log
    assert "stood still" in site.run("status", site.endpoint).stdout
    with suppress(OSError, http.client.HTTPException):
        site.infer(word)  # it holds up a model process now, and no worker
    assert site.answers("/v2/health/live")


def _answers(site: Site) -> bool:
    with suppress(OSError, http.client.HTTPException):
        return site.infer()[0] == 200
    return False
