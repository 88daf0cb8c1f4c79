"""`kedge diagnose` on a real log of 100,000 requests with 20 columns: seconds, and memory of its processes.

Two scikit-learn models are registered, and the second is production. Half of the log is a reference
that the first one answered, half is today's, with an outcome for every request. The verb runs as
a process of its own, reads, replays the first model, diagnoses and files; its peak is that of the
verb itself, and the model process beside it has a limit of its own (`memory_mb`).
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import skops.io
from common import Bench, talk
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import Pipeline

from kedge.adapters.records.spool import Spool
from kedge.config.load import load
from kedge.core.evidence.records import JoinRow, Outcome
from kedge.core.release.commands import Promote
from kedge.operations.registration import register_version
from kedge.operations.releases import release_of
from kedge.operations.setup import apply_policies, create_workplace
from kedge.workspace import Workplace

SEED = 20
COLUMNS = 20
CONFIG = """
[endpoints.bench]
audience = "internal"
output = {kind = "binary", score = "score"}
guardrails = {quality = {metric = "brier", worse_by = 0.05}}
log = {sample = 100}
"""


def drawn(rng: np.random.Generator, n: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Inputs, and outcomes that half of them decide."""
    x = rng.normal(size=(n, COLUMNS))
    logit = x[:, :10] @ np.linspace(1.0, 0.1, 10) + x[:, 0] * x[:, 1]
    return x, (rng.random(n) < 1 / (1 + np.exp(-logit))).astype(np.float64)


def registered(place: Workplace, root: Path, rng: np.random.Generator) -> list[Any]:
    """Two models, the second trained on outcomes of which a third is noise."""
    found = []
    for number, noise in ((1, 0.0), (2, 0.35)):
        x, y = drawn(rng, 20_000)
        y = np.where(rng.random(len(y)) < noise, rng.integers(0, 2, len(y)), y)
        model = Pipeline([("m", HistGradientBoostingClassifier(max_iter=60, random_state=0))])
        model.fit(x, y)
        path = root / f"m{number}"
        path.mkdir()
        skops.io.dump(model, path / "model.skops")
        fields = [{"name": f"x{k}", "dtype": "float64"} for k in range(COLUMNS)]
        (path / "signature.json").write_text(json.dumps({"inputs": fields}))
        register_version(place, "bench", path, golden=None, training=None, trusted=())
        release = release_of(place, "bench", f"v{number}").number
        place.control(lambda text: None, None).submit(
            "bench", Promote(release=release, override="a benchmark"), by="bench"
        )
        found.append(model)
    return found


def logged(
    place: Workplace, rng: np.random.Generator, model: Any, release: int, n: int, at: float
) -> None:
    """n requests of an hour that one release answered, and their outcomes."""
    x, y = drawn(rng, n)
    score = model.predict_proba(x)[:, 1]
    names = [f"x{k}" for k in range(COLUMNS)]
    rows = [
        JoinRow(
            id=f"r{release}-{k:07}/0",
            at=at + 3_600 * k / n,
            unit="",
            endpoint="bench",
            production=release,
            candidate=None,
            salt="",
            weight=0,
            arm="production",
            failed=False,
            segments=(),
            score=float(score[k]),
            decision="1" if score[k] >= 0.5 else "0",
            inputs=msgspec.msgpack.encode(dict(zip(names, x[k].tolist(), strict=True))),
        )
        for k in range(n)
    ]
    for start in range(0, n, 10_000):
        spool = Spool(place.records.spool, f"w{release}-{start}")
        assert spool.append(rows[start : start + 10_000]) == 0
        spool.close()
        while place.records.waiting():
            place.records.ingest(time.time())
        place.records.join(
            "bench",
            [
                Outcome(row.id, float(truth))
                for row, truth in zip(
                    rows[start : start + 10_000], y[start : start + 10_000], strict=True
                )
            ],
            time.time(),
        )


def main() -> None:
    """Fill a log, and ask."""
    warnings.filterwarnings("ignore")
    with Bench("diagnose", __doc__, seed=SEED) as bench, tempfile.TemporaryDirectory() as directory:
        n, root, rng = bench.rounds(100_000, 2_000), Path(directory), np.random.default_rng(SEED)
        (root / "kedge.toml").write_text(CONFIG)
        create_workplace(root / ".kedge")
        place = Workplace(root / ".kedge")
        apply_policies(place, load(root / "kedge.toml"))
        with bench.phase("filling the log"):
            one, two = registered(place, root, rng)
            logged(place, rng, one, 1, n // 2, time.time() - 5 * 3_600)
            logged(place, rng, two, 2, n, time.time() - 3_600)
        with bench.phase("kedge diagnose"):
            began = time.perf_counter()
            line = [sys.executable, "-m", "kedge", "diagnose", "bench", "--since", "2h", "--json"]
            said = subprocess.run(line, cwd=root, capture_output=True, check=True)
            took = time.perf_counter() - began
        told = json.loads(said.stdout)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        talk(f"  {told['diagnosis']['headline']}; {told['window']}; {told['replayed']}")
        bench.note("verb_100k_s", round(took, 1))
        bench.note("verb_100k_mb", round(peak))
        bench.note(
            "verb_right", float([f["cause"] for f in told["diagnosis"]["findings"]] == ["model"])
        )
        bench.detail["told"] = told


if __name__ == "__main__":
    main()
