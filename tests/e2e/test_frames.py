"""A pipeline that was fitted on a frame with words, numbers and gaps: registered as it is, and asked with nulls."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from e2e.place import Site

pytestmark = pytest.mark.e2e


def fitted() -> tuple[Any, Any]:
    """A model and the frame that it was fitted on: a missing town is NaN, as pandas reads it."""
    dice = np.random.default_rng(1)
    town = dice.choice(np.array(["Bern", "Oslo", np.nan], dtype=object), 300)
    age = np.where(np.arange(300) % 9 == 0, np.nan, dice.normal(40, 10, 300))
    late = (pd.isna(town) * 2.5 + (town == "Oslo") + dice.normal(0, 1, 300) > 1.5).astype(int)
    table = pd.DataFrame({"town": pd.Series(town, dtype=object), "age": age})
    words = OneHotEncoder(handle_unknown="ignore")
    parts = ColumnTransformer([("w", words, ["town"]), ("n", SimpleImputer(), ["age"])])
    return make_pipeline(parts, LogisticRegression()).fit(table, late), table


def maps_pandas(pid: int) -> bool:
    return "/pandas/_libs/" in Path(f"/proc/{pid}/maps").read_text()


def test_a_model_of_frames_answers_null_as_it_was_fitted_and_only_its_process_has_pandas(
    make_site: Callable[..., Site],
) -> None:
    site = make_site(workers=1)
    estimator, table = fitted()
    folder = site.root / "m"
    folder.mkdir()
    skops.io.dump(estimator, folder / "model.skops")
    table.to_csv(site.root / "train.csv", index=False)
    site.start()
    told = site.data("register", "flights", str(folder / "model.skops"), "--training", "train.csv")
    assert (told["golden"], told["libraries"]) == ("training", [])
    assert [(f["name"], f["dtype"], f["nullable"]) for f in told["signature"]["inputs"]] == [
        ("town", "string", True),
        ("age", "float64", True),
    ]
    site.run("promote", "flights", "v1")
    site.until(lambda: ask(site, "Bern", 40.0)[0] == 200, "the first answer")
    asked = pd.DataFrame(
        {
            "town": pd.Series([np.nan, "Bern", "Oslo"], dtype=object),
            "age": [40.0, np.nan, 30.0],
        }
    )
    right = estimator.predict_proba(asked)[:, 1].tolist()
    callers = ((None, 40.0), ("Bern", None), ("Oslo", 30.0))
    assert [ask(site, *row)[1] for row in callers] == pytest.approx(right)
    workers, models = site.processes("gateway-worker"), site.processes("adapters.process")
    assert workers
    assert models
    assert all(map(maps_pandas, models))
    assert not any(map(maps_pandas, [*workers, *site.processes("control")]))


def ask(site: Site, town: str | None, age: float | None) -> tuple[int, float]:
    status, _, body = site.infer({"town": ("BYTES", [town]), "age": ("FP64", [age])})
    return status, body["outputs"][0]["data"][0] if status == 200 else -1.0
