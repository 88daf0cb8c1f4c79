"""History as text: a line an entry, in order of time, with a sentence for each kind."""

from __future__ import annotations

import msgspec
import pytest

from kedge.cli.text.history import by_time, history_text
from kedge.core.release import commands as r
from kedge.core.stored.ledger import Entry, Note
from kedge.core.stored.stories import story
from kedge.core.stored.upcast import read_body
from kedge.operations.history import is_noise
from kedge.testing.samples import AT

ENTRY = Entry(
    seq=1,
    endpoint="flights",
    epoch=3,
    at=AT,
    by="ada",
    reason="it burns",
    event=r.Paused(),
    previous_hash="",
    hash="",
)


def at(*times: str) -> list[Entry]:
    return [
        msgspec.structs.replace(ENTRY, seq=n, at=f"2026-11-24T{t}Z") for n, t in enumerate(times)
    ]


def seqs(entries: list[Entry]) -> list[int]:
    return [entry.seq for entry in by_time(entries)]


def test_a_line_has_time_actor_event_and_reason() -> None:
    quiet = msgspec.structs.replace(ENTRY, epoch=2, reason="", event=r.Resumed())
    assert history_text([ENTRY, quiet]) == (
        "2026-01-05T08:00:00.000Z  epoch 3    ada: the rollout is held — it burns\n"
        "2026-01-05T08:00:00.000Z  epoch 2    ada: the rollout continues"
    )
    assert history_text([]) == ""


def test_entries_of_one_moment_are_in_order_of_time() -> None:
    assert seqs(at("22:34:32.200", "22:34:32.109", "22:34:32.133", "22:34:31.000")) == [0, 2, 1, 3]


def test_entries_of_one_time_stay_as_they_were_written() -> None:
    assert seqs(at("22:00:00", "22:00:00", "22:00:00")) == [0, 1, 2]


def test_a_clock_that_was_set_back_changes_no_order() -> None:
    assert seqs(at("10:00:01", "10:00:00", "22:00:00", "21:59:59")) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "note, said",
    [
        (
            Note(
                "registered",
                {"version": "v1", "flavour": "onnx", "digest": "sha256:0123456789abcdef"},
            ),
            "v1 was registered (onnx, sha256:0123456789ab)",
        ),
        (
            Note("inline_trusted", {"version": "v1", "digest": ""}),
            "v1 may run inside the gateway's workers, unproven",
        ),
        (
            Note("features_applied", {"version": "risk/1#1", "outcome": None, "digest": ""}),
            "transformation risk/1#1 was made",
        ),
        (
            Note("features_applied", {"version": "risk/1#2", "outcome": "changed", "digest": ""}),
            "transformation risk/1#2 was made, changed against the version before",
        ),
        (
            Note("pin_drifts", {"host": "vm", "why": "the row moved on"}),
            "host vm stays pinned: the row moved on",
        ),
        (
            Note("evidence_lost", {"subject": 2, "detail": "evidence.db.unreadable-1"}),
            "evidence was lost; kept: evidence.db.unreadable-1",
        ),
        (Note("evidence_lost", {"subject": 2, "detail": ""}), "evidence was lost"),
        (
            Note("alert_acknowledged", {"alert": 1, "key": "failing:r2"}),
            "alert 1 (failing:r2) was acknowledged",
        ),
        (
            Note("alert_resolved", {"alert": 1, "key": "failing:r2"}),
            "alert 1 (failing:r2) is resolved",
        ),
        (
            Note("alert_continued", {"alert": 1, "key": "failing:r2"}),
            "an operator continued despite alert 1 (failing:r2)",
        ),
        (
            Note("readiness", {"ready": False, "failed": ["drill"], "promoting": "r3"}),
            "r3 is let into production; not ready, these checks fail: drill",
        ),
        (Note("readiness", {"ready": True, "failed": []}), "ready"),
        (Note("something new", {"a": 1}), "something new: a 1"),
    ],
)
def test_a_note_is_a_story(note: Note, said: str) -> None:
    assert story(Note(note.kind, read_body(note.kind, note.body))) == said


def test_only_what_another_entry_brought_with_it_is_left_out() -> None:
    kinds = ("runbook", "receipt", "verdict", "drill", "registered")
    entries = [msgspec.structs.replace(ENTRY, event=Note(kind, {})) for kind in kinds]
    assert [is_noise(entry) for entry in (*entries, ENTRY)] == [True, *[False] * 5]
