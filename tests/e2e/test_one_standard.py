"""One standard of failure for both arms, by real processes: what is alike is never condemned for its
tail, a pause or one caller's requests; what is worse is taken back whatever a caller does."""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from e2e.place import Site

pytestmark = pytest.mark.e2e

POLICY = (
    'output = {kind = "score", score = "score", tolerance = 0.5}\n'
    'canary = {steps = [25, 50], dwell = "1h"}\n'
)
WATCHED_S = 12.0
"""For how long a candidate must stay that was condemned after 1 to 3 seconds before."""


class Callers:
    """Single rows at a rate, each of another caller; and whatever else a test sends beside them."""

    def __init__(self, site: Site, rate: float = 100.0, threads: int = 4) -> None:
        self.site = site
        self.statuses: dict[int, int] = {}
        self._ending = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(threads / rate, n), daemon=True)
            for n in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def _ask(self, pause_s: float, thread: int) -> None:
        wire = http.client.HTTPConnection("127.0.0.1", self.site.port, timeout=30)
        number, due = 0, time.monotonic()
        while not self._ending.is_set():
            number += 1
            status = post(wire, f"c{thread}-{number}", 1)
            self.statuses[status] = self.statuses.get(status, 0) + 1
            due += pause_s
            self._ending.wait(max(0.0, due - time.monotonic()))

    def stop(self) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(35)


def post(wire: http.client.HTTPConnection, entity: str, rows: int, **headers: str) -> int:
    body = json.dumps(
        {
            "inputs": [
                {"name": "x", "datatype": "FP64", "shape": [rows], "data": [1.0] * rows},
                {"name": "word", "datatype": "BYTES", "shape": [rows], "data": ["fine"] * rows},
            ]
        }
    ).encode()
    named = {"kedge-entity": entity, **{k.replace("_", "-"): v for k, v in headers.items()}}
    wire.request("POST", "/v2/models/flights/infer", body, named)
    answer = wire.getresponse()
    answer.read()
    return answer.status


def state(site: Site) -> Any:
    return site.data("status", "flights")


def alike(make_site: Callable[..., Site], **model: Any) -> Site:
    """A site with a canary at 25 % whose candidate is the same model as production."""
    site = make_site(policy=POLICY)
    site.start()
    site.release(**{"scale": 2.0, "log": str(site.root / "calls"), **model})
    return site


