"""scikit-learn's inputs: names, dtypes and missing values come from the data of the fit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
import sklearn
import skops.io
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.ensemble import HistGradientBoostingClassifier, VotingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import SelectKBest, chi2, f_classif
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    OneHotEncoder,
    OrdinalEncoder,
    StandardScaler,
    TargetEncoder,
)

from contract.test_registration import Desk
from kedge.adapters.models.flavours import OnnxFlavour, SklearnFlavour
from kedge.adapters.models.sklearn import SklearnLoader
from kedge.adapters.process.trial import way_in, with_nulls
from kedge.columns import columns_of
from kedge.core.errors import Refused, UnfitModel
from kedge.core.golden import made_rows, whole
from kedge.core.inputs import Described, signature_json
from kedge.core.values import Field, Signature
from kedge.engine.registration import InputsFound, check_stated, companions
from kedge.inspection.independence import answerable
from kedge.ports import Flavour, Model
from kedge.tabular.statistics import read_names, read_training, read_types

RNG = np.random.default_rng(1)
N = 200
TOWN: Any = RNG.choice(np.array(["Bern", "Oslo", None], dtype=object), N)
GONE: Any = np.array([town is None for town in TOWN])
AGE: Any = RNG.normal(40, 10, N)
INCOME: Any = np.where(np.arange(N) % 7 == 0, np.nan, RNG.normal(5, 1, N))
LATE: Any = (GONE * 2.5 + (TOWN == "Oslo") + RNG.normal(0, 1, N) > 1.5).astype(int)
SPELLINGS: dict[str, Any] = {"nan": np.nan, "none": None, "blank": "", "word": "missing"}


def frame(missing: Any = np.nan, income: Any = np.nan) -> Any:
    words = np.where(GONE, missing, TOWN) if missing is not None else TOWN
    return pd.DataFrame(
        {
            "town": pd.Series(words, dtype=object),
            "age": AGE,
            "income": np.where(np.isnan(INCOME), income, INCOME),
        }
    )


def one_hot() -> Any:
    return OneHotEncoder(handle_unknown="ignore")


def pipeline(words: Any, *, array: bool = False, last: Any = None) -> Any:
    columns: Any = ([0], [1, 2]) if array else (["town"], ["age", "income"])
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    parts = ColumnTransformer([("w", words, columns[0]), ("n", numbers, columns[1])])
    return make_pipeline(parts, last or LogisticRegression())


def loaded(directory: Path, estimator: Any, trusted: tuple[str, ...] = (), **files: str) -> Model:
    directory.mkdir(parents=True, exist_ok=True)
    skops.io.dump(estimator, directory / "model.skops")
    for name, text in files.items():
        (directory / name.replace("_json", ".json")).write_text(text)
    return SklearnLoader().load(directory, trusted)


def score(model: Model, *values: Any) -> float:
    names = [field.name for field in model.signature.inputs]
    columns = columns_of({n: [v] for n, v in zip(names, values, strict=True)}, model.signature)
    return float(model.predict(columns)["score"][0])


ENCODERS = {
    "one hot": (one_hot, ("nan", "none", "blank")),
    "ordinal": (
        lambda: OrdinalEncoder(
            handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2
        ),
        ("nan", "none", "blank"),
    ),
    "target": (TargetEncoder, ("nan", "none", "blank")),
    "imputed": (
        lambda: make_pipeline(SimpleImputer(strategy="constant", fill_value="?"), one_hot()),
        ("nan",),
    ),
    "imputed by the most frequent": (
        lambda: make_pipeline(
            SimpleImputer(strategy="most_frequent"),
            OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
        ),
        ("nan",),
    ),
    "imputed where none": (
        lambda: make_pipeline(
            SimpleImputer(missing_values=None, strategy="most_frequent"), one_hot()
        ),
        ("none",),
    ),
    "imputed where a word": (
        lambda: make_pipeline(
            SimpleImputer(missing_values="missing", strategy="most_frequent"), one_hot()
        ),
        ("word",),
    ),
}


@pytest.mark.parametrize("array", [False, True], ids=["frame", "array"])
@pytest.mark.parametrize(
    "encoder, spelling", [(e, s) for e, (_, some) in ENCODERS.items() for s in some]
)
def test_null_is_passed_as_what_the_model_was_fitted_on(
    tmp_path: Path, encoder: str, spelling: str, array: bool
) -> None:
    table = frame(SPELLINGS[spelling])
    estimator = pipeline(ENCODERS[encoder][0](), array=array)
    estimator.fit(table.astype(object).to_numpy() if array else table, LATE)
    model = loaded(tmp_path, estimator)
    names = ["x0", "x1", "x2"] if array else ["town", "age", "income"]
    dtypes: Any = ("string", "float64", "float64")
    assert model.signature.inputs == tuple(
        Field(name, dtype, nullable=True) for name, dtype in zip(names, dtypes, strict=True)
    )
    asked = pd.DataFrame(
        {
            "town": pd.Series([SPELLINGS[spelling], "Bern"], dtype=object),
            "age": [40.0, 40.0],
            "income": [5.0, np.nan],
        }
    )
    right = estimator.predict_proba(asked.astype(object).to_numpy() if array else asked)[:, 1]
    assert score(model, None, 40.0, 5.0) == pytest.approx(right[0])
    assert score(model, "Bern", 40.0, None) == pytest.approx(right[1])
    assert score(model, "", 40.0, 5.0) == pytest.approx(right[0]), (
        "an empty cell is a missing value"
    )
    rows = with_nulls(model, whole(made_rows(model.signature.inputs, {})))
    assert all(None in rows[name] for name in names), rows


def test_a_number_that_stands_for_a_missing_one_is_passed_for_null(tmp_path: Path) -> None:
    estimator = make_pipeline(SimpleImputer(missing_values=-1), LogisticRegression())
    table = frame(income=-1)[["age", "income"]]
    model = loaded(tmp_path / "frame", estimator.fit(table, LATE))
    right = estimator.predict_proba(pd.DataFrame({"age": [40.0], "income": [-1.0]}))[0, 1]
    assert score(model, 40.0, None) == pytest.approx(right)
    tensor = loaded(tmp_path / "array", estimator.fit(table.to_numpy(), LATE))
    assert tensor.signature.inputs == (Field("X", "float64", (2,), nullable=True),)
    assert score(tensor, [40.0, None]) == pytest.approx(right)


def test_an_empty_word_that_the_model_knows_is_no_missing_value(tmp_path: Path) -> None:
    table = frame()
    table.loc[:20, "town"] = ""
    estimator = pipeline(one_hot()).fit(table, LATE)
    model = loaded(tmp_path, estimator)
    asked = pd.DataFrame({"town": ["", np.nan], "age": 40.0, "income": 5.0})
    right = estimator.predict_proba(asked.astype({"town": object}))[:, 1]
    assert score(model, "", 40.0, 5.0) == pytest.approx(right[0])
    assert score(model, None, 40.0, 5.0) == pytest.approx(right[1])


def test_missing_whole_numbers_and_truth_values_are_passed_too(tmp_path: Path) -> None:
    flags = pd.Series(np.where(GONE, np.nan, AGE > 40), dtype=object).map(
        {0.0: False, 1.0: True}, na_action="ignore"
    )
    table = pd.DataFrame(
        {"flag": flags.astype(object), "floor": np.where(GONE, np.nan, np.arange(N) % 3)}
    )
    parts = ColumnTransformer([("f", one_hot(), ["flag"]), ("n", SimpleImputer(), ["floor"])])
    estimator = make_pipeline(parts, LogisticRegression()).fit(table, LATE)
    stated = {
        "inputs": [
            {"name": "flag", "dtype": "bool", "nullable": True},
            {"name": "floor", "dtype": "int64", "nullable": True},
        ]
    }
    model = loaded(tmp_path, estimator, signature_json=json.dumps(stated))
    asked = pd.DataFrame({"flag": pd.Series([np.nan, True], dtype=object), "floor": [2.0, np.nan]})
    right, flag = estimator.predict_proba(asked)[:, 1], True
    assert score(model, None, 2) == pytest.approx(right[0])
    assert score(model, flag, None) == pytest.approx(right[1])


KINDS: dict[str, Any] = {
    "selector": lambda: make_pipeline(
        ColumnTransformer(
            [
                ("w", one_hot(), make_column_selector(dtype_exclude="number")),
                ("n", SimpleImputer(), make_column_selector(dtype_include="number")),
            ]
        ),
        LogisticRegression(),
    ),
    "remainder": lambda: make_pipeline(
        ColumnTransformer([("w", one_hot(), ["town"])], remainder=SimpleImputer()),
        LogisticRegression(),
    ),
    "nested": lambda: make_pipeline(
        ColumnTransformer(
            [
                (
                    "all",
                    ColumnTransformer([("w", one_hot(), [0]), ("n", SimpleImputer(), [1])]),
                    ["town", "income"],
                ),
                ("age", "passthrough", ["age"]),
            ]
        ),
        LogisticRegression(),
    ),
    "union": lambda: make_pipeline(
        ColumnTransformer(
            [
                (
                    "w",
                    FeatureUnion(
                        [("a", one_hot()), ("b", OrdinalEncoder(encoded_missing_value=-1))]
                    ),
                    ["town"],
                ),
                ("n", SimpleImputer(add_indicator=True), ["age", "income"]),
            ]
        ),
        LogisticRegression(),
    ),
    "grid": lambda: GridSearchCV(pipeline(one_hot()), {"logisticregression__C": [0.1, 1.0]}, cv=2),
    "vote": lambda: VotingClassifier(
        [("a", pipeline(one_hot())), ("b", pipeline(one_hot()))], voting="soft"
    ),
    "imputed first": lambda: make_pipeline(
        ColumnTransformer(
            [
                ("w", SimpleImputer(strategy="most_frequent"), ["town"]),
                ("n", SimpleImputer(), ["age", "income"]),
            ]
        ),
        ColumnTransformer([("w", one_hot(), [0])], remainder="passthrough"),
        LogisticRegression(),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_encoders_are_found_wherever_they_are(tmp_path: Path, kind: str) -> None:
    estimator = KINDS[kind]().fit(frame(), LATE)
    model = loaded(tmp_path, estimator)
    town, *_, income = model.signature.inputs
    assert (town, income) == (
        Field("town", "string", nullable=True),
        Field("income", "float64", nullable=True),
    )
    asked = pd.DataFrame(
        {"town": pd.Series([np.nan], dtype=object), "age": [40.0], "income": [5.0]}
    )
    assert score(model, None, 40.0, 5.0) == pytest.approx(estimator.predict_proba(asked)[0, 1])


def test_categories_of_a_frame_and_flags_are_described(tmp_path: Path) -> None:
    table = frame().astype({"town": "category"}).assign(vip=AGE > 40)
    boosted = HistGradientBoostingClassifier(max_iter=3).fit(table[["town", "age"]], LATE)
    model = loaded(tmp_path / "b", boosted)
    assert model.signature.inputs[0] == Field("town", "string", nullable=True)
    asked = pd.DataFrame({"town": pd.Series([np.nan], dtype="object"), "age": [40.0]})
    assert score(model, None, 40.0) == pytest.approx(boosted.predict_proba(asked)[0, 1])
    encoded = make_pipeline(OneHotEncoder(), LogisticRegression()).fit(table[["vip"]], LATE)
    assert loaded(tmp_path / "v", encoded).signature.inputs == (Field("vip", "bool"),)


def test_truth_values_reach_a_step_that_computes_as_they_were_fitted(tmp_path: Path) -> None:
    table = pd.DataFrame({"vip": AGE > 40, "age": AGE})
    estimator = make_pipeline(StandardScaler(), LogisticRegression()).fit(table, LATE)
    model: Any = loaded(tmp_path / "m", estimator)
    assert model.described.computed == ("vip", "age")
    file = tmp_path / "train.csv"
    table.to_csv(file, index=False)
    with pytest.raises(InputsFound) as found:
        check_stated(file, model.signature, model.described)
    assert tuple(found.value.inputs) == (Field("vip", "bool"), Field("age", "float64"))
    stated = signature_json(found.value.inputs)
    told = loaded(tmp_path / "told", estimator, signature_json=stated)
    asked = pd.DataFrame({"vip": [True], "age": [40.0]})
    vip = True
    assert score(told, vip, 40.0) == pytest.approx(estimator.predict_proba(asked)[0, 1])


def test_dates_are_refused_by_name_with_a_remedy(tmp_path: Path) -> None:
    days = pd.DataFrame({"since": pd.to_datetime(["2024-01-01", "2024-03-01"] * 2)})
    for steps in (OneHotEncoder(), OrdinalEncoder()):
        estimator = make_pipeline(steps, LogisticRegression()).fit(days, [0, 1, 0, 1])
        with pytest.raises(UnfitModel, match="since was fitted on dates") as caught:
            loaded(tmp_path / type(steps).__name__, estimator)
        assert (caught.value.code, "days since" in caught.value.hint) == ("bad_signature", True)


@pytest.mark.parametrize(
    ("estimator", "said", "way"),
    [
        (LogisticRegression(), "LogisticRegression is not fitted", "fit it, then"),
        (make_pipeline(StandardScaler(), LogisticRegression()), "not fitted", "fit it, then"),
        (StandardScaler().fit([[1.0]]), "has no predict", "the fitted estimator alone"),
        ({"model": LinearRegression(), "threshold": 0.5}, "dict has no predict", "alone"),
        (
            MultiOutputClassifier(LogisticRegression()).fit([[0.0], [1.0]], [[0, 1], [1, 0]]),
            "several labels a row",
            "one model for each label",
        ),
    ],
)
def test_what_is_no_fitted_model_is_named_with_a_remedy(
    tmp_path: Path, estimator: Any, said: str, way: str
) -> None:
    with pytest.raises(UnfitModel, match=said) as caught:
        loaded(tmp_path, estimator)
    assert way in caught.value.hint


def test_a_selection_of_columns_by_a_score_needs_no_trust(tmp_path: Path) -> None:
    for scored in (chi2, f_classif):
        selected = make_pipeline(SelectKBest(scored, k=1), LogisticRegression())
        x = [[0.0, 1.0], [1.0, 0.0], [0.0, 2.0], [2.0, 0.0]]
        directory = tmp_path / scored.__name__
        directory.mkdir()
        assert loaded(directory, selected.fit(x, [0, 1, 0, 1])).signature.inputs


def test_columns_chosen_by_an_abstract_type_of_numpy_need_no_trust(tmp_path: Path) -> None:
    numbers = make_column_selector(dtype_include=np.number)
    words = make_column_selector(dtype_exclude=np.number)
    parts = ColumnTransformer([("n", StandardScaler(), numbers), ("w", one_hot(), words)])
    table = frame()[["town", "age"]].dropna()
    model = loaded(
        tmp_path, make_pipeline(parts, LogisticRegression()).fit(table, LATE[table.index])
    )
    assert model.signature.inputs[0].dtype == "string"


def test_a_step_that_is_a_function_of_numpy_computes_with_numbers(tmp_path: Path) -> None:
    table = frame()[["age", "income"]].dropna().abs()
    estimator = make_pipeline(FunctionTransformer(np.log1p), LogisticRegression())
    model: Any = loaded(tmp_path, estimator.fit(table, LATE[table.index]))
    assert model.described.assumed == ()
    asked = pd.DataFrame({"age": [40.0], "income": [5.0]})
    assert score(model, 40.0, 5.0) == pytest.approx(estimator.predict_proba(asked)[0, 1])


def test_a_model_of_texts_takes_one_text_a_row(tmp_path: Path) -> None:
    texts = ["cheap pills", "see you at noon", "pills pills"] * 4
    estimator = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, [1, 0, 1] * 4)
    model = loaded(tmp_path, estimator, ("sklearn.feature_extraction.text.TfidfVectorizer",))
    assert model.signature.inputs == (Field("text", "string"),)
    assert score(model, "cheap") == pytest.approx(estimator.predict_proba(["cheap"])[0, 1])


def test_a_frame_with_several_targets_is_one_output(tmp_path: Path) -> None:
    encoder = ColumnTransformer([("w", OneHotEncoder(), ["town"])], remainder=SimpleImputer())
    estimator = make_pipeline(encoder, LinearRegression()).fit(
        frame(), np.column_stack([AGE, LATE])
    )
    assert loaded(tmp_path, estimator).signature.outputs == (Field("prediction", "float64", (2,)),)


def test_a_model_that_answers_frames_runs_in_a_process_even_with_a_trust_option(
    tmp_path: Path,
) -> None:
    found: Any = loaded(tmp_path, pipeline(one_hot()).fit(frame(), LATE))
    assert (found.plainness.proven, found.plainness.apart) == (False, True)
    assert found.described.needs == ("pandas",)


def test_a_model_with_frames_inside_runs_in_a_process_too(tmp_path: Path) -> None:
    """It was fitted on an array, so that nothing but the setting of a step says that it needs pandas."""
    estimator = make_pipeline(StandardScaler(), LogisticRegression())
    estimator.set_output(transform="pandas").fit(AGE.reshape(-1, 1), LATE)
    found: Any = loaded(tmp_path, estimator)
    assert (found.plainness.proven, found.plainness.apart) == (False, True)
    assert "StandardScaler hands on a DataFrame" in found.plainness.why
    assert found.described.needs == ("pandas",)


# ---------------------------------------------------------------- what the model does not say


class Upper(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """A team's own step, of which nothing says what it takes."""

    def fit(self, x: Any, y: Any = None) -> Upper:
        self.n_features_in_ = x.shape[1]
        self.fitted_ = y is not None
        return self

    def transform(self, x: Any) -> Any:
        return x.apply(lambda column: column.str.upper()).to_numpy()


