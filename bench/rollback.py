"""Rollbacks under load: the time until every replica acknowledged, and the effect on callers.

Eight workers, 500 requests/s in open loop. A version is promoted and taken back, 200 times, with
a model that loads in milliseconds and with one that takes four seconds. `rollback_ack_ms` runs
from the entry of `submit` to the last replica's ack, the durable record included, and is the
worse of the two models'. `rollback_failed` counts the callers' failures over all of it.
`rollback_cli_ms_p50` is the wall time of the command, from the start of its process to its exit.
`rollback_cli_per_help` divides it by that of `kedge --help`, which runs in turn with it.
"""

from __future__ import annotations

import random
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import material
from common import LOAD_CPU, Bench, interval, on, quantile, spread, talk
from kedge_site import Site, environment, kedge_command, until
from loadgen import OpenLoad, Record, failures, longest_gap_ms, within

from kedge.core.errors import NotAcknowledged
from kedge.core.release.commands import Promote, Rollback
from kedge.engine.submission import Receipt

WORKERS = 8
RATE = 500.0
SLOW_S = 4.0
SMALL, SLOW = "small", "slow"
BEFORE_S, AFTER_S = 0.02, 0.18
"""The window around a rollback in which the longest gap between answers is looked for."""
READY_S = 90.0


class Turn:
    """One rollback."""

    def __init__(self, began: float, receipt: Receipt | None) -> None:
        self.began = began
        self.receipt = receipt

    def gap_ms(self, records: list[Record]) -> float:
        """The longest time without a good answer around it."""
        return longest_gap_ms(records, self.began - BEFORE_S, self.began + AFTER_S)

    def late(self, records: list[Record]) -> int:
        """Requests that were sent after the last ack and still got the version that was left."""
        if self.receipt is None or self.receipt.last_ack_ms is None:
            return 0
        acked = self.began + self.receipt.last_ack_ms / 1e3
        return sum(
            r.marked and r.sent > acked for r in within(records, self.began, acked + AFTER_S)
        )


def prepare(bench: Bench, site: Site, folder: Path) -> dict[str, Any]:
    """Two versions of both models; the first of each in production, everything loaded."""
    wanted = bench.seconds(SLOW_S, 0.5)
    ballast = material.ballast_for(wanted, folder / "trial")
    loads: dict[str, list[float]] = {SMALL: [], SLOW: []}
    for number in (1, 2):
        small = material.write_onnx(folder / f"small{number}", flip=number == 2)
        slow = material.write_sklearn(folder / f"slow{number}", flip=number == 2, ballast=ballast)
        loads[SMALL].append(site.register(SMALL, small))
        loads[SLOW].append(site.register(SLOW, slow))
    site.promote(SMALL, 1)
    site.promote(SLOW, 1)
    until(lambda: len(site.workers()) == WORKERS, "all workers")
    site.gather()
    return {"slow_wanted_s": wanted, "ballast": ballast, "load_s": loads}


def take_back(
    bench: Bench, site: Site, endpoint: str, body: bytes, *, count: int, patient: bool
) -> dict[str, Any]:
    """Promote and roll back under load, again and again."""
    new = site.release(endpoint, 2)
    dice = random.Random(7)
    turns: list[Turn] = []
    path = f"/v2/models/{endpoint}/infer"
    with (
        bench.phase(f"rollback, {endpoint} model"),
        OpenLoad(site.port, path, body, rate=RATE, mark=material.FLIPPED) as load,
    ):
        time.sleep(0.2)
        calm = time.monotonic(), time.monotonic() + bench.seconds(20.0, 1.0)
        time.sleep(calm[1] - calm[0])
        for _ in range(count):
            site.submit(endpoint, Promote(release=new, override="bench"))
            if patient:
                until(lambda: not site.status(endpoint)["back"]["cold"], "the way back", READY_S)
                patient = False
            time.sleep(dice.uniform(0.2, 0.3))
            turns.append(roll_back(site, endpoint))
            time.sleep(dice.uniform(0.2, 0.3))
        records = load.stop()
    return judge(records, turns, calm, realtime=load.realtime)


def roll_back(site: Site, endpoint: str) -> Turn:
    """One rollback, in this process: what the command does less the start of an interpreter."""
    began = time.monotonic()
    try:
        return Turn(began, site.submit(endpoint, Rollback()))
    except NotAcknowledged as error:
        talk(f"  not acknowledged: {error}")
        return Turn(began, None)


