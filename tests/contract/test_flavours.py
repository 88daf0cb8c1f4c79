"""Registration recognises the flavour of a file without the libraries that would load it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import skops.io
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression

from kedge.operations.registration import Loaders, flavours
from models import environment, misbehaving

HEAVY = {
    "alembic",
    "apprise",
    "catboost",
    "duckdb",
    "lightgbm",
    "lmdb",
    "onnx",
    "onnxruntime",
    "pandas",
    "pyarrow",
    "redis",
    "scipy",
    "skl2onnx",
    "sklearn",
    "skops",
    "xgboost",
}


OWN = ("catboost", "lightgbm", "onnx", "pickle", "sklearn", "xgboost")
"""kedge's flavours."""


class Bench:
    """A directory with an endpoint, where the test's loader is installed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.plugin(root / "plugin", "[kedge.loaders]\ntest = models:TestLoader\n")
        self.env = environment()
        self.env["PYTHONPATH"] += f"{os.pathsep}{root / 'plugin'}"
        assert self.kedge("init", "flights").returncode == 0

    @staticmethod
    def plugin(where: Path, points: str) -> None:
        """Make an installed package that announces these entry points."""
        info = where / "plugin-1.dist-info"
        info.mkdir(parents=True, exist_ok=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1\n")
        (info / "entry_points.txt").write_text(points)

    def kedge(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command that says what it imported."""
        return subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "kedge", *words],
            cwd=self.root,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def model(self, flavour: str) -> Path:
        if flavour == "test":
            return misbehaving(self.root / "model")
        x = np.arange(12, dtype=np.float32).reshape(6, 2)
        fitted = LogisticRegression().fit(x, [0, 1] * 3)
        (self.root / "model").mkdir()
        if flavour == "onnx":
            made = to_onnx(fitted, x[:1], options={"zipmap": False})
            (self.root / "model" / "model.onnx").write_bytes(made.SerializeToString())
        else:
            skops.io.dump(fitted, self.root / "model" / "model.skops")
        return self.root / "model"


def imported(said: str) -> set[str]:
    """The roots of what was imported, out of what `-X importtime` says."""
    return {name.partition(".")[0] for name in re.findall(r"\| +([\w.]+)$", said, re.MULTILINE)}


@pytest.mark.parametrize("flavour", ["test", "onnx", "sklearn"])
def test_registering_imports_no_library_that_loads_a_model(tmp_path: Path, flavour: str) -> None:
    """The process that tries the model out does, and only its own."""
    bench = Bench(tmp_path)
    done = bench.kedge("register", "flights", str(bench.model(flavour)))
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"flavour   {flavour}" in done.stdout
    found = imported(done.stderr)
    assert {"kedge", "numpy", "sqlalchemy"} <= found
    assert found & HEAVY == set()


def test_a_flavour_describes_itself_as_its_loader_does() -> None:
    told, missing = flavours()
    found = Loaders()
    assert (set(told), missing) == ({*OWN}, {})
    for name, one in told.items():
        loader = found[name]
        assert type(one) is not type(loader)
        assert (one.flavour, one.stalls, one.looks_for) == (
            name,
            loader.stalls,
            loader.looks_for,
        )
        assert {*getattr(one, "libraries", ())} <= {*sys.modules}, (
            "its loader imports what it announces"
        )


def test_a_flavour_whose_library_is_missing_is_known_and_says_what_to_install(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path)
    (tmp_path / "plugin" / "boosted.py").write_text("import no_such_booster\n")
    (tmp_path / "plugin" / "told.py").write_text(
        "class Flavour:\n"
        "    flavour, stalls, looks_for = 'boosted', False, 'a *.boost file'\n"
        "    def claims(self, path):\n"
        "        return bool(list(path.glob('*.boost')))\n"
    )
    bench.plugin(
        tmp_path / "plugin",
        "[kedge.loaders]\nboosted = boosted:Loader\n[kedge.flavours]\nboosted = told:Flavour\n",
    )
    (tmp_path / "model.boost").write_text("trees")
    done = bench.kedge("register", "flights", "model.boost")
    assert done.returncode == 1
    assert (
        "error: the loader for boosted needs no_such_booster, which is not installed" in done.stderr
    )
    bench.plugin(
        tmp_path / "plugin",
        "[kedge.loaders]\nboosted = boosted:Loader\n[kedge.flavours]\nboosted = gone:Flavour\n",
    )
    done = bench.kedge("register", "flights", "model.boost")
    assert "not installed: boosted (No module named 'gone')" in done.stderr
    bench.plugin(tmp_path / "plugin", "[kedge.loaders]\nboosted = boosted:Loader\n")
    done = bench.kedge("register", "flights", "model.boost")
    assert (done.returncode, "is not a model that kedge can load" in done.stderr) == (1, True)
    assert "not installed: boosted (boosted models need what is not installed" in done.stderr


IMPORTED = """
import sys
from kedge.operations.registration import check_loaders
found, missing = check_loaders()
print(sorted(found), missing)
print("pandas" in sys.modules)
print({"sklearn", "skops", "onnxruntime", "xgboost", "catboost"} & {*sys.modules})
"""


@pytest.mark.parametrize("own", [False, True])
def test_only_a_loader_that_needs_pandas_imports_it_where_loaders_are_listed(
    tmp_path: Path, own: bool
) -> None:
    """scikit-learn would import it too. What needs it is not taken for a loader that lacks a library."""
    (tmp_path / "framed.py").write_text("import pandas\nclass Loader:\n    pass\n")
    if own:
        Bench.plugin(tmp_path, "[kedge.loaders]\nframed = framed:Loader\n")
    env = environment()
    env["PYTHONPATH"] += f"{os.pathsep}{tmp_path}"
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    names = sorted([*OWN, *(["framed"] if own else [])])
    assert done.stdout.splitlines() == [f"{names} {{}}", str(own), "set()"], done.stderr