TRUSTED = (f"{__name__}.Upper",)


def own_step() -> Any:
    words = make_pipeline(Upper(), one_hot())
    parts = ColumnTransformer([("w", words, ["town"]), ("n", "passthrough", ["age"])])
    return make_pipeline(parts, LogisticRegression())


def test_the_hint_shows_the_signature_and_following_it_works(tmp_path: Path) -> None:
    known = frame().dropna().drop(columns="income")
    estimator = own_step().fit(known, LATE[known.index])
    model = loaded(tmp_path, estimator, TRUSTED)
    described: Any = model
    assert described.described.assumed == ("town",)
    rows = whole(made_rows(model.signature.inputs, {}))
    assert answerable(model, rows)[0] == {"town": [], "age": []}
    hint = way_in(model)
    text = hint[hint.index("{") :]
    assert json.loads(text) == {"inputs": [{"name": "town", "dtype": "string"}, {"name": "age"}]}
    model = loaded(tmp_path, estimator, TRUSTED, signature_json=text)
    assert answerable(model, whole(made_rows(model.signature.inputs, {})))[0]["age"]


def test_a_nullable_input_that_the_model_cannot_take_is_refused_by_name(tmp_path: Path) -> None:
    stated = {"inputs": [{"name": "a"}, {"name": "b", "nullable": True}]}
    table = np.column_stack([AGE, AGE])
    model = loaded(
        tmp_path, LogisticRegression().fit(table, LATE), signature_json=json.dumps(stated)
    )
    with pytest.raises(
        Refused, match="b is nullable, and with null in it the model raised"
    ) as caught:
        with_nulls(model, {"a": [1.0], "b": [2.0]})
    assert caught.value.code == "null_raised"
    assert '{"inputs": [{"name": "a"}, {"name": "b"}]}' in caught.value.hint


