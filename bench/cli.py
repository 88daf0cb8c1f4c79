"""Start-up: `kedge --help`, `kedge up` to its first answer, and the size of a core install.

`help_ms` is the wall time of the command, from start to exit. `up_s` runs from the start of
`kedge up` to its first 200 of /v2/health/live, on a site that has a ledger and nothing in
production, so no model is loaded. Everything of kedge is on one CPU, as on the smallest machine;
what it takes on all of them, and with a model in production, stands in the detail.
"""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path

import material
from common import CPUS, SERVER_CPU, Bench, on, spread
from kedge_site import Site, environment, kedge_command, post, until
from packaging.requirements import Requirement

WORKERS = 2
"""What `kedge init` writes."""
ALIVE_S = 60.0
LOOK_S = 0.002


def measure_help(bench: Bench) -> None:
    """Twenty times; the first ones, which write bytecode, are not counted."""
    times = []

    def once() -> float:
        began = time.perf_counter()
        subprocess.run(
            [*kedge_command(), "--help"], env=environment(), stdout=subprocess.DEVNULL, check=True
        )
        return (time.perf_counter() - began) * 1e3

    with bench.phase("help"), on({SERVER_CPU}):
        once()
        once()
        times = [once() for _ in range(bench.rounds(20, 5))]
    bench.note("help_ms", statistics.median(times), 1)
    bench.detail["help_ms"] = spread(times, 1)


def start_once(site: Site, cpus: Iterable[int], answers: Callable[[], bool]) -> float:
    """From the start of `kedge up` to the first answer; then it is stopped again."""
    with on(cpus):
        began = site.launch()
    until(answers, "the first answer", ALIVE_S, LOOK_S)
    taken = time.perf_counter() - began
    code = site.stop()
    if code:
        raise RuntimeError(f"kedge up ended with {code}\n{(site.root / 'up.log').read_text()}")
    return taken


def measure_up(bench: Bench) -> None:
    """First without a model, then with one in production."""
    with tempfile.TemporaryDirectory() as folder, Site({"flights": ""}, workers=WORKERS) as site:
        model = material.write_onnx(Path(folder) / "onnx", flip=False)
        body = material.body("FP32")

        def infers() -> bool:
            return post(site.port, "/v2/models/flights/infer", body) == 200

        start_once(site, CPUS, site.live)  # makes the ledger and the bytecode
        found: dict[str, list[float]] = {"empty": [], "empty_all_cpus": [], "onnx": []}
        rounds = bench.rounds(7, 1)
        with bench.phase("up"):
            for _ in range(rounds):
                found["empty"].append(start_once(site, {SERVER_CPU}, site.live))
                found["empty_all_cpus"].append(start_once(site, CPUS, site.live))
        site.register("flights", model)
        with on(CPUS):
            site.launch()
        until(site.live, "the gateway")
        site.promote("flights", 1)
        site.stop()
        with bench.phase("up, with a model"):
            for _ in range(rounds):
                found["onnx"].append(start_once(site, {SERVER_CPU}, infers))
    bench.note("up_s", statistics.median(found["empty"]), 2)
    bench.detail["up_s"] = {name: spread(times, 2) for name, times in found.items()}


# ---------------------------------------------------------------- size


def core_distributions() -> list[str]:
    """What `pip install kedge` brings, without extras."""
    found: list[str] = []
    todo = ["kedge"]
    while todo:
        name = todo.pop()
        key = name.lower().replace("_", "-")
        if key in found:
            continue
        found.append(key)
        for line in metadata.requires(name) or ():
            wanted = Requirement(line)
            if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
                todo.append(wanted.name)
    return sorted(found)


def size_of(name: str) -> tuple[int, int]:
    """Bytes as they came in the wheel, and with the bytecode that was compiled since."""
    if name == "kedge":
        spec = metadata.distribution("kedge").read_text("direct_url.json")
        if spec is not None and '"editable"' in spec:
            return _size_of_package()
    files = [Path(str(file.locate())) for file in metadata.files(name) or ()]
    there = {file for file in files if file.is_file()}
    plain = sum(file.stat().st_size for file in there if file.suffix != ".pyc")
    compiled = {
        each
        for file in there
        if file.suffix == ".py"
        for each in (file.parent / "__pycache__").glob(f"{file.stem}.*.pyc")
    }
    return plain, plain + sum(file.stat().st_size for file in compiled)


def _size_of_package() -> tuple[int, int]:
    import kedge  # noqa: PLC0415 - only to find where it is

    files = [file for file in Path(kedge.__path__[0]).rglob("*") if file.is_file()]
    plain = sum(file.stat().st_size for file in files if file.suffix != ".pyc")
    return plain, sum(file.stat().st_size for file in files)


def measure_install(bench: Bench) -> None:
    """The core's distributions and their sizes in this environment."""
    sizes = {name: size_of(name) for name in core_distributions()}
    plain, compiled = (sum(each) / 1e6 for each in zip(*sizes.values(), strict=True))
    bench.note("core_install_mb", compiled, 1)
    biggest = sorted(sizes.items(), key=lambda item: -item[1][1])
    bench.detail["core_install"] = {
        "without_bytecode_mb": round(plain, 1),
        "distributions": {name: round(size[1] / 1e6, 2) for name, size in biggest},
    }


def main() -> None:
    """Measure."""
    with Bench("cli", __doc__) as bench:
        measure_help(bench)
        measure_up(bench)
        measure_install(bench)


if __name__ == "__main__":
    main()
