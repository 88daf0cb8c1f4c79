"""The effect of a rollback on callers on a fully loaded core, where kedge has no capabilities.

Supervisor, worker, model processes, control and four closed-loop callers share one CPU, which has
nothing to spare. kedge runs without capabilities, as an ordinary user: what it lowers in priority
it cannot raise again. A release is promoted; the one that was left gets copies, as a batch job;
it is rolled back to. `rollback_busy_p99_ratio` is p99 in the 5 s after the rollback over that in the
5 s before, the median of the rounds. `rollback_busy_stuck` counts rollbacks after which a thread of the
way back is still not an ordinary one.

`python bench/wayback.py` takes about four minutes.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import material
from common import BENCH, Bench, interval, on, place, quantile, spread
from common import SERVER_CPU as CPU
from kedge_site import Site, post, until
from loadgen import OneCaller, Record, failures, within

ENDPOINT = "flights"
CALLERS = 4
SPAN_S = 5.0
COPIED_S = 3.0
"""How long copies flow before the span begins: the way back is a batch job by then."""


def priorities(pids: list[int]) -> list[tuple[int, int]]:
    """Scheduling policy and niceness of every thread of these processes."""
    found = []
    for pid in pids:
        with contextlib.suppress(OSError):
            for thread in Path(f"/proc/{pid}/task").iterdir():
                with contextlib.suppress(OSError):
                    number = int(thread.name)
                    nice = os.getpriority(os.PRIO_PROCESS, number)
                    found.append((os.sched_getscheduler(number), nice))
    return found


def lowered(found: list[tuple[int, int]]) -> int:
    """How many of them come after ordinary ones."""
    own = os.getpriority(os.PRIO_PROCESS, 0)
    return sum(policy != os.SCHED_OTHER or nice > own for policy, nice in found)


class Round:
    """One rollback."""

    def __init__(self, site: Site, span_s: float) -> None:
        from kedge.core.release.commands import Rollback  # noqa: PLC0415 - the site has begun

        site.promote(ENDPOINT, 2)
        until(lambda: not site.status(ENDPOINT)["back"]["cold"], "the way back")
        back = site.hosts(ENDPOINT, site.release(ENDPOINT, 1))
        for pid in back:
            place(pid, CPU)
        time.sleep(COPIED_S)
        self.before = time.monotonic()
        time.sleep(span_s)
        self.copied = lowered(priorities(back))
        self.back = time.monotonic()
        site.submit(ENDPOINT, Rollback())
        time.sleep(max(0.0, self.back + span_s - time.monotonic()))
        self.after = time.monotonic()
        self.stuck = lowered(priorities(back))


def judge(lines: list[list[Record]], rounds: list[Round]) -> dict[str, Any]:
    """p99 after over p99 before, by round."""
    records = [record for line in lines for record in line]
    spans = [
        (
            [r.ms for r in within(records, each.before, each.back)],
            [r.ms for r in within(records, each.back, each.after)],
        )
        for each in rounds
    ]
    found: dict[str, Any] = {"requests": len(records), "failed": failures(records)}
    for name, q in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
        ratios = [quantile(after, q) / quantile(before, q) for before, after in spans]
        found[name] = {
            "ratio": statistics.median(ratios),
            "interval": interval(ratios),
            "before_ms": statistics.median(quantile(before, q) for before, _ in spans),
            "after_ms": statistics.median(quantile(after, q) for _, after in spans),
            "ratios": [round(ratio, 3) for ratio in ratios],
        }
    found["longest_ms_after"] = spread([max(after) for _, after in spans])
    found["longest_ms_before"] = spread([max(before) for before, _ in spans])
    found["answers_by_release"] = {
        name: sum(record.release == name for record in records) for name in ("r1", "r2")
    }
    found["batch_jobs_before"] = [each.copied for each in rounds]
    found["stuck_after"] = [each.stuck for each in rounds]
    return found


def main() -> None:
    """Measure."""
    with (
        Bench("wayback", __doc__) as bench,
        tempfile.TemporaryDirectory() as made,
        contextlib.ExitStack() as stack,
        Site({ENDPOINT: 'runtime = "process"'}, workers=1) as site,
    ):
        with on({CPU}):
            site.start(before=[sys.executable, str(BENCH / "unprivileged.py")])
        for number in (1, 2):
            site.register(
                ENDPOINT, material.write_onnx(Path(made) / f"v{number}", flip=number == 2)
            )
        site.promote(ENDPOINT, 1)
        path, body = f"/v2/models/{ENDPOINT}/infer", material.body("FP32")
        until(lambda: post(site.port, path, body) == 200, "an answer")
        site.gather()
        with bench.phase("rollback on a loaded core"):
            callers = [
                stack.enter_context(OneCaller(site.port, path, body, cpu=CPU))
                for _ in range(CALLERS)
            ]
            rounds = [Round(site, bench.seconds(SPAN_S, 1.0)) for _ in range(bench.rounds(12, 1))]
            lines = [caller.stop() for caller in callers]
        found = judge(lines, rounds)
        bench.note("rollback_busy_p99_ratio", found["p99"]["ratio"])
        bench.note("rollback_busy_p99_ratio_low", found["p99"]["interval"][0])
        bench.note("rollback_busy_p99_ratio_high", found["p99"]["interval"][1])
        bench.note("rollback_busy_failed", sum(found["failed"].values()))
        bench.note("rollback_busy_stuck", sum(each.stuck > 0 for each in rounds))
        bench.detail["rollback_busy"] = found


if __name__ == "__main__":
    main()
