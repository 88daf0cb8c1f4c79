"""Models of XGBoost, LightGBM and CatBoost: each answers as its own library does."""

from __future__ import annotations

import json
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

from kedge.adapters.models.boosters.catboost import CatboostLoader
from kedge.adapters.models.boosters.lightgbm import LightgbmLoader
from kedge.adapters.models.boosters.xgboost import XgboostLoader
from kedge.adapters.models.flavours import CatboostFlavour, LightgbmFlavour, XgboostFlavour
from kedge.core.errors import UnfitModel
from kedge.core.values import Field

ROWS = 300
rng = np.random.default_rng(7)
FRAME = pd.DataFrame(
    {
        "delay": rng.normal(size=ROWS),
        "hour": rng.integers(0, 24, ROWS),
        "origin": pd.Categorical(rng.choice(["JFK", "LGA", "EWR"], ROWS)),
        "night": rng.random(ROWS) < 0.3,
    }
)
FRAME.loc[::9, "delay"] = np.nan
LATE = (FRAME["delay"].fillna(0) + (FRAME["origin"] == "JFK") + (FRAME["hour"] > 15) > 0.9).astype(
    int
)
KIND = rng.integers(0, 3, ROWS)
ARRAY = FRAME[["delay", "hour"]].to_numpy(float)


def columns(frame: pd.DataFrame) -> dict[str, Any]:
    """What a caller sends of a frame."""
    found = {}
    for name in frame:
        values = frame[name]
        dtype = object if values.dtype in ("category", "str", "object") else values.dtype
        found[str(name)] = np.array(values.tolist(), dtype=dtype)
    return found


def answer(loader: Any, folder: Path, given: dict[str, Any]) -> dict[str, Any]:
    model = loader.load(folder)
    assert not model.plainness.proven
    assert model.plainness.apart
    assert [field.name for field in model.signature.inputs] == [*given]
    found: dict[str, Any] = model.predict(given)
    assert [field.name for field in model.signature.outputs] == [*found]
    return found


def close(found: Any, expected: Any) -> None:
    assert np.asarray(found).shape == np.asarray(expected).shape
    np.testing.assert_allclose(np.asarray(found, float), np.asarray(expected, float), atol=1e-6)


# ---------------------------------------------------------------- XGBoost


def xgb(**more: Any) -> dict[str, Any]:
    return {"n_estimators": 12, "max_depth": 3, "enable_categorical": True, **more}


@pytest.mark.parametrize("ending", ["ubj", "json"])
def test_an_xgboost_classifier_of_a_frame_takes_words_and_missing_values(
    tmp_path: Path, ending: str
) -> None:
    fitted = xgboost.XGBClassifier(**xgb()).fit(FRAME, LATE)
    fitted.save_model(tmp_path / f"model.{ending}")
    found = answer(XgboostLoader(), tmp_path, columns(FRAME))
    close(found["score"], fitted.predict_proba(FRAME)[:, 1])
    close(found["label"], fitted.predict(FRAME))
    model: Any = XgboostLoader().load(tmp_path)
    assert model.signature.inputs == (
        Field("delay", "float64", nullable=True),
        Field("hour", "float64", nullable=True),
        Field("origin", "string", nullable=True),
        Field("night", "bool", nullable=True),
    )
    assert model.described.known["origin"].words == ("EWR", "JFK", "LGA")
    gap = FRAME.head(2).copy()
    gap.loc[0, "origin"] = None
    lacking = columns(gap)
    lacking["origin"][0] = None
    close(model.predict(lacking)["score"], fitted.predict_proba(gap)[:, 1])
    unknown = columns(FRAME.head(1)) | {"origin": np.array(["SFO"], dtype=object)}
    with pytest.raises(ValueError, match="origin: the model was not fitted on the category 'SFO'"):
        model.predict(unknown)


