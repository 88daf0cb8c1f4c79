"""Rollbacks of the features alone and of the model alone, in one run, under load.

Four workers, 200 requests/s in open loop. By turns another transformation of the same model is
promoted and taken back (`--axis features`), and another model with the same transformation
(`--axis model`). `axis_*_ms` runs from the entry of `submit` to the last replica's ack;
`axis_ratio` is the one's median over the other's, `axis_reloads` how often a worker loaded a model
meanwhile, `axis_failed` the callers' failures.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import material
from common import Bench, spread
from kedge_site import Site, until
from loadgen import OpenLoad, failures

from kedge.core.release.commands import Promote, Rollback
from kedge.operations.releases import release_of

WORKERS, RATE = 4, 200.0
ENDPOINT = "flights"
FEATURES = """
import kedge

raw = {{"X": kedge.Field("float32", shape=(20,))}}
plain = kedge.schema("plain/1", fields=raw)


@kedge.transform(plain, raw=raw)
def columns(raw):
    return {{"X": raw["X"] + {shift}}}
"""


def prepare(site: Site, folder: Path) -> tuple[int, int]:
    """v1 with transformation 1 in production; the releases that change one half of it."""
    for number, shift in ((1, "0"), (2, "0 * 1")):
        path = folder / f"features{number}.py"
        path.write_text(FEATURES.format(shift=shift))
        site.run("features", "apply", str(path))
        model = material.write_onnx(folder / f"model{number}", flip=number == 2)
        site.run("register", ENDPOINT, str(model), "--schema", "plain/1")
    place = site.workplace
    first = release_of(place, ENDPOINT, "v1", transformation=1)
    site.submit(ENDPOINT, Promote(release=first.number, override="bench"))
    features = release_of(place, ENDPOINT, "v1", transformation=2)
    model_release = release_of(place, ENDPOINT, "v2", transformation=1)
    return features.number, model_release.number


def loads(site: Site) -> int:
    """How often all workers have loaded a model."""
    return sum(sum(replica["loads"].values()) for replica in site.status(ENDPOINT)["replicas"])


def main() -> None:
    """Measure."""
    with (
        Bench("axes", __doc__) as bench,
        tempfile.TemporaryDirectory() as made,
        Site({ENDPOINT: ""}, workers=WORKERS) as site,
    ):
        site.start()
        features, model = prepare(site, Path(made))
        until(lambda: len(site.workers()) == WORKERS, "all workers")
        acks: dict[str, list[float]] = {"features": [], "model": []}
        path = f"/v2/models/{ENDPOINT}/infer"
        with OpenLoad(site.port, path, material.body("FP32"), rate=RATE) as load:
            for turn in range(bench.rounds(50, 3) + 1):
                before = loads(site)
                for axis, release in (("features", features), ("model", model)):
                    site.submit(ENDPOINT, Promote(release=release, override="bench"))
                    time.sleep(0.2)
                    back = Rollback(axis=axis)  # type: ignore[arg-type]
                    receipt = site.submit(ENDPOINT, back)
                    time.sleep(0.2)
                    if turn and receipt.last_ack_ms is not None:  # the first turn loads
                        acks[axis].append(receipt.last_ack_ms)
                if turn:
                    bench.detail["reloads"] = bench.detail.get("reloads", 0) + loads(site) - before
            records = load.stop()
        for axis, took in acks.items():
            bench.note(f"axis_{axis}_ms", statistics.median(took))
            bench.detail[axis] = spread(took)
        ratio = statistics.median(acks["features"]) / statistics.median(acks["model"])
        bench.note("axis_ratio", ratio)
        bench.note("axis_reloads", bench.detail["reloads"])
        bench.note("axis_failed", sum(failures(records).values()))


if __name__ == "__main__":
    main()
