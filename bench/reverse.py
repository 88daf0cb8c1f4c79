"""The cost of the reverse shadow for production on a single core.

Everything is on one CPU: the worker, the model processes, control, the callers. Two kinds of
callers: one that asks again as soon as it is answered, which leaves the core nothing, and
300 requests/s in open loop. Blocks with the reverse shadow on (`after.sample` as by default, 10 %)
and off alternate, so that what changes slowly meets both alike; each pair of neighbours gives one
ratio. The release that was left runs in a process in both kinds of blocks: only the copies differ.

`python bench/reverse.py` takes about three minutes; a figure is the worse of the two kinds of callers.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import material
from common import SERVER_CPU as CPU
from common import Bench, interval, on, quantile, spread
from kedge_site import Site, post, until
from loadgen import OneCaller, OpenLoad, failures, within
from msgspec.structs import asdict, replace

if TYPE_CHECKING:
    from kedge.core.release.commands import AnyCommand

ENDPOINT = "flights"
RATE = 300.0
SETTLE_S = 0.4
TOLD_S = 2.5
"""Workers write their counts once a second."""

Load = OneCaller | OpenLoad


def sampled(site: Site, percent: float) -> AnyCommand:
    """The command that has so many per cent of the callers copied after a promotion."""
    from kedge.core.release.commands import Configure  # noqa: PLC0415 - it is there once the site has begun

    policy = site.workplace.ledger.read().states[ENDPOINT].policy
    changed = replace(policy, after=replace(policy.after, sample=percent))
    return Configure(policy=changed, digest=f"sha256:bench-{percent:g}")


def counted(site: Site) -> dict[str, Any]:
    """What was copied so far, and what came of it."""
    from kedge.engine.recording.counts import summary  # noqa: PLC0415 - as above

    told = summary(site.workplace.evidence.tallies(ENDPOINT))
    return asdict(told.shadow)


def callers(kind: str, site: Site, body: bytes) -> Load:
    """One closed-loop caller, or 300 requests/s, on the server's CPU."""
    path = f"/v2/models/{ENDPOINT}/infer"
    if kind == "closed":
        return OneCaller(site.port, path, body, cpu=CPU)
    return OpenLoad(site.port, path, body, rate=RATE, cpu=CPU)


def blocks(
    bench: Bench, site: Site, body: bytes, kind: str, *, pairs: int, seconds: float
) -> dict[str, Any]:
    """On and off in turns; each pair of neighbours gives a ratio of p90, p99 and the median."""
    spans: list[tuple[bool, float, float]] = []
    state = True
    with bench.phase(f"reverse shadow, {kind} loop"), callers(kind, site, body) as load:
        time.sleep(SETTLE_S)
        for number in range(pairs):
            for turned_on in (False, True) if number % 2 == 0 else (True, False):
                if turned_on is not state:
                    site.submit(ENDPOINT, sampled(site, 10.0 if turned_on else 0.0))
                    state = turned_on
                time.sleep(SETTLE_S)
                began = time.monotonic()
                time.sleep(seconds)
                spans.append((turned_on, began, time.monotonic()))
        if state is False:
            site.submit(ENDPOINT, sampled(site, 10.0))
        records = load.stop()
    parts = [(on_, within(records, begin, end)) for on_, begin, end in spans]
    found: dict[str, Any] = {"requests": len(records), "failed": failures(records)}
    for name, q in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
        each = [(on_, quantile([r.ms for r in part], q)) for on_, part in parts]
        ratios = []
        for (first_on, first), (_, second) in zip(each[::2], each[1::2], strict=True):
            ratios.append(first / second if first_on else second / first)
        found[name] = {
            "ratio": statistics.median(ratios),
            "interval": interval(ratios),
            "off_us": statistics.median(1e3 * value for on_, value in each if not on_),
            "on_us": statistics.median(1e3 * value for on_, value in each if on_),
            "ratios": spread(ratios),
        }
    for name, wanted in (("off_ms", False), ("on_ms", True)):
        found[name] = spread([r.ms for on_, part in parts for r in part if on_ is wanted])
    return found


def place_releases(site: Site, folder: Path, *, ours: str) -> None:
    """v2 in production if requested, v1 as the way back in processes."""
    from kedge.core.release.commands import Configure  # noqa: PLC0415 - as above

    for number, runtime in ((1, "process"), (2, ours)):
        site.register(ENDPOINT, material.write_onnx(folder / f"rev{number}", flip=number == 2))
        policy = replace(site.workplace.ledger.read().states[ENDPOINT].policy, runtime=runtime)
        site.submit(ENDPOINT, Configure(policy=policy, digest=f"sha256:bench-{number}"))
        site.promote(ENDPOINT, number)
    until(lambda: not site.status(ENDPOINT)["back"]["cold"], "the way back")


def measure(bench: Bench, site: Site, folder: Path, body: bytes) -> None:
    """Both kinds of callers; a figure is the worse of the two."""
    with on({CPU}):
        site.start()
    place_releases(site, folder, ours="inline")
    until(lambda: post(site.port, f"/v2/models/{ENDPOINT}/infer", body) == 200, "an answer")
    site.gather()
    found: dict[str, Any] = {}
    for kind in ("closed", "open"):
        before = counted(site)
        found[kind] = blocks(
            bench, site, body, kind, pairs=bench.rounds(24, 1), seconds=bench.seconds(1.2, 0.4)
        )
        time.sleep(TOLD_S)
        after = counted(site)
        found[kind]["copies"] = difference(after, before)
        found[kind]["coverage"] = coverage(found[kind]["copies"])
    for name in ("p90", "p99"):
        worst = max(found, key=lambda kind: float(found[kind][name]["ratio"]))
        bench.note(f"reverse_shadow_{name}_ratio", found[worst][name]["ratio"])
        bench.note(f"reverse_shadow_{name}_ratio_low", found[worst][name]["interval"][0])
        bench.note(f"reverse_shadow_{name}_ratio_high", found[worst][name]["interval"][1])
        for kind in found:
            bench.note(f"reverse_shadow_{name}_ratio_{kind}", found[kind][name]["ratio"])
    bench.note("reverse_shadow_coverage", min(each["coverage"] for each in found.values()))
    bench.detail["reverse_shadow"] = found


def difference(after: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """What was counted in between."""
    found: dict[str, Any] = {}
    for name, value in after.items():
        was = before.get(name)
        if isinstance(value, dict):
            found[name] = difference(value, was if isinstance(was, dict) else {})
        elif isinstance(value, int | float):
            found[name] = value - (was if isinstance(was, int | float) else 0)
    return found


def coverage(copies: dict[str, Any]) -> float:
    """Of the copies that were offered, how many were answered."""
    return float(copies["answered"] / copies["requests"]) if copies.get("requests") else 0.0


def main() -> None:
    """Measure."""
    with (
        Bench("reverse", __doc__) as bench,
        tempfile.TemporaryDirectory() as made,
        Site({ENDPOINT: 'runtime = "inline"'}, workers=1) as site,
    ):
        measure(bench, site, Path(made), material.body("FP32"))


if __name__ == "__main__":
    main()
