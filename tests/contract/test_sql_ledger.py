"""The ledger: the promises of an append, and the refusals of the database to every client."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contract.sql_world import (
    POLICY,
    Other,
    World,
    appends_for_ever,
    at,
    bundle,
    promotes,
    version,
    world,
)
from kedge.adapters.sql.features import SqlFeatures
from kedge.adapters.sql.ledger import SqlLedger
from kedge.adapters.sql.sqlite import create
from kedge.adapters.sql.sqlite.version import dbapi
from kedge.core import codec
from kedge.core.errors import Refused, Stale, Unavailable
from kedge.core.features.schema import Feature, declared
from kedge.core.release.commands import (
    AnyCommand,
    Canary,
    Configured,
    Freeze,
    Pause,
    Promote,
    Promoted,
    Rollback,
    SetWeight,
    Shadow,
    WeightSet,
)
from kedge.core.stored.ledger import Change, Note, Wanted
from kedge.core.values import Placement, Policy, Stage

NOTE = Note(kind="receipt", body={"ms": 3})


@pytest.fixture
def made(tmp_path: Path) -> World:
    """A ledger with r1, r2, r3 of flights and a policy in force."""
    return world(tmp_path)


# ---------------------------------------------------------------- append and read


def test_a_state_directory_may_be_a_link_to_another_disk(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "state").symlink_to("disk")
    create.create(tmp_path / "state")
    assert (tmp_path / "disk" / "ledger" / "ledger.db").is_file()


def test_an_unknown_ledger_is_empty(tmp_path: Path) -> None:
    """No endpoint, no wish."""
    made = world(tmp_path, releases=0, configured=False)
    assert made.ledger.read().states == {}
    assert made.ledger.read().wanted == ()


def test_an_endpoint_that_was_never_changed_shows_its_releases(tmp_path: Path) -> None:
    """Else the first command could not name one."""
    made = world(tmp_path, configured=False)
    assert (made.row().epoch, set(made.row().releases)) == (0, {1, 2, 3})


def test_what_is_read_is_what_was_folded(made: World) -> None:
    """Every column survives the way into the database and back, in another process's eyes."""
    from kedge.core.release.machine import apply

    walk: list[AnyCommand] = [
        Promote(release=1),
        Shadow(release=2, sample=5000),
        Pause(),
        Canary(release=2, weight=100, override="a test"),
        SetWeight(weight=2500),
        Rollback(),
        Promote(release=3, override="a test"),
        Rollback(),
    ]
    folded = made.row()
    for command in walk:
        for entry in made.do(command):
            assert not isinstance(entry.event, Note)
            folded = apply(folded, entry.event)
        assert World(made.state_dir).row() == folded
    assert folded.condemned == (2, 3)
    assert folded.policy == POLICY


def test_a_ledger_of_before_the_contract_of_answers_takes_one_at_its_next_promotion(
    tmp_path: Path,
) -> None:
    """Its bytes stay; the row's new column begins empty, and the fold agrees with it."""
    made = world(tmp_path)
    old = Promoted(release=1, replaced=None, at=at())  # as it was written then
    made.ledger.append("flights", [old], expect=1, by="ada", reason="", at=at())
    made.close()
    with made.raw() as raw:
        before = raw.execute("SELECT event, hash FROM ledger ORDER BY seq").fetchall()
        raw.execute("ALTER TABLE endpoint DROP COLUMN answers")
        raw.execute("ALTER TABLE wanted DROP COLUMN copies")
        raw.execute("ALTER TABLE ledger DROP COLUMN token")
        raw.execute("DROP TABLE token")
        raw.execute("DROP TABLE announcement")
        raw.execute("UPDATE alembic_version SET version_num = '0005'")
    create.migrate(made.state_dir)
    own = World(made.state_dir)
    assert own.row().answers is None
    assert own.ledger.verify() == []
    own.do(Promote(release=2, override="a test"))
    assert own.row().answers == own.row().releases[1].signature.outputs
    assert own.ledger.verify() == []
    with own.raw() as raw:
        after = raw.execute("SELECT event, hash FROM ledger ORDER BY seq").fetchall()
    assert after[: len(before)] == before
    assert b"answers" not in str(before[-1]).encode()