# ---------------------------------------------------------------- MLmodel


def mlmodel(*columns: str, more: str = "") -> str:
    return f"flavors:\n  sklearn:\n    code: null\nsignature:\n  inputs: '[{', '.join(columns)}]'\n  outputs: null\n{more}"


TYPED = (
    '{"type": "string", "name": "town", "required": false}',
    '{"type": "double", "name": "age", "required": true}',
    '{"type": "float", "name": "income", "optional": true}',
)


def test_the_signature_of_an_mlmodel_file_is_the_contract(tmp_path: Path) -> None:
    model = loaded(tmp_path, pipeline(one_hot()).fit(frame(), LATE), MLmodel=mlmodel(*TYPED))
    assert model.signature.inputs == (
        Field("town", "string", nullable=True),
        Field("age", "float64"),
        Field("income", "float32", nullable=True),
    )
    assert score(model, None, 40.0, None) > 0


def test_a_tensor_of_an_mlmodel_file_is_taken_too(tmp_path: Path) -> None:
    text = mlmodel('{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 2]}}')
    estimator = LogisticRegression().fit(np.column_stack([AGE, AGE]), LATE)
    assert loaded(tmp_path, estimator, MLmodel=text).signature.inputs == (
        Field("X", "float64", (2,)),
    )


def test_a_signature_file_goes_before_it(tmp_path: Path) -> None:
    stated = {
        "inputs": [
            {"name": n, "dtype": d}
            for n, d in (("age", "float32"), ("town", "string"), ("income", "float64"))
        ]
    }
    model = loaded(
        tmp_path,
        pipeline(one_hot()).fit(frame(), LATE),
        MLmodel=mlmodel(*TYPED),
        signature_json=json.dumps(stated),
    )
    assert [field.name for field in model.signature.inputs] == ["age", "town", "income"]


