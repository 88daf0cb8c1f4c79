"""A model whose answers depend on the batch: sixteen callers at once get the answers of each alone."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import pytest

import models
from e2e.place import Site

pytestmark = pytest.mark.e2e

CALLERS, TIMES = 16, 12
POLICY = (
    'output = {kind = "score", score = "p", tolerance = 0.00001}\n'
    'shadow = {window = "1h", min_pairs = 50, min_pairs_per_segment = 10}\n'
    "log = {sample = 100}\n"
    "limits = {candidate_deadline_ms = 5000}\n"
)


@pytest.fixture
def serving(make_site: Callable[..., Site]) -> Site:
    """flights serves a dynamically quantised network; v2 is the same one in other bytes."""
    site = make_site(policy=POLICY, workers=1)
    site.start()
    for note in ("one", "two"):
        path = models.quantised(site.root / note / "m.onnx", note=note)
        told = site.data("register", "flights", str(path.parent))
        assert told["rows"] == "dependent"
    site.run("promote", "flights", "v1")
    site.until(lambda: ask(site, [rows(0)])[0][0] == 200, "the first answer")
    return site


def rows(caller: int, time: int = 0) -> Any:
    """One or three rows; of another magnitude with each caller, so that company would show."""
    dice = np.random.default_rng([caller, time])
    return dice.normal(0, 10.0 ** (caller % 4 - 1), (1 + 2 * (caller % 2), 8)).astype(np.float32)


def ask(site: Site, asked: list[Any]) -> list[tuple[int, str, list[float]]]:
    """Status, arm and answer of each request, over one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=20)
    found = []
    for x in asked:
        tensor = {
            "name": "X",
            "datatype": "FP32",
            "shape": list(x.shape),
            "data": x.ravel().tolist(),
        }
        connection.request("POST", "/v2/models/flights/infer", json.dumps({"inputs": [tensor]}))
        answer = connection.getresponse()
        said = json.loads(answer.read())
        data = said["outputs"][0]["data"] if answer.status == 200 else []
        found.append((answer.status, answer.getheader("kedge-arm", ""), data))
    connection.close()
    return found


def all_at_once(site: Site) -> set[str]:
    """Let sixteen callers ask at once, again and again; which arms answered. Every answer is checked."""
    session = onnxruntime.InferenceSession(str(site.root / "one" / "m.onnx"))
    gate, arms, faults = threading.Barrier(CALLERS, timeout=60), set(), []

    def caller(number: int) -> None:
        for time in range(TIMES):
            x = rows(number, time)
            gate.wait()
            ((status, arm, got),) = ask(site, [x])
            (alone,) = session.run(None, {"X": x})
            arms.add(arm)
            if status != 200 or not np.allclose(got, alone, rtol=1e-5, atol=1e-6):
                faults.append((number, status, got, alone.tolist()))

    threads = [threading.Thread(target=caller, args=(number,)) for number in range(CALLERS)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not faults
    return arms


def test_as_a_canary_and_in_production_each_caller_gets_the_answer_to_its_own_rows(
    serving: Site,
) -> None:
    assert [row["rows"] for row in serving.data("versions", "flights")] == ["dependent"] * 2
    assert "never merged" in serving.run("versions", "flights").stdout
    serving.run("canary", "flights", "v2", "--weight", "100")
    serving.until(lambda: ask(serving, [rows(0)])[0][1] == "candidate", "the candidate", 30)
    assert "candidate" in all_at_once(serving)
    status = serving.data("status", "flights")
    assert status["candidate"]["rows"] == "dependent"
    assert "rows" in serving.run("status", "flights").stdout


def test_as_its_own_shadow_and_in_a_replay_it_agrees_with_itself(serving: Site) -> None:
    serving.run("shadow", "flights", "v2")
    serving.until(lambda: serving.data("status", "flights")["replicas"][0]["holds"], "the copy", 30)
    assert all_at_once(serving) == {"production"}
    found = serving.until(
        lambda: (e := serving.data("evidence", "flights"))["agreement"]["pairs"] >= 200 and e,
        "pairs",
        60,
    )
    assert found["agreement"]["raw"] == 1.0
    log = serving.root / ".kedge" / "records" / "hours"
    serving.until(lambda: list(log.glob("*.db")), "the log", 30)
    serving.run("abort", "flights")
    again = serving.until(
        lambda: (
            (r := serving.data("replay", "flights", "v2", "--since", "1h"))["replayed"] >= 200 and r
        ),
        "a replay",
        60,
    )
    assert again["agreement"]["raw"] == 1.0
    assert again["incomplete"] == 0, "one row a request: each was logged whole"
