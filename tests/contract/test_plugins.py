"""The public API: it has the names of `__all__`, and plug-ins with only these pass the checks."""

from __future__ import annotations

import ast
import json
import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression

import kedge
import kedge.plugins
import kedge.testing.checks
from kedge.plugins import Columns, Loader, UnfitModel
from kedge.testing.checks import Example, check_announced, check_flavour, check_loader
from models import TestLoader, misbehaving
from support.linear import LinearFlavour, LinearLoader, LinearModel

TESTS = Path(__file__).parents[1]
PLUGINS = (TESTS / "models.py", TESTS / "support" / "linear.py")
PUBLIC = {module.__name__: set(module.__all__) for module in (kedge, kedge.plugins)}
PUBLIC["kedge.testing.checks"] = set(kedge.testing.checks.__all__)

X: Any = np.random.default_rng(7).normal(size=(60, 3)).astype(np.float32)
FITTED = LogisticRegression().fit(X, X[:, 0] > 0)
CHANCE: Any = FITTED.predict_proba(X[:8])[:, 1]


def linear(directory: Path) -> Example:
    directory.mkdir()
    (directory / "a.linear").write_text(json.dumps({"a": 2.0, "b": -1.0}))
    return Example(
        path=directory, inputs={"a": [1.0, 2.0], "b": [0.5, 4.0]}, outputs={"score": [1.5, 0.0]}
    )


def mine(directory: Path) -> Example:
    rows: dict[str, list[Any]] = {"x": [1.0, float("nan")], "word": ["a", None]}
    outputs: dict[str, list[Any]] = {"score": [2.0, float("nan")], "label": ["a", "none"]}
    return Example(path=misbehaving(directory), inputs=rows, outputs=outputs)


def onnx(directory: Path) -> Example:
    directory.mkdir()
    made = to_onnx(FITTED, X[:1], options={"zipmap": False})
    (directory / "model.onnx").write_bytes(made.SerializeToString())
    outputs = {"probabilities": [[1 - p, p] for p in CHANCE.tolist()]}
    return Example(path=directory, inputs={"X": X[:8].tolist()}, outputs=outputs)


def sklearn(directory: Path) -> Example:
    directory.mkdir()
    skops.io.dump(FITTED, directory / "model.skops")
    outputs = {"score": CHANCE.tolist()}
    return Example(path=directory, inputs={"X": X[:8].tolist()}, outputs=outputs)


LATE: Any = (X[:, 0] > 0).astype(int)


def xgboost(directory: Path) -> Example:
    from xgboost import DMatrix, train

    directory.mkdir()
    booster = train({"objective": "binary:logistic"}, DMatrix(X, label=LATE), 3)
    booster.save_model(directory / "model.ubj")
    outputs = {"score": booster.predict(DMatrix(X[:8])).tolist()}
    return Example(path=directory, inputs={"X": X[:8].tolist()}, outputs=outputs)


def lightgbm(directory: Path) -> Example:
    from lightgbm import Dataset, train

    directory.mkdir()
    booster = train({"objective": "binary", "verbose": -1}, Dataset(X, label=LATE), 3)
    booster.save_model(directory / "model.txt")
    outputs = {"score": np.asarray(booster.predict(X[:8])).tolist()}
    return Example(path=directory, inputs={"X": X[:8].tolist()}, outputs=outputs)


def catboost(directory: Path) -> Example:
    from catboost import CatBoostClassifier

    directory.mkdir()
    model = CatBoostClassifier(iterations=3, verbose=0, allow_writing_files=False).fit(X, LATE)
    model.save_model(directory / "model.cbm")
    outputs = {"score": model.predict_proba(X[:8])[:, 1].tolist()}
    return Example(path=directory, inputs={"X": X[:8].tolist()}, outputs=outputs)


def loaders() -> dict[str, Any]:
    from kedge.adapters.models.boosters.catboost import CatboostLoader
    from kedge.adapters.models.boosters.lightgbm import LightgbmLoader
    from kedge.adapters.models.boosters.xgboost import XgboostLoader
    from kedge.adapters.models.onnx import OnnxLoader
    from kedge.adapters.models.sklearn import SklearnLoader

    return {
        "linear": (LinearLoader, linear),
        "test": (TestLoader, mine),
        "onnx": (OnnxLoader, onnx),
        "sklearn": (SklearnLoader, sklearn),
        "xgboost": (XgboostLoader, xgboost),
        "lightgbm": (LightgbmLoader, lightgbm),
        "catboost": (CatboostLoader, catboost),
    }


