"""Bounds of a version: stated beside it or learned, and no business of the process that serves it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kedge.adapters.artifacts.directory import DirectoryArtifacts
from kedge.adapters.process import wire
from kedge.columns import Offered, ProbeResult
from kedge.core.bounds import permitted, unbounded
from kedge.core.errors import Refused
from kedge.core.golden import Known, count
from kedge.core.inputs import Described
from kedge.core.values import Field, Signature
from kedge.engine.bounds import with_bounds
from kedge.engine.registration import register
from kedge.tabular.statistics import read_training

INPUTS = (
    Field("age", "float64"),
    Field("item", "int64"),
    Field("town", "string", nullable=True),
    Field("member", "bool"),
)
SIGNATURE = Signature(inputs=INPUTS, outputs=(Field("score", "float64"),))


def state(folder: Path, inputs: object) -> Path:
    (folder / "signature.json").write_text(json.dumps({"inputs": inputs}))
    return folder


def test_bounds_beside_a_model_are_those_of_its_inputs(tmp_path: Path) -> None:
    """What a loader reads of the same file is passed over."""
    stated = [
        {"name": "age", "dtype": "float64", "range": [0, 120]},
        {"name": "town", "max_length": 20},
        {"name": "gone"},
        {"name": "item", "categories": [1, 2]},
    ]
    found = with_bounds(SIGNATURE, state(tmp_path, stated)).inputs
    assert found == (
        Field("age", "float64", range=(0.0, 120.0)),
        Field("item", "int64", categories=(1, 2)),
        Field("town", "string", nullable=True, max_length=20),
        INPUTS[3],
    )
    assert with_bounds(SIGNATURE, tmp_path / "nowhere") == SIGNATURE


@pytest.mark.parametrize(
    "inputs, said",
    [
        ([{"name": "aeg", "range": [0, 1]}], "aeg has bounds, and is no input"),
        ([{"name": "town", "range": [0, 1]}], "town.range is for numbers"),
        ([{"name": "age", "range": [1]}], "signature.json"),
        ([{"name": "age", "range": [2, 1]}], r"age.range is \[LEAST, LARGEST\]"),
        ("age", "signature.json"),
    ],
)
def test_bounds_that_do_not_fit_are_refused(tmp_path: Path, inputs: object, said: str) -> None:
    with pytest.raises(Refused, match=said) as caught:
        with_bounds(SIGNATURE, state(tmp_path, inputs))
    assert caught.value.code == "bad_signature"
    assert '"range"' in caught.value.hint


def test_bounds_are_learned_from_a_training_set_where_none_is_stated(tmp_path: Path) -> None:
    """Of a file as people have it, with a label that is no input."""
    rows = [f"{18 + n % 60},{n % 100},{('Rome', 'Oslo')[n % 2]},{n % 2},1" for n in range(200)]
    file = tmp_path / "train.csv"
    file.write_text("\n".join(["age,item,town,member,label", *rows]))
    statistics = read_training(file, SIGNATURE).statistics
    source = state(tmp_path, [{"name": "age", "range": [0, 120]}])
    found = with_bounds(SIGNATURE, source, statistics).inputs
    assert [field.name for field in found] == ["age", "item", "town", "member"]
    assert (found[0].range, found[1].range) == ((0.0, 120.0), (0.0, 99.0))
    assert found[2].categories == ("Oslo", "Rome")
    assert not found[3].is_bounded
    assert with_bounds(SIGNATURE, tmp_path / "nowhere").inputs == INPUTS


class Toy:
    """A flavour that claims everything."""

    flavour = "toy"
    stalls = False

    def claims(self, path: Path) -> bool:
        return path.is_dir()


class Enough(Exception):
    """The rows were offered, and nothing is asked."""


def test_golden_rows_lie_within_the_bounds_wherever_they_come_from(tmp_path: Path) -> None:
    """No caller can send the others, and the example of a call is one of them."""
    stated = [{"name": "age", "range": [18, 30]}, {"name": "town", "categories": ["Oslo"]}]
    source = tmp_path / "model"
    source.mkdir()
    state(source, stated)
    file = tmp_path / "train.csv"
    rows = [f"{18 + n % 60},{n},{('Rome', 'Oslo')[n % 2]},true" for n in range(40)]
    file.write_text("\n".join(["age,item,town,member", *rows]))
    offered: list[Offered] = []

    def probe(rows: Any, **_: Any) -> ProbeResult:
        offered.append(rows(SIGNATURE, Described(known={"town": Known(words=("Rome", "Oslo"))})))
        raise Enough

    registry: Any = SimpleNamespace(versions=lambda _: ())
    flavours: Any = {"toy": Toy()}
    for training in (None, file):
        with pytest.raises(Enough):
            register(
                source,
                model="m",
                flavours=flavours,
                registry=registry,
                artifacts=DirectoryArtifacts(tmp_path / "store"),
                golden=None,
                training=training,
                trusted=(),
                by="ada",
                at="2026-01-01T00:00:00Z",
                probe=probe,
            )
    fields = with_bounds(SIGNATURE, source).inputs
    made, drawn = offered[0].made, offered[1].sample
    assert made == permitted(fields, made)
    assert set(made["town"]) == {"Oslo", None}
    assert drawn == permitted(fields, drawn)
    assert 0 < count(drawn) < 10


def test_the_length_of_lists_is_learned_and_rows_of_one_length_are_kept(tmp_path: Path) -> None:
    """Rows of a training set have as many tokens as they have; a request has as many in each row."""
    signature = Signature((Field("tokens", "int64", (-1,)), Field("note", "string")), ())
    rows = [{"tokens": list(range(n % 4)), "note": f"{n:010d}"} for n in range(90)]
    file = tmp_path / "train.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    training = read_training(file, signature)
    tokens, note = with_bounds(signature, tmp_path, training.statistics).inputs
    assert (tokens.range, tokens.max_length, note.max_length) == ((0.0, 2.0), 3, 20)
    assert len({len(row) for row in training.rows["tokens"]}) == 1
    assert len(training.rows["tokens"]) == len(training.rows["note"]) > 1
    assert training.statistics["tokens"].count == sum(len(row["tokens"]) for row in rows)


def test_a_process_greets_a_gateway_that_knows_of_bounds(tmp_path: Path) -> None:
    """The loader knows none, where they were learned; both sides speak of one signature."""
    bounded = with_bounds(SIGNATURE, state(tmp_path, [{"name": "age", "range": [0, 1]}]))
    assert bounded != SIGNATURE == unbounded(bounded)
    assert wire.greeting(bounded) == wire.greeting(SIGNATURE)