def test_an_append_of_several_events_is_one_step(made: World) -> None:
    """An entry and an epoch for each, and one row at the end of them."""
    made.do(Promote(release=1))
    made.do(Promote(release=2, override="a test"))
    made.do(Shadow(release=3))
    epoch = made.row().epoch
    entries = made.do(Rollback())
    assert [type(entry.event).__name__ for entry in entries] == ["Aborted", "RolledBack"]
    assert [entry.epoch for entry in entries] == [epoch + 1, epoch + 2]
    assert entries[1].previous_hash == entries[0].hash
    assert made.row().epoch == epoch + 2


def test_an_append_that_fails_half_way_changes_nothing(made: World) -> None:
    """The second event names a release that does not exist."""
    before = made.row()
    events = [
        Promoted(release=1, replaced=None, at=at()),
        Promoted(release=77, replaced=1, at=at()),
    ]
    with pytest.raises(Refused) as raised:
        made.ledger.append("flights", events, expect=before.epoch, by="a", reason="", at=at())
    assert raised.value.code == "constraint"
    assert made.row() == before
    assert len(made.ledger.history("flights")) == 1


def test_an_append_of_nothing_is_nothing(made: World) -> None:
    """No entry, no epoch."""
    assert made.ledger.append("flights", [], expect=1, by="a", reason="", at=at()) == ()
    assert made.row().epoch == 1


def test_several_endpoints_and_the_head_of_a_schema_move_together_or_not_at_all(
    made: World,
) -> None:
    """One of them has moved on meanwhile: no follower moves, and the head stays."""
    made.release(4, "trips")
    rows = {name: made.row(name) for name in ("flights", "trips")}
    numbers = {name: min(row.releases) for name, row in rows.items()}
    changes = [
        Change(name, (Promoted(release=numbers[name], replaced=None, at=at()),), row.epoch)
        for name, row in rows.items()
    ]
    spec = declared("view/1", {"x": Feature("float64")}, [])
    features = SqlFeatures(made.database)
    features.add(spec, "sha256:1")
    features.add(spec, "sha256:2")
    words = {"by": "a", "reason": "", "at": at()}
    made.do(Freeze(), "trips")
    with pytest.raises(Stale, match="trips is now at epoch"):
        made.ledger.append_all(changes, head=("view/1", 2), **words)
    assert made.row("flights") == rows["flights"]
    assert features.heads() == {"view/1": 1}, "at first its first transformation"
    moved = [changes[0], Change("trips", changes[1].events, made.row("trips").epoch)]
    written = made.ledger.append_all(moved, head=("view/1", 2), **words)
    assert [[entry.endpoint for entry in entries] for entries in written] == [
        ["flights"],
        ["trips"],
    ]
    assert written[1][0].previous_hash == written[0][0].hash
    assert {made.row(name).production for name in rows} == set(numbers.values())
    assert features.heads() == {"view/1": 2}
    assert made.ledger.verify() == []


def test_endpoints_do_not_touch_each_other(made: World) -> None:
    """Each has its own epochs, releases and rows; the chain is common."""
    made.release(1, "taxis")
    made.configure(endpoint="taxis")
    made.do(Promote(release=1), "taxis")
    made.do(Promote(release=1))
    assert made.row().epoch == made.row("taxis").epoch == 2
    assert set(made.row("taxis").releases) == {1}
    assert made.ledger.verify() == []


def test_a_pardoned_release_is_condemned_no_more(made: World) -> None:
    """The table follows the state both ways, and keeps the order of condemning."""
    for number in (1, 2, 3):
        made.do(Promote(release=number, override="a test"))
    made.do(Rollback())
    made.do(Rollback())
    assert made.row().condemned == (3, 2)
    made.do(Promote(release=3, override="a test"))
    assert World(made.state_dir).row().condemned == (2,)


def test_a_new_release_is_seen_by_a_ledger_that_has_read_before(made: World) -> None:
    """The cache of releases knows what it does not know; what was read stays as it was."""
    other = World(made.state_dir)
    seen = other.row().releases
    made.release(4)
    assert set(other.row().releases) == {1, 2, 3, 4}
    assert set(seen) == {1, 2, 3}


def test_one_digest_is_one_policy(made: World) -> None:
    """A second policy under the digest of the first is refused."""
    digest = codec.fingerprint(POLICY)
    other = Configured(policy=Policy(back_window="1d"), digest=digest)
    with pytest.raises(Refused) as raised:
        made.ledger.append("flights", [other], expect=1, by="a", reason="", at=at())
    assert raised.value.code == "policy_digest"


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE endpoint SET epoch = 7",
        "UPDATE endpoint SET stage = 'limbo'",
        "UPDATE endpoint SET served = x'00'",
        "UPDATE policy SET body = x'7b7d7d'",
    ],
)
def test_a_row_that_contradicts_itself_is_not_served(made: World, sql: str) -> None:
    """What was moved by hand is noticed on read, and named by verify."""
    with made.raw() as raw:
        raw.execute(sql)
    assert made.ledger.verify() != []
    with pytest.raises(Unavailable) as raised:
        made.ledger.read()
    assert raised.value.code == "ledger_damaged"


