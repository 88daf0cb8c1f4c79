"""Forgetting an entity in a real state directory: in every spelling and place, and the rest stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contract.test_records import row, say
from kedge.adapters.offline.log import OFFLINE_DIR, OfflineLog
from kedge.adapters.records.spool import Spool
from kedge.adapters.sql.sqlite.create import create
from kedge.core.errors import BadRequest, Refused
from kedge.core.features.generations import Run
from kedge.core.values import Proof
from kedge.operations.forget import COPIES, HASHES, _holds, forget
from kedge.workspace import Workplace


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    create(tmp_path)
    return Workplace(tmp_path)


def spool(place: Workplace, *rows: Any, close: bool = True) -> Spool:
    worker = Spool(place.records.spool, "w0")
    worker.append(rows)
    if close:
        worker.close()
    return worker


def recorded(place: Workplace) -> list[str]:
    now = place.clock.unix()
    while place.records.waiting():
        place.records.ingest(now)
    return sorted(one.unit for one in place.records.rows("flights", 0, 2e9))


@pytest.mark.parametrize(
    ("typed", "stored"),
    [
        ("Zoë", "Zoë"),
        ("Zoe\u0308", "Zoë"),
        (" 42.0 ", "42"),
        ("42", "42"),
        ("李", "李"),
        ("Zoë", "Zoë".encode().decode("latin-1")),
        ("42.0", "42.0"),
    ],
)
def test_an_entity_is_forgotten_however_it_is_typed_and_was_stored(
    place: Workplace, typed: str, stored: str
) -> None:
    now = place.clock.unix()
    spool(place, row("a/0", now, unit=stored), row("b/0", now, unit="else"))
    recorded(place)
    assert forget(place, typed, None).removed == 1
    assert recorded(place) == ["else"]


def test_what_waits_in_the_spool_is_removed_counted_and_nowhere_on_the_disk(
    place: Workplace,
) -> None:
    """No control runs: nothing would take it in otherwise."""
    now = place.clock.unix()
    place.records.join("flights", [say("late", at=None), say("a", at=None)], now)
    spool(place, row("a/0", now, unit="Zoë", inputs=b"\x80"), row("late/0", now, unit="Zoë"))
    found = forget(place, "Zoë", None)
    assert (found.removed, found.under_way) == (2, 0)
    assert recorded(place) == []
    kept = [path.read_bytes() for path in place.records.spool.parent.rglob("*") if path.is_file()]
    assert "Zoë".encode() not in b"".join(kept)


def test_late_writes_of_a_worker_are_counted_and_dropped_on_arrival(place: Workplace) -> None:
    now = place.clock.unix() - 1
    with spool(place, row("a/0", now, unit="Zoë"), row("b/0", now, unit="else"), close=False):
        found = forget(place, "Zoë", None)
        assert (found.removed, found.under_way) == (0, 1)
    assert recorded(place) == ["else"]


def test_nothing_forgotten_is_refused_and_says_what_was_not_looked_into(place: Workplace) -> None:
    with pytest.raises(Refused, match="nothing is recorded of nobody") as caught:
        forget(place, "nobody", None)
    assert caught.value.code == "nothing_forgotten"
    assert caught.value.details["stays"] == [HASHES, COPIES]
    with pytest.raises(Refused) as caught:
        forget(place, "nobody", "nowhere")
    assert caught.value.code == "unknown_endpoint"
    with pytest.raises(BadRequest):
        forget(place, " ", None)


def test_what_is_dropped_of_another_entity_meanwhile_is_not_counted(place: Workplace) -> None:
    """Forgotten while a worker wrote it, it is dropped by the next command that takes it in."""
    now = place.clock.unix() - 1
    with spool(place, row("a/0", now, unit="Zoë"), close=False):
        forget(place, "Zoë", None)
    with pytest.raises(Refused, match="nothing is recorded of Ada"):
        forget(place, "Ada", None)
    assert recorded(place) == []


def test_values_by_key_that_may_have_an_entity_are_named(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = place.clock.unix()
    monkeypatch.setattr(
        type(place.generations), "runs", lambda self: {Run("spend/1", 1, 1): "ready"}
    )
    spool(place, row("a/0", now, unit="Zoë"))
    stays = forget(place, "Zoë", None).stays
    assert stays[1:] == (HASHES, COPIES)
    assert stays[0].startswith("values by key of spend/1 may have it")


def test_values_by_key_are_searched_for_an_entity(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [Run("spend/1", 1, 1), Run("calm/1", 1, 1)]
    monkeypatch.setattr(type(place.generations), "runs", lambda self: dict.fromkeys(runs, "ready"))
    log = OfflineLog(place.state_dir / OFFLINE_DIR)
    for run, user in zip(runs, (42, 43), strict=True):
        columns = {"user": np.array([user]), "total": np.ones(1, np.float32)}
        log.write(run, 3600.0, ["user"], columns)
    with pytest.raises(Refused) as caught:
        forget(place, "42.0", None)
    told = str(caught.value.details["stays"])
    assert told.startswith("['values by key of spend/1 have it, in the online store and under")
    assert "calm/1" not in told
    with pytest.raises(Refused) as caught:
        forget(place, "44", None)
    assert caught.value.details["stays"] == [HASHES, COPIES]


def test_ids_of_a_forgotten_entity_leave_no_hash_in_their_hour(place: Workplace) -> None:
    now = place.clock.unix()
    spool(place, row("of-zoe/0", now, unit="Zoë"), row("other/0", now, unit="else"))
    recorded(place)
    forget(place, "Zoë", None)
    found = place.records.join("flights", [say("other", at=None), say("of-zoe", at=None)], now)
    assert (found.joined, found.parked) == (1, 1)


@pytest.mark.parametrize(
    ("columns", "holds"),
    [
        ({"user": [41, 42]}, True),
        ({"user": [42.0]}, True),
        ({"age": [42]}, False),
        ({"name": ["42"]}, True),
        ({"user": [None, 4.5, float("nan")]}, False),
        ({}, False),
    ],
)
def test_golden_rows_that_have_an_entity_are_found(
    columns: dict[str, list[Any]], *, holds: bool
) -> None:
    assert _holds(Proof({}, {}, raw=columns), "user", ["42"]) is holds
    assert _holds(Proof(columns, {}), "user", ["42"]) is holds
