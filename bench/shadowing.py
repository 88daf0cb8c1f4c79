"""The cost of a shadow for production: its p99 with the shadow on against off, block by block.

300 requests/s, open loop, one worker on one CPU; the candidate is in its own process on the
other. Blocks with the shadow on and off alternate (off on, on off, ...), so what changes slowly
meets both alike; each pair of neighbours gives one ratio. The candidate is healthy; or its
process is stopped (SIGSTOP) and hangs; or it is killed whenever it comes up again.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from common import LOAD_CPU, Bench, interval, place, quantile, spread
from kedge_site import Site
from loadgen import OpenLoad, Record, failures, within

from kedge.core.release.commands import Abort, Shadow
from kedge.engine.recording.counts import summary

RATE = 300.0
SETTLE_S = 0.3
KILL_LOOK_S = 0.02
TOLD_S = 1.3
"""Workers write their counts once a second."""
CASES = ("healthy", "hanging", "dead")


@contextlib.contextmanager
def left_alone(pids: Callable[[], list[int]]) -> Iterator[None]:
    """Nothing happens to the candidate."""
    del pids
    yield


@contextlib.contextmanager
def stopped(pids: Callable[[], list[int]]) -> Iterator[None]:
    """It stands still: it reads nothing, answers nothing and does not die."""
    for pid in pids():
        os.kill(pid, signal.SIGSTOP)
    yield
    for pid in pids():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def killed(pids: Callable[[], list[int]]) -> Iterator[None]:
    """It dies, and dies again each time its supervisor brings it back."""
    ending = threading.Event()

    def kill() -> None:
        while not ending.is_set():
            for pid in pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            ending.wait(KILL_LOOK_S)

    thread = threading.Thread(target=kill)
    thread.start()
    yield
    ending.set()
    thread.join()


HARM = {"healthy": left_alone, "hanging": stopped, "dead": killed}


class Blocks:
    """Turns the shadow on and off and remembers when it was which."""

    def __init__(
        self, site: Site, endpoint: str, candidates: Iterator[int], *, case: str, seconds: float
    ) -> None:
        self.spans: list[tuple[bool, float, float]] = []
        self.salts: set[str] = set()
        """Each time the shadow is turned on is a rollout of its own; its salt names it."""
        self._site = site
        self._endpoint = endpoint
        self._candidates = candidates
        self._harm = HARM[case]
        self._seconds = seconds
        self._on: int | None = None

    def off(self) -> None:
        """A block without."""
        if self._on is not None:
            self._site.submit(self._endpoint, Abort())
            self._on = None
        time.sleep(SETTLE_S)
        self._span(on=False)

    def on(self) -> None:
        """A block with. A fresh candidate each time, so that none inherits another's breaker."""
        if self._on is not None:
            self._site.submit(self._endpoint, Abort())
        release = self._on = next(self._candidates)
        receipt = self._site.submit(self._endpoint, Shadow(release=release))
        self.salts.add(receipt.state.salt)
        pids = functools.partial(self._site.hosts, self._endpoint, release)
        for pid in pids():
            place(pid, LOAD_CPU)
        time.sleep(SETTLE_S)
        with self._harm(pids):
            self._span(on=True)

    def end(self) -> None:
        """Leave nothing on."""
        if self._on is not None:
            self._site.submit(self._endpoint, Abort())
            self._on = None

    def _span(self, *, on: bool) -> None:
        began = time.monotonic()
        time.sleep(self._seconds)
        self.spans.append((on, began, time.monotonic()))


def measure(
    bench: Bench,
    site: Site,
    endpoint: str,
    body: bytes,
    candidates: Iterator[int],
    case: str,
    *,
    pairs: int,
    seconds: float,
) -> tuple[dict[str, Any], set[str]]:
    """One condition of the candidate, `pairs` times off and on."""
    blocks = Blocks(site, endpoint, candidates, case=case, seconds=seconds)
    path = f"/v2/models/{endpoint}/infer"
    with (
        bench.phase(f"shadow, candidate {case}"),
        OpenLoad(site.port, path, body, rate=RATE) as load,
    ):
        time.sleep(SETTLE_S)
        for number in range(pairs):
            for turn in (blocks.off, blocks.on) if number % 2 == 0 else (blocks.on, blocks.off):
                turn()
        blocks.end()
        records = load.stop()
    found = compare(records, blocks.spans)
    return {**found, "realtime_generator": load.realtime}, blocks.salts


def compare(records: list[Record], spans: list[tuple[bool, float, float]]) -> dict[str, Any]:
    """Pair each block with its neighbour."""
    parts = [(on, within(records, begin, end)) for on, begin, end in spans]
    p99 = [(on, quantile([record.ms for record in part], 0.99)) for on, part in parts]
    ratios, excess = [], []
    for first, second in zip(p99[::2], p99[1::2], strict=True):
        off, on = (first[1], second[1]) if second[0] else (second[1], first[1])
        ratios.append(on / off)
        excess.append(on - off)
    low, high = interval(ratios)
    return {
        "ratio": statistics.median(ratios),
        "interval": [low, high],
        "excess_ms": statistics.median(excess),
        "excess_interval_ms": interval(excess),
        "blocks": len(parts),
        "ratios": spread(ratios),
        "off_p99_ms": spread([value for on, value in p99 if not on]),
        "on_p99_ms": spread([value for on, value in p99 if on]),
        "off_ms": spread([r.ms for on, part in parts if not on for r in part]),
        "on_ms": spread([r.ms for on, part in parts if on for r in part]),
        "requests": len(records),
        "failed": failures(records),
    }


def measure_all(
    bench: Bench, site: Site, endpoint: str, body: bytes, candidates: list[int]
) -> None:
    """Every condition; the figure without a suffix is the healthy candidate's."""
    found: dict[str, Any] = {}
    salts: dict[str, set[str]] = {}
    turns = itertools.cycle(candidates)
    pairs = {
        "healthy": bench.rounds(20, 1),
        "hanging": bench.rounds(12, 1),
        "dead": bench.rounds(12, 1),
    }
    for case in CASES:
        found[case], salts[case] = measure(
            bench,
            site,
            endpoint,
            body,
            turns,
            case,
            pairs=pairs[case],
            seconds=bench.seconds(3.0, 0.6),
        )
        suffix = "" if case == "healthy" else f"_{case}"
        bench.note(f"shadow_p99_ratio{suffix}", found[case]["ratio"])
        bench.note(f"shadow_p99_ratio_low{suffix}", found[case]["interval"][0])
        bench.note(f"shadow_p99_excess_ms{suffix}", found[case]["excess_ms"])
    time.sleep(TOLD_S)
    tallies = site.workplace.evidence.tallies(endpoint)
    for case in CASES:
        mine = [tally for tally in tallies if tally.salt in salts[case]]
        found[case]["counted"] = msgspec.structs.asdict(summary(mine).shadow)
    worst = max(CASES, key=lambda case: float(found[case]["ratio"]))
    bench.detail["shadow"] = {**found, "worst": {"candidate": worst, **found[worst]}}
