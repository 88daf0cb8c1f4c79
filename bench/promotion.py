"""The cost of a promotion for production while a slow model is loaded.

300 requests/s, open loop. What serves is on one CPU: the worker, and the model processes that
are ready; what loads is on the other, as the kernel would have it on a machine that is not full.
The window runs from the start of `kedge promote` (prepare included) until it has ended and a tail
after it; its p99 stands against that of the window before. From one slow model to
another, both served by processes, which is what promoting does; and from a small one that
stands in the worker, where what follows the flip also pays for the way to a process.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

from common import Bench, quantile, spread
from kedge_site import Site, until
from loadgen import OpenLoad, failures, longest_gap_ms, within

RATE = 300.0
TAIL_S = 1.0
GONE_S = 60.0
LOOK_S = 0.2
COPIES = 2


def wait_forgotten(site: Site, endpoint: str, release: int) -> None:
    """Wait until nothing of a release is loaded anywhere: the next promotion has to load it."""
    until(
        lambda: not site.hosts(endpoint, release) and not site.held(endpoint, release),
        f"r{release} to be unloaded",
        GONE_S,
        LOOK_S,
    )


def wait_settled(site: Site, endpoint: str, release: int) -> None:
    """Wait until both processes of a production release are up: nothing loads any more."""
    until(
        lambda: site.ready_hosts(endpoint, release) == COPIES, f"r{release} twice", GONE_S, LOOK_S
    )


def series(
    bench: Bench,
    site: Site,
    endpoint: str,
    body: bytes,
    *,
    measured: tuple[int, ...],
    before_s: float,
    count: int,
    name: str,
) -> dict[str, Any]:
    """Promote to and fro between versions 1 and 2; those in `measured` are measured.

    Args:
        measured: the versions whose promotion is measured: slow ones.
        before_s: how long the window before is.
        count: how many promotions are measured.
    """
    rows: list[dict[str, Any]] = []
    spans: list[tuple[float, float]] = []
    path = f"/v2/models/{endpoint}/infer"
    numbers = {version: site.release(endpoint, version) for version in (1, 2)}
    now = int(site.status(endpoint)["production"]["version"].removeprefix("v"))
    with bench.phase(f"promote, {name}"), OpenLoad(site.port, path, body, rate=RATE) as load:
        while len(rows) < count:
            now = 3 - now
            if now not in measured:
                site.promote(endpoint, now)
                continue
            wait_forgotten(site, endpoint, numbers[now])
            if 3 - now in measured:
                wait_settled(site, endpoint, numbers[3 - now])
            time.sleep(before_s)
            began = time.monotonic()
            receipt = site.run("promote", endpoint, f"v{now}", "--override", "bench")["receipt"]
            ended = time.monotonic()
            time.sleep(TAIL_S)
            spans.append((began, ended))
            rows.append({"prepare_ms": receipt["prepare_ms"], "command_s": round(ended - began, 2)})
        records = load.stop()
    for row, (began, ended) in zip(rows, spans, strict=True):
        quiet = [r.ms for r in within(records, began - before_s, began)]
        during = [r.ms for r in within(records, began, ended + TAIL_S)]
        row.update(
            before_p99_ms=quantile(quiet, 0.99),
            p99_ms=quantile(during, 0.99),
            ratio=quantile(during, 0.99) / quantile(quiet, 0.99),
            before_p50_ms=quantile(quiet, 0.5),
            p50_ms=quantile(during, 0.5),
            before_max_ms=max(quiet),
            max_ms=max(during),
            gap_ms=longest_gap_ms(records, began, ended + TAIL_S),
        )
    return {
        "ratio": statistics.median(row["ratio"] for row in rows),
        "ratios": spread([row["ratio"] for row in rows]),
        "each": rows,
        "requests": len(records),
        "failed": failures(records),
        "realtime_generator": load.realtime,
    }


def measure(bench: Bench, site: Site, body: bytes, *, slow: str, small: str) -> None:
    """All series; the figure is the one from slow to slow."""
    before_s = bench.seconds(6.0, 0.8)
    site.promote(slow, 1)
    wait_settled(site, slow, site.release(slow, 1))
    with site.sorting():
        found = series(
            bench,
            site,
            slow,
            body,
            measured=(1, 2),
            before_s=before_s,
            count=bench.rounds(4, 1),
            name="slow to slow",
        )
        bench.note("promote_p99_ratio", found["ratio"])
        bench.detail["promote"] = {"slow_to_slow": found}
        if bench.quick:
            return
        site.promote(small, 1)
        bench.detail["promote"]["small_to_slow"] = series(
            bench,
            site,
            small,
            body,
            measured=(2,),
            before_s=before_s,
            count=2,
            name="small to slow",
        )
    site.gather()
    bench.detail["promote"]["slow_to_slow_on_one_cpu"] = series(
        bench,
        site,
        slow,
        body,
        measured=(1, 2),
        before_s=before_s,
        count=2,
        name="slow to slow, all on one CPU",
    )