# ---------------------------------------------------------------- notes, wishes, history, stamp


def test_a_note_changes_no_row(made: World) -> None:
    """It carries the endpoint's epoch and is chained like any entry."""
    before = made.row()
    entry = made.ledger.note("flights", NOTE, by="kedge", reason="", at=at())
    assert (entry.epoch, entry.event) == (before.epoch, NOTE)
    assert made.row() == before
    assert made.ledger.note("nobody", NOTE, by="kedge", reason="", at=at()).epoch == 0
    assert made.ledger.verify() == []


def test_history_is_newest_first(made: World) -> None:
    """Notes stand after the entry whose epoch they carry, and the limit keeps the newest."""
    made.do(Promote(release=1))
    made.ledger.note("flights", NOTE, by="kedge", reason="", at=at())
    made.ledger.note("taxis", NOTE, by="kedge", reason="", at=at())
    found = made.ledger.history("flights")
    assert [type(entry.event).__name__ for entry in found] == ["Note", "Promoted", "Configured"]
    assert made.ledger.history("flights", 2) == found[:2]


def test_a_wish_dies_with_its_time(made: World) -> None:
    """It is neither read nor kept after `until`; renewing it lengthens it."""
    now = [100.0]
    ledger = SqlLedger(made.database, unix=lambda: now[0])

    def want(release: int, until: float) -> None:
        placement = Placement.PROCESS
        ledger.want(Wanted("flights", release, placement, until=until, by="ada"))

    want(1, 110.0)
    want(2, 105.0)
    assert [wish.release for wish in ledger.read().wanted] == [1, 2]
    now[0] = 107.0
    assert [wish.release for wish in ledger.read().wanted] == [1]
    want(1, 120.0)
    now[0] = 115.0
    assert [wish.until for wish in ledger.read().wanted] == [120.0]
    with made.raw() as raw:
        assert raw.execute("SELECT count(*) FROM wanted").fetchone() == (1,)


def test_the_stamp_moves_only_with_commits(made: World) -> None:
    """With another connection's, with its own, and not with reading."""
    other = World(made.state_dir)
    seen = other.ledger.stamp()
    other.row()
    assert other.ledger.stamp() == seen
    made.do(Promote(release=1))
    assert other.ledger.stamp() != seen
    seen = other.ledger.stamp()
    other.do(Promote(release=2, override="a test"))
    assert other.ledger.stamp() != seen


# ---------------------------------------------------------------- compare and set


def test_the_loser_gets_the_name_and_reason_of_the_winner(made: World) -> None:
    """The words name the epoch, the person and the reason; the details are for programs."""
    row = made.row()
    made.do(Promote(release=1), by="ada", reason="it is Monday")
    event = Promoted(release=2, replaced=None, at=at())
    with pytest.raises(Stale) as raised:
        made.ledger.append("flights", [event], expect=row.epoch, by="bob", reason="", at=at())
    assert str(raised.value) == ("stale: flights is now at epoch 2, by ada, because it is Monday")
    assert raised.value.details == {"epoch": 2, "by": "ada", "reason": "it is Monday"}
    assert made.row().production == 1


def test_an_epoch_of_the_future_is_stale_too(made: World) -> None:
    """Also for an unknown endpoint."""
    event = WeightSet(weight=1, previously=0)
    for endpoint in ("flights", "nobody"):
        with pytest.raises(Stale):
            made.ledger.append(endpoint, [event], expect=9, by="a", reason="", at=at())


def test_of_two_processes_that_saw_the_same_epoch_one_wins(made: World) -> None:
    """Five times over; the other is stale, and names the winner."""
    for _ in range(5):
        epoch = made.row().epoch
        made.close()
        both = [Other(promotes, made.state_dir, n, by) for n, by in ((1, "ada"), (2, "bob"))]
        for other in both:
            other.heard()
        for other in both:
            other.told.send("go")
        (lost, named), (won, winner) = sorted(other.heard() for other in both)
        assert (lost, won) == ("stale", "won")
        assert named == winner
        assert made.row().epoch == epoch + 1


