"""The gateway: its cost above the leanest server, and the effect of shadows and promotions on callers.

Speed against floors and peers (speed.py, peering.py), a shadow's price (shadowing.py), a
promotion's (promotion.py), and the memory of a worker that holds three releases.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import material
import peering
import promotion
import shadowing
import speed
from common import ROOT, Bench, memory_mb, spread, talk
from kedge_site import Site, post, until

SLOW_S = 4.0
ONNX, SKLEARN, SLOW, SMALL = "flights", "claims", "slow", "small"
WINDOW = 'back_window = "1s"'
"""What was left is forgotten at once, so that the next promotion has to load it again."""


def with_granian() -> None:
    """Start again where granian is, if it is not here: its group is not installed by default."""
    if speed.has("granian") or os.environ.get("BENCH_AGAIN") or "UV" not in os.environ:
        return
    talk("granian is not installed: starting again with the dependency group bench")
    os.execvpe(
        os.environ["UV"],
        ["uv", "run", "--project", str(ROOT), "--group", "bench", "python", *sys.argv],
        {**os.environ, "BENCH_AGAIN": "1"},
    )


def register_all(bench: Bench, site: Site, folder: Path) -> dict[str, Any]:
    """Every version of every endpoint; how long the slow ones take to load."""
    for number in range(2 + candidates(bench)):
        path = material.write_onnx(folder / f"onnx{number}", flip=number > 0, variant=number)
        site.register(ONNX, path)
    small = material.write_sklearn(folder / "sklearn1", flip=False)
    site.register(SKLEARN, small)
    wanted = bench.seconds(SLOW_S, 0.5)
    ballast = material.ballast_for(wanted, folder / "trial")
    loads = []
    for number in (1, 2):
        slow = material.write_sklearn(folder / f"slow{number}", flip=number == 2, ballast=ballast)
        loads.append(site.register(SLOW, slow))
    if not bench.quick:
        site.register(SMALL, small)
        site.register(SMALL, folder / "slow2")
    return {"wanted_s": wanted, "ballast": ballast, "load_s": loads}


def candidates(bench: Bench) -> int:
    """How many take turns: a candidate that was killed is brought back ever more slowly."""
    return 2 if bench.quick else 3


def measure_memory(bench: Bench, site: Site) -> None:
    """A worker with production, the way back and a candidate."""
    site.promote(ONNX, 2)
    from kedge.core.release.commands import Abort, Shadow  # noqa: PLC0415 - beside its only use

    candidate = site.release(ONNX, 3)
    site.submit(ONNX, Shadow(release=candidate))
    until(lambda: not site.status(ONNX)["back"]["cold"], "the way back")
    time.sleep(0.5)
    with bench.phase("memory"):
        workers = [memory_mb(pid) for pid in site.workers()]
        hosts = [memory_mb(pid) for pid in site.hosts(ONNX, candidate)]
        holds = site.status(ONNX)["replicas"][0]["holds"]
    site.submit(ONNX, Abort())
    bench.note("worker_rss_mb", max(rss for rss, _ in workers), 1)
    bench.detail["memory"] = {
        "worker_rss_mb": spread([rss for rss, _ in workers], 1),
        "worker_pss_mb": spread([pss for _, pss in workers], 1),
        "model_process_rss_mb": spread([rss for rss, _ in hosts], 1),
        "model_process_pss_mb": spread([pss for _, pss in hosts], 1),
        "holds": holds,
    }


def main() -> None:
    """Measure."""
    with_granian()
    endpoints = {ONNX: "", SKLEARN: "", SLOW: WINDOW, SMALL: WINDOW}
    with (
        Bench("gateway", __doc__) as bench,
        tempfile.TemporaryDirectory() as made,
        Site(endpoints, workers=1) as site,
    ):
        folder = Path(made)
        site.start()
        bench.detail["slow_model"] = register_all(bench, site, folder)
        fp32, fp64 = material.body("FP32"), material.body("FP64")
        site.promote(ONNX, 1)
        until(lambda: post(site.port, f"/v2/models/{ONNX}/infer", fp32) == 200, "the first answer")
        speed.measure_onnx(bench, site, ONNX, folder / "onnx0" / "model.onnx", fp32)
        measure_memory(bench, site)
        site.promote(SKLEARN, 1)
        speed.measure_sklearn(bench, site, SKLEARN, fp64, *peering.installed())
        site.separate()
        turns = [site.release(ONNX, 3 + number) for number in range(candidates(bench))]
        shadowing.measure_all(bench, site, ONNX, fp32, turns)
        promotion.measure(bench, site, fp64, slow=SLOW, small=SMALL)


if __name__ == "__main__":
    main()