def test_an_xgboost_classifier_of_several_classes_and_early_stopping(tmp_path: Path) -> None:
    fitted = xgboost.XGBClassifier(**xgb(n_estimators=60, early_stopping_rounds=2))
    fitted.fit(FRAME, KIND, eval_set=[(FRAME, KIND[::-1])], verbose=False)
    assert fitted.best_iteration < 59
    fitted.save_model(tmp_path / "model.ubj")
    found = answer(XgboostLoader(), tmp_path, columns(FRAME))
    close(found["probabilities"], fitted.predict_proba(FRAME))
    close(found["label"], fitted.predict(FRAME))


@pytest.mark.parametrize(
    ("asked", "labels", "output"),
    [
        ({"objective": "reg:squarederror"}, FRAME["hour"], "prediction"),
        ({"objective": "reg:squarederror", "booster": "dart"}, FRAME["hour"], "prediction"),
        ({"objective": "reg:squarederror", "booster": "gblinear"}, FRAME["hour"], "prediction"),
        ({"objective": "count:poisson"}, FRAME["hour"], "prediction"),
        ({"objective": "binary:logitraw"}, LATE, "prediction"),
        ({"objective": "binary:hinge"}, LATE, "label"),
        ({"objective": "multi:softmax", "num_class": 3}, KIND, "label"),
        (
            {"objective": "reg:squarederror", "multi_strategy": "multi_output_tree"},
            np.stack([LATE, KIND], 1),
            "prediction",
        ),
    ],
)
def test_a_booster_of_an_array_answers_by_its_objective(
    tmp_path: Path, asked: dict[str, Any], labels: Any, output: str
) -> None:
    booster = xgboost.train(asked, xgboost.DMatrix(ARRAY, label=labels), 4)
    booster.save_model(tmp_path / "model.json")
    found = answer(XgboostLoader(), tmp_path, {"X": ARRAY})
    close(found[output], booster.predict(xgboost.DMatrix(ARRAY)))


def test_a_category_of_numbers_is_sent_as_its_number(tmp_path: Path) -> None:
    frame = FRAME.assign(origin=pd.Categorical(rng.choice([10, 20, 30], ROWS)))
    fitted = xgboost.XGBRegressor(**xgb()).fit(frame, frame["hour"])
    fitted.save_model(tmp_path / "model.ubj")
    found = answer(XgboostLoader(), tmp_path, columns(frame.astype({"origin": float})))
    close(found["prediction"], fitted.predict(frame))


# ---------------------------------------------------------------- LightGBM


def test_a_lightgbm_classifier_of_a_frame_takes_words_and_missing_values(tmp_path: Path) -> None:
    fitted = lightgbm.LGBMClassifier(n_estimators=12, verbose=-1).fit(FRAME, LATE)
    fitted.booster_.save_model(tmp_path / "model.txt")
    found = answer(LightgbmLoader(), tmp_path, columns(FRAME))
    close(found["score"], np.asarray(fitted.predict_proba(FRAME))[:, 1])
    close(found["label"], fitted.predict(FRAME))
    inputs = {field.name: field for field in LightgbmLoader().load(tmp_path).signature.inputs}
    assert (inputs["delay"].dtype, inputs["delay"].nullable) == ("float64", True)
    assert (inputs["origin"].dtype, inputs["origin"].nullable) == ("string", True)
    assert not inputs["hour"].nullable, "LightGBM would take a missing hour for midnight"


@pytest.mark.parametrize(
    ("objective", "labels", "output"),
    [
        ("multiclass", KIND, "probabilities"),
        ("multiclassova", KIND, "probabilities"),
        ("regression", FRAME["hour"], "prediction"),
        ("poisson", FRAME["hour"], "prediction"),
        ("cross_entropy", LATE, "prediction"),
    ],
)
def test_a_lightgbm_booster_of_an_array_answers_by_its_objective(
    tmp_path: Path, objective: str, labels: Any, output: str
) -> None:
    asked = {"objective": objective, "verbose": -1}
    asked |= {"num_class": 3} if output == "probabilities" else {}
    booster = lightgbm.train(asked, lightgbm.Dataset(ARRAY, label=labels), 4)
    booster.save_model(tmp_path / "model.txt")
    found = answer(LightgbmLoader(), tmp_path, {"X": ARRAY})
    close(found[output], booster.predict(ARRAY))