@pytest.mark.parametrize(
    "text, says",
    [
        (
            mlmodel(
                '{"type": "datetime", "name": "at"}',
                '{"type": "double", "name": "age"}',
                '{"type": "double", "name": "income"}',
            ),
            "at is datetime",
        ),
        (mlmodel('{"type": "double", "name": "other"}'), "but the model was fitted on"),
        (mlmodel('{"type": {"array": 1}, "name": "town"}'), "town is"),
        ("a: &a [1]\nb: *a\n", "alias"),
        ("a: " + "[" * 100 + "]" * 100, "nested more than"),
        ("signature: {inputs: 'no JSON'}", "MLmodel: "),
        ("a: !!python/object/apply:os.system ['true']", "MLmodel: "),
        ("\x00", "MLmodel: "),
        ("x" * (1 << 20) + "y", "more than"),
    ],
)
def test_an_mlmodel_file_that_states_something_else_is_refused(
    tmp_path: Path, text: str, says: str
) -> None:
    with pytest.raises(UnfitModel, match=says) as caught:
        loaded(tmp_path, pipeline(one_hot()).fit(frame(), LATE), MLmodel=text)
    assert caught.value.code == "bad_signature"


def test_an_mlmodel_file_without_a_signature_says_nothing(tmp_path: Path) -> None:
    model = loaded(
        tmp_path, pipeline(one_hot()).fit(frame(), LATE), MLmodel="flavors: {sklearn: {}}\n"
    )
    assert model.signature.inputs[0] == Field("town", "string", nullable=True)


