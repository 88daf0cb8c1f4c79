"""The records on a real disk: labels in any order, crashes, damage, and forgetting."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kedge.adapters.records import joining, store
from kedge.adapters.records.spool import CLOSED, Spool
from kedge.adapters.records.store import Records
from kedge.core.errors import BadRequest, Unavailable
from kedge.core.evidence.records import (
    COUNTS,
    HORIZON_S,
    HOUR_S,
    PARKED_S,
    Coverage,
    Early,
    Ingested,
    Joined,
    JoinRow,
    Known,
    Outcome,
)
from kedge.core.time.instants import SKEW_S

NOW = 1_770_000_000.0
HOUR = int(NOW // HOUR_S)


def own(number: int, hour: int = HOUR) -> str:
    """An id as the gateway makes them."""
    stamp = f"{hour * HOUR_S * 1000 + number:012x}"
    return f"{stamp[:8]}-{stamp[8:]}-7000-8000-{number:012x}"


def row(name: str, at: float = NOW, **more: Any) -> JoinRow:
    known: dict[str, Any] = {
        "unit": "",
        "endpoint": "flights",
        "production": 1,
        "candidate": 2,
        "salt": "s",
        "weight": 500,
        "arm": "production",
        "failed": False,
        "segments": ("origin=JFK",),
        "score": 0.5,
        "decision": "1",
    }
    return JoinRow(id=name, at=at, **{**known, **more})


def say(name: str, value: Known = 1.0, version: str = "", at: float | None = NOW) -> Outcome:
    return Outcome(name, value, at, version)


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(tmp_path / "records")


def spool(records: Records, *rows: JoinRow) -> list[Path]:
    """Written by a worker that then closed its file."""
    before = set(records.spool.glob("*"))
    with Spool(records.spool, "w0") as worker:
        assert worker.append(rows) == 0
    return sorted(set(records.spool.glob("*")) - before)


def given(records: Records, *rows: JoinRow, now: float = NOW) -> Ingested:
    spool(records, *rows)
    return records.ingest(now)


def counts(joined: Joined) -> dict[str, int]:
    found = {name: getattr(joined, name) for name in COUNTS}
    return {name: count for name, count in found.items() if count}


def joined(
    records: Records, *outcomes: Outcome, endpoint: str = "flights", now: float = NOW
) -> Any:
    return counts(records.join(endpoint, outcomes, now))


def values(records: Records, endpoint: str = "flights") -> list[tuple[str, Known]]:
    _, found = records.labels(endpoint, 0, 1000)
    return [(one.outcome.id, one.outcome.value) for one in found]


def hour_file(records: Records, hour: int = HOUR) -> Path:
    return records.spool.parent / "hours" / f"{hour}.db"


# ---------------------------------------------------------------- coming in


def test_predictions_come_out_of_the_spool_as_they_were_written(records: Records) -> None:
    rows = [row(own(1) + "/0"), row("mine/0", inputs=b"\x80"), row("old/0", NOW - 7 * HOUR_S)]
    assert given(records, *rows) == Ingested(count=3)
    assert list(records.rows("flights", 0, NOW + 1)) == [rows[2], rows[0], rows[1]]
    assert list(records.rows("flights", NOW - HOUR_S, NOW + 1)) == [rows[0], rows[1]]
    assert not list(records.spool.glob("*"))


def test_an_empty_directory_answers(records: Records) -> None:
    assert records.ingest(NOW) == Ingested()
    assert records.labels("flights", 7, 10) == (0, ())
    assert (records.coverage("flights"), records.conflicts("flights", 9)) == ((), ())
    assert list(records.rows("flights", 0, NOW)) == []
    assert (records.labelled("flights", 0, NOW, 9), records.torn(0, NOW)) == ((), ())
    assert (records.counted("flights", 0, NOW), records.newest_label("flights")) == (0, 0)
    assert (records.prune(NOW), records.strip(NOW, 1.0, "flights"), records.waiting()) == (0, 0, 0)
    assert not hour_file(records).exists()


def test_a_crash_before_a_file_is_removed_costs_nothing(records: Records, tmp_path: Path) -> None:
    (path,) = spool(records, row("a/0"), row("b/0", inputs=b"\x80"))
    copy = shutil.copy(path, tmp_path / path.name)
    assert records.ingest(NOW) == Ingested(count=2)
    shutil.copy(copy, path)
    assert given(records, row("c/0")) == Ingested(count=1, duplicates=2)
    assert [cover.predictions for cover in records.coverage("flights")] == [3]


def test_what_waits_is_adopted_even_after_a_crash_in_between(
    records: Records, tmp_path: Path
) -> None:
    """The rows were stored, and the process died before it looked at what was parked."""
    (path,) = spool(records, row("a/0"))
    copy = shutil.copy(path, tmp_path / path.name)
    records.ingest(NOW)
    moved = hour_file(records).rename(tmp_path / "hour.db")
    assert joined(records, say("a/0")) == {"parked": 1}
    moved.rename(hour_file(records))
    shutil.copy(copy, path)
    taken = records.ingest(NOW)
    assert (taken.duplicates, counts(taken.adopted)) == (1, {"joined": 1})


def test_a_torn_file_gives_what_is_whole(records: Records) -> None:
    (path,) = spool(records, *(row(f"a{number}/0") for number in range(300)))  # two frames
    path.write_bytes(path.read_bytes()[:-7])
    assert records.ingest(NOW) == Ingested(count=256, torn=1)


def test_one_call_takes_so_many_files_and_says_that_there_are_more(records: Records) -> None:
    for number in range(store.FILES + 2):
        spool(records, row(f"a{number}/0"))
    assert records.ingest(NOW).count == store.FILES
    assert records.waiting() == 2
    assert records.ingest(NOW).count == 2


# ---------------------------------------------------------------- joining


def test_labels_are_joined_once_in_the_order_in_which_they_came(records: Records) -> None:
    given(records, *(row(own(n) + "/0") for n in range(4)))
    assert joined(records, say(own(2), 0.5), say(own(0) + "/0", "late")) == {"joined": 2}
    assert joined(records, say(own(1), None), say(own(2), 0.5)) == {"declined": 1, "duplicates": 1}
    assert values(records) == [(own(2) + "/0", 0.5), (own(0) + "/0", "late"), (own(1) + "/0", None)]
    cursor, first = records.labels("flights", 0, 2)
    assert [one.outcome.value for one in first] == [0.5, "late"]
    cursor, rest = records.labels("flights", cursor, 2)
    assert [one.row.id for one in rest] == [own(1) + "/0"]
    assert records.labels("flights", cursor, 2) == (cursor, ())


def test_the_delay_counts_from_the_answer_to_when_it_was_known(records: Records) -> None:
    given(records, row("a/0"), row("b/0"))
    found = records.join("flights", [say("a", at=NOW + 4), say("b", at=None)], NOW + 64)
    assert [one.delay_s for one in found.labelled] == [4, 64]
    assert found.delays == {5: 1, 13: 1}


def test_the_first_value_stands_and_the_other_is_kept_for_display(records: Records) -> None:
    given(records, row("a/0"))
    assert joined(records, say("a", 1.0), say("a", 0.0)) == {"joined": 1, "conflicts": 1}
    assert joined(records, say("a", 0.0), say("a", None), say("a", value=True)) == {
        "conflicts": 2,
        "duplicates": 1,
    }
    assert values(records) == [("a/0", 1.0)]
    shown = [(one.id, one.stands, one.refused) for one in records.conflicts("flights", 9)]
    assert shown == [("a/0", 1.0, None), ("a/0", 1.0, 0.0)]
    assert len(records.conflicts("flights", 1)) == 1


def test_another_label_version_is_another_label(records: Records) -> None:
    given(records, row("a/0"), row("b/0", arm="candidate"), row("c/0", candidate=None))
    assert joined(records, say("a", 1.0, "v1"), say("a", 0.0, "v2"), say("b", None)) == {
        "joined": 2,
        "declined": 1,
    }
    settled, candidate, production = records.coverage("flights")
    common: dict[str, Any] = {"production": 1, "salt": "s", "predictions": 1}
    assert settled == Coverage(candidate=None, arm="production", **common)
    assert candidate == Coverage(candidate=2, arm="candidate", declined={"": 1}, **common)
    assert production == Coverage(
        candidate=2, arm="production", labelled={"v1": 1, "v2": 1}, **common
    )


def test_a_request_of_several_rows_must_be_asked_for_by_row(records: Records) -> None:
    given(records, row("a/0"), row("a/1"), row("b/0"), row("c/d/0"))
    assert joined(records, say("a"), say("a/1"), say("b"), say("c/d")) == {
        "ambiguous": 1,
        "joined": 3,
    }


def test_one_id_on_two_endpoints_is_two_predictions(records: Records) -> None:
    given(records, row("a/0"), row("a/0", endpoint="trains"), row("b/0", endpoint="trains"))
    assert joined(records, say("a", 1.0), say("b", 1.0)) == {"joined": 1, "parked": 1}
    assert joined(records, say("a", 0.0), endpoint="trains") == {"joined": 1}
    assert (values(records), values(records, "trains")) == ([("a/0", 1.0)], [("a/0", 0.0)])


def test_an_own_id_that_was_used_again_later_is_found_where_it_is(records: Records) -> None:
    given(records, row(own(1, HOUR - 90) + "/0"), row("other/0", NOW - 3 * HOUR_S))
    assert joined(records, say(own(1, HOUR - 90)), say("other")) == {"joined": 2}


def test_a_label_waits_for_its_prediction(records: Records) -> None:
    early = [say("a", 1.0, at=None), say("a", 1.0), say("a", 0.0), say("b/0"), say("c")]
    assert joined(records, *early, now=NOW - 60) == {"parked": 4, "conflicts": 1}
    taken = given(records, row("a/0", NOW - 70), row("b/0"), row("c/0"), row("c/1"))
    assert taken.count == 4
    assert counts(taken.adopted) == {"joined": 2, "ambiguous": 1}
    assert [one.delay_s for one in taken.adopted.labelled if one.row.id == "a/0"] == [10]
    assert sorted(values(records)) == [("a/0", 1.0), ("b/0", 1.0)]
    assert joined(records, say("a", 1.0)) == {"duplicates": 1}


def test_a_label_that_is_handed_in_again_while_it_waits_is_parked_since_it_first_came(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert joined(records, say("a"), say("b"), now=NOW - 60) == {"parked": 2}
    again = records.join("flights", [say("a"), say("c")], NOW)
    assert (counts(again), again.parked_since) == ({"parked": 2}, NOW - 60)
    monkeypatch.setattr(joining, "PARKED", 3)
    assert joined(records, say("b"), say("d")) == {"parked": 1, "unknown": 1}
    assert records.prune(NOW - 60 + PARKED_S + 1) == 2


def test_a_label_that_is_dated_before_its_prediction_is_refused(records: Records) -> None:
    given(records, row("a/0"), row("b/0"), row("c/0"), row("d/0"))
    found = records.join(
        "flights",
        [
            say("a", at=NOW - SKEW_S),
            say("b", at=NOW - SKEW_S - 1),
            say("c", at=None),
            say("d", at=1e9),
        ],
        NOW,
    )
    assert counts(found) == {"joined": 2, "early": 2}
    assert found.early_ones == (Early(1, NOW - SKEW_S - 1, NOW), Early(3, 1e9, NOW))
    assert joined(records, say("b"), say("a", at=1e9)) == {"joined": 1, "early": 1}
    assert [name for name, _ in values(records)] == ["a/0", "c/0", "b/0"]


def test_a_parked_label_is_held_to_its_time_when_its_prediction_comes(records: Records) -> None:
    known = [say("a", at=NOW - 7_201), say("b", at=NOW + 5), say("c", at=None)]
    assert joined(records, *known, now=NOW - 7_200) == {"parked": 3}
    taken = given(records, row("a/0"), row("b/0"), row("c/0"))
    assert counts(taken.adopted) == {"joined": 2, "early": 1}
    assert [name for name, _ in values(records)] == ["b/0", "c/0"]
    assert records.prune(NOW + PARKED_S) == 0, "a refused label does not wait any more"


def test_a_label_that_waits_too_long_becomes_unknown(records: Records) -> None:
    assert joined(records, say("never"), say(own(1, HOUR - 800))) == {"parked": 1, "unknown": 1}
    assert records.prune(NOW + PARKED_S - 1) == 0
    assert records.prune(NOW + PARKED_S + 1) == 1
    assert given(records, row("never/0")).adopted == Joined()


# ---------------------------------------------------------------- removing


def test_a_unit_is_forgotten_everywhere(records: Records) -> None:
    mine = [row(own(1) + "/0", unit="N1", inputs=b"\x80"), row("x/0", NOW - 9999, unit="N1")]
    given(records, *mine, row("y/0", unit="N2"), row("z/0", unit="N1", endpoint="trains"))
    joined(records, say(own(1)), say("x", 1.0), say("x", 0.0), say("y"))
    spool(records, row("late/0", unit="N1"), row("late/1", unit="N2"))
    joined(records, say("late/0"))

    assert records.forget("N1", "flights") == 4
    taken = records.ingest(NOW)
    assert (taken.count, taken.forgotten, taken.adopted) == (1, 1, Joined())
    assert values(records) == [("y/0", 1.0)]
    assert [r.unit for r in records.rows("flights", 0, NOW + 1)] == ["N2", "N2"]
    assert records.conflicts("flights", 9) == ()
    (cover,) = records.coverage("flights")
    assert (cover.predictions, cover.labelled) == (2, {"": 1})
    assert records.prune(NOW + PARKED_S + 1) == 0  # what was parked for it went too
    assert len(list(records.rows("trains", 0, NOW + 1))) == 1
    assert records.forget("N1") == 1
    assert records.forget("N1") == 0
    assert b"N1" not in b"".join(
        path.read_bytes() for path in records.spool.parent.rglob("*") if path.is_file()
    )


def test_forgetting_may_end(records: Records) -> None:
    assert records.forget("N1", until=NOW) == 0
    taken = given(records, row("a/0", NOW - 1, unit="N1"), row("b/0", NOW, unit="N1"))
    assert (taken.count, taken.forgotten) == (1, 1)
    with pytest.raises(BadRequest):
        records.forget("")


def test_what_is_beyond_the_horizon_goes(records: Records) -> None:
    given(records, row("a/0"), row("b/0", NOW + HOUR_S))
    joined(records, say("a", 1.0), say("a", 0.0), say("b", at=NOW + HOUR_S))
    records.prune(NOW + HORIZON_S + HOUR_S)
    assert [r.id for r in records.rows("flights", 0, 2 * NOW)] == ["b/0"]
    assert values(records) == [("b/0", 1.0)]
    assert records.conflicts("flights", 9) == ()
    assert [(c.predictions, c.labelled) for c in records.coverage("flights")] == [(1, {"": 1})]


def test_inputs_go_sooner_than_predictions(records: Records) -> None:
    given(
        records,
        row("a/0", NOW - 500, inputs=b"\x80"),
        row("b/0", inputs=b"\x80"),
        row("c/0", NOW - 500, endpoint="trains", inputs=b"\x80"),
    )
    assert records.strip(NOW, 100, "flights") == 1
    assert [r.inputs for r in records.rows("flights", 0, NOW + 1)] == [b"", b"\x80"]
    assert [r.inputs for r in records.rows("trains", 0, NOW + 1)] == [b"\x80"]
    assert joined(records, say("a")) == {"joined": 1}


def test_one_prediction_is_found_by_its_id_with_its_inputs(records: Records) -> None:
    rows = [row(own(1), inputs=b"\x80"), row("order-7/0"), row("order-8/0", at=NOW - HOUR_S)]
    given(records, *rows)
    assert [records.row("flights", one.id) for one in rows] == rows
    assert records.row("trains", "order-7/0") is None
    assert records.row("flights", own(2)) is None


def test_a_window_is_read_from_its_newest_end_and_counted_without_reading(
    records: Records,
) -> None:
    times = (NOW - 26 * HOUR_S, NOW - 2 * HOUR_S, NOW - 2 * HOUR_S + 1, NOW)
    given(records, *(row(f"r{n}/0", at) for n, at in enumerate(times)))
    joined(records, *(say(f"r{n}/0", float(n)) for n in (0, 1, 3)), say("r2/0", None))

    newest = records.rows("flights", NOW - 3 * HOUR_S, NOW + 1, newest=True)
    assert [one.id for one in newest] == ["r3/0", "r2/0", "r1/0"]
    assert records.counted("flights", NOW - 3 * HOUR_S, NOW) == 3
    assert records.counted("other", 0, NOW) == 0
    labels = records.labelled("flights", NOW - 3 * HOUR_S, NOW, 10)
    assert sorted(one.row.id for one in labels) == ["r1/0", "r2/0"]
    (old,) = records.labelled("flights", NOW - 30 * HOUR_S, NOW - 20 * HOUR_S, 1)
    assert (old.row.id, old.outcome.value) == ("r0/0", 0.0)
    assert records.newest_label("flights") == records.labels("flights", 0, 10)[0]
    assert records.newest_label("other") == 0
    hour_file(records).write_bytes(b"no database at all" * 100)
    assert [one.id for one in records.rows("flights", NOW - 3 * HOUR_S, NOW + 1, newest=True)] == [
        "r2/0",
        "r1/0",
    ]
    assert records.torn(NOW - HOUR_S, NOW) == (HOUR,)
    assert records.torn(NOW - 9 * HOUR_S, NOW - HOUR_S) == ()


# ---------------------------------------------------------------- damage


@pytest.mark.parametrize("damage", [b"", b"no database at all" * 100])
def test_a_damaged_partition_is_set_aside_and_created_again(
    records: Records, damage: bytes
) -> None:
    given(records, row("a/0"))
    hour_file(records).write_bytes(damage)
    taken = given(records, row("b/0"))
    assert (taken.count, taken.damaged) == (1, 1)
    assert hour_file(records).with_name(f"{HOUR}.db.damaged").read_bytes() == damage
    assert given(records, row("c/0")).damaged == 0  # counted once
    assert joined(records, say("b")) == {"joined": 1}


def test_a_reader_of_a_damaged_partition_sets_it_aside_too(records: Records) -> None:
    given(records, row("a/0"), row("b/0", NOW - 4 * HOUR_S))
    hour_file(records).write_bytes(b"no database at all" * 100)
    assert joined(records, say("a"), say("b")) == {"parked": 1, "joined": 1}
    assert records.ingest(NOW).damaged == 1
    hour_file(records, HOUR - 4).write_bytes(b"neither" * 100)
    assert list(records.rows("flights", 0, NOW)) == []
    assert records.ingest(NOW).damaged == 1


def test_damaged_pages_are_found_while_reading(records: Records) -> None:
    given(records, *(row(f"a{number:04}/0") for number in range(2000)))
    path = hour_file(records)
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2] + b"\xff" * (len(raw) // 2))
    assert len(list(records.rows("flights", 0, NOW + 1))) < 2000
    assert records.ingest(NOW).damaged == 1


@pytest.mark.parametrize("table", ["prediction", "logged", "tally"])
def test_a_partition_without_a_table_is_damaged(records: Records, table: str) -> None:
    given(records, row("a/0"))
    with closing(sqlite3.connect(hour_file(records))) as partition:
        partition.execute(f"DROP TABLE {table}")
    assert list(records.rows("flights", 0, NOW + 1)) == []
    assert records.ingest(NOW).damaged == 1
    assert given(records, row("b/0")).count == 1


def test_damaged_labels_are_said_to_be(records: Records) -> None:
    given(records, row("a/0"))
    (records.spool.parent / "labels.db").write_bytes(b"no database at all" * 100)
    for ask in (lambda: records.labels("flights", 0, 1), lambda: joined(records, say("a"))):
        with pytest.raises(Unavailable, match="damaged") as caught:
            ask()
        assert caught.value.code == "records_damaged"


def test_a_disk_that_refuses_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "records").write_text("a file where a directory should be")
    with pytest.raises(Unavailable) as caught:
        joined(Records(tmp_path / "records"), say("a"))
    assert caught.value.code == "records_unavailable"


# ---------------------------------------------------------------- several processes

CHILD = """
import json, os, signal, sys
from pathlib import Path
from kedge.adapters.records import store
from kedge.core.evidence.records import COUNTS, Outcome

