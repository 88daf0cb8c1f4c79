"""Predictions and late labels on disk: each outcome has one stated fate, also across a kill."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import msgspec
import pytest

from kedge.adapters.records.spool import Spool
from kedge.adapters.records.store import SPOOL, Records
from kedge.core.records import HORIZON_S, HOUR_S, PARKED_S, JoinRow, Outcome

NOW = 500_000 * HOUR_S + 600.0


def row(
    name: str, *, endpoint: str = "flights", at: float = NOW, unit: str = "", inputs: bytes = b""
) -> JoinRow:
    return JoinRow(
        id=name, at=at, unit=unit, endpoint=endpoint, production=1, candidate=2, salt="s",
        weight=500, arm="production", failed=False, segments=("origin=JFK",), score=0.7,
        decision="1", inputs=inputs,
    )  # fmt: skip


def spool(directory: Path, *rows: JoinRow, replica: str = "w0") -> None:
    with Spool(directory / SPOOL, replica) as out:
        assert out.append(rows) == 0


@pytest.fixture
def records(tmp_path: Path) -> Records:
    spool(tmp_path, *(row(f"q{n}/0", unit=f"N{n}", inputs=b"\x81\xa1x\x01") for n in range(10)),
          row("many/0"), row("many/1"), row("q1/0", endpoint="other"))  # fmt: skip
    made = Records(tmp_path)
    assert made.ingest(NOW).count == 13
    return made


def test_outcomes_meet_their_predictions(records: Records) -> None:
    found = records.join(
        "flights", [Outcome("q3/0", 1.0), Outcome("q4", 0.0), Outcome("q5/0", None)], NOW
    )
    assert (found.joined, found.declined) == (2, 1)
    _, rows = records.labels("flights", 0, 10)
    assert [(one.row.id, one.outcome.value) for one in rows] == [
        ("q3/0", 1.0),
        ("q4/0", 0.0),
        ("q5/0", None),
    ]
    assert rows[0].row.segments == ("origin=JFK",)


def test_the_same_again_is_a_duplicate_and_another_value_a_conflict(records: Records) -> None:
    records.join("flights", [Outcome("q3/0", 1.0)], NOW)
    found = records.join("flights", [Outcome("q3/0", 1.0), Outcome("q3/0", 0.0)], NOW + 1)
    assert (found.duplicates, found.conflicts, found.joined) == (1, 1, 0)
    (kept,) = records.conflicts("flights", 5)
    assert (kept.stands, kept.refused) == (1.0, 0.0)
    assert len(records.labels("flights", 0, 10)[1]) == 1


def test_another_label_version_is_another_label(records: Records) -> None:
    records.join("flights", [Outcome("q3/0", 1.0), Outcome("q3/0", 0.0, None, "v2")], NOW)
    assert len(records.labels("flights", 0, 10)[1]) == 2


def test_a_request_of_several_rows_must_say_which(records: Records) -> None:
    found = records.join("flights", [Outcome("many", 1.0), Outcome("many/1", 1.0)], NOW)
    assert (found.ambiguous, found.joined) == (1, 1)


def test_an_outcome_before_its_prediction_waits_and_is_adopted(
    tmp_path: Path, records: Records
) -> None:
    assert records.join("flights", [Outcome("late/0", 1.0)], NOW).parked == 1
    assert records.join("flights", [Outcome("late/0", 1.0)], NOW).duplicates == 1
    spool(tmp_path, row("late/0"))
    assert records.ingest(NOW + 5).adopted.joined == 1
    assert records.labels("flights", 0, 10)[1][0].row.id == "late/0"


def test_one_that_waited_in_vain_goes(records: Records) -> None:
    records.join("flights", [Outcome("nobody", 1.0)], NOW)
    assert records.prune(NOW + PARKED_S - 10) == 0
    assert records.prune(NOW + PARKED_S + 10) == 1


def test_the_same_id_at_another_endpoint_is_another_prediction(records: Records) -> None:
    assert records.join("other", [Outcome("q1/0", 0.0)], NOW).joined == 1
    assert records.labels("flights", 0, 10)[1] == ()


def test_reading_goes_on_in_the_order_in_which_labels_came(records: Records) -> None:
    for n in (7, 2, 5):
        records.join("flights", [Outcome(f"q{n}/0", 1.0)], NOW)
    cursor, first = records.labels("flights", 0, 2)
    _, rest = records.labels("flights", cursor, 2)
    assert [one.row.id for one in (*first, *rest)] == ["q7/0", "q2/0", "q5/0"]


def test_coverage_is_by_arm(records: Records) -> None:
    records.join("flights", [Outcome("q3/0", 1.0), Outcome("q4/0", None)], NOW)
    (found,) = records.coverage("flights")
    assert (found.predictions, found.labelled, found.declined) == (12, {"": 1}, {"": 1})


def test_a_file_that_was_stored_and_not_removed_counts_nothing_twice(tmp_path: Path) -> None:
    """Killed between the two: the file is read again."""
    spool(tmp_path, *(row(f"q{n}/0") for n in range(5)))
    (left,) = (tmp_path / SPOOL).glob("*.rows")
    copy = tmp_path / left.name
    shutil.copy(left, copy)
    records = Records(tmp_path)
    assert records.ingest(NOW).count == 5
    shutil.copy(copy, left)
    again = records.ingest(NOW)
    assert (again.count, again.duplicates) == (0, 5)
    assert records.coverage("flights")[0].predictions == 5


def test_a_torn_file_gives_what_is_whole(tmp_path: Path) -> None:
    spool(tmp_path, row("a/0"))
    spool(tmp_path, row("b/0"), replica="w1")
    left = next((tmp_path / SPOOL).glob("w1*.rows"))
    left.write_bytes(left.read_bytes()[:-3])
    found = Records(tmp_path).ingest(NOW)
    assert (found.count, found.torn) == (1, 1)


def test_a_damaged_hour_is_put_aside_and_the_rest_goes_on(tmp_path: Path, records: Records) -> None:
    (hour,) = (tmp_path / "hours").glob("*.db")
    for path in (tmp_path / "hours").glob("*.db-*"):
        path.unlink()
    hour.write_bytes(b"not a database" * 1_000)
    spool(tmp_path, row("new/0"))
    fresh = Records(tmp_path)
    found = fresh.ingest(NOW)
    assert (found.count, found.damaged) == (1, 1)
    assert fresh.join("flights", [Outcome("new/0", 1.0)], NOW).joined == 1


def test_a_unit_is_forgotten_everywhere(tmp_path: Path, records: Records) -> None:
    """In the hours, the labels, and what is still on its way."""
    records.join("flights", [Outcome("q3/0", 1.0), Outcome("q4/0", 1.0)], NOW)
    spool(tmp_path, row("later/0", unit="N3"), row("else/0", unit="N4"))
    assert records.forget("N3") == 2
    found = records.ingest(NOW)
    assert (found.count, found.forgotten) == (1, 1)
    assert [one.row.unit for one in records.labels("flights", 0, 10)[1]] == ["N4"]
    assert b"N3" not in b"".join(p.read_bytes() for p in tmp_path.rglob("*.db"))
    assert records.forget("N3") == 0


def test_inputs_are_kept_for_a_while_and_predictions_longer(records: Records) -> None:
    assert sum(bool(one.inputs) for one in records.rows("flights", NOW - 60, NOW + 60)) == 10
    assert records.strip(NOW + 7_200, 3_600, "flights") == 10
    assert len(list(records.rows("flights", NOW - 60, NOW + 60))) == 12
    records.prune(NOW + HORIZON_S + 2 * HOUR_S)
    assert list(records.rows("flights", NOW - 60, NOW + 60)) == []


def test_a_joiner_killed_at_any_moment_leaves_whole_batches(
    tmp_path: Path, records: Records
) -> None:
    """kill -9 in the middle: afterwards everything can be handed in again, and is there once."""
    spool(tmp_path, *(row(f"x{n}/0") for n in range(3_000)))
    while records.waiting():
        records.ingest(NOW)
    script = textwrap.dedent(f"""
        from pathlib import Path
        from kedge.adapters.records.store import Records
        from kedge.core.records import Outcome
        records = Records(Path({str(tmp_path)!r}))
        print("go", flush=True)
        for start in range(0, 3000, 100):
            records.join("flights", [Outcome(f"x{{n}}/0", 1.0) for n in range(start, start + 100)], {NOW})
            print(start, flush=True)
    """)
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        while child.stdout.readline().strip() != "700":
            assert child.poll() is None
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    _, rows = records.labels("flights", 0, 5_000)
    assert len(rows) % 100 == 0
    assert len(rows) >= 800
    found = records.join("flights", [Outcome(f"x{n}/0", 1.0) for n in range(3_000)], NOW)
    assert found.joined + found.duplicates == 3_000
    assert len(records.labels("flights", 0, 5_000)[1]) == 3_000


def test_two_who_join_at_once_join_once(tmp_path: Path, records: Records) -> None:
    script = textwrap.dedent(f"""
        from pathlib import Path
        from kedge.adapters.records.store import Records
        from kedge.core.records import Outcome
        records = Records(Path({str(tmp_path)!r}))
        print(sum(records.join("flights", [Outcome(f"q{{n}}/0", 1.0)], {NOW}).joined for n in range(10)))
    """)
    children = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
                for _ in range(2)]  # fmt: skip
    joined = [int(child.communicate(timeout=60)[0]) for child in children]
    assert sum(joined) == 10
    assert len(records.labels("flights", 0, 50)[1]) == 10


def test_a_record_of_an_older_kedge_is_still_read() -> None:
    """Fields are only ever appended, with a default."""
    raw = msgspec.msgpack.decode(msgspec.msgpack.encode(row("a/0")))
    assert msgspec.convert(raw[:-4], JoinRow).paired is False