# ---------------------------------------------------------------- registered


@pytest.fixture
def opaque(tmp_path: Path) -> Path:
    """A model of which nothing says that one of its columns has words."""
    words = make_pipeline(FunctionTransformer(np.asarray), one_hot())
    parts = ColumnTransformer([("w", words, ["town"]), ("n", SimpleImputer(), ["age"])])
    estimator = make_pipeline(parts, LogisticRegression()).fit(frame()[["town", "age"]], LATE)
    (tmp_path / "m").mkdir()
    skops.io.dump(estimator, tmp_path / "m" / "model.skops")
    return tmp_path / "m"


def test_a_training_set_says_what_the_model_does_not_and_the_version_keeps_it(
    tmp_path: Path, opaque: Path
) -> None:
    desk = Desk(tmp_path, timeout_s=60)
    trusted = {"trusted": ("numpy.asarray",)}
    refused = desk.refused(opaque, **trusted)
    assert refused.code == "golden_raised"
    assert '{"name": "town", "dtype": "string"}' in refused.hint
    file = tmp_path / "train.csv"
    frame()[["age", "town"]].assign(late=LATE).to_csv(file, index=False)
    version, new = desk.register(opaque / "model.skops", training=file, **trusted)
    assert new
    assert version.signature.inputs == (
        Field("town", "string", nullable=True),
        Field("age", "float64", nullable=True),
    )
    assert version.golden == "training"
    assert sorted(entry.path for entry in version.files) == ["model.skops", "signature.json"]
    assert None in desk.store.proof(version.digest).inputs["town"]
    assert desk.store.proof(version.digest).written_with == {"scikit-learn": sklearn.__version__}
    assert desk.register(opaque / "model.skops", training=file, **trusted)[1] is False


