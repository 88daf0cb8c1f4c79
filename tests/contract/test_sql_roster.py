"""The serving replicas, and their counts."""

from __future__ import annotations

from pathlib import Path

from contract.sql_world import Other, publishes
from kedge.adapters.sql.roster import SqlEvidence, SqlRoster
from kedge.adapters.sql.sqlite.create import TELEMETRY_PATIENCE_S, open_evidence, open_roster
from kedge.core.stored.roster import Member, ReplicaHold, Tally
from kedge.core.values import Placement


def member(name: str, beat: float = 1.0) -> Member:
    """What a replica says of itself."""
    return Member(
        name=name,
        host="here",
        pid=7,
        kind="gateway",
        address="http://127.0.0.1:8080",
        started_at="2026-11-23T12:00:00.000000Z",
        beat_at=beat,
        ledger_at=beat,
        epochs={"flights": 3},
        holds=(
            ReplicaHold(endpoint="flights", release=1, placement=Placement.INLINE, state="ready"),
        ),
    )


def tally(replica: str = "a", candidate: int | None = None, n: int = 1) -> Tally:
    """What a replica counted."""
    return Tally(
        replica=replica,
        endpoint="flights",
        production=1,
        candidate=candidate,
        salt="",
        counts={"requests": n},
        latency={"production": {12: n, 40: 1}},
    )


def test_the_newest_word_of_a_replica_counts(tmp_path: Path) -> None:
    """Each is known once, whole, by name."""
    roster = SqlRoster(open_roster(tmp_path))
    assert roster.members() == ()
    for said in (member("b"), member("a"), member("b", beat=2.0)):
        roster.publish(said)
    assert roster.members() == (member("a"), member("b", beat=2.0))


def test_a_replica_that_left_is_forgotten(tmp_path: Path) -> None:
    """And one that was never known leaves without a word."""
    roster = SqlRoster(open_roster(tmp_path))
    roster.publish(member("a"))
    roster.leave("a")
    roster.leave("a")
    assert roster.members() == ()


def test_counting_twice_counts_once(tmp_path: Path) -> None:
    """A tally is written over the one with the same key, also where there is no candidate."""
    evidence = SqlEvidence(open_evidence(tmp_path))
    evidence.publish([])
    evidence.publish([tally(n=5), tally(candidate=2, n=5)])
    evidence.publish([tally(n=9), tally("b", n=1)])
    assert evidence.tallies("flights") == (tally(n=9), tally(candidate=2, n=5), tally("b", n=1))
    assert evidence.tallies("taxis") == ()


def test_eight_replicas_that_publish_at_once_are_all_heard(tmp_path: Path) -> None:
    """No process times out and no last report is lost; the first start is a race too."""
    names = [f"replica-{number}" for number in range(8)]
    others = [
        Other(publishes, tmp_path, [member(name, float(beat)) for beat in range(20)])
        for name in names
    ]
    for other in others:
        other.heard()
    for other in others:
        other.told.send("go")
    assert all(other.heard() < TELEMETRY_PATIENCE_S for other in others)
    found = SqlRoster(open_roster(tmp_path)).members()
    assert [(who.name, who.beat_at) for who in found] == [(name, 19.0) for name in names]


def test_the_stamp_signals_an_ack(tmp_path: Path) -> None:
    """A command that waits for acks need not read the roster until one came."""
    watcher, replica = SqlRoster(open_roster(tmp_path)), SqlRoster(open_roster(tmp_path))
    replica.publish(member("a"))
    seen = watcher.stamp()
    assert watcher.stamp() == seen
    replica.publish(member("a", beat=2.0))
    assert watcher.stamp() != seen
