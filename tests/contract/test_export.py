"""The prediction log as Parquet: every prediction and every label, whatever hour an id names."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import pytest

from contract.test_records import HOUR, given, joined, own, row, say
from kedge.adapters.records.store import Records
from kedge.core.evidence.records import HOUR_S
from kedge.core.values import State
from kedge.operations import export
from kedge.operations.export import export_of

NEXT = (HOUR + 1) * HOUR_S
LAST_MS = HOUR_S * 1000 - 1


def place(tmp_path: Path, now: float) -> Any:
    """A state directory with one endpoint, at a given time."""
    book = SimpleNamespace(states={"flights": State(endpoint="flights")})
    return SimpleNamespace(
        records=Records(tmp_path / "records"),
        ledger=SimpleNamespace(read=lambda: book),
        clock=SimpleNamespace(unix=lambda: now, monotonic=lambda: 0.0),
    )


def exported(to: Path) -> list[tuple[Any, ...]]:
    """Id, hour of the file, and label of each row."""
    with duckdb.connect() as db:
        return db.execute(
            "SELECT id, parse_filename(filename, true), label::DOUBLE"
            f" FROM read_parquet('{to}/flights/*/*.parquet', filename = true) ORDER BY id"
        ).fetchall()


def test_answers_given_beside_the_hour_of_their_id_are_all_exported(tmp_path: Path) -> None:
    """Two requests at once around a full hour: the later one is answered first."""
    there = place(tmp_path, NEXT + 60.0)
    names = [own(1), own(LAST_MS - 2), own(LAST_MS - 1), own(1, HOUR + 1)]
    times = [HOUR * HOUR_S + 1.0, NEXT + 0.001, NEXT - 0.001, NEXT + 0.002]
    given(there.records, *(row(f"{n}/0", at) for n, at in zip(names, times, strict=True)), now=NEXT)
    told = export_of(there, "flights", "2h", tmp_path / "out")
    assert (told.predictions, told.files) == (4, 2)
    first, second = (f"{int(at // HOUR_S) % 24:02d}" for at in (NEXT - 1, NEXT))
    found = sorted((name, hour) for name, hour, _ in exported(tmp_path / "out"))
    hours = [first, second, first, second]
    assert found == sorted((f"{n}/0", hour) for n, hour in zip(names, hours, strict=True))


def test_a_later_export_does_not_cut_the_hour_in_which_it_begins(tmp_path: Path) -> None:
    there = place(tmp_path, NEXT - 60.0)
    given(there.records, row(f"{own(1)}/0", NEXT - 3_000.0), row(f"{own(2)}/0", NEXT - 90.0))
    for since in ("2h", "10m"):
        assert export_of(there, "flights", since, tmp_path / "out").predictions == 2
        assert len(exported(tmp_path / "out")) == 2


def test_a_label_that_cannot_be_read_does_not_hide_the_later_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "LABELS", 2)
    there = place(tmp_path, NEXT)
    given(there.records, *(row(f"{own(n)}/0", HOUR * HOUR_S + 1.0) for n in range(5)))
    joined(there.records, *(say(own(n), float(n), at=None) for n in range(5)), now=NEXT)
    with closing(sqlite3.connect(tmp_path / "records" / "labels.db")) as labels, labels:
        labels.execute("UPDATE label SET body = x'00' WHERE seq = 2")
    export_of(there, "flights", "2h", tmp_path / "out")
    assert [label for *_, label in exported(tmp_path / "out")] == [0.0, None, 2.0, 3.0, 4.0]