def test_files_beside_a_single_file_are_taken_where_no_other_model_is_there(tmp_path: Path) -> None:
    source = tmp_path / "model.skops"
    skops.io.dump(LogisticRegression().fit(np.column_stack([AGE, AGE]), LATE), source)
    (tmp_path / "signature.json").write_text('{"inputs": [{"name": "a"}, {"name": "b"}]}')
    (tmp_path / "MLmodel").write_text("x: 1")
    known: dict[str, Flavour] = {"sklearn": SklearnFlavour(), "onnx": OnnxFlavour()}
    found = [file.name for file in companions(source, known["sklearn"], known)]
    assert found == ["signature.json", "MLmodel"]
    (tmp_path / "other.onnx").write_bytes(b"")
    assert companions(source, known["sklearn"], known) == []
    assert companions(tmp_path, known["sklearn"], known) == []


def test_a_model_without_names_gets_those_of_a_file_that_has_no_other_columns(
    tmp_path: Path,
) -> None:
    signature = Signature((Field("X", "float64", (2,)),), ())
    described = Described(unnamed=2, takes_signature=True)
    file = tmp_path / "t.jsonl"
    file.write_text('{"a": 1, "b": 2}\n')
    with pytest.raises(InputsFound) as found:
        check_stated(file, signature, described)
    assert found.value.inputs == (Field("a", "float64"), Field("b", "float64"))
    file.write_text('{"label": 1, "a": 1, "b": 2}\n')
    with pytest.raises(Refused, match="has 3 columns, and the model was fitted on 2") as caught:
        check_stated(file, signature, described)
    assert '{"inputs": [{"name": "a"}, {"name": "b"}]}' in caught.value.hint
    file.write_text('{"X": [1, 2]}\n')
    check_stated(file, signature, described)