def test_names_that_lightgbm_changed_can_be_stated_beside_it(tmp_path: Path) -> None:
    frame = FRAME[["delay", "hour"]].rename(columns={"hour": "hour of day"})
    fitted = lightgbm.LGBMRegressor(n_estimators=3, verbose=-1).fit(frame, LATE)
    fitted.booster_.save_model(tmp_path / "model.txt")
    assert LightgbmLoader().load(tmp_path).signature.inputs[1].name == "hour_of_day"
    stated = {"inputs": [{"name": "delay"}, {"name": "hour of day"}]}
    (tmp_path / "signature.json").write_text(json.dumps(stated))
    found = answer(LightgbmLoader(), tmp_path, columns(frame))
    close(found["prediction"], fitted.predict(frame))


# ---------------------------------------------------------------- CatBoost


def cat(**more: Any) -> dict[str, Any]:
    return {"iterations": 8, "verbose": 0, "allow_writing_files": False, **more}


def test_a_catboost_classifier_gives_its_own_labels(tmp_path: Path) -> None:
    frame = FRAME.assign(origin=FRAME["origin"].astype(str), night=FRAME["night"].astype(float))
    fitted = catboost.CatBoostClassifier(**cat(cat_features=["origin"]))
    fitted.fit(frame, np.where(LATE == 1, "late", "punctual"))
    fitted.save_model(tmp_path / "model.cbm")
    found = answer(CatboostLoader(), tmp_path, columns(frame))
    close(found["score"], fitted.predict_proba(frame)[:, 1])
    assert found["label"].tolist() == fitted.predict(frame).tolist()


@pytest.mark.parametrize(
    ("loss", "labels", "output"),
    [
        ("MultiClass", KIND, "probabilities"),
        ("RMSE", FRAME["hour"], "prediction"),
        ("Poisson", FRAME["hour"], "prediction"),
        ("MultiRMSE", np.stack([LATE, KIND], 1), "prediction"),
    ],
)
def test_a_catboost_model_of_an_array_answers_by_its_loss(
    tmp_path: Path, loss: str, labels: Any, output: str
) -> None:
    kind = catboost.CatBoostClassifier if output != "prediction" else catboost.CatBoostRegressor
    fitted = kind(**cat(loss_function=loss)).fit(ARRAY, labels)
    fitted.save_model(tmp_path / "model.cbm")
    found = answer(CatboostLoader(), tmp_path, {"X": ARRAY})
    expected = fitted.predict(ARRAY) if output == "prediction" else fitted.predict_proba(ARRAY)
    close(found[output], expected)


def test_numbers_that_catboost_took_for_categories_can_be_stated(tmp_path: Path) -> None:
    frame = FRAME[["delay", "hour"]]
    fitted = catboost.CatBoostRegressor(**cat(cat_features=["hour"])).fit(frame, LATE)
    fitted.save_model(tmp_path / "model.cbm")
    stated = {"inputs": [{"name": "delay", "nullable": True}, {"name": "hour", "dtype": "int64"}]}
    (tmp_path / "signature.json").write_text(json.dumps(stated))
    found = answer(CatboostLoader(), tmp_path, columns(frame))
    close(found["prediction"], fitted.predict(frame))


# ---------------------------------------------------------------- every library


def write_xgboost(folder: Path) -> Path:
    booster = xgboost.train({}, xgboost.DMatrix(ARRAY, label=LATE), 2)
    booster.save_model(folder / "model.ubj")
    return folder / "model.ubj"


def write_lightgbm(folder: Path) -> Path:
    booster = lightgbm.train({"verbose": -1}, lightgbm.Dataset(ARRAY, label=LATE), 2)
    booster.save_model(folder / "model.txt")
    return folder / "model.txt"


