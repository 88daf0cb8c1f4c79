"""Files of late labels: what is read, and what is said of what cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kedge.core.errors import Refused
from kedge.core.records import Outcome
from kedge.labelling import read


def found(tmp_path: Path, name: str, text: str) -> list[Any]:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return [one if isinstance(one, Outcome) else str(one) for one in read(path)]


def test_json_lines(tmp_path: Path) -> None:
    text = (
        '{"id": "a", "value": 1}\n\n{"id": "b", "value": null, "at": 5}\n'
        '{"id": "c", "value": "cat", "at": "2026-01-05T08:00:00Z", "label_version": "v2"}\n'
        '{"id": "d", "value": true}\n'
    )
    assert found(tmp_path, "x.jsonl", text) == [
        Outcome("a", 1.0), Outcome("b", None, 5.0), Outcome("c", "cat", 1767600000.0, "v2"), Outcome("d", True),  # noqa: FBT003
    ]  # fmt: skip


def test_csv(tmp_path: Path) -> None:
    text = "id,value,at,label_version\na,1,,\nb,,1767600000,v2\nc,cat,2026-01-05T08:00:00+01:00,\n"
    assert found(tmp_path, "x.csv", text) == [
        Outcome("a", 1.0), Outcome("b", None, 1767600000.0, "v2"), Outcome("c", "cat", 1767596400.0),
    ]  # fmt: skip


def test_parquet(tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    path = tmp_path / "x.parquet"
    duckdb.sql("SELECT * FROM (VALUES ('a', 1.0), ('b', NULL)) AS t(id, value)").write_parquet(
        str(path)
    )
    assert list(read(path)) == [Outcome("a", 1.0), Outcome("b", None)]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("nonsense", "not a JSON object"),
        ("[1]", "not an object"),
        ('{"value": 1}', "id must be"),
        ('{"id": "", "value": 1}', "id must be"),
        ('{"id": "a"}', "value is missing"),
        ('{"id": "a", "value": [1]}', "value must be"),
        ('{"id": "a", "value": 1e999}', ""),
        ('{"id": "a", "value": 1, "at": "noon"}', "ISO 8601"),
        ('{"id": "a", "value": 1, "at": "2026-01-05T08:00:00"}', "time zone"),
        ('{"id": "a", "value": 1, "label_version": 3}', "label_version must be"),
    ],
)
def test_a_bad_line_is_named_and_the_next_is_read(tmp_path: Path, line: str, says: str) -> None:
    bad, good = found(tmp_path, "x.jsonl", f'{line}\n{{"id": "z", "value": 0}}\n')
    assert bad.startswith("x.jsonl:1: ")
    assert says in bad
    assert good == Outcome("z", 0.0)


def test_a_csv_without_its_columns_says_which(tmp_path: Path) -> None:
    (fault,) = found(tmp_path, "x.csv", "name,label\na,1\n")
    assert "id and value" in fault


def test_another_format_is_refused_with_the_right_one(tmp_path: Path) -> None:
    with pytest.raises(Refused) as caught:
        read(tmp_path / "x.xlsx")
    assert caught.value.code == "unknown_format"
