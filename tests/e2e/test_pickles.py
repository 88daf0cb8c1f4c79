"""Pickles: refused without a reason, scanned, and read in a model's process alone."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from e2e.conftest import making_sites
from e2e.place import Site

pytestmark = pytest.mark.e2e
REASON = "trained by our pipeline, run 812"
rng = np.random.default_rng(3)
FRAME = pd.DataFrame(
    {"delay": rng.normal(size=200), "origin": rng.choice(["JFK", "LGA"], 200).astype(object)}
)
LATE = (FRAME["delay"] + (FRAME["origin"] == "JFK") > 0.4).astype(int)
ROW: dict[str, tuple[str, list[Any]]] = {"delay": ("FP64", [0.3]), "origin": ("BYTES", ["JFK"])}


def fitted(strength: float = 1.0) -> Any:
    words = make_column_transformer((OneHotEncoder(), ["origin"]), remainder="passthrough")
    return make_pipeline(words, LogisticRegression(C=strength)).fit(FRAME, LATE)


@pytest.fixture(scope="module")
def sites() -> Iterator[Callable[..., Site]]:
    with making_sites() as make:
        yield make


@pytest.fixture(scope="module")
def site(sites: Callable[..., Site]) -> Site:
    made = sites()
    made.start()
    return made


class Trap:
    """Makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


def test_a_pickle_is_refused_until_an_operator_gives_a_reason(site: Site, tmp_path: Path) -> None:
    joblib.dump(fitted(), tmp_path / "model.joblib")
    done = site.run("register", site.endpoint, str(tmp_path / "model.joblib"), check=False)
    assert done.returncode == 1
    assert "is a pickle of scikit-learn: it can run any code" in done.stderr
    assert '--allow-code "REASON"' in done.stderr
    assert "skops.io.dump" in done.stderr


@pytest.mark.timeout(300)
def test_a_pickle_serves_in_a_process_of_its_own_and_is_rolled_back(
    site: Site, tmp_path: Path
) -> None:
    expected = {}
    for version, strength in {"v1": 1.0, "v2": 0.01, "v3": 0.1}.items():
        model, file = fitted(strength), tmp_path / f"{version}.pkl"
        if version == "v3":
            file.write_bytes(pickle.dumps(model))
        else:
            joblib.dump(model, file, compress=3 if version == "v2" else 0)
        told = site.data("register", site.endpoint, str(file), "--allow-code", REASON)
        assert (told["version"], told["flavour"]) == (version, "pickle")
        assert told["allowed"].endswith(f": {REASON}")
        assert told["plain"]["apart"]
        asked = pd.DataFrame({"delay": [0.3], "origin": ["JFK"]})
        expected[version] = float(model.predict_proba(asked)[0, 1])

    def score() -> float:
        status, _, body = site.infer(ROW)
        assert status == 200, body
        return float(next(one["data"][0] for one in body["outputs"] if one["name"] == "score"))

    for version in ("v1", "v2"):
        site.run("promote", site.endpoint, version, "--full", "--override", "a test")
        site.until(lambda: site.infer(ROW)[0] == 200, "an answer")
        assert score() == pytest.approx(expected[version])
    site.run("rollback", site.endpoint, "--reason", "a test")
    assert score() == pytest.approx(expected["v1"])
    for pid in (*site.processes("gateway-worker"), *site.processes("\0control")):
        assert "sklearn" not in Path(f"/proc/{pid}/maps").read_text()
    history = site.run("history", site.endpoint).stdout
    assert "v1 was registered (pickle" in history
    assert "it runs code when it is loaded" in history
    assert REASON in history
    assert site.data("versions", site.endpoint)[0]["allowed"].endswith(REASON)


@pytest.mark.parametrize("packed", [False, True])
def test_a_pickle_that_names_an_attack_is_refused_and_not_read(
    site: Site, tmp_path: Path, *, packed: bool
) -> None:
    trap = tmp_path / "model.joblib"
    joblib.dump([Trap(tmp_path / "sprung"), fitted()], trap, compress=3 if packed else 0)
    done = site.run("register", site.endpoint, str(trap), "--allow-code", REASON, check=False)
    assert done.returncode == 1
    assert not (tmp_path / "sprung").exists()
    assert "posix.system, which serves attacks" in done.stderr
    assert "--trust posix.system" in done.stderr


def test_what_a_pickle_does_when_it_is_read_stays_behind_the_fence(
    site: Site, tmp_path: Path
) -> None:
    trap = tmp_path / "model.pkl"
    trap.write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    done = site.run(
        "register",
        site.endpoint,
        str(trap),
        "--allow-code",
        REASON,
        "--trust",
        "posix.system",
        check=False,
    )
    assert done.returncode == 1
    assert not (tmp_path / "sprung").exists(), "the fence forbids it"


def test_a_policy_can_forbid_code(sites: Callable[..., Site], tmp_path: Path) -> None:
    site = sites(policy='code = "never"')
    site.start()
    joblib.dump(fitted(), tmp_path / "model.joblib")
    path = str(tmp_path / "model.joblib")
    done = site.run("register", site.endpoint, path, "--allow-code", REASON, check=False)
    assert done.returncode == 1
    assert "allows no version that runs code" in done.stderr


def test_an_inline_release_of_a_pickle_is_refused(site: Site) -> None:
    done = site.run(
        "promote", site.endpoint, "v1@inline", "--full", "--override", "a test", check=False
    )
    assert done.returncode != 0
