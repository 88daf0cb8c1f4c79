"""Ids that more than one request used, on a real disk: an ambiguous label is joined to neither."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from kedge.adapters.records import hours as hours_file
from kedge.adapters.records.spool import Spool
from kedge.adapters.records.store import Records
from kedge.core.evidence.records import HORIZON_S, HOUR_S, JoinRow, Outcome, Reused

NOW = 1_770_000_000.0
HOUR = int(NOW // HOUR_S)


def row(name: str, unit: str, at: float = NOW, **more: Any) -> JoinRow:
    known: dict[str, Any] = {
        "endpoint": "e",
        "production": 1,
        "candidate": 2,
        "salt": "s",
        "weight": 500,
        "arm": "production",
        "failed": False,
        "segments": (),
        "score": 0.5,
        "decision": "1",
        "digest": b"8 bytes.",
    }
    return JoinRow(id=name, at=at, unit=unit, **{**known, **more})


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(tmp_path / "records")


def answered(records: Records, *rows: JoinRow, worker: str = "w0") -> Any:
    with Spool(records.spool, worker) as spool:
        spool.append(rows)
    return records.ingest(NOW)


def label(records: Records, name: str, value: float = 1.0) -> tuple[int, int, dict[str, int]]:
    found = records.join("e", [Outcome(name, value, NOW, "")], NOW)
    return found.joined, found.parked, found.ambiguous_because


def joined(records: Records) -> list[tuple[str, str]]:
    return [(one.row.id, one.row.unit) for one in records.labels("e", 0, 99)[1]]


MALLORY = row("order-7/0", "mallory", digest=b"-9 -9 -9")
ALICE = row("order-7/0", "alice", NOW + 1)
LATER = row("order-7/0", "alice", NOW + 5 * HOUR_S)
EARLIER = row("order-7/0", "mallory", NOW - 400 * HOUR_S)

Play = Callable[[Records], object]
BEFORE: dict[str, Play] = {
    "in one file": lambda r: answered(r, MALLORY, ALICE),
    "the other way round": lambda r: answered(r, ALICE, MALLORY),
    "by two workers": lambda r: (answered(r, MALLORY), answered(r, ALICE, worker="w1")),
    "in another hour": lambda r: (answered(r, MALLORY), answered(r, LATER)),
    "in an earlier hour": lambda r: (answered(r, ALICE), answered(r, EARLIER)),
    "after a restart": lambda r: (answered(r, MALLORY), answered(Records(r.spool.parent), LATER)),
}


@pytest.mark.parametrize("play", BEFORE.values(), ids=BEFORE)
def test_a_label_that_two_requests_may_mean_is_joined_to_neither(
    records: Records, play: Play
) -> None:
    play(records)
    assert label(records, "order-7") == (0, 0, {"id_reused": 1})
    assert label(records, "order-7/0") == (0, 0, {"id_reused": 1})
    assert joined(records) == []
    assert records.reused("e") == Reused(ids=1, refused=2)


@pytest.mark.parametrize("second", [ALICE, LATER, EARLIER], ids=["same hour", "later", "earlier"])
def test_a_label_is_withdrawn_when_another_request_uses_its_id(
    records: Records, second: JoinRow
) -> None:
    answered(records, MALLORY, row("other/0", "bob"))
    assert [label(records, name)[0] for name in ("order-7", "other")] == [1, 1]
    taken = answered(records, second, worker="w1")
    assert (taken.withdrawn, joined(records)) == (1, [("other/0", "bob")])
    (cover,) = records.coverage("e")
    assert cover.labelled == {"": 1}
    assert label(records, "order-7") == (0, 0, {"id_reused": 1})
    assert records.reused("e") == Reused(ids=1, refused=1, withdrawn=1)


@pytest.mark.parametrize("order", [(MALLORY, ALICE), (ALICE, MALLORY), (MALLORY, LATER)])
def test_a_label_that_waits_is_not_kept_by_whichever_request_comes_first(
    records: Records, order: tuple[JoinRow, JoinRow]
) -> None:
    assert label(records, "order-7") == (0, 1, {})
    answered(records, order[0])
    answered(records, order[1], worker="w1")
    assert joined(records) == []


@pytest.mark.parametrize("at", [NOW + 0.2, NOW + 7 * HOUR_S], ids=["at once", "hours later"])
def test_a_retry_of_the_same_request_is_one_prediction(records: Records, at: float) -> None:
    answered(records, ALICE)
    answered(records, row("order-7/0", "alice", at, candidate=None, salt="t"), worker="w1")
    assert label(records, "order-7") == (1, 0, {})
    assert joined(records) == [("order-7/0", "alice")]
    assert records.reused("e") == Reused()


DIFFERENT: dict[str, dict[str, Any]] = {
    "another entity": {"unit": "bob"},
    "other inputs": {"digest": b"otherwis"},
    "another release": {"arm": "candidate"},
    "inputs that cannot be written": {"digest": b"-"},
    "an id that the gateway made": {"digest": b""},
}


@pytest.mark.parametrize("more", DIFFERENT.values(), ids=DIFFERENT)
def test_a_request_that_differs_is_no_retry(records: Records, more: dict[str, Any]) -> None:
    answered(records, ALICE, row("order-7/0", **{"unit": "alice", "at": NOW + 2, **more}))
    assert label(records, "order-7")[2] == {"id_reused": 1}


def test_two_without_a_digest_are_no_retry_of_each_other(records: Records) -> None:
    for digest in (b"", b"-"):
        name = f"x{digest!r}"
        answered(records, *(row(f"{name}/0", "u", NOW + n, digest=digest) for n in range(2)))
        assert label(records, name)[2] == {"id_reused": 1}


def test_every_row_of_a_reused_id_is_ambiguous(records: Records) -> None:
    """The second request has more rows: those after the first row are its own, but its id is not."""
    answered(records, MALLORY)
    answered(records, ALICE, row("order-7/1", "alice", NOW + 1))
    assert label(records, "order-7/1")[2] == {"id_reused": 1}


def test_an_id_that_spells_a_row_of_another_request_is_ambiguous(records: Records) -> None:
    answered(records, row("order-7/0/0", "mallory"))
    assert label(records, "order-7/0") == (1, 0, {})
    answered(records, row("order-7/0", "alice"), worker="w1")
    assert joined(records) == []
    assert label(records, "order-7/0")[2] == {"id_reused": 1}


def test_an_id_of_another_endpoint_is_another_id(records: Records) -> None:
    answered(records, MALLORY, row("order-7/0", "alice", endpoint="f"))
    assert label(records, "order-7") == (1, 0, {})


def test_the_gateways_own_id_used_again_by_a_caller_is_ambiguous(records: Records) -> None:
    own = f"{HOUR * HOUR_S * 1000 + 5:012x}"
    own = f"{own[:8]}-{own[8:]}-7000-8000-000000000001"
    answered(records, row(f"{own}/0", "alice", digest=b""))
    assert label(records, own) == (1, 0, {})
    answered(records, row(f"{own}/0", "mallory", NOW + 9 * HOUR_S))
    assert joined(records) == []


def test_what_is_read_again_after_a_crash_is_no_second_request(
    records: Records, tmp_path: Path
) -> None:
    with Spool(records.spool, "w0") as spool:
        spool.append([ALICE, row("many/0", "bob", digest=b"-")])
    (path,) = records.spool.glob("*")
    copy = path.read_bytes()
    records.ingest(NOW)
    path.write_bytes(copy)
    taken = records.ingest(NOW)
    assert (taken.duplicates, taken.reused) == (2, 0)
    assert [label(records, name)[0] for name in ("order-7", "many")] == [1, 1]


def test_marks_go_with_the_horizon_and_hold_no_id(records: Records) -> None:
    answered(records, MALLORY, ALICE)
    assert b"order-7" not in (records.spool.parent / "labels.db").read_bytes()
    assert records.reused("e").ids == 1
    records.prune(NOW + HORIZON_S + 2 * HOUR_S)
    assert records.reused("e") == Reused()


def test_hours_of_an_earlier_kedge_are_searched_too(records: Records) -> None:
    """Their files have no hashes of stray ids, and labels.db has no marks."""
    answered(records, MALLORY)
    with closing(sqlite3.connect(records.spool.parent / "hours" / f"{HOUR}.db")) as db:
        db.execute("DROP TABLE stray")
    with closing(sqlite3.connect(records.spool.parent / "labels.db")) as db:
        db.execute("DROP TABLE reused")
    assert records.reused("e") == Reused()
    answered(records, LATER, worker="w1")
    assert label(records, "order-7")[2] == {"id_reused": 1}


def test_a_search_looks_into_hours_where_the_id_may_be(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thirty days of ids that callers chose are not read through for each label."""
    for hours in range(30):
        answered(records, *(row(f"o{hours}-{n}/0", "u", NOW - hours * HOUR_S) for n in range(50)))
    opened = []
    look = hours_file._look

    def looks(connection: Any, endpoint: str, names: list[str], *more: Any) -> None:
        opened.append(len(names))
        look(connection, endpoint, names, *more)

    monkeypatch.setattr(hours_file, "_look", looks)
    found = records.join("e", [Outcome(f"o3-{n}", 1.0, NOW, "") for n in range(50)], NOW)
    assert found.joined == 50
    assert sum(opened) <= 55
