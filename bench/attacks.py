"""The cost of attacks on one worker for its other callers: p99 and failures, by kind of attack.

Everything of kedge is on one CPU, with 1,024 open files; callers (200 requests/s in open loop) and
the attacker are on the other. Blocks with the attack alternate with blocks in which a burner
spends as much CPU in the attacker's place, so that only what the server does for the attacker
differs. `attack_p99_ratio_KIND` is the median over pairs of neighbours of p99 with the attack over
p99 without; `attack_p99_ratio` is the worst kind's, `attack_failed` counts the callers' failures over
all kinds. Bounds of one caller do not hold here: loopback stands for any number of callers.

`python bench/attacks.py` takes about six minutes; `--kind KIND` measures one.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import material
from attackers import KINDS, Attacker, Beside, Burner
from common import CPUS, Bench, cpu_s, interval, memory_mb, on, quantile, spread, talk
from kedge_site import Site, post, until
from loadgen import OpenLoad, Record, failures, within

ENDPOINT, NAMES, FAT, WIDE = "flights", "names", "fat", "wide"
RATE = 200.0
SETTLE_S = 0.3
PAUSE_S = 0.3
"""After a block, for what the attacker left behind."""
FILES = 1024
"""Open files of each process, as the limit of a login commonly is."""
ANSWER, FAT_ANSWER = 5_000, 1_000_000
"""Values of a large answer of production (100 kB of JSON), and of a candidate's (4 MB)."""


def prepare(site: Site, folder: Path) -> None:
    """Small models in production; behind two of them a candidate that gets copies."""
    from kedge.core.release.commands import Shadow  # noqa: PLC0415 - the site has begun

    site.register(ENDPOINT, material.write_onnx(folder / "one", flip=False))
    site.register(WIDE, material.write_graph(folder / "wide", wide=ANSWER))
    for endpoint, wide in ((NAMES, 0), (FAT, FAT_ANSWER)):
        site.register(endpoint, material.write_graph(folder / f"{endpoint}1", word=not wide))
        second = folder / f"{endpoint}2"
        site.register(endpoint, material.write_graph(second, word=not wide, expand=wide, scale=2.0))
    for endpoint in (ENDPOINT, WIDE, NAMES, FAT):
        site.promote(endpoint, 1)
    for endpoint in (NAMES, FAT):
        site.submit(endpoint, Shadow(release=site.release(endpoint, 2)))


def start(site: Site) -> None:
    """Start it with few open files, and put all of it on the server's CPU."""
    with on(CPUS):
        site.launch()
    assert site.up is not None
    resource.prlimit(site.up.pid, resource.RLIMIT_NOFILE, (FILES, FILES))
    until(site.live, "the gateway")
    site.gather()


def limited(site: Site) -> Counter[str]:
    """What bounds of this site's processes have refused so far."""
    return Counter(
        {
            bound: count
            for member in site.workplace.roster.members()
            for bound, count in member.limited.items()
        }
    )


class Block:
    """One block: with the attacker, or with the burner in its place."""

    def __init__(self, site: Site, beside: Beside, seconds: float) -> None:
        workers = site.workers()
        self.attacked = isinstance(beside, Attacker)
        time.sleep(SETTLE_S)
        own, served = beside.cpu_s(), cpu_s(workers)
        self.began = time.monotonic()
        time.sleep(seconds)
        self.ended = time.monotonic()
        took = self.ended - self.began
        self.share = (beside.cpu_s() - own) / took
        self.worker = (cpu_s(workers) - served) / took
        self.rss_mb = max((memory_mb(pid)[0] for pid in workers), default=0.0)
        self.told: dict[str, Any] = {}
        if isinstance(beside, Attacker):
            self.told = beside.told()
        else:
            beside.end()
        time.sleep(PAUSE_S)

    def p99(self, records: list[Record]) -> float:
        """Its callers' p99 in ms."""
        return quantile([record.ms for record in within(records, self.began, self.ended)], 0.99)


