"""ONNX and scikit-learn: real models, trained here, must answer as their own library does."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import onnx
import pytest
import sklearn
import skops.io
from onnx import TensorProto, helper
from skl2onnx import convert_sklearn, to_onnx
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    VotingClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import FixedThresholdClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    OneHotEncoder,
    OrdinalEncoder,
    StandardScaler,
)
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

from kedge.adapters.models.onnx import OnnxLoader
from kedge.adapters.models.sklearn import SklearnLoader
from kedge.columns import check_answer
from kedge.core.errors import UnfitModel
from kedge.core.values import Field

if TYPE_CHECKING:
    from kedge.ports import Model

RNG = np.random.default_rng(7)
X: Any = RNG.normal(size=(120, 4))
BINARY: Any = (X[:, 0] + 0.3 * RNG.normal(size=120) > 0).astype(int)
THREE: Any = RNG.integers(0, 3, 120)
NUMBER: Any = X @ np.arange(4.0)
WORDS: Any = RNG.choice(["JFK", "LGA", "EWR"], 120)


def dumped(directory: Path, estimator: Any, signature: dict[str, Any] | None = None) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    skops.io.dump(estimator, directory / "model.skops")
    if signature is not None:
        (directory / "signature.json").write_bytes(msgspec.json.encode(signature))
    return directory


def restored(directory: Path, estimator: Any, signature: dict[str, Any] | None = None) -> Model:
    return SklearnLoader().load(dumped(directory, estimator, signature))


def fits(model: Model, columns: dict[str, Any]) -> dict[str, Any]:
    """Ask, check the form, and check that one row alone is answered as among others."""
    rows = len(next(iter(columns.values())))
    answer = dict(model.predict(columns))
    assert check_answer(answer, model.signature, rows) is None
    alone = model.predict({name: column[3:4] for name, column in columns.items()})
    for name, column in alone.items():
        assert column.shape == answer[name][3:4].shape
        assert np.all(column == answer[name][3:4]) or np.allclose(column, answer[name][3:4])
    return answer


# ---------------------------------------------------------------- scikit-learn


@pytest.mark.parametrize(
    "estimator",
    [
        LogisticRegression(),
        RandomForestClassifier(5, n_jobs=2),
        GradientBoostingClassifier(n_estimators=5),
        HistGradientBoostingClassifier(max_iter=5),
        DecisionTreeClassifier(max_depth=3),
        GaussianNB(),
        FixedThresholdClassifier(LogisticRegression(), threshold=0.9),
        VotingClassifier([("a", LogisticRegression()), ("b", GaussianNB())], voting="soft"),
        make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()),
    ],
    ids=lambda e: type(e).__name__,
)
def test_a_classifier_gives_its_own_probability_and_label(tmp_path: Path, estimator: Any) -> None:
    estimator.fit(X, BINARY)
    answer = fits(restored(tmp_path / "two", estimator), {"X": X})
    assert np.allclose(answer["score"], estimator.predict_proba(X)[:, 1])
    assert np.array_equal(answer["label"], estimator.predict(X))
    estimator = type(estimator)(**estimator.get_params(deep=False))
    if isinstance(estimator, FixedThresholdClassifier):
        return  # binary only
    estimator.fit(X, THREE)
    model = restored(tmp_path / "three", estimator)
    assert model.signature.outputs[0] == Field("probabilities", "float64", (3,))
    answer = fits(model, {"X": X})
    assert np.allclose(answer["probabilities"], estimator.predict_proba(X))
    assert np.array_equal(answer["label"], estimator.predict(X))


@pytest.mark.parametrize(
    "estimator",
    [
        LinearRegression(),
        Ridge(),
        RandomForestRegressor(5),
        GradientBoostingRegressor(n_estimators=5),
        HistGradientBoostingRegressor(max_iter=5),
        make_pipeline(StandardScaler(), Ridge()),
    ],
    ids=lambda e: type(e).__name__,
)
def test_a_regressor_gives_its_own_prediction(tmp_path: Path, estimator: Any) -> None:
    estimator.fit(X, NUMBER)
    answer = fits(restored(tmp_path, estimator), {"X": X})
    assert np.allclose(answer["prediction"], estimator.predict(X))


def test_two_targets_are_one_output_of_two(tmp_path: Path) -> None:
    estimator = LinearRegression().fit(X, np.column_stack([NUMBER, -NUMBER]))
    model = restored(tmp_path, estimator)
    assert model.signature.outputs == (Field("prediction", "float64", (2,)),)
    assert fits(model, {"X": X})["prediction"].shape == (120, 2)


def test_clusters_and_labels_without_probabilities_are_answers_too(tmp_path: Path) -> None:
    clusters = KMeans(2, n_init=1, random_state=0).fit(X)
    assert np.array_equal(
        fits(restored(tmp_path / "k", clusters), {"X": X})["prediction"], clusters.predict(X)
    )
    classifier = LinearSVC().fit(X, np.where(BINARY, "late", "on time"))
    answer = fits(restored(tmp_path / "s", classifier), {"X": X})
    assert answer["label"].tolist() == classifier.predict(X).tolist()


MIXED = {
    "inputs": [
        {"name": "delay", "dtype": "float32", "nullable": True},
        {"name": "distance"},
        {"name": "origin", "dtype": "string"},
    ],
    "outputs": [{"name": "p_late"}, {"name": "late"}],
}


@pytest.mark.parametrize(
    "encoder, last",
    [
        (OneHotEncoder(handle_unknown="ignore"), LogisticRegression()),
        (OrdinalEncoder(), RandomForestClassifier(5)),
        (OrdinalEncoder(), HistGradientBoostingClassifier(max_iter=3, categorical_features=[2])),
    ],
    ids=["onehot", "ordinal", "categories"],
)
def test_a_pipeline_over_numbers_and_words_takes_named_scalars(
    tmp_path: Path, encoder: Any, last: Any
) -> None:
    table = np.empty((120, 3), object)
    table[:, 0], table[:, 1], table[:, 2] = X[:, 0], X[:, 1], WORDS
    table[::10, 0] = np.nan
    columns = ColumnTransformer(
        [("n", make_pipeline(SimpleImputer(), StandardScaler()), [0, 1]), ("w", encoder, [2])]
    )
    estimator = make_pipeline(columns, last).fit(table, BINARY)
    model = restored(tmp_path, estimator, MIXED)
    assert [field.name for field in model.signature.outputs] == ["p_late", "late"]
    delay = X[:, 0].astype(np.float32)
    delay[::10] = np.nan
    answer = fits(model, {"delay": delay, "distance": X[:, 1], "origin": WORDS.astype(object)})
    assert np.allclose(answer["p_late"], estimator.predict_proba(table)[:, 1], atol=1e-5)


def test_the_number_of_threads_is_one_whatever_the_model_was_fitted_with(tmp_path: Path) -> None:
    estimator = make_pipeline(StandardScaler(), RandomForestClassifier(3, n_jobs=-1))
    model: Any = restored(tmp_path, estimator.fit(X, BINARY))
    inner = [cell.cell_contents for cell in model._head.__closure__]
    jobs = {f.__self__[-1].n_jobs for f in inner if hasattr(f, "__self__")}
    assert jobs == {1}


def my_own_function(x: Any) -> Any:
    return x


def test_a_type_that_is_not_scikit_learns_is_refused_by_name_until_it_is_trusted(
    tmp_path: Path,
) -> None:
    estimator = make_pipeline(FunctionTransformer(my_own_function), LogisticRegression())
    path = dumped(tmp_path / "f", estimator.fit(X, BINARY))
    with pytest.raises(UnfitModel) as caught:
        SklearnLoader().load(path)
    assert caught.value.code == "untrusted_types"
    (name,) = [str(found) for found in caught.value.details["types"]]  # type: ignore[attr-defined]
    assert name.endswith("my_own_function")
    assert name in str(caught.value)
    assert f"--trust {name}" in caught.value.hint
    neighbours = dumped(tmp_path / "n", KNeighborsClassifier().fit(X, BINARY))
    with pytest.raises(UnfitModel) as caught:
        SklearnLoader().load(neighbours)
    types: Any = caught.value.details["types"]
    assert len(types) == 2
    model = SklearnLoader().load(neighbours, types)
    assert check_answer(model.predict({"X": X}), model.signature, 120) is None


def rewritten(directory: Path, **words: str) -> Path:
    """A skops file in whose description words were replaced."""
    skops.io.dump(LogisticRegression().fit([[0.0], [1.0]], [0, 1]), directory / "first")
    with (
        zipfile.ZipFile(directory / "first") as old,
        zipfile.ZipFile(directory / "m.skops", "w") as new,
    ):
        for name in old.namelist():
            raw = old.read(name)
            if name == "schema.json":
                for word, other in words.items():
                    assert word.encode() in raw
                    raw = raw.replace(word.encode(), other.encode())
            new.writestr(name, raw)
    (directory / "first").unlink()
    return directory


@pytest.mark.parametrize(
    ("words", "trusted", "hint"),
    [
        (
            {"LogisticRegression": "Gone", sklearn.__version__: "1.7.2"},
            ["sklearn.linear_model._logistic.Gone"],
            f"trained with scikit-learn 1.7.2, and {sklearn.__version__} is installed here: pip install scikit-learn==1.7.2",
        ),
        (
            {"sklearn.linear_model._logistic": "_loss", sklearn.__version__: "1.7.2"},
            [],
            "scikit-learn 1.7.2",
        ),
        ({"sklearn.linear_model._logistic": "_loss"}, [], "--trust _loss.LogisticRegression"),
        (
            {"sklearn.linear_model._logistic": "no_such_library.models"},
            ["no_such_library.models.LogisticRegression"],
            "pip install no_such_library, where kedge runs",
        ),
    ],
)
def test_a_missing_package_of_a_file_is_named(
    tmp_path: Path, words: dict[str, str], trusted: list[str], hint: str
) -> None:
    with pytest.raises(UnfitModel) as caught:
        SklearnLoader().load(rewritten(tmp_path, **words), trusted)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    "raw",
    [b"", b"not a zip", b"PK\x03\x04" + b"\0" * 200],
)
def test_a_damaged_file_is_unfit_and_never_another_error(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "m.skops").write_bytes(raw)
    with pytest.raises(UnfitModel, match="cannot be loaded"):
        SklearnLoader().load(tmp_path)
    (tmp_path / "m.onnx").write_bytes(raw or b"\xff\xff")
    with pytest.raises(UnfitModel):
        OnnxLoader().load(tmp_path)


@pytest.mark.parametrize(
    "signature, says",
    [
        ({"inputs": [{"name": "a", "dtype": "decimal"}]}, "decimal"),
        ({"inputs": [{"name": "a", "shape": [2]}, {"name": "b"}]}, "scalars, or one tensor"),
        ({"inputs": []}, "scalars, or one tensor"),
        ({"inputs": [{"name": "X", "shape": [4]}], "outputs": [{"name": "p"}]}, "names 1 outputs"),
        (
            {"inputs": [{"name": "a"}, {"name": "b"}]},
            "names 2 columns, but the model was fitted on 4",
        ),
        ({"inputs": [{"nam": "a"}]}, "nam"),
    ],
)
def test_a_wrong_signature_file_is_refused_with_its_fault(
    tmp_path: Path, signature: dict[str, Any], says: str
) -> None:
    path = dumped(tmp_path, LogisticRegression().fit(X, BINARY), signature)
    with pytest.raises(UnfitModel) as caught:
        SklearnLoader().load(path)
    assert caught.value.code == "bad_signature"
    assert says in str(caught.value)


def test_an_object_without_predict_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(UnfitModel, match="no predict"):
        restored(tmp_path, StandardScaler().fit(X))


def named(estimator: Any) -> Any:
    estimator.feature_names_in_ = np.array(["a", "b", "c", "d"], dtype=object)
    return estimator


def test_a_model_fitted_on_a_data_frame_says_when_pandas_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = dumped(tmp_path, named(LogisticRegression().fit(X, BINARY)))
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UnfitModel) as caught:
        SklearnLoader().load(path)
    assert caught.value.code == "needs_pandas"


def test_a_model_fitted_on_a_data_frame_gets_one(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    estimator = LogisticRegression().fit(X, BINARY)
    model = restored(tmp_path, named(estimator))
    assert [field.name for field in model.signature.inputs] == ["a", "b", "c", "d"]
    answer = fits(model, {name: X[:, i] for i, name in enumerate("abcd")})
    del estimator.feature_names_in_
    assert np.allclose(answer["score"], estimator.predict_proba(X)[:, 1])


# ---------------------------------------------------------------- ONNX


def exported(directory: Path, model: Any) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "model.onnx").write_bytes(model.SerializeToString())
    return directory


def test_an_onnx_classifier_answers_as_the_model_it_was_made_from(tmp_path: Path) -> None:
    estimator = LogisticRegression().fit(X, BINARY)
    converted = to_onnx(estimator, X[:1].astype(np.float32), options={"zipmap": False})
    model = OnnxLoader().load(exported(tmp_path, converted))
    assert model.signature.inputs == (Field("X", "float32", (4,)),)
    assert model.signature.outputs == (
        Field("label", "int64"),
        Field("probabilities", "float32", (2,)),
    )
    answer = fits(model, {"X": X})  # float64: converted
    assert np.allclose(answer["probabilities"], estimator.predict_proba(X), atol=1e-5)


def test_scalar_inputs_and_outputs_gain_and_lose_their_axis(tmp_path: Path) -> None:
    table = np.empty((120, 2), object)
    table[:, 0], table[:, 1] = X[:, 0], WORDS
    columns = ColumnTransformer([("n", "passthrough", [0]), ("w", OneHotEncoder(), [1])])
    estimator = make_pipeline(columns, LinearRegression()).fit(table, NUMBER)
    converted = convert_sklearn(
        estimator,
        initial_types=[
            ("delay", FloatTensorType([None, 1])),
            ("origin", StringTensorType([None, 1])),
        ],
    )
    model = OnnxLoader().load(exported(tmp_path, converted))
    assert model.signature.inputs == (Field("delay", "float32"), Field("origin", "string"))
    assert [field.shape for field in model.signature.outputs] == [()]
    answer = fits(model, {"delay": X[:, 0].astype(np.float32), "origin": WORDS.astype(object)})
    assert np.allclose(answer["variable"], estimator.predict(table), atol=1e-4)


def test_maps_are_refused_and_the_hint_says_how_to_convert(tmp_path: Path) -> None:
    converted = to_onnx(LogisticRegression().fit(X, BINARY), X[:1].astype(np.float32))
    with pytest.raises(UnfitModel) as caught:
        OnnxLoader().load(exported(tmp_path, converted))
    assert 'options={"zipmap": False}' in caught.value.hint


def graph(takes: list[Any], gives: list[Any], weights: Any = None) -> Any:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, takes)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, gives)]
    weights = np.eye(3, dtype=np.float32) * 2 if weights is None else weights
    made = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        inputs,
        outputs,
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.mark.parametrize("gives", [["n", 3], ["n", "k"], None])
def test_fixed_symbolic_and_undeclared_output_shapes_are_understood(
    tmp_path: Path, gives: Any
) -> None:
    model = OnnxLoader().load(exported(tmp_path, graph(["n", 3], gives)))
    assert model.signature.outputs[0].shape in ((3,), (-1,))
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    assert np.array_equal(fits(model, {"x": rows})["y"], rows * 2)


def test_a_model_for_one_row_at_a_time_is_asked_once_a_row(tmp_path: Path) -> None:
    model = OnnxLoader().load(exported(tmp_path, graph([1, 3], [1, 3])))
    assert model.signature.inputs == (Field("x", "float32", (3,)),)
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    assert np.array_equal(fits(model, {"x": rows})["y"], rows * 2)


def test_a_model_without_an_axis_of_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnfitModel) as caught:
        OnnxLoader().load(exported(tmp_path, graph([2, 3], [2, 3])))
    assert caught.value.code == "no_row_axis"


def test_weights_in_a_file_beside_the_model_are_found(tmp_path: Path) -> None:
    weights = np.eye(3, dtype=np.float32).repeat(3, axis=1)
    onnx.save_model(
        graph(["n", 3], ["n", 9], weights),
        str(tmp_path / "model.onnx"),
        save_as_external_data=True,
        location="weights.data",
        size_threshold=0,
    )
    assert (tmp_path / "weights.data").exists()
    model = OnnxLoader().load(tmp_path)
    assert fits(model, {"x": np.ones((5, 3), np.float32)})["y"].shape == (5, 9)


# ---------------------------------------------------------------- who claims what


@pytest.mark.parametrize(
    "names, claimed",
    [
        (["m.onnx"], "onnx"),
        (["m.onnx", "m.onnx.data", "golden.json"], "onnx"),
        (["m.onnx", "._m.onnx"], "onnx"),
        (["m.skops", "signature.json"], "sklearn"),
        (["a.onnx", "b.onnx"], None),
        (["m.pkl"], None),
        (["m.joblib"], None),
        (["m.pickle", "readme.md"], None),
        ([], None),
    ],
)
def test_a_flavour_is_claimed_by_its_one_file_and_a_pickle_by_none(
    tmp_path: Path, names: list[str], claimed: str | None
) -> None:
    for name in names:
        (tmp_path / name).write_bytes(b"")
    claims = [each.flavour for each in (OnnxLoader(), SklearnLoader()) if each.claims(tmp_path)]
    assert claims == ([claimed] if claimed else [])
