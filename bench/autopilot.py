"""Detection end to end: real processes, a canary at 5 % that errs, and the patrol that rolls it back.

100 requests/s in open loop, each of a caller of its own. One in a hundred makes both versions
fail, four more in a hundred make only the candidate fail: 5 % against 1 %, as in the simulation.
`detect_s` runs from the candidate's first bad answer, as a caller saw it, to the last replica's
ack of the patrol's rollback. The simulation of the same rates stands beside it.
"""

from __future__ import annotations

import http.client
import json
import random
import statistics
import tempfile
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import numpy as np
from common import LOAD_CPU, Bench, interval, on, quantile, talk
from kedge_site import Site, until
from rollouts import Policy, play
from units import Design
from worlds import DAY_S, Traffic, World

ENDPOINT = "flights"
RATE, CALLERS, SHARE = 100.0, 4, 5.0
BOTH, ITS_OWN = 0.01, 0.04
LONGEST_S = 300.0
FIELDS = 3


def write_model(folder: Path, *, trips: tuple[int, ...], mark: float) -> Path:
    """An ONNX model that fails where one of these columns is 1: it reads beyond a constant's end."""
    import onnx  # noqa: PLC0415 - as in material
    from onnx import TensorProto, helper  # noqa: PLC0415

    nodes, total = [], "mark"
    constants = [
        helper.make_tensor("mark", TensorProto.FLOAT, [1], [mark]),
        helper.make_tensor("one_value", TensorProto.FLOAT, [1], [0.0]),
    ]
    for column in trips:
        constants.append(helper.make_tensor(f"column{column}", TensorProto.INT64, [1], [column]))
        nodes += [
            helper.make_node("Gather", ["X", f"column{column}"], [f"x{column}"], axis=1),
            helper.make_node("Cast", [f"x{column}"], [f"i{column}"], to=TensorProto.INT64),
            helper.make_node("Gather", ["one_value", f"i{column}"], [f"g{column}"], axis=0),
            helper.make_node("Add", [f"g{column}", total], [f"t{column}"]),
        ]
        total = f"t{column}"
    nodes.append(helper.make_node("Identity", [total], ["score"]))
    graph = helper.make_graph(
        nodes,
        "trip",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, FIELDS])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, [None, 1])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    folder.mkdir(parents=True)
    onnx.save(model, folder / "model.onnx")
    return folder


def body(*, both: bool, its_own: bool) -> bytes:
    """One row; column 0 trips both versions, column 1 the candidate."""
    tensor = {
        "name": "X",
        "shape": [1, FIELDS],
        "datatype": "FP32",
        "data": [float(both), float(its_own), 0.0],
    }
    return json.dumps({"inputs": [tensor]}).encode()


class Callers:
    """Traffic, and when a caller first met a failure of the candidate."""

    def __init__(self, port: int, seed: int) -> None:
        self.first: float | None = None
        self.bad = self.asked = self.failed = 0
        self._port = port
        self._ending = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(random.Random(f"{seed}/{n}"), n), daemon=True)
            for n in range(CALLERS)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, dice: random.Random, caller: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        due, number = time.monotonic(), 0
        while not self._ending.is_set():
            number += 1
            drawn = dice.random()
            asked = body(both=drawn < BOTH, its_own=BOTH <= drawn < BOTH + ITS_OWN)
            headers = {"kedge-entity": f"{caller}-{dice.random()}"}
            self.asked += 1
            try:
                connection.request("POST", f"/v2/models/{ENDPOINT}/infer", asked, headers)
                answer = connection.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException):
                self.failed += 1  # whatever it would have answered
                connection.close()
            else:
                self.failed += answer.status != 200 and drawn >= BOTH
                if answer.getheader("kedge-reason") == "failover":
                    self.bad += 1
                    if self.first is None:
                        self.first = time.time()
            due += CALLERS / RATE
            time.sleep(max(0.0, due - time.monotonic()))


