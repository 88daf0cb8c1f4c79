"""The walk: plain models are proven plain, and crafted ones are refused or kept out of the workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import skops.io
from onnx import TensorProto, helper
from skl2onnx import to_onnx
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
)
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, PolynomialFeatures, StandardScaler
from sklearn.tree import DecisionTreeRegressor
from sklearn.tree._tree import Tree

from kedge.adapters.models.onnx import OnnxLoader
from kedge.adapters.models.sklearn import SklearnLoader
from kedge.core.errors import UnfitModel
from kedge.core.values import Plainness
from kedge.inspection import RULE, plainness
from kedge.inspection.graphs import judge as judge_graph
from kedge.inspection.objects import judge

DICE = np.random.default_rng(3)
X: Any = DICE.normal(size=(120, 4))
BINARY: Any = (X[:, 0] > 0).astype(int)
THREE: Any = DICE.integers(0, 3, 120)
NUMBER: Any = X @ np.arange(4.0)


def load(directory: Path, estimator: Any, trusted: tuple[str, ...] = ()) -> Any:
    directory.mkdir(parents=True, exist_ok=True)
    skops.io.dump(estimator, directory / "model.skops")
    return SklearnLoader().load(directory, trusted)


def refused(directory: Path, estimator: Any) -> str:
    with pytest.raises(UnfitModel) as caught:
        load(directory, estimator)
    assert caught.value.code == "unsafe_model"
    return str(caught.value)


# ---------------------------------------------------------------- refused wherever it would run


def bent(kind: str, at: int = 0) -> Any:
    """A tree whose indices lead nowhere."""
    model = DecisionTreeRegressor(max_depth=2).fit(X, NUMBER)
    state = model.tree_.__getstate__()
    nodes = state["nodes"].copy()
    match kind:
        case "itself":
            nodes["left_child"][at] = at
        case "outside":
            nodes["right_child"][at] = 2**40
        case "negative":
            nodes["right_child"][at] = -5
        case "feature":
            nodes["feature"][at] = 4
        case "before":
            nodes["feature"][at] = -1
    state["nodes"] = nodes
    new = Tree(4, np.array([1], dtype=np.intp), 1)
    new.__setstate__(state)
    model.tree_ = new
    return model


@pytest.mark.parametrize("kind", ["itself", "outside", "negative", "feature", "before"])
def test_a_tree_whose_indices_lead_elsewhere_is_loaded_nowhere(tmp_path: Path, kind: str) -> None:
    model = bent(kind)
    assert "child" in (said := refused(tmp_path / "alone", model)) or "feature" in said
    forest = RandomForestClassifier(2).fit(X, BINARY)
    forest.estimators_[1].tree_ = model.tree_
    refused(tmp_path / "forest", make_pipeline(StandardScaler(), forest))


@pytest.mark.parametrize("name, value", [("left", 0), ("right", 2**31), ("feature_idx", -1)])
def test_a_histogram_tree_is_followed_as_well(tmp_path: Path, name: str, value: int) -> None:
    model = HistGradientBoostingRegressor(max_iter=2).fit(X, NUMBER)
    model._predictors[1][0].nodes[name][0] = value
    assert "TreePredictor" in refused(tmp_path, model)


def test_attributes_that_python_acts_on_are_refused(tmp_path: Path) -> None:
    """NumPy reads memory by `__array_interface__`, and compares its shape with nothing."""
    inner = LinearRegression().fit(X, NUMBER)
    inner.__dict__["__array_interface__"] = {
        "version": 3,
        "data": b"short",
        "shape": (40_000,),
        "typestr": "<u4",
    }
    outer = LinearRegression().fit(X, NUMBER)
    outer.intercept_ = inner
    assert "__array_interface__" in refused(tmp_path, outer)


@pytest.mark.parametrize("source", ["filename", "file"])
def test_a_vectorizer_that_opens_what_callers_name_is_refused(tmp_path: Path, source: str) -> None:
    vectorizer = CountVectorizer().fit(["late", "on time"])
    vectorizer.input = source
    assert "opens files" in refused(tmp_path, make_pipeline(vectorizer, LogisticRegression()))


def test_a_method_that_the_file_replaces_is_refused(tmp_path: Path) -> None:
    model = LinearRegression().fit(X, NUMBER)
    model.predict = LinearRegression()
    assert "method" in refused(tmp_path, model)


# ---------------------------------------------------------------- never inline unproven


def shared(deep: int) -> Any:
    """A pipeline whose steps are one pipeline twice, and so on: it is small, and takes for ever."""
    made: Any = make_pipeline(StandardScaler().fit(X), StandardScaler().fit(X))
    for _ in range(deep):
        made = make_pipeline(made, made)
    return made


def gluttonous() -> Any:
    model = RandomForestClassifier(2).fit(X, BINARY)
    model.n_classes_ = 1 << 40
    return model


def overlong() -> Any:
    model = GradientBoostingClassifier(n_estimators=2).fit(X, THREE)
    model.classes_ = np.array([0, 1])
    model.n_trees_per_iteration_ = 1
    return model


def narrow() -> Any:
    forest = RandomForestClassifier(2).fit(X, BINARY)
    forest.n_features_in_ = 2
    return forest


def wide_words() -> Any:
    encoder = OneHotEncoder().fit(np.array([["a"], ["b"]], object))
    encoder._n_features_outs = [1 << 40]
    return make_pipeline(encoder, LogisticRegression())


@pytest.mark.parametrize(
    "model",
    [
        KNeighborsRegressor().fit(X, NUMBER),
        make_pipeline(PolynomialFeatures(2), LinearRegression()).fit(X, NUMBER),
        shared(40),
        gluttonous(),
        overlong(),
        narrow(),
        wide_words(),
    ],
    ids=["neighbours", "polynomials", "shared", "classes", "boosted", "narrow", "words"],
)
def test_what_the_tables_do_not_know_or_what_contradicts_itself_is_not_plain(model: Any) -> None:
    found = judge(model)
    assert not found.proven
    assert found.why


def test_an_attribute_or_a_value_that_an_estimator_is_not_known_for_is_not_plain() -> None:
    model = LogisticRegression().fit(X, BINARY)
    model.extra_ = 1
    assert "extra_" in judge(model).why
    del model.extra_
    model.coef_ = [[1.0] * 4]
    assert "coef_" in judge(model).why


def test_a_type_that_only_claims_a_known_name_is_not_plain() -> None:
    impostor = type("LogisticRegression", (), {"__module__": "sklearn.linear_model._logistic"})
    assert not judge(impostor()).proven


def test_what_was_let_load_is_not_plain(tmp_path: Path) -> None:
    model = load(tmp_path, LogisticRegression().fit(X, BINARY), ("my.module.Type",))
    assert "my.module.Type" in plainness(model).why


@pytest.mark.parametrize(
    "model",
    [
        LogisticRegression().fit(X, BINARY),
        make_pipeline(StandardScaler(), LinearRegression()).fit(X, NUMBER),
        RandomForestClassifier(3, n_jobs=2).fit(X, THREE),
        GradientBoostingClassifier(n_estimators=3).fit(X, THREE),
        HistGradientBoostingRegressor(max_iter=3).fit(X, NUMBER),
    ],
    ids=lambda m: type(m).__name__,
)
def test_ordinary_models_are_proven_plain(tmp_path: Path, model: Any) -> None:
    found = plainness(load(tmp_path, model))
    assert found.proven, found.why
    assert found.rule == RULE
    assert type(model).__name__ in found.found


def test_a_model_of_a_loader_that_walks_nothing_is_not_plain() -> None:
    assert not plainness(object()).proven


# ---------------------------------------------------------------- ONNX


def written(
    path: Path,
    nodes: list[Any],
    takes: Any = ("x", TensorProto.FLOAT, ["n", 4]),
    weights: list[Any] | None = None,
) -> Path:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(*takes)],
        [helper.make_tensor_value_info("y", takes[1], None)],
        weights or [],
    )
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    path.write_bytes(helper.make_model(graph, opset_imports=sets, ir_version=9).SerializeToString())
    return path


def node(kind: str, takes: list[str], gives: list[str], **more: Any) -> Any:
    return helper.make_node(kind, takes, gives, **more)


def weight(name: str, values: Any, dtype: Any = np.int64) -> Any:
    return onnx.numpy_helper.from_array(np.array(values, dtype), name)


BODY = helper.make_graph(
    [node("Identity", ["c"], ["d"]), node("Identity", ["v"], ["w"])],
    "body",
    [
        helper.make_tensor_value_info("i", TensorProto.INT64, []),
        helper.make_tensor_value_info("c", TensorProto.BOOL, []),
        helper.make_tensor_value_info("v", TensorProto.FLOAT, None),
    ],
    [
        helper.make_tensor_value_info("d", TensorProto.BOOL, []),
        helper.make_tensor_value_info("w", TensorProto.FLOAT, None),
    ],
)


@pytest.mark.parametrize(
    "nodes, says",
    [
        ([node("Loop", ["m", "", "x"], ["y"], body=BODY)], "Loop"),
        ([node("ConstantOfShape", ["x"], ["y"])], "ConstantOfShape"),
        ([node("NonZero", ["x"], ["y"])], "NonZero"),
        ([node("Range", ["x", "x", "x"], ["y"])], "Range"),
        ([node("Cast", ["x"], ["s"], to=7), node("Expand", ["x", "s"], ["y"])], "Expand"),
        ([node("Cast", ["x"], ["s"], to=7), node("Tile", ["x", "s"], ["y"])], "Tile"),
        ([node("Softmax", ["x"], ["y"], body=BODY)], "graph within"),
        ([node("Anything", ["x"], ["y"], domain="com.example")], "com.example.Anything"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_operators_whose_time_or_size_callers_decide_are_not_plain(
    tmp_path: Path, nodes: list[Any], says: str
) -> None:
    found = judge_graph(written(tmp_path / "m.onnx", nodes))
    assert not found.proven
    assert says in found.why


def test_a_second_open_axis_is_not_plain(tmp_path: Path) -> None:
    path = written(
        tmp_path / "m.onnx", [node("Relu", ["x"], ["y"])], ("x", TensorProto.FLOAT, ["n", "m"])
    )
    assert "axis" in judge_graph(path).why


def test_functions_and_external_weights_are_not_plain(tmp_path: Path) -> None:
    path = written(
        tmp_path / "m.onnx",
        [node("MatMul", ["x", "w"], ["y"])],
        weights=[weight("w", np.ones((4, 2)), np.float32)],
    )
    assert judge_graph(path).proven
    model = onnx.load(path)
    onnx.save_model(
        model, str(path), save_as_external_data=True, location="w.data", size_threshold=0
    )
    assert "another file" in judge_graph(path).why
    model = onnx.load(path)
    model.functions.add(name="f", domain="d")
    path.write_bytes(model.SerializeToString())
    assert "functions" in judge_graph(path).why


def trees(**changed: Any) -> Any:
    given: dict[str, Any] = {
        "nodes_treeids": [0, 0, 0],
        "nodes_nodeids": [0, 1, 2],
        "nodes_featureids": [3, 0, 0],
        "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
        "nodes_values": [0.5, 0.0, 0.0],
        "nodes_truenodeids": [1, 0, 0],
        "nodes_falsenodeids": [2, 0, 0],
        "target_ids": [0, 0],
        "target_nodeids": [1, 2],
        "target_treeids": [0, 0],
        "target_weights": [1.0, 2.0],
        "n_targets": 1,
    }
    return node("TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", **{**given, **changed})


@pytest.mark.parametrize(
    "changed",
    [
        {"nodes_truenodeids": [0, 0, 0]},
        {"nodes_falsenodeids": [9, 0, 0]},
        {"nodes_featureids": [4, 0, 0]},
        {"nodes_featureids": [-1, 0, 0]},
        {"nodes_nodeids": [0, 1, 1]},
        {"nodes_truenodeids": [1, 0]},
        {"target_nodeids": [1, 7]},
        {"nodes_modes": ["BRANCH_FAR", "LEAF", "LEAF"]},
    ],
    ids=lambda c: next(iter(c)),
)
def test_a_tree_ensemble_is_followed(tmp_path: Path, changed: dict[str, Any]) -> None:
    assert judge_graph(written(tmp_path / "good.onnx", [trees()])).proven
    assert not judge_graph(written(tmp_path / "m.onnx", [trees(**changed)])).proven


@pytest.mark.parametrize(
    "model, options",
    [
        (LogisticRegression(), {"zipmap": False}),
        (LinearRegression(), None),
        (RandomForestClassifier(3), {"zipmap": False}),
        (make_pipeline(StandardScaler(), LogisticRegression()), {"zipmap": False}),
        (GradientBoostingClassifier(n_estimators=3), {"zipmap": False}),
    ],
    ids=lambda m: type(m).__name__,
)
def test_ordinary_exports_are_proven_plain(tmp_path: Path, model: Any, options: Any) -> None:
    model.fit(X, NUMBER if isinstance(model, LinearRegression) else BINARY)
    raw = to_onnx(model, X[:1].astype(np.float32), options=options).SerializeToString()
    (tmp_path / "model.onnx").write_bytes(raw)
    found = plainness(OnnxLoader().load(tmp_path))
    assert found.proven, found.why


@pytest.mark.parametrize("cut", range(1, 400, 13))
def test_bytes_that_make_no_sense_are_not_plain_and_nothing_else(tmp_path: Path, cut: int) -> None:
    path = written(tmp_path / "m.onnx", [trees()])
    raw = bytearray(path.read_bytes())
    path.write_bytes(raw[:cut])
    assert isinstance(judge_graph(path), Plainness)
    raw[cut] ^= 0xFF
    path.write_bytes(raw)
    assert isinstance(judge_graph(path), Plainness)