# ---------------------------------------------------------------- what the database refuses


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE ledger SET reason = 'it was Bob' WHERE seq = 1",
        "DELETE FROM ledger WHERE seq = 2",
        "DELETE FROM ledger",
        "INSERT OR REPLACE INTO ledger SELECT * FROM ledger WHERE seq = 1",
        "UPDATE release SET body = x'' WHERE number = 1",
        "DELETE FROM release WHERE number = 3",
        "INSERT OR REPLACE INTO release SELECT * FROM release WHERE number = 3",
        "UPDATE model_version SET digest = 'sha256:flights-2' WHERE number = 1",
        "UPDATE model_version SET removed_at = 1.0, body = x'' WHERE number = 1",
        "DELETE FROM model_version WHERE number = 3",
        "INSERT OR REPLACE INTO model_version SELECT * FROM model_version WHERE number = 3",
        "INSERT INTO model_version VALUES ('flights', 9, 'sha256:flights-1', NULL, x'', NULL)",
    ],
)
def test_history_cannot_be_rewritten_by_sql(made: World, sql: str) -> None:
    """Not by a change, not by a deletion, not by a replacement."""
    made.do(Promote(release=1))
    with made.raw() as raw, pytest.raises(dbapi.IntegrityError):
        raw.execute(sql)
    assert made.ledger.verify() == []


@pytest.mark.parametrize(
    "column", ["production", "previous", "candidate", "back", "back_model", "back_features"]
)
def test_a_row_cannot_name_a_release_that_does_not_exist(made: World, column: str) -> None:
    """Nor one of another endpoint: the key is (endpoint, number)."""
    for number in range(1, 6):
        made.release(number, "taxis")
    with made.raw() as raw, pytest.raises(dbapi.IntegrityError):
        raw.execute(f"UPDATE endpoint SET {column} = 5 WHERE endpoint = 'flights'")


RELEASE = (
    "INSERT INTO release (endpoint, number, digest, model, version, schema_id, transformation,"
    " generation, placement, body) VALUES ('flights', 9, 'd', 'flights', ?, ?, ?, ?, 'inline', x'')"
)


@pytest.mark.parametrize(
    "pins",
    [
        (9, None, None, None),
        (4, None, None, None),
        (4, "view/2", None, None),
        (1, "view/1", None, None),
        (4, "view/1", 7, None),
        (1, None, 1, None),
        (4, "view/1", None, "g1"),
        (4, "view/1", 1, "g9"),
    ],
    ids=[
        "no such version",
        "the schema left out",
        "another schema",
        "a schema where the model has none",
        "another schema's transformation",
        "a transformation without a schema",
        "a generation without a transformation",
        "no such generation",
    ],
)
def test_a_release_cannot_break_its_pin_by_sql(made: World, pins: tuple[Any, ...]) -> None:
    """v4 was made for view/1, whose only transformation is 1; 7 is one of view/2."""
    made.registry.add(version(4, schema="view/1"))
    made.registry.add(version(5, schema="view/2"))
    with made.raw() as raw:
        raw.execute("INSERT INTO transform_version VALUES ('view/1', 1, 'a'), ('view/2', 7, 'b')")
        with pytest.raises(dbapi.IntegrityError):
            raw.execute(RELEASE, pins)
        raw.execute(RELEASE, (4, "view/1", 1, None))


# ---------------------------------------------------------------- verify


TAMPER = {
    "a reason": ("UPDATE ledger SET reason = 'it was Bob' WHERE seq = 2", "entry 2 was changed"),
    "an author": ("UPDATE ledger SET by = 'bob' WHERE seq = 1", "entry 1 was changed"),
    "an event": (
        "UPDATE ledger SET event = replace(event, '\"release\":1', '\"release\":2') WHERE seq = 2",
        "entry 2 was changed",
    ),
    "an entry less": ("DELETE FROM ledger WHERE seq = 2", "entry 2 is missing"),
    "the row": ("UPDATE endpoint SET production = 3", "production is 3; its entries say 2"),
    "a way back": ("UPDATE endpoint SET back = 3", "back is 3; its entries say 1"),
    "the policy": (
        "UPDATE policy SET body = replace(CAST(body AS TEXT), 'internal', 'customer')",
        "the policy is not the one",
    ),
    "the condemned": (
        "INSERT INTO condemned VALUES ('flights', 3, 1)",
        "condemned is (3,); its entries say ()",
    ),
    "a release": (
        "UPDATE release SET body = replace(CAST(body AS TEXT), 'inline', 'process') WHERE id = 2",
        "release r2 of flights was changed",
    ),
    "a version": (
        "UPDATE model_version SET digest = (SELECT max(digest) FROM artifact) WHERE number = 1",
        "model version v1 of flights: its columns",
    ),
    "a key": (
        "UPDATE condemned SET seq = 99; INSERT INTO condemned VALUES ('flights', 77, 1)",
        "condemned, row 1: names a release that does not exist",
    ),
}