def once(site: Site, folder: Path, number: int) -> dict[str, Any]:
    """Canary of a fresh bad version until it is rolled back.

    One that is not taken back in time counts with the time that it was watched, which is the least
    that its detection takes.
    """
    site.register(ENDPOINT, write_model(folder / f"bad{number}", trips=(0, 1), mark=float(number)))
    with Callers(site.port, number) as callers:
        time.sleep(2)
        site.run("canary", ENDPOINT, f"v{number + 2}", "--weight", f"{SHARE:g}")
        try:
            until(lambda: site.status(ENDPOINT)["stage"] == "settled", "it", LONGEST_S, 0.1)
        except TimeoutError:
            watched = time.time() - callers.first if callers.first is not None else LONGEST_S
            site.run("abort", ENDPOINT)
            return {
                "seconds": watched,
                "failovers": callers.bad,
                "callers_failed": callers.failed,
                "code": "missed",
            }
    entries = site.run("history", ENDPOINT, "--limit", "50")
    acted = next(e for e in entries if e["event"]["event"] == "candidate_rolled_back")
    told = until(lambda: _receipt(site, acted["seq"]), "the receipt", 20)
    at = datetime.fromisoformat(acted["at"]).timestamp()
    acks = (told["last_ack_ms"] - told["write_ms"]) / 1e3
    assert callers.first is not None
    return {
        "seconds": at - callers.first + acks,
        "failovers": callers.bad,
        "callers_failed": callers.failed,
        "code": acted["event"]["evidence"]["code"],
    }


def _receipt(site: Site, of: int) -> dict[str, Any] | None:
    for entry in site.run("history", ENDPOINT, "--limit", "50"):
        event = entry["event"]
        if event.get("kind") == "receipt" and event["body"]["of"] == of:
            return dict(event["body"])
    return None


def main() -> None:
    """Measure and write the result."""
    with Bench("autopilot", __doc__) as bench, tempfile.TemporaryDirectory() as folder:
        policy = 'output = {kind = "score", score = "score", tolerance = 0.5}'
        runs: list[dict[str, Any]] = []
        with Site({ENDPOINT: policy}, workers=2) as site, on({LOAD_CPU}):
            site.start()
            good = write_model(Path(folder) / "good", trips=(0,), mark=0.0)
            site.register(ENDPOINT, good)
            site.promote(ENDPOINT, 1)
            until(lambda: site.status(ENDPOINT)["production"], "production")
            with bench.phase("canaries"):
                for number in range(bench.rounds(20, 3)):
                    found = once(site, Path(folder), number)
                    runs.append(found)
                    talk(
                        f"  {found['seconds']:5.1f} s, {found['failovers']} failovers, {found['code']}"
                    )
        took = [run["seconds"] for run in runs]
        bench.note("detect_s_p50", statistics.median(took))
        bench.note("detect_s_p99", quantile(took, 0.99))
        bench.note("detect_failovers_p50", statistics.median(run["failovers"] for run in runs))
        bench.note("detect_missed", sum(run["code"] == "missed" for run in runs))
        bench.note("detect_callers_failed", sum(run["callers_failed"] for run in runs))
        simulated = simulate(200 if not bench.quick else 20)
        bench.note("detect_s_simulated_p50", float(np.median(simulated)))
        bench.note("detect_s_simulated_p99", float(np.quantile(simulated, 0.99)))
        bench.detail |= {"runs": runs, "p50_interval": interval(took)}


def simulate(runs: int) -> list[float]:
    """Seconds from the first bad answer to the alarm, in the simulation of the same rates."""
    world = World("autopilot", rps=float(RATE), p=BOTH, days=LONGEST_S / DAY_S)
    took = []
    for number in range(runs):
        dice = np.random.Generator(np.random.SFC64((1, number)))
        traffic = Traffic(dice, world, ratio=(BOTH + ITS_OWN) / BOTH, most=SHARE / 100)
        found = play(traffic, Design(), Policy(held=SHARE / 100))
        events = traffic.until(LONGEST_S)[0]
        seen, arm = events.seen(SHARE / 100)
        took.append(found.at - float(events.t[seen & (arm == 1)][0]))
    return took


if __name__ == "__main__":
    main()
