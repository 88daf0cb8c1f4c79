"""Boosters of three libraries as versions of one endpoint: registered, promoted, rolled back."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import catboost
import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost

from e2e.place import Site

pytestmark = pytest.mark.e2e
rng = np.random.default_rng(5)
FRAME = pd.DataFrame(
    {"delay": rng.normal(size=200), "origin": pd.Categorical(rng.choice(["JFK", "LGA"], 200))}
)
LATE = (FRAME["delay"] + (FRAME["origin"] == "JFK") > 0.4).astype(int)
ROW: dict[str, tuple[str, list[Any]]] = {"delay": ("FP64", [0.3]), "origin": ("BYTES", ["JFK"])}


FIELDS = """[endpoints.flights.fields]
delay = {dtype = "float64"}
origin = {dtype = "string"}
"""
"""CatBoost takes no missing word, and the contract of the first release would promise it."""


def _second(fitted: Any, asked: pd.DataFrame) -> float:
    """Its probability of the second class."""
    return float(fitted.predict_proba(asked)[0, 1])


def write(folder: Path) -> dict[str, tuple[Path, float]]:
    """A model of each library, with its own answer to the row."""
    asked = pd.DataFrame({"delay": [0.3], "origin": pd.Categorical(["JFK"], ["JFK", "LGA"])})
    words, one = FRAME.astype({"origin": str}), asked.astype({"origin": str})
    first = xgboost.XGBClassifier(n_estimators=9, enable_categorical=True).fit(FRAME, LATE)
    first.save_model(folder / "one.ubj")
    second = lightgbm.LGBMClassifier(n_estimators=9, verbose=-1).fit(FRAME, LATE)
    second.booster_.save_model(folder / "two.txt")
    third = catboost.CatBoostClassifier(
        iterations=9, verbose=0, cat_features=["origin"], allow_writing_files=False
    ).fit(words, LATE)
    third.save_model(folder / "three.cbm")
    return {
        "v1": (folder / "one.ubj", _second(first, asked)),
        "v2": (folder / "two.txt", _second(second, asked)),
        "v3": (folder / "three.cbm", _second(third, one)),
    }


def test_a_file_that_ends_its_library_is_refused(
    make_site: Callable[..., Site], tmp_path: Path
) -> None:
    """Bytes within the trees are wrong: whatever native code makes of them, kedge says so."""
    site = make_site()
    site.start()
    for path, _ in write(tmp_path).values():
        raw = bytearray(path.read_bytes())
        middle = len(raw) // 2
        raw[middle : middle + 400] = bytes(400)
        path.write_bytes(raw)
        done = site.run("register", site.endpoint, str(path), check=False)
        assert done.returncode in (0, 1), done.stderr
        assert done.returncode == 0 or ("error: " in done.stderr and "Traceback" not in done.stderr)


@pytest.mark.timeout(300)
def test_a_file_of_each_library_registers_serves_and_is_rolled_back(
    make_site: Callable[..., Site], tmp_path: Path
) -> None:
    site = make_site(policy=FIELDS)
    models = write(tmp_path)
    site.start()
    for version, (path, _) in models.items():
        told = site.data("register", site.endpoint, str(path))
        assert told["version"] == version
        assert told["flavour"] == {"v1": "xgboost", "v2": "lightgbm", "v3": "catboost"}[version]

    def score() -> float:
        status, _, body = site.infer(ROW)
        assert status == 200, body
        return float(next(one["data"][0] for one in body["outputs"] if one["name"] == "score"))

    for version, (_, expected) in models.items():
        site.run("promote", site.endpoint, version, "--full", "--override", "a test")
        site.until(lambda: site.infer(ROW)[0] == 200, "an answer")
        assert score() == pytest.approx(expected, abs=1e-6)
    site.run("rollback", site.endpoint, "--reason", "a test")
    assert score() == pytest.approx(models["v2"][1], abs=1e-6)


def test_the_page_about_xgboost_ends_with_a_version(make_site: Callable[..., Site]) -> None:
    site = make_site()
    site.start()
    page = (Path(__file__).parents[2] / "docs" / "howto" / "xgboost.md").read_text()
    (script,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (site.root / "train.py").write_text(script)
    subprocess.run([sys.executable, "train.py"], cwd=site.root, check=True)
    told = site.data("register", site.endpoint, "booster.ubj", "--golden", "golden.json")
    assert told["flavour"] == "xgboost"
    site.run("promote", site.endpoint, "v1", "--full", "--override", "a test")
    rows = [{"mean radius": 14.0, "mean texture": 20.0, "mean area": None}]
    status, _, raw = site.request(
        "POST",
        f"/v2/models/{site.endpoint}/infer",
        json.dumps({"rows": rows}).encode(),
        {"content-type": "application/json"},
    )
    assert status == 200, raw
    assert {one["name"] for one in json.loads(raw)["outputs"]} == {"score", "label"}