@pytest.mark.parametrize(
    "name", ["linear", "test", "onnx", "sklearn", "xgboost", "lightgbm", "catboost"]
)
def test_a_loader_passes_the_checks_ours_as_those_of_plugins(tmp_path: Path, name: str) -> None:
    loader, example = loaders()[name]
    check_loader(loader(), example(tmp_path / "model"))


@pytest.mark.parametrize(
    "flavour, loader",
    [
        ("support.linear:LinearFlavour", "support.linear:LinearLoader"),
        ("kedge.adapters.models.flavours:OnnxFlavour", "kedge.adapters.models.onnx:OnnxLoader"),
        (
            "kedge.adapters.models.flavours:SklearnFlavour",
            "kedge.adapters.models.sklearn:SklearnLoader",
        ),
        *(
            (
                f"kedge.adapters.models.flavours:{name.title()}Flavour",
                f"kedge.adapters.models.boosters.{name}:{name.title()}Loader",
            )
            for name in ("xgboost", "lightgbm", "catboost")
        ),
    ],
)
def test_a_flavour_is_announced_without_its_libraries(flavour: str, loader: str) -> None:
    check_announced(flavour, loader)


def test_a_flavour_that_imports_what_its_loader_needs_is_found(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="OnnxLoader imports onnxruntime"):
        check_announced(
            "kedge.adapters.models.onnx:OnnxLoader", "kedge.adapters.models.onnx:OnnxLoader"
        )
    with pytest.raises(
        AssertionError, match="flavour is 'linear' of the flavour, and 'test' of the loader"
    ):
        check_announced("support.linear:LinearFlavour", "models:TestLoader")


# ---------------------------------------------------------------- checks that find what is wrong


class Shouting(LinearFlavour):
    flavour = "LINEAR"


class Doubtful(LinearFlavour):
    stalls: Any = None


class Silent(LinearFlavour):
    looks_for = " "


class Bare(LinearFlavour):
    libraries = "json"


class Greedy(LinearFlavour):
    def claims(self, path: Path) -> bool:
        return True


class Hidden(LinearFlavour):
    def claims(self, path: Path) -> bool:
        return any(path.glob("*.linear")) or any(path.glob(".*.linear"))


class Careless(LinearFlavour):
    def claims(self, path: Path) -> bool:
        if super().claims(path):
            (path / "seen").touch()
            return True
        return False


@pytest.mark.parametrize(
    "flavour, fault",
    [
        (Shouting, "flavour must be a lower-case identifier, got 'LINEAR'"),
        (Doubtful, "stalls must be a bool, got None"),
        (Silent, "looks_for must say what is looked for"),
        (Bare, "libraries must be a tuple of names, got 'json'"),
        (Greedy, "claims must be False of an empty directory"),
        (Hidden, "claims must be False where its files are hidden"),
        (Careless, "claims changed the files"),
    ],
)
def test_the_fault_of_a_flavour_is_reported(tmp_path: Path, flavour: Any, fault: str) -> None:
    with pytest.raises(AssertionError, match=fault):
        check_flavour(flavour(), linear(tmp_path / "model"))


class Model(LinearModel):
    """Does one thing wrong."""

    def __init__(self, weights: dict[str, float], fault: str) -> None:
        super().__init__(weights)
        self.fault, self.calls = fault, 0
        if fault == "signature":
            self.signature: Any = "a, b"

    def predict(self, columns: Columns) -> Columns:
        given: Any = columns["a"]
        self.calls += 1
        answer: Any = super().predict(columns)["score"]
        if self.fault == "moody" and self.calls == 2:
            return {"score": answer + 1}
        if self.fault == "greets":
            return {"score": answer, "greeting": answer}
        if self.fault == "changes":
            given += 1
        if self.fault == "needs two" and len(answer) < 2:
            answer = np.float64(1.0)
        return {"score": answer}


class Faulty(LinearLoader):
    """Loads a `Model`, or is wrong itself."""

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.libraries = ("no_such_library",) if fault == "libraries" else ()

    def load(self, path: Path, trusted: Sequence[str] = ()) -> LinearModel:
        if self.fault == "raises":
            (file,) = path.glob("*.linear")
            return LinearModel(json.loads(file.read_text("utf-8")))
        if self.fault == "forgives" and not self.claims(path):
            return LinearModel({"a": 1.0})
        if self.fault == "runs":
            for file in path.glob("*.linear"):
                if file.read_bytes().startswith(b"\x80"):
                    pickle.loads(file.read_bytes())
        loaded = super().load(path, trusted)
        return Model(loaded._weights, self.fault)