def test_a_word_that_only_python_reads_as_a_number_is_a_word(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("band,age\n18_25,1\n26_40,2\n")
    assert read_types(file, ["band", "age"]) == {
        "band": Field("band", "string"),
        "age": Field("age", "float64"),
    }
    with pytest.raises(Refused, match=r"band is .* not float64"):
        read_training(file, Signature((Field("band", "float64"),), ()))


def test_types_of_a_training_set_are_those_of_its_columns(tmp_path: Path) -> None:
    text, lines, stored = (tmp_path / f"t.{end}" for end in ("csv", "jsonl", "parquet"))
    text.write_text("n,w,f,e,m\n1,NA,true,,1\n2.5,x,False,,\nNA,y,,,b\n")
    names = ["n", "w", "f", "e", "m", "absent"]
    assert read_types(text, names) == {
        "n": Field("n", "float64", nullable=True),
        "w": Field("w", "string"),
        "f": Field("f", "bool", nullable=True),
        "m": Field("m", "string", nullable=True),
    }
    lines.write_text('{"n": 1, "w": "a", "f": true, "m": [1]}\n{"n": null, "w": "b", "f": false}\n')
    assert read_types(lines, names) == {
        "n": Field("n", "float64", nullable=True),
        "w": Field("w", "string"),
        "f": Field("f", "bool"),
    }
    with duckdb.connect() as db:
        db.execute(
            "COPY (SELECT * FROM (VALUES (1, 'a', true, 1.5::FLOAT, 7::BIGINT), (2, NULL, false, 'nan'::FLOAT, NULL))"
            f" t(n, w, f, e, m)) TO '{stored}' (FORMAT parquet)"
        )
    assert read_types(stored, names) == {
        "n": Field("n", "int32"),
        "w": Field("w", "string", nullable=True),
        "f": Field("f", "bool"),
        "e": Field("e", "float32", nullable=True),
        "m": Field("m", "float64", nullable=True),
    }
    assert read_names(stored) == ["n", "w", "f", "e", "m"]


FORBIDDEN = """
import sys
from pathlib import Path
import numpy as np
from importlib.metadata import version
from importlib.util import find_spec
from kedge.system.interpreter import forbid
forbid("pandas")
assert find_spec("pandas") is None  # and does not raise: libraries ask so too
assert version("numpy")
from kedge.adapters.models.sklearn import SklearnLoader
model = SklearnLoader().load(Path(sys.argv[1]), ())
print(model.predict({"X": np.array([[1.0, 2.0, 3.0]])}).keys())
assert "pandas" not in sys.modules
try:
    import pandas
except ModuleNotFoundError as error:
    print(error.name)
"""


@pytest.mark.parametrize("scaled", [False, True])
def test_a_model_of_arrays_answers_where_pandas_is_forbidden(tmp_path: Path, scaled: bool) -> None:
    """Libraries ask `sys.modules` for pandas: what is forbidden must look as if it were not there."""
    rng = np.random.default_rng(1)
    steps = [StandardScaler()] if scaled else []
    estimator = make_pipeline(*steps, HistGradientBoostingClassifier(max_iter=3))
    estimator.fit(rng.normal(size=(200, 3)), rng.integers(0, 2, 200))
    skops.io.dump(estimator, tmp_path / "model.skops")
    done = subprocess.run(
        [sys.executable, "-c", FORBIDDEN, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "pandas"