def die(joining):
    os.kill(os.getpid(), signal.SIGKILL)

directory, names, number, killed = sys.argv[1:]
names = json.loads(Path(names).read_text())
records = store.Records(Path(directory))
if killed == "killed":
    store.Joining.done = die  # everything is written, nothing is committed
print("ready", flush=True)
sys.stdin.readline()
found = dict.fromkeys(COUNTS, 0)
for start in range(0, len(names), 500):
    done = records.join("flights", [Outcome(n, float(number)) for n in names[start:start + 500]], 2e9)
    found = {name: found[name] + getattr(done, name) for name in COUNTS}
print(json.dumps(found))
"""


def child(records: Records, names: Iterable[str], number: int, how: str) -> subprocess.Popen[str]:
    path = records.spool.parent / "names.json"
    path.write_bytes(msgspec.json.encode(list(names)))
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(records.spool.parent), str(path), str(number), how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_two_that_join_at_once_join_each_outcome_once(records: Records) -> None:
    names = [own(number) for number in range(4000)]
    given(records, *(row(f"{name}/0") for name in names))
    both = [child(records, names, number, "whole") for number in (0, 1)]
    for each in both:
        assert each.stdout is not None
        assert each.stdout.readline() == "ready\n"
    for each in both:
        assert each.stdin is not None
        each.stdin.write("\n")
        each.stdin.flush()
    found = [json.loads(each.communicate()[0]) for each in both]
    assert sum(each["joined"] for each in found) == 4000
    assert sum(each["conflicts"] for each in found) == 4000
    assert len(records.labels("flights", 0, 9999)[1]) == 4000
    assert [c.labelled for c in records.coverage("flights")] == [{"": 4000}]


def test_a_join_that_is_killed_leaves_nothing_and_can_be_done_again(records: Records) -> None:
    names = [own(number) for number in range(400)]
    given(records, *(row(f"{name}/0") for name in names[:300]))
    killed = child(records, names, 1, "killed")
    killed.communicate("\n")
    assert killed.returncode == -signal.SIGKILL
    assert values(records) == []
    assert joined(records, *(say(name) for name in names)) == {"joined": 300, "unrecorded": 100}


def test_a_worker_that_still_writes_is_kept(records: Records) -> None:
    with Spool(records.spool, "w0") as worker:
        worker.append([row("a/0")])
        assert (records.waiting(), records.ingest(NOW)) == (0, Ingested())
    assert [path.suffix for path in records.spool.glob("*")] == [CLOSED]
    assert records.ingest(NOW) == Ingested(count=1)


JOIN_ON = """
import sys
from pathlib import Path
from kedge.adapters.records.store import Records
from kedge.core.evidence.records import Outcome
records = Records(Path(sys.argv[1]))
for start in range(0, 3000, 100):
    batch = [Outcome(f"x{n}/0", 1.0) for n in range(start, start + 100)]
    records.join("flights", batch, 2e9)
    print(start, flush=True)
"""


def test_a_joiner_killed_at_any_moment_leaves_whole_batches(records: Records) -> None:
    """kill -9 from outside: afterwards everything can be handed in again, and is there once."""
    given(records, *(row(f"x{n}/0") for n in range(3_000)))
    command = [sys.executable, "-c", JOIN_ON, str(records.spool.parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as joiner:
        assert joiner.stdout is not None
        while joiner.stdout.readline().strip() != "700":
            assert joiner.poll() is None
        joiner.kill()
    _, rows = records.labels("flights", 0, 5_000)
    assert len(rows) % 100 == 0
    assert len(rows) >= 800
    found = records.join("flights", [say(f"x{n}/0") for n in range(3_000)], NOW)
    assert found.joined + found.duplicates == 3_000
    assert len(records.labels("flights", 0, 5_000)[1]) == 3_000


def test_a_record_of_an_older_kedge_is_still_read() -> None:
    """Fields are only ever appended, with a default."""
    raw = msgspec.msgpack.decode(msgspec.msgpack.encode(row("a/0")))
    assert msgspec.convert(raw[:-4], JoinRow).paired is False
