"""Transformations at work: side by side, on read-only columns, and held to their schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kedge.core import codec
from kedge.core.errors import CorruptArtifact, ModelFailure, UnfitModel
from kedge.core.features.schema import Spec
from kedge.core.values import Field as Column
from kedge.core.values import Signature
from kedge.transforms.authoring import SPEC, Field, schema, spec_of
from kedge.transforms.bundle import Composed, Transform

VIEW = schema(
    "view/1",
    fields={
        "x": Field("float64", range=(0, 10)),
        "word": Field("string", null=True, categories=("a", "b")),
    },
)
RAW = (Column("n", "float64"), Column("w", "string", nullable=True))


def bundle(root: Path, body: str, **files: str) -> Transform:
    root.mkdir(exist_ok=True)
    source = f"import numpy as np\n\ndef columns(raw):\n    {body}\n"
    (root / "features.py").write_text(source)
    for name, text in files.items():
        (root / f"{name}.py").write_text(text)
    spec = Spec(schema=VIEW, entry="features:columns", raw=RAW)
    (root / SPEC).write_bytes(codec.canonical(spec))
    return Transform(root)


def rows(*numbers: float, words: Any = None) -> dict[str, Any]:
    return {"n": np.array(numbers), "w": np.array(words or ["a"] * len(numbers), dtype=object)}


FINE = "return {'x': raw['n'], 'word': raw['w']}"


def test_two_versions_with_modules_of_one_name_run_side_by_side(tmp_path: Path) -> None:
    """Also when the import stands in the function, and whichever ran last."""
    body = "from dates import shift\n    import dates\n    return {'x': raw['n'] + shift() + dates.MORE, 'word': raw['w']}"
    one = bundle(tmp_path / "1", body, dates="MORE = 0\ndef shift():\n    return 1.0\n")
    two = bundle(tmp_path / "2", body, dates="MORE = 1\ndef shift():\n    return 2.0\n")
    found = [t.predict(rows(1.0))["x"].tolist() for t in (one, two, one)]
    assert found == [[2.0], [4.0], [2.0]]


def test_a_local_module_hides_an_installed_one_of_its_name(tmp_path: Path) -> None:
    body = "import json\n    return {'x': raw['n'] + json.MINE, 'word': raw['w']}"
    assert bundle(tmp_path, body, json="MINE = 3.0\n").predict(rows(1.0))["x"].tolist() == [4.0]
    import json

    assert not hasattr(json, "MINE")


def test_its_arguments_cannot_be_changed(tmp_path: Path) -> None:
    """Another release may be asked the same arrays, and the log keeps them."""
    mutates = bundle(tmp_path, "raw['n'][0] = 9.0\n    " + FINE)
    given = rows(1.0)
    with pytest.raises(ValueError, match="read-only"):
        mutates.predict(given)
    assert given["n"].tolist() == [1.0]


@pytest.mark.parametrize(
    "body, fault",
    [
        ("return {'x': raw['n']}", "word"),
        ("return {'x': raw['n'], 'word': raw['w'], 'more': raw['n']}", "more"),
        ("return {'x': raw['n'][:1], 'word': raw['w']}", "shape"),
        ("return {'x': raw['n'].astype('int64'), 'word': raw['w']}", "int64"),
        ("return {'x': raw['n'] / 0, 'word': raw['w']}", "finite"),
        ("return {'x': raw['n'] * np.nan, 'word': raw['w']}", "null in row 0"),
        ("return None", "mapping"),
        ("return {'x': raw['n'], 'word': raw['n']}", "word"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_an_answer_that_breaks_the_schema_is_a_fault(tmp_path: Path, body: str, fault: str) -> None:
    with pytest.raises(ModelFailure, match=fault):
        bundle(tmp_path, body).predict(rows(1.0, 2.0))


def test_a_null_is_refused_in_one_row_as_in_many(tmp_path: Path) -> None:
    broken = bundle(tmp_path, "return {'x': raw['n'] * np.nan, 'word': raw['w']}")
    for many in (rows(1.0), rows(1.0, 2.0)):
        with pytest.raises(ModelFailure, match="x is null in row 0"):
            broken.predict(many)


def test_values_out_of_range_or_unseen_are_counted_and_answered(tmp_path: Path) -> None:
    fine = bundle(tmp_path, FINE)
    fine.predict(rows(11.0, words=["c"]))
    fine.predict(rows(5.0, words=["a"]))
    fine.predict(rows(-1.0, 12.0, 3.0, words=["a", "z", ""]))
    assert fine.checks.violations == {"x.range": 3, "word.category": 2}
    assert fine.marks is not None
    assert fine.marks.tolist() == [True, True, False], "which rows of the last answer"
    fine.predict(rows(5.0, words=["a"]))
    assert fine.marks is None
    assert fine.checks.rows == 6


class Double:
    signature = Signature(inputs=VIEW.columns(), outputs=(Column("score", "float64"),))

    def predict(self, columns: Any) -> Any:
        return {"score": columns["x"] * 2}


def test_a_model_behind_its_transformation_takes_raw_columns(tmp_path: Path) -> None:
    both = Composed(bundle(tmp_path, FINE), Double())
    assert [field.name for field in both.signature.inputs] == ["n", "w"]
    assert both.predict(rows(4.0))["score"].tolist() == [8.0]


def test_a_bundle_that_cannot_be_run_says_why(tmp_path: Path) -> None:
    fine = bundle(tmp_path, FINE)
    assert fine.spec.entry == "features:columns"
    (tmp_path / "features.py").write_text("absent")
    with pytest.raises(UnfitModel, match="NameError"):
        Transform(tmp_path)
    (tmp_path / SPEC).unlink()
    with pytest.raises(CorruptArtifact):
        spec_of(tmp_path)
