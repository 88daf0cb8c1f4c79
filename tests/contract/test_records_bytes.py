"""The bound on bytes of predictions, on a real disk: by the hour, and of all hours together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kedge.adapters.clock import SystemClock
from kedge.adapters.records.spool import Spool
from kedge.adapters.records.store import Records
from kedge.core.evidence.records import HOUR_PART, HOUR_S, JoinRow, Outcome
from kedge.engine.control.retention import Clerk
from kedge.engine.loop import Duty
from kedge.engine.process_faults import ProcessFaults
from kedge.workspace import Workplace

NOW = 1_770_000_000.0
MB = 2**20


def row(name: str, at: float = NOW, size: int = 50_000) -> JoinRow:
    return JoinRow(
        id=f"{name}/0",
        at=at,
        unit="u",
        endpoint="e",
        production=1,
        candidate=None,
        salt="s",
        weight=0,
        arm="production",
        failed=False,
        segments=(),
        score=0.5,
        decision="1",
        inputs=b"\x81\xa1x\xc4" + b"i" * size if size else b"",
    )


def answered(records: Records, *rows: JoinRow) -> Any:
    with Spool(records.spool, "w0") as spool:
        assert spool.append(rows) == 0
    return records.ingest(NOW)


def disk(records: Records) -> int:
    return sum(path.stat().st_size for path in (records.spool.parent / "hours").glob("*"))


@pytest.fixture
def records(tmp_path: Path) -> Records:
    found = Records(tmp_path / "records")
    found.keep(48 * 2 / 1024)  # two megabytes an hour
    return found


def test_an_hour_loses_inputs_first_and_then_rows(records: Records) -> None:
    """A flood is bounded, and counted; labels still find what was kept before it."""
    bare = over = 0
    assert answered(records, row("first")).count == 1
    for batch in range(40):
        taken = answered(records, *(row(f"{batch}-{n}") for n in range(10)))
        bare, over = bare + taken.bare, over + taken.over
        assert taken.count + taken.over == 10
    assert bare > 0
    found = list(records.rows("e", 0, NOW + 1))
    assert sum(bool(one.inputs) for one in found) == 401 - bare - over
    assert disk(records) <= 2 * MB * 1.25 + 2 * MB
    assert records.join("e", [Outcome("first", 1.0)], NOW).joined == 1
    small = 0
    while not small and over < 20_000:
        taken = answered(records, *(row(f"s{over}-{n}", size=0) for n in range(2_000)))
        over, small = over + 2_000, taken.over
    assert small > 0, "rows alone are bounded too"
    size = disk(records)
    for n in range(3):
        assert answered(records, row(f"late{n}")).over == 1
    assert disk(records) == size
    assert answered(records, row("next", NOW + HOUR_S)).count == 1, "another hour has its own share"


def test_the_oldest_hours_go_and_never_the_newest(records: Records) -> None:
    records.keep(8 / 1024)
    dropped = 0
    for hour in range(20):
        # Less than an hour's share at a time would take long: what is bounded here is the whole.
        records._hours.keep_bytes = 8 * MB * HOUR_PART
        answered(records, *(row(f"{hour}-{n}", NOW + hour * HOUR_S) for n in range(20)))
        records._hours.keep_bytes = 8 * MB
        dropped += len(records._hours.shrink())
    assert disk(records) <= 9 * MB
    kept = [one.at for one in records.rows("e", 0, NOW + 99 * HOUR_S)]
    assert max(kept) == NOW + 19 * HOUR_S
    assert dropped == 20 - len({int(at // HOUR_S) for at in kept})
    records._hours.keep_bytes = 1
    records._hours.shrink()
    assert {one.at for one in records.rows("e", 0, NOW + 99 * HOUR_S)} == {NOW + 19 * HOUR_S}


def test_drops_are_counted_for_status(tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    place.records.keep(48 * 0.1 / 1024)
    faults = ProcessFaults(SystemClock())
    clerk = Clerk(
        Duty(place.clock, faults),
        ledger=place.ledger,
        records=place.records,
        rolls=place.rolls,
    )
    for batch in range(6):
        with Spool(place.records.spool, "w0") as spool:
            spool.append([row(f"{batch}-{n}") for n in range(4)])
        clerk._ingest()
    assert faults.limited["records.hour_rows"] + faults.limited.get("records.hour_inputs", 0) >= 4