def write_catboost(folder: Path) -> Path:
    catboost.CatBoostRegressor(**cat()).fit(ARRAY, LATE).save_model(folder / "model.cbm")
    return folder / "model.cbm"


WRITERS: dict[str, tuple[Callable[[Path], Path], Any]] = {
    "xgboost": (write_xgboost, XgboostLoader()),
    "lightgbm": (write_lightgbm, LightgbmLoader()),
    "catboost": (write_catboost, CatboostLoader()),
}


@pytest.mark.parametrize("library", WRITERS)
def test_a_damaged_file_is_refused_with_what_to_do(tmp_path: Path, library: str) -> None:
    write, loader = WRITERS[library]
    path = write(tmp_path)
    whole = path.read_bytes()
    for part in (*(len(whole) * n // 20 for n in range(1, 19)), 64):
        path.write_bytes(whole[:part])
        with pytest.raises(UnfitModel) as caught:
            loader.load(tmp_path)
        assert caught.value.hint


@pytest.mark.parametrize("library", WRITERS)
def test_one_row_is_answered_as_one_of_many(tmp_path: Path, library: str) -> None:
    write, loader = WRITERS[library]
    write(tmp_path)
    model = loader.load(tmp_path)
    whole = model.predict({"X": ARRAY[:20]})["prediction"]
    alone = [model.predict({"X": ARRAY[n : n + 1]})["prediction"][0] for n in range(20)]
    close(whole, alone)


@pytest.mark.parametrize("library", WRITERS)
def test_a_statement_of_other_columns_is_refused(tmp_path: Path, library: str) -> None:
    write, loader = WRITERS[library]
    write(tmp_path)
    (tmp_path / "signature.json").write_text('{"inputs": [{"name": "only"}]}')
    with pytest.raises(UnfitModel) as caught:
        loader.load(tmp_path)
    assert caught.value.code == "bad_signature"
    (tmp_path / "signature.json").write_text('{"inputs": [{"name": "a"}, {"name": "b"}]}')
    assert [field.name for field in loader.load(tmp_path).signature.inputs] == ["a", "b"]


def test_a_file_has_one_flavour_whatever_its_name(tmp_path: Path) -> None:
    flavours = {
        "xgboost": XgboostFlavour(),
        "lightgbm": LightgbmFlavour(),
        "catboost": CatboostFlavour(),
    }
    for library, (write, _) in WRITERS.items():
        folder = tmp_path / library
        folder.mkdir()
        path = write(folder)
        claimed = [name for name, one in flavours.items() if one.claims(folder)]
        assert claimed == [library]
        path.rename(folder / "model.bin")
        (folder / "MLmodel").write_text("flavors: {}\n")
        (folder / "requirements.txt").write_text("xgboost\n")
        assert [name for name, one in flavours.items() if one.claims(folder)] == [library]
        (folder / "second.bin").write_bytes((folder / "model.bin").read_bytes())
        assert not flavours[library].claims(folder)


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("model.bst", b"binf\0\0\0\0"),
        ("dump.json", b'{"name":"tree","tree_info":[]}'),
        ("model.json", b'{"catboost_version_info":"1.2"}'),
    ],
)
def test_what_a_library_does_not_load_here_is_not_claimed(
    tmp_path: Path, name: str, head: bytes
) -> None:
    (tmp_path / name).write_bytes(head)
    for flavour in (XgboostFlavour(), LightgbmFlavour(), CatboostFlavour()):
        assert not flavour.claims(tmp_path)


def test_a_flavour_imports_no_library(tmp_path: Path) -> None:
    write_xgboost(tmp_path)
    script = (
        "import sys; from pathlib import Path; from kedge.adapters.models.flavours import XgboostFlavour\n"
        f"assert XgboostFlavour().claims(Path({str(tmp_path)!r}))\n"
        "print([m for m in ('xgboost', 'lightgbm', 'catboost', 'numpy', 'yaml') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], text=True, capture_output=True, check=True
    )
    assert done.stdout.strip() == "[]"
