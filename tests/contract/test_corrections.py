"""Corrections of labels, and predictions that leave no record: on a real disk, and as evidence has them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from contract.test_records import HOUR, NOW, counts, given, joined, own, row, say, values
from kedge.adapters.records.store import SETTLED_S, Records
from kedge.core.evidence.records import (
    HORIZON_S,
    HOUR_PART,
    HOUR_S,
    PARKED_S,
    Correction,
    Known,
    Outcome,
)
from kedge.core.values import Output, Policy, Stage, State
from kedge.engine.control import patrol
from kedge.engine.control.patrol import fold_labels
from kedge.engine.watch import Watch

BY = "ada@host"


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(tmp_path / "records")


def correct(records: Records, *outcomes: Outcome, now: float = NOW + 60) -> dict[str, int]:
    return counts(records.join("flights", outcomes, now, by=BY))


def test_a_correction_replaces_the_value_and_keeps_what_it_was(records: Records) -> None:
    given(records, row("a/0"), row("b/0"), row("c/0"))
    joined(records, say("a", 1.0), say("b", 1.0))
    changed = [say("a", 0.0, at=NOW + 9), say("b", 1.0), say("c", 1.0)]
    assert correct(records, *changed) == {"corrected": 1, "duplicates": 1, "joined": 1}
    assert values(records) == [("a/0", 0.0), ("b/0", 1.0), ("c/0", 1.0)]
    assert joined(records, say("a", 0.5)) == {"conflicts": 1}, "without correcting the first stands"
    assert correct(records, say("a/0", None, at=None), now=NOW + 90) == {"corrected": 1}
    assert records.corrections("flights", 9) == (
        2,
        (
            Correction("a/0", "flights", "", 0.0, NOW + 9, None, None, BY, NOW + 90),
            Correction("a/0", "flights", "", 1.0, NOW, 0.0, NOW + 9, BY, NOW + 60),
        ),
    )
    (cover,) = records.coverage("flights")
    assert (cover.labelled, cover.declined) == ({"": 2}, {"": 1})


def test_a_corrections_row_is_never_changed(records: Records) -> None:
    given(records, row("a/0"))
    joined(records, say("a", 1.0))
    correct(records, say("a", 0.0))
    refused = pytest.raises(sqlite3.IntegrityError, match="a correction is never changed")
    with closing(sqlite3.connect(records.spool.parent / "labels.db")) as labels, refused:
        labels.execute("UPDATE correction SET was = value")


def test_a_label_that_waits_is_corrected_where_it_waits(records: Records) -> None:
    joined(records, say("a", 1.0))
    assert correct(records, say("a", 0.0)) == {"corrected": 1}
    assert counts(given(records, row("a/0"), now=NOW + 70).adopted) == {"joined": 1}
    assert values(records) == [("a/0", 0.0)]
    assert records.corrected("flights", 0) == (1, None), "nothing was judged by what it was"


def test_corrections_go_with_their_unit_and_with_their_hour(records: Records) -> None:
    given(records, row("a/0", unit="N1"), row("b/0", unit="N2"))
    joined(records, say("a", 1.0), say("b", 1.0))
    correct(records, say("a", 0.0), say("b", 0.0))
    records.forget("N1")
    assert [one.id for one in records.corrections("flights", 9)[1]] == ["b/0"]
    records.prune(NOW + HORIZON_S + 2 * HOUR_S)
    assert records.corrections("flights", 9) == (0, ())


def test_an_earlier_kedges_labels_have_no_corrections(records: Records) -> None:
    given(records, row("a/0"))
    with closing(sqlite3.connect(records.spool.parent / "labels.db")) as labels:
        labels.execute("DROP TABLE correction")
        labels.execute("DROP TABLE unrecorded")
    assert (records.corrections("flights", 9), records.unrecorded("flights")) == ((0, ()), {})
    assert records.corrected("flights", 7) == (7, None)
    assert joined(records, say("a")) == {"joined": 1}


# ---------------------------------------------------------------- evidence

STATE = State(
    endpoint="flights",
    stage=Stage.CANARY,
    production=1,
    candidate=2,
    salt="s",
    weight=5_000,
    policy=Policy(output=Output(kind="binary", score="p", threshold=0.5)),
)


def fold(records: Records, watch: Watch) -> Watch:
    while fold_labels(records, STATE, watch, NOW + 100):
        pass
    return watch


def figures(watch: Watch) -> Any:
    quality = next(v for v in watch.verdicts() if (v.metric, v.segment) == ("quality", ""))
    kept = msgspec.structs.replace(watch.labels, corrected=0)
    return quality, kept, watch.facts(NOW + 100).overall


@pytest.mark.parametrize("unit", [lambda n: "", lambda n: f"caller-{n % 90}"])
@pytest.mark.parametrize("taken_over", [False, True])
def test_evidence_is_what_it_would_be_had_the_labels_been_right_at_once(
    tmp_path: Path, unit: Callable[[int], str], *, taken_over: bool
) -> None:
    """Wrong labels make the candidate fail; corrected, it is as good as production."""
    wrong, right = Records(tmp_path / "wrong"), Records(tmp_path / "right")
    arms = ["candidate" if n % 2 else "production" for n in range(240)]
    for records in (wrong, right):
        given(
            records,
            *(
                row(f"r{n}/0", NOW - 300 + n, arm=arm, weight=5_000, score=0.9, unit=unit(n))
                for n, arm in enumerate(arms)
            ),
        )
    truth: list[Known] = [float(n % 9 != 0) for n in range(240)]
    said: list[Known] = [
        0.0 if arm == "candidate" else one for arm, one in zip(arms, truth, strict=True)
    ]
    joined(wrong, *(say(f"r{n}", one) for n, one in enumerate(said)))
    joined(right, *(say(f"r{n}", one) for n, one in enumerate(truth)))
    watch = fold(wrong, Watch(STATE))
    assert figures(watch)[0].verdict == "fail"
    if taken_over:
        watch = Watch(STATE, watch.snapshot())
    found = correct(wrong, *(say(f"r{n}", one) for n, one in enumerate(truth)))
    assert found["corrected"] == sum(a != b for a, b in zip(said, truth, strict=True))
    assert figures(fold(wrong, watch)) == figures(fold(right, Watch(STATE)))
    assert figures(watch)[0].verdict != "fail"
    assert figures(fold(wrong, Watch(STATE)))[1] == figures(watch)[1]


def test_a_label_that_is_not_folded_yet_is_folded_as_it_was_corrected(records: Records) -> None:
    given(records, *(row(f"r{n}/0", arm="candidate", weight=5_000, score=0.9) for n in range(9)))
    joined(records, say("r0", 1.0))
    watch = fold(records, Watch(STATE))
    joined(records, say("r1", 0.0))
    correct(records, say("r1", 1.0))
    before = watch.labels
    assert fold(records, watch).labels.units == (0, 2)
    assert watch.labels.loss == (0.0, 0.0)
    assert before.cursor == 1


def test_corrections_that_keep_coming_do_not_keep_the_labels_from_being_judged(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patrol, "LABELS", 2)
    given(records, *(row(f"r{n}/0", arm="candidate", weight=5_000, score=0.9) for n in range(9)))
    joined(records, *(say(f"r{n}", 1.0) for n in range(9)))
    watch, folded = Watch(STATE), []
    for n in range(12):
        correct(records, say("r0", float(n % 2)))
        fold_labels(records, STATE, watch, NOW + 100)
        folded.append(watch.labels.units[1])
    assert max(folded) == 9
    assert fold(records, watch).labels.loss == (0.0, 0.0)
    correct(records, say("r0", 0.0))
    assert fold(records, watch).labels.loss == (0.0, 1.0)


def test_labels_that_are_handed_in_again_after_their_file_was_lost_are_judged(
    records: Records, tmp_path: Path
) -> None:
    """What files.md says of labels.db: hand the outcomes in again."""
    given(records, *(row(f"r{n}/0", arm="candidate", weight=5_000, score=0.9) for n in range(9)))
    joined(records, *(say(f"r{n}", 1.0) for n in range(9)))
    watch = fold(records, Watch(STATE))
    (records.spool.parent / "labels.db").rename(tmp_path / "aside.db")
    joined(records, *(say(f"r{n}", 0.0) for n in range(4)))
    assert fold(records, watch).labels.units == (0, 4)
    assert watch.labels.loss == (0.0, 4.0)
    correct(records, say("r0", 1.0))
    assert fold(records, watch).labels.loss == (0.0, 3.0)


# ---------------------------------------------------------------- what leaves no record


def test_a_request_that_repeats_an_id_is_counted_by_cause(records: Records) -> None:
    other = b"another."
    given(
        records,
        row("42/0", digest=other),
        row("42/0", NOW + 1, digest=b"inputs.."),
        row("42/0", NOW + 2, digest=other),
        row("trains/0", endpoint="trains"),
    )
    assert records.unrecorded("flights") == {"id_reused": 1, "retry": 1}
    assert records.unrecorded("trains") == {}
    records.prune(NOW + HORIZON_S + 2 * HOUR_S)
    assert records.unrecorded("flights") == {}


def test_copies_that_the_byte_limits_drop_are_counted_by_cause(records: Records) -> None:
    given(records, row("a/0", NOW - HOUR_S), row("b/0", NOW - HOUR_S))
    records._hours.keep_bytes = 1
    given(records, row("c/0"))
    assert records.unrecorded("flights") == {"all_bytes": 2}
    records._hours.keep_bytes = HOUR_PART
    given(records, row("d/0"), row("e/0"))
    assert records.unrecorded("flights") == {"all_bytes": 2, "hour_bytes": 2}


def test_a_label_of_an_unrecorded_request_is_distinguished_from_a_waiting_one(
    records: Records,
) -> None:
    """By the time in the id, and by what is still on its way."""
    old, new = own(1), own(1, HOUR + 1)
    now = (HOUR + 1) * HOUR_S + 5.0
    assert joined(records, say(old), say(new), say("mine"), now=now) == {
        "unrecorded": 1,
        "parked": 2,
    }
    assert counts(given(records, row(f"{old}/0"), now=now).adopted) == {"joined": 1}


def test_while_a_worker_holds_a_file_back_its_predictions_may_come(records: Records) -> None:
    records.spool.mkdir(parents=True)
    begun = HOUR * HOUR_S - 1
    (records.spool / f"w0-1-0-{begun}.new").touch()
    late = begun + 3600
    assert joined(records, say(own(0)), now=late) == {"parked": 1}
    before = begun - SETTLED_S - 1
    assert joined(records, say(own(int((before % HOUR_S) * 1000), HOUR - 1)), now=late) == {
        "unrecorded": 1
    }
    assert records.prune(late + PARKED_S + 1) == 2