def judge(
    records: list[Record], turns: list[Turn], calm: tuple[float, float], *, realtime: bool
) -> dict[str, Any]:
    """The distributions of one series."""
    receipts = [turn.receipt for turn in turns if turn.receipt is not None]
    acks = [r.last_ack_ms for r in receipts if r.last_ack_ms is not None]
    length = BEFORE_S + AFTER_S
    steps = int((calm[1] - calm[0]) / length)
    without = [
        longest_gap_ms(records, calm[0] + i * length, calm[0] + (i + 1) * length)
        for i in range(steps)
    ]
    half = len(acks) // 2
    return {
        "rollbacks": len(turns),
        "not_acknowledged": len(turns) - len(acks),
        "ack_ms": spread(acks),
        "ack_ms_p50_interval": interval(acks),
        "ack_ms_p50_by_half": [statistics.median(acks[:half]), statistics.median(acks[half:])],
        "decide_ms": spread([r.decide_ms for r in receipts]),
        "write_ms": spread([r.write_ms for r in receipts]),
        "first_old_answer_ms": spread(
            [r.first_old_answer_ms for r in receipts if r.first_old_answer_ms is not None]
        ),
        "total_ms": spread([r.total_ms for r in receipts]),
        "cold": sum(bool(r.cold) for r in receipts),
        "requests": len(records),
        "failed": failures(records),
        "answered_by_the_left_one_after_the_last_ack": sum(turn.late(records) for turn in turns),
        "gap_ms_without": spread(without),
        "gap_ms_with": spread([turn.gap_ms(records) for turn in turns]),
        "latency_ms_without": spread([r.ms for r in within(records, *calm)]),
        "latency_ms_with": spread(
            [
                r.ms
                for turn in turns
                for r in within(records, turn.began - BEFORE_S, turn.began + AFTER_S)
            ]
        ),
        "realtime_generator": realtime,
    }


def timed(site: Site, *words: str) -> tuple[float, str]:
    """Run one command as an operator does; milliseconds until its exit, and what it printed."""
    began = time.perf_counter()
    with on({LOAD_CPU}):
        done = subprocess.run(
            [*kedge_command(), *words],
            cwd=site.root,
            env=environment(),
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
    return (time.perf_counter() - began) * 1e3, done.stdout


def by_command(
    bench: Bench, site: Site, endpoint: str, body: bytes, *, count: int
) -> dict[str, Any]:
    """`kedge rollback ENDPOINT`, as an operator types it, under the same load."""
    new = site.release(endpoint, 2)
    times, helps, shown = [], [], ""
    with (
        bench.phase("rollback, by command"),
        OpenLoad(site.port, f"/v2/models/{endpoint}/infer", body, rate=RATE) as load,
    ):
        for _ in range(count):
            site.submit(endpoint, Promote(release=new, override="bench"))
            time.sleep(0.3)
            took, _ = timed(site, "--help")
            helps.append(took)
            took, shown = timed(site, "rollback", endpoint)
            times.append(took)
            time.sleep(0.2)
        records = load.stop()
    return {
        "ms": spread(times, 1),
        "help_ms": spread(helps, 1),
        "failed": failures(records),
        "requests": len(records),
        "shown": shown,
    }


def main() -> None:
    """Measure."""
    with (
        Bench("rollback", __doc__) as bench,
        tempfile.TemporaryDirectory() as made,
        Site({SMALL: "", SLOW: ""}, workers=WORKERS) as site,
    ):
        site.start(gathered=False)
        bench.detail["models"] = prepare(bench, site, Path(made))
        body = material.body("FP32")
        found = {
            SMALL: take_back(bench, site, SMALL, body, count=bench.rounds(200, 6), patient=False),
            SLOW: take_back(
                bench, site, SLOW, material.body("FP64"), count=bench.rounds(200, 3), patient=True
            ),
        }
        command = by_command(bench, site, SMALL, body, count=bench.rounds(20, 1))
        bench.note("rollback_ack_ms_p50", max(row["ack_ms"]["p50"] for row in found.values()), 1)
        bench.note("rollback_ack_ms_p99", max(row["ack_ms"]["p99"] for row in found.values()), 1)
        failed = sum(sum(row["failed"].values()) for row in (*found.values(), command))
        bench.note("rollback_failed", failed)
        bench.note("rollback_cli_ms_p50", command["ms"]["p50"], 0)
        bench.note("rollback_cli_per_help", command["ms"]["p50"] / command["help_ms"]["p50"], 2)
        bench.detail.update({f"{name}_model": row for name, row in found.items()})
        bench.detail["command"] = command
        worst = max(quantile([row["gap_ms_with"]["max"]], 1) for row in found.values())
        talk(f"  longest gap between answers {worst:g} ms")


if __name__ == "__main__":
    main()
