"""Features files that misbehave: the command reports it in time, and callers get answers throughout."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.place import Site
from kedge.operations.setup import ensure_ledger

pytestmark = pytest.mark.e2e

TIMEOUT_S = 3
POLICY = (
    'output = {kind = "score", score = "score", tolerance = 0.5}\n'
    "[endpoints.flights.fields]\n"
    'x = {dtype = "float64"}\n'
    'word = {dtype = "string", nullable = true}\n'
    f'[features]\ntimeout = "{TIMEOUT_S}s"\nmemory_mb = 1024\n'
)
FEATURES = """
import kedge
import numpy as np
import os, re, sys, time

late = kedge.schema("late/1", keys=["word"], fields={{"m": kedge.Field("float32", null=True)}})
view = kedge.schema("view/1", fields={{"x": kedge.Field("float64"), "word": kedge.Field("string")}})
BAD = {bad!r}
{when_run}


@kedge.materialise(late, source="rows.csv", time="at", every="1h")
def means(rows, at):
    if BAD == "view" or (BAD == "later" and len(rows["m"]) > 1):
        {does}
    return {{"word": rows["word"], "m": rows["m"]}}


@kedge.transform(view, raw={{"x": kedge.Field("float64"), "word": kedge.Field("string")}})
def columns(raw):
    if BAD == "function" or (BAD == "rows" and (raw["x"] == 13).any()):
        {does}
    return {{"x": raw["x"], "word": raw["word"]}}
"""
WAYS = {
    "loops": "while True: pass",
    "regex": "re.match(r'^(a+)+$', 'a' * 40 + '!')",
    "exits": "sys.exit('no')",
    "ends": "os._exit(3)",
    "memory": "np.ones(1 << 28)",
    "prints": "[print('x' * 1000) for _ in iter(int, 1)]",
}
CODES = {
    "bad_features",
    "bad_view",
    "features_hung",
    "features_died",
    "golden_raised",
    "golden_mismatch",
    "probe_hung",
    "probe_died",
    "transform_raised",
}


def features(site: Site, bad: str, does: str) -> str:
    """Write a features file; returns where it is."""
    (site.root / "rows.csv").write_text(
        "word,m,at\na,1.0,1700000010\nb,2.0,1700004000\nc,3.0,1700008000\n"
    )
    path = site.root / "features.py"
    run = does if bad == "file" else ""
    path.write_text(FEATURES.format(bad=bad, when_run=run, does=does))
    return str(path)


def refused(site: Site, *words: str) -> dict[str, Any]:
    """Run a command that must be refused in time; returns the error."""
    began = time.monotonic()
    done = site.run(*words, "--json", check=False)
    took = time.monotonic() - began
    assert done.returncode == 1, done.stdout + done.stderr
    assert took < TIMEOUT_S + 25, f"it took {took:.1f} s"
    error: dict[str, Any] = json.loads(done.stdout)["error"]
    assert error["code"] in CODES, error
    return error


@pytest.fixture(scope="module")
def place() -> Iterator[Site]:
    """A ledger, and nothing that runs: what a command meets in its own process."""
    site = Site(Path(tempfile.mkdtemp(prefix="kedge-site-")), policy=POLICY)
    ensure_ledger(site.root / ".kedge")
    site.run("apply")
    yield site
    site.end()
    shutil.rmtree(site.root, ignore_errors=True)


@pytest.mark.parametrize("bad", ["file", "view", "function"])
@pytest.mark.parametrize("way", WAYS)
def test_applying_is_refused_in_time(place: Site, way: str, bad: str) -> None:
    golden = place.root / "golden.json"
    golden.write_text('{"inputs": {"x": [1.0, 2.0], "word": ["a", "b"]}}')
    path = features(place, bad, WAYS[way])
    refused(place, "features", "apply", path, "--golden", str(golden))


@pytest.mark.parametrize("way", ["regex", pytest.param("ends", marks=pytest.mark.soak)])
def test_a_features_file_that_misbehaves_later_is_refused_in_time(
    make_site: Callable[..., Site], way: str
) -> None:
    """A slice, and a training set, of other rows than it was tried on; and callers are answered meanwhile."""
    site = make_site(policy=POLICY)
    site.start()
    site.release()
    golden = site.root / "golden.json"
    golden.write_text('{"inputs": {"x": [1.0, 2.0], "word": ["a", "b"]}}')
    site.run("features", "apply", features(site, "rows", WAYS[way]), "--golden", str(golden))
    spine = site.root / "spine.csv"
    spine.write_text("x,word,at\n1,a,1700000010\n13,b,1700000020\n")
    with site.load(rate=50) as load:
        error = refused(
            site,
            "features",
            "training-set",
            "flights",
            "--schema",
            "view/1",
            "--spine",
            str(spine),
            "--time",
            "at",
            "--out",
            str(site.root / "train.parquet"),
        )
        assert "from row 0 on" in error["message"]
        # It is tried on the newest slice, which has a row more from then on.
        path = features(site, "later", WAYS[way])
        (site.root / "rows.csv").write_text("word,m,at\na,1.0,1700000010\n")
        site.run("features", "apply", path, "--golden", str(golden))
        (site.root / "rows.csv").write_text("word,m,at\na,1.0,1700000010\nb,2.0,1700000020\n")
        refused(site, "features", "materialise", "late")
        time.sleep(0.2)
    assert load.failures == []
    assert load.ok > 50