@pytest.mark.parametrize(
    "fault, said",
    [
        ("signature", "signature must be a kedge.plugins.Signature, got str"),
        ("moody", "asked a second time: golden row 0: score is 2.5, expected 1.5"),
        ("greets", "the answer has the outputs score, greeting"),
        ("changes", "predict changed the columns"),
        ("needs two", "one row alone: the answer is not a mapping"),
        ("libraries", "libraries names what the loader does not import: no_such_library"),
        ("forgives", "load must raise UnfitModel for an empty directory, and raised nothing"),
        ("raises", "load must raise UnfitModel for an empty directory, got ValueError"),
        ("runs", "load ran what is in a.linear, a pickle"),
    ],
)
def test_the_fault_of_a_loader_is_reported(tmp_path: Path, fault: str, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_loader(Faulty(fault), linear(tmp_path / "model"))


def test_a_damaged_file_must_raise_the_error_that_kedge_handles(tmp_path: Path) -> None:
    class Raw(LinearLoader):
        def load(self, path: Path, trusted: Sequence[str] = ()) -> LinearModel:
            if not self.claims(path):
                raise UnfitModel("not mine")
            return LinearModel(json.loads((path / "a.linear").read_text("utf-8")))

    with pytest.raises(AssertionError, match=r"a\.linear, empty, got JSONDecodeError"):
        check_loader(Raw(), linear(tmp_path / "model"))


def test_wrong_golden_rows_are_no_fault_that_passes(tmp_path: Path) -> None:
    example = linear(tmp_path / "model")
    wrong = Example(path=example.path, inputs=example.inputs, outputs={"score": [1.5, 0.1]})
    with pytest.raises(AssertionError, match=r"golden row 1: score is 0\.0, expected 0\.1"):
        check_loader(LinearLoader(), wrong)


# ---------------------------------------------------------------- what is public


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_is_there(module: str) -> None:
    space: dict[str, Any] = {}
    exec(f"from {module} import *", space)
    assert PUBLIC[module] <= {*space}
    assert PUBLIC[module] <= {*dir(sys.modules[module])}


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'kedge' has no attribute 'nonsense'"):
        kedge.nonsense  # noqa: B018


def test_the_lazy_names_are_those_that_are_public() -> None:
    assert set(kedge._PLACES) == set(kedge.__all__)
    assert len(kedge._PLACES) == sum(len(names.split()) for names in kedge._NAMES.values())


def test_importing_the_names_of_a_flavour_imports_no_numpy() -> None:
    script = "import sys, kedge, kedge.plugins; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    assert done.stdout.strip() == b"False"


def kedge_imports(tree: ast.AST) -> set[tuple[str, str]]:
    """What a file imports of kedge: the module and the name; "" is the module itself."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "kedge":
            found |= {(node.module or "", alias.name) for alias in node.names}
        if isinstance(node, ast.Import):
            found |= {(a.name, "") for a in node.names if a.name.partition(".")[0] == "kedge"}
    return found


def private(found: set[tuple[str, str]]) -> set[tuple[str, str]]:
    return {each for each in found if each[1] not in PUBLIC.get(each[0], set())}


@pytest.mark.parametrize("path", PLUGINS, ids=lambda path: path.stem)
def test_a_plugin_of_the_tests_imports_public_names_only(path: Path) -> None:
    found = kedge_imports(ast.parse(path.read_text("utf-8")))
    assert found
    assert not private(found)


@pytest.mark.parametrize(
    "line",
    [
        "from kedge.core.values import Field",
        "from kedge.plugins import import_module",
        "import kedge.ports",
        "def f():\n    from kedge.core import errors",
    ],
)
def test_an_import_that_is_not_public_is_seen(line: str) -> None:
    assert private(kedge_imports(ast.parse(line)))


def test_a_diagnosis_is_made_with_public_names_alone() -> None:
    dice = np.random.default_rng(1)
    x: Any = dice.normal(size=3_000)
    truth: Any = (dice.random(3_000) < 1 / (1 + np.exp(-x))).astype(np.float64)
    good, bad = 1 / (1 + np.exp(-x)), 1 / (1 + np.exp(x))
    found = kedge.diagnose(
        kedge.Facts(
            output=kedge.Output(kind="binary", score="p"),
            metric="brier",
            new="r2",
            old="r1",
            current=kedge.Sample(columns={"x": x}, truth=truth),
            answers={("new", "new"): bad, ("old", "old"): good},
            changed=frozenset({"model"}),
            instruments=kedge.Instruments(coverage={"production": (3_000, 3_000)}),
        )
    )
    assert isinstance(found, kedge.Diagnosis)
    assert kedge.Cause.MODEL in {finding.cause for finding in found.findings}
    assert found.action.code is kedge.Act.ROLL_BACK_MODEL


def test_the_protocols_are_what_the_plugin_has() -> None:
    loader: Loader = LinearLoader()
    assert loader.flavour == "linear"