def blocks(
    bench: Bench, site: Site, kind: str, body: bytes, *, pairs: int, seconds: float
) -> dict[str, Any]:
    """With the attack and without in turns."""
    done: list[tuple[Block, Block]] = []
    share, before = 0.0, limited(site)
    with (
        bench.phase(f"attack: {kind}"),
        OpenLoad(site.port, f"/v2/models/{ENDPOINT}/infer", body, rate=RATE) as load,
    ):
        for number in range(pairs):
            pair: dict[bool, Block] = {}
            # The first attack says how much CPU the burner has to spend.
            for attacked in (True, False) if number % 2 == 0 else (False, True):
                with Attacker(kind, site, body) if attacked else Burner(share) as beside:
                    pair[attacked] = Block(site, beside, seconds)
                share = pair[True].share if attacked else share
            done.append((pair[True], pair[False]))
        records = load.stop()
    time.sleep(1.2)  # workers write what they refused once a second
    return judge(records, done, limited(site) - before)


def judge(
    records: list[Record], done: list[tuple[Block, Block]], refused: Counter[str]
) -> dict[str, Any]:
    """What the attack cost, and what came of it."""
    ratios = [with_.p99(records) / without.p99(records) for with_, without in done]
    answers: Counter[str] = Counter()
    closed: Counter[str] = Counter()
    for with_, _ in done:
        answers.update(with_.told["answers"])
        closed.update(with_.told["closed"])
    seconds = sum(with_.told["seconds"] for with_, _ in done)
    sent = sum(with_.told["sent"] for with_, _ in done)
    opened = sum(with_.told["connections"] for with_, _ in done)
    if not opened or (not sent and not closed):
        raise RuntimeError("the attacker did nothing")
    return {
        "p99_ratio": statistics.median(ratios),
        "interval": interval(ratios),
        "p99_ms": statistics.median(with_.p99(records) for with_, _ in done),
        "p99_ms_without": statistics.median(without.p99(records) for _, without in done),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "requests": len(records),
        "failed": failures(records),
        "attacker": {
            "seconds": round(seconds, 1),
            "mb_s": round(sent / seconds / 1e6, 3),
            "connections_s": round(opened / seconds, 1),
            "open": max(with_.told["open"] for with_, _ in done),
            "answers": dict(answers),
            "closed": dict(closed),
            "cpu": spread([with_.share for with_, _ in done]),
        },
        "burner_cpu": spread([without.share for _, without in done]),
        "worker_cpu": spread([with_.worker for with_, _ in done]),
        "worker_cpu_without": spread([without.worker for _, without in done]),
        "worker_rss_mb": max(with_.rss_mb for with_, _ in done),
        "refused": dict(refused),
    }


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--kind", action="append", choices=list(KINDS))
    given, rest = parser.parse_known_args()
    sys.argv[1:] = rest
    inline = 'runtime = "inline"\n'
    endpoints = {
        ENDPOINT: inline,
        WIDE: inline,
        NAMES: f'{inline}segments = ["word"]\n',
        FAT: "",
    }
    with (
        Bench("attacks", __doc__) as bench,
        tempfile.TemporaryDirectory() as made,
        Site(endpoints, workers=1) as site,
    ):
        start(site)
        prepare(site, Path(made))
        body = material.body("FP32")
        for endpoint in (ENDPOINT, WIDE, FAT):
            path = f"/v2/models/{endpoint}/infer"
            until(lambda path=path: post(site.port, path, body) == 200, f"{endpoint} to answer")  # type: ignore[misc]
        site.gather()
        found: dict[str, Any] = {}
        for kind in given.kind or KINDS:
            found[kind] = blocks(
                bench, site, kind, body, pairs=bench.rounds(5, 1), seconds=bench.seconds(1.2, 0.3)
            )
            bench.note(f"attack_p99_ratio_{kind}", found[kind]["p99_ratio"])
            if found[kind]["failed"]:
                talk(f"  {kind}: callers failed: {found[kind]['failed']}")
        bench.note("attack_p99_ratio", max(each["p99_ratio"] for each in found.values()))
        bench.note("attack_failed", sum(sum(each["failed"].values()) for each in found.values()))
        bench.detail["kinds"] = {
            kind: {"told": KINDS[kind].told, **each} for kind, each in found.items()
        }


if __name__ == "__main__":
    main()