def stays(site: Site, seconds: float = WATCHED_S) -> Any:
    """The evidence, after the canary was watched for so long and was not taken back."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = state(site)
        assert found["stage"] == "canary", site.run("history", "flights").stdout
        time.sleep(1.0)
    return site.data("evidence", "flights")


def errors(evidence: Any) -> list[int]:
    found: list[int] = next(m["bad"] for m in evidence["metrics"] if m["metric"] == "errors")
    return found


@pytest.mark.soak  # its time is spent waiting; the suite has a quarter of an hour
def test_a_model_with_a_long_tail_is_not_condemned_for_it(make_site: Callable[..., Site]) -> None:
    """Every tenth second a request of a thousand rows, which takes 0.3 s in either release."""
    site = make_site(policy=POLICY)
    site.start()
    slow: dict[str, Any] = {"row_s": 0.0003}
    site.run("register", "flights", site.model("one", **slow))
    site.run("register", "flights", site.model("two", **slow, log=str(site.root / "calls")))
    site.run("promote", "flights", "v1")
    site.until(lambda: site.infer()[0] == 200, "the first answer")
    callers = Callers(site)
    ended = threading.Event()

    def batches() -> None:
        wire = http.client.HTTPConnection("127.0.0.1", site.port, timeout=30)
        number = 0
        while not ended.wait(1.0):
            number += 1
            post(wire, f"batch-{number}", 1_000)

    batch = threading.Thread(target=batches, daemon=True)
    batch.start()
    try:
        time.sleep(4)
        site.run("canary", "flights", "v2", "--weight", "25")
        found = stays(site)
    finally:
        ended.set()
        callers.stop()
        batch.join(35)
    assert errors(found) == [0, 0]
    assert set(callers.statuses) == {200}


@pytest.mark.soak
def test_a_short_pause_of_its_process_condemns_no_candidate(make_site: Callable[..., Site]) -> None:
    """0.4 s, three times: what waited was late or never asked, and it is asked again at once."""
    site = alike(make_site)
    callers = Callers(site)
    try:
        site.run("canary", "flights", "v2", "--weight", "25")
        time.sleep(5)
        (process,) = site.processes("flights-r2-")
        for _ in range(3):
            os.kill(process, signal.SIGSTOP)
            time.sleep(0.4)
            os.kill(process, signal.SIGCONT)
            time.sleep(2)
        found = stays(site, 6)
    finally:
        callers.stop()
    assert errors(found) == [0, 0]
    assert found["coverage"]["late"] + sum(found["coverage"]["unasked"].values()) > 0
    assert set(callers.statuses) == {200}
    assert state(site)["counts"]["errors"] == {}


@pytest.mark.soak  # its time is spent waiting; the suite has a quarter of an hour
@pytest.mark.parametrize(
    "how", ["plain", *(pytest.param(how, marks=pytest.mark.soak) for how in ("probe", "asked"))]
)
def test_large_requests_of_one_caller_condemn_no_candidate(
    make_site: Callable[..., Site], how: str
) -> None:
    """Six at once, each of the allowed 1,024 rows and 0.35 s, of a caller of the candidate's share."""
    site = make_site(policy=POLICY)
    site.start()
    slow: dict[str, Any] = {"row_s": 0.00034}
    site.run("register", "flights", site.model("one", **slow))
    site.run("register", "flights", site.model("two", **slow, log=str(site.root / "calls")))
    site.run("promote", "flights", "v1")
    site.until(lambda: site.infer()[0] == 200, "the first answer")
    callers = Callers(site)
    try:
        site.run("canary", "flights", "v2", "--weight", "25")
        time.sleep(4)
        mine = next(
            name
            for name in (f"job-{n}" for n in range(200))
            if site.infer(headers={"kedge-entity": name})[1]["kedge-arm"] == "candidate"
        )
        headers = {"probe": {"kedge_probe": "1"}, "asked": {"kedge_release": "r2"}}.get(how, {})
        for _ in range(2):
            six = [
                threading.Thread(
                    target=lambda: post(
                        http.client.HTTPConnection("127.0.0.1", site.port, timeout=30),
                        mine,
                        1_024,
                        **headers,
                    )
                )
                for _ in range(6)
            ]
            for one in six:
                one.start()
            for one in six:
                one.join(35)
            time.sleep(2)
        found = stays(site, 5)
    finally:
        callers.stop()
    assert errors(found) == [0, 0]
    assert set(callers.statuses) == {200}


@pytest.mark.soak
def test_a_caller_that_chooses_its_entities_does_not_save_a_bad_candidate(
    make_site: Callable[..., Site],
) -> None:
    """More than fifty callers of one arm: the split is none by chance, and the failure is proven."""
    site = make_site(policy=POLICY)
    site.start()
    site.release(kind="raise", trigger="boom")
    site.run("canary", "flights", "v2", "--weight", "25")
    chosen: list[str] = []
    for n in range(2_000):
        if (
            site.infer(headers={"kedge-entity": f"m{n}", "kedge-probe": "1", **site.tester})[1][
                "kedge-arm"
            ]
            == "candidate"
        ):
            chosen.append(f"m{n}")
        if len(chosen) >= 90:
            break
    for name in chosen:
        site.infer(headers={"kedge-entity": name})
    site.until(
        lambda: site.data("evidence", "flights")["decision"]["code"] == "sample_ratio",
        "the split to be noticed",
        20,
    )
    with site.load(rate=200, boom=10) as load:
        site.until(lambda: state(site)["stage"] == "settled", "the candidate to be taken back", 40)
    assert load.failures == []
    assert site.served() == "r1"


@pytest.mark.parametrize(
    ("kind", "within_s"),
    [
        pytest.param("raise", 10, marks=pytest.mark.soak),
        ("exit", 12),
        ("hang", 14),
        pytest.param("nan", 10, marks=pytest.mark.soak),
    ],
)
def test_a_candidate_that_fails_always_is_still_rolled_back_within_seconds(
    make_site: Callable[..., Site], kind: str, within_s: float
) -> None:
    site = make_site(policy=POLICY)
    site.start()
    site.release(kind=kind, trigger="boom")
    with site.load(rate=100, boom=1) as load:
        time.sleep(3)
        site.run("canary", "flights", "v2", "--weight", "25")
        began = time.monotonic()
        site.until(lambda: state(site)["stage"] == "settled", "the candidate to be taken back", 40)
        took_s = time.monotonic() - began
    assert load.failures == []
    assert took_s < within_s
