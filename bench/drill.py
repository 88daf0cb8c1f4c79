"""`kedge drill` under load: its total time, and its effect on callers.

Eight workers, 500 requests/s in open loop, a model that loads in milliseconds. The command is given
as an operator gives it, with its ten seconds. `drill_failed` counts the callers' failures over all of
it, and `drill_back_ms_p50` runs from the command's entry to the last ack of going back.
`drill_s` is the wall time of the command, in which it also waits for what the workers counted.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import material
from common import Bench, spread, talk
from kedge_site import Site, until
from loadgen import OpenLoad, failures

WORKERS = 8
RATE = 500.0
ENDPOINT = "small"
READY_S = 60.0


def prepare(site: Site, folder: Path) -> None:
    """Two versions; the second in production, and the first its way back, loaded everywhere."""
    for number in (1, 2):
        site.register(ENDPOINT, material.write_onnx(folder / f"v{number}", flip=number == 2))
        site.promote(ENDPOINT, number)
    until(lambda: len(site.workers()) == WORKERS, "all workers")
    until(lambda: not site.status(ENDPOINT)["back"]["cold"], "the way back", READY_S)
    site.gather()


def practise(bench: Bench, site: Site, *, count: int, bound: str) -> dict[str, Any]:
    """Drill again and again while callers ask."""
    path = f"/v2/models/{ENDPOINT}/infer"
    done: list[dict[str, Any]] = []
    walls: list[float] = []
    with (
        bench.phase("drill"),
        OpenLoad(site.port, path, material.body("FP32"), rate=RATE, mark=material.FLIPPED) as load,
    ):
        time.sleep(1.0)
        for _ in range(count):
            began = time.monotonic()
            done.append(site.run("drill", ENDPOINT, "--for", bound))
            walls.append(time.monotonic() - began)
        time.sleep(0.5)
        records = load.stop()
    went = [one for one in done if one["ok"]]
    return {
        "drills": len(done),
        "went_well": len(went),
        "why": [one["why"] for one in done],
        "wall_s": spread(walls, 2),
        "requests": len(records),
        "failed": failures(records),
        "answered_by_the_way_back": sum(one["answered"] for one in done),
        "failed_on_the_way_back": sum(one["failed"] for one in done),
        **{
            f"{way}_{part}": spread([one[way][part] for one in done if one[way][part] is not None])
            for way in ("back", "forward")
            for part in ("decide_ms", "write_ms", "last_ack_ms", "first_old_answer_ms", "total_ms")
        },
        "realtime_generator": load.realtime,
    }


def main() -> None:
    """Measure."""
    with (
        Bench("drill", __doc__) as bench,
        tempfile.TemporaryDirectory() as made,
        Site({ENDPOINT: ""}, workers=WORKERS) as site,
    ):
        site.start(gathered=False)
        prepare(site, Path(made))
        bound = f"{bench.seconds(10.0, 2.0):g}s"
        found = practise(bench, site, count=bench.rounds(12, 1), bound=bound)
        bench.note("drill_s", found["wall_s"]["p50"], 1)
        bench.note("drill_failed", sum(found["failed"].values()))
        bench.note("drill_not_well", found["drills"] - found["went_well"])
        bench.note("drill_back_ms_p50", found["back_last_ack_ms"]["p50"], 1)
        bench.note("drill_forward_ms_p50", found["forward_last_ack_ms"]["p50"], 1)
        bench.detail["drill"] = found
        talk(f"  {found['requests']} requests, failed: {found['failed']}")


if __name__ == "__main__":
    main()