@pytest.mark.parametrize("what", TAMPER)
def test_tampering_is_found(made: World, what: str) -> None:
    """By an editor who dropped every trigger first."""
    made.do(Promote(release=1))
    made.do(Promote(release=2, override="a test"))
    assert made.ledger.verify() == []
    sql, fault = TAMPER[what]
    with made.raw() as raw:
        raw.execute("PRAGMA foreign_keys=OFF")
        names = raw.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall()
        for (name,) in names:
            raw.execute(f"DROP TRIGGER {name}")
        raw.execute("DROP INDEX model_version_by_digest")
        raw.executescript(sql)
    found = made.ledger.verify()
    assert any(fault in line for line in found), found


def test_a_rewritten_entry_with_a_hash_to_match_breaks_the_chain(made: World) -> None:
    """An editor who recomputes one hash must recompute every later one."""
    made.do(Promote(release=1))
    with made.raw() as raw:
        raw.execute("DROP TRIGGER ledger_no_update")
        columns = (
            "seq",
            "endpoint",
            "epoch",
            "at",
            "by",
            "reason",
            "event",
            "previous_hash",
            "actor",
        )
        row = raw.execute(f"SELECT {', '.join(columns)} FROM ledger WHERE seq = 1").fetchone()
        entry = {**dict(zip(columns, row, strict=True)), "by": "bob"}
        forged = codec.chain(entry["previous_hash"], entry)
        raw.execute("UPDATE ledger SET by = 'bob', hash = ? WHERE seq = 1", (forged,))
    assert made.ledger.verify() == ["entry 2 is not chained to the entry before it"]


def test_verify_agrees_with_a_long_random_life(made: World) -> None:
    """Random commands, most of them refused; then everything folds to the same rows."""
    from kedge.core.release.commands import Abort, Resume
    from kedge.core.release.machine import decide
    from kedge.core.values import Refusal

    dice = random.Random(7)
    commands: list[Callable[[int], AnyCommand]] = [
        lambda n: Promote(release=n, override="dice"),
        lambda n: Promote(),
        lambda n: Shadow(release=n),
        lambda n: Canary(release=n, weight=100 * n, override="dice"),
        lambda n: Pause(),
        lambda n: Resume(),
        lambda n: Abort(),
        lambda n: Rollback(),
        lambda n: Rollback(to=n),
    ]
    for step in range(200):
        if step % 40 == 0:
            made.release(10 + step)
        command = dice.choice(commands)(dice.randint(1, 6))
        if not isinstance(decide(made.row(), command, at()), Refusal):
            made.do(command)
    assert made.row().epoch > 20
    assert made.ledger.verify() == []


# ---------------------------------------------------------------- crashes


def test_kill_nine_at_any_instant_loses_nothing_that_returned(made: World) -> None:
    """Twenty writers are killed in the middle; every append that returned is there, whole."""
    dice = random.Random(20)
    returned: list[tuple[int, str]] = []
    for _ in range(20):
        made.close()
        other = Other(appends_for_ever, made.state_dir)
        returned += other.heard()
        time.sleep(dice.uniform(0.0, 0.02))
        other.process.kill()
        other.process.join()
        returned += [told for said in other.rest() for told in said]
    assert made.ledger.verify() == []
    with made.raw() as raw:
        stored = dict(raw.execute("SELECT seq, hash FROM ledger").fetchall())
    assert {seq: stored.get(seq) for seq, _ in returned} == dict(returned)
    assert made.row().epoch % 2 == 1, "an append of two events was torn"
    made.release(4)
    made.do(Promote(release=4))
    assert made.row().stage is Stage.SETTLED


def test_a_ledger_survives_being_let_go_of(made: World) -> None:
    """After close the next call opens the file again."""
    made.close()
    assert made.row().epoch == 1
    made.close()
    made.registry.release(bundle(made.registry.versions("flights")[0], "taxis"))
    assert set(made.ledger.read().states) == {"flights", "taxis"}
