"""The cost of a model process compared with inline, for plain models.

Six models, ONNX and scikit-learn, small, medium and large, each served inline and in processes by one
worker. Supervisor, worker and model processes share one CPU, the caller has the other: both ways
have the same hardware. Blocks alternate: one closed-loop caller for latency, then sixteen
connections for requests/s. A ratio is the median over pairs of neighbours, process over inline.
Memory is the proportional share: what the worker grows by, against two model processes.

`python bench/runtimes.py` takes about five minutes and prints the table of the ADR.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import material
from common import LOAD_CPU, Bench, interval, memory_mb, quantile, spread, talk
from kedge_site import Site, post, until
from loadgen import OneCaller, closed_loop, failures

CONNECTIONS = 16
SETTLE_S = 0.1
GROWN_S = 2.5
"""After a load, until what it needed only once was given back."""
RUNTIMES = ("inline", "process")


class Kind(NamedTuple):
    """One model: its description and the content of its request."""

    told: str
    datatype: str


KINDS = {
    "onnx_small": Kind("ONNX, logistic regression", "FP32"),
    "onnx_medium": Kind("ONNX, 2 layers of 512", "FP32"),
    "onnx_large": Kind("ONNX, 3 layers of 2,048", "FP32"),
    "sklearn_small": Kind("scikit-learn, logistic regression", "FP64"),
    "sklearn_medium": Kind("scikit-learn, 20 trees", "FP64"),
    "sklearn_large": Kind("scikit-learn, 200 trees", "FP64"),
}


def write(kind: str, folder: Path) -> Path:
    """Write one of the models."""
    match kind:
        case "onnx_small":
            return material.write_onnx(folder, flip=False)
        case "onnx_medium":
            return material.write_layers(folder, (512, 512))
        case "onnx_large":
            return material.write_layers(folder, (2048, 2048, 2048))
        case "sklearn_small":
            return material.write_sklearn(folder, flip=False)
        case "sklearn_medium":
            return material.write_forest(folder, 20)
    return material.write_forest(folder, 200)


def endpoint(kind: str, runtime: str) -> str:
    """The endpoint of a model under a runtime."""
    return f"{kind}_{runtime}"


def grown(site: Site, name: str) -> float:
    """Promote, and say by how many MB of proportional share everything has grown."""

    def used() -> float:
        hosts = site.hosts(name, site.release(name, 1))
        return sum(memory_mb(pid)[1] for pid in (*site.workers(), *hosts))

    before = used()
    site.promote(name, 1)
    time.sleep(GROWN_S)
    return used() - before


def block(site: Site, name: str, body: bytes, seconds: float) -> dict[str, Any]:
    """Latency of one caller, then requests/s of sixteen."""
    path = f"/v2/models/{name}/infer"
    time.sleep(SETTLE_S)
    with OneCaller(site.port, path, body, cpu=LOAD_CPU) as caller:
        time.sleep(seconds)
        records = caller.stop()
    fast = closed_loop(
        site.port, path, body, seconds=seconds, connections=CONNECTIONS, pids=site.workers()
    )
    times = [record.ms for record in records[5:]]
    return {
        "p50": quantile(times, 0.5),
        "p99": quantile(times, 0.99),
        "rps": fast["rps"],
        "failed": sum(failures(records).values()) + fast["errors"],
    }


def compare(bench: Bench, site: Site, kind: str, body: bytes) -> dict[str, Any]:
    """Blocks in turns, and the ratios of neighbours."""
    done: dict[str, list[dict[str, Any]]] = {runtime: [] for runtime in RUNTIMES}
    with bench.phase(kind):
        for number in range(bench.rounds(6, 1)):
            for runtime in RUNTIMES if number % 2 == 0 else reversed(RUNTIMES):
                done[runtime].append(
                    block(site, endpoint(kind, runtime), body, bench.seconds(1.0, 0.3))
                )
    found: dict[str, Any] = {"told": KINDS[kind].told}
    for figure in ("p50", "p99", "rps"):
        ratios = [
            process[figure] / inline[figure]
            for inline, process in zip(done["inline"], done["process"], strict=True)
        ]
        found[figure] = {
            "ratio": statistics.median(ratios),
            "interval": interval(ratios),
            **{
                runtime: statistics.median(each[figure] for each in done[runtime])
                for runtime in RUNTIMES
            },
            "ratios": spread(ratios),
        }
    found["failed"] = sum(each["failed"] for blocks in done.values() for each in blocks)
    return found


def table(found: dict[str, dict[str, Any]]) -> str:
    """The table of the ADR."""
    lines = [
        "| model | p50, ms: inline, process | p99, ms | requests/s | MB |",
        "|---|---|---|---|---|",
    ]
    for each in found.values():
        cells = [each["told"]]
        for figure, digits in (("p50", 2), ("p99", 2), ("rps", 0)):
            part = each[figure]
            cells.append(
                f"{part['inline']:,.{digits}f}, {part['process']:,.{digits}f} ({part['ratio']:.2f} ×)"
            )
        cells.append(f"{each['mb']['inline']:.0f}, {each['mb']['process']:.0f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure."""
    endpoints = {
        endpoint(kind, runtime): f'runtime = "{runtime}"' for kind in KINDS for runtime in RUNTIMES
    }
    with (
        Bench("runtimes", __doc__) as bench,
        tempfile.TemporaryDirectory() as made,
        Site(endpoints, workers=1) as site,
    ):
        site.start()
        found: dict[str, dict[str, Any]] = {}
        for kind, (_, datatype) in KINDS.items():
            model = write(kind, Path(made) / kind)
            body = material.body(datatype)
            sizes = {}
            for runtime in RUNTIMES:
                name = endpoint(kind, runtime)
                site.register(name, model)
                sizes[runtime] = grown(site, name)
                path = f"/v2/models/{name}/infer"
                until(lambda path=path, body=body: post(site.port, path, body) == 200, name)  # type: ignore[misc]
            site.gather()
            found[kind] = {**compare(bench, site, kind, body), "mb": sizes}
            for figure in ("p50", "p99", "rps"):
                bench.note(f"process_{figure}_ratio_{kind}", found[kind][figure]["ratio"])
            bench.note(f"process_mb_{kind}", sizes["process"], 0)
        bench.note("process_failed", sum(each["failed"] for each in found.values()))
        bench.detail["models"] = found
        bench.detail["table"] = table(found)
        talk(f"\n{table(found)}")


if __name__ == "__main__":
    main()
