"""A ledger that an earlier kedge wrote: read as it is meant, never rewritten."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import Connection

from contract.sql_world import World, at, world
from kedge.adapters.sql import tables
from kedge.adapters.sql.sqlite import create
from kedge.adapters.sql.sqlite.connection import Database
from kedge.core import codec
from kedge.core.alerts.alerts import Topic, resolve
from kedge.core.errors import Unavailable
from kedge.core.release.commands import Promote, Rollback
from kedge.core.stored.ledger import Note
from kedge.core.values import ActorKind
from kedge.operations.drills import speed_of
from kedge.workspace import Workplace

ALERT = {
    "number": 1,
    "endpoint": "flights",
    "key": "failing:r2",
    "level": "page",
    "lasts": "condition",
    "summary": "r2 fails",
    "opened_at": at(2),
    "subject": 2,
}


def migrated_to(path: Path, revision: str) -> None:
    """Make a ledger as the kedge of that revision did."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(create.__file__).parents[1] / "migrations"))
    config.set_main_option("path_separator", "os")

    def upgrade(connection: Connection) -> None:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)

    create._blank(path)
    database = Database(path, name="ledger", patience_s=5.0)
    database.write(upgrade)
    database.close()


def chained_without_actor(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Entries as they were before there was an actor or a contract of answers.

    Every column but the hash is hashed.
    """
    found, previous = [], codec.GENESIS
    for row in rows:
        old = {name: value for name, value in row.items() if name not in ("hash", "actor", "token")}
        body = msgspec.json.decode(old["event"])
        if body.pop("answers", None) is not None:
            old["event"] = msgspec.json.encode(body).decode()
        old["previous_hash"] = previous
        previous = codec.chain(previous, old)
        found.append({**old, "hash": previous})
    return found


@pytest.fixture
def earlier(tmp_path: Path) -> World:
    """Revision 0004: r2 was promoted by a person, alerted on, judged, and taken back by the patrol."""
    made = world(tmp_path)
    made.do(Promote(release=1))
    made.do(Promote(release=2, override="a test"))
    for by, kind, body in (
        (
            "alerting@host.7",
            "alert_opened",
            {"alert": 1, "level": "page", "key": "failing:r2", "summary": "x"},
        ),
        ("patrol@host", "verdict", {"verdict": "fail", "candidate": "r2"}),
        ("supervisor", "pin_drifts", {"host": "host", "why": "x"}),
    ):
        note = Note(kind=kind, body=body)
        made.ledger.note("flights", note, by=by, reason="", at=at(made.row().epoch))
    made.do(Rollback(), by="patrol@host")
    made.close()
    old = tmp_path / "old.db"
    migrated_to(old, "0004")
    raw = sqlite3.connect(old, isolation_level=None)
    raw.row_factory = sqlite3.Row
    raw.execute("PRAGMA foreign_keys = OFF")
    raw.execute("ATTACH ? AS made", (str(made.path),))
    for name in (
        "artifact",
        "feature_schema",
        "model_version",
        "release",
        "policy",
        "endpoint",
        "condemned",
    ):
        names = ", ".join(f'"{row[1]}"' for row in raw.execute(f"PRAGMA main.table_info({name})"))
        raw.execute(f"INSERT INTO main.{name} ({names}) SELECT {names} FROM made.{name}")
    entries = [dict(row) for row in raw.execute("SELECT * FROM made.ledger ORDER BY seq")]
    for row in chained_without_actor(entries):
        names = ", ".join(f'"{name}"' for name in row)
        raw.execute(
            f"INSERT INTO ledger ({names}) VALUES ({', '.join('?' * len(row))})", [*row.values()]
        )
    raw.execute(
        'INSERT INTO alert VALUES (1, "flights", "failing:r2", 1, 1, ?)',
        (msgspec.json.encode(ALERT),),
    )
    raw.close()
    for suffix in ("-wal", "-shm"):
        Path(f"{made.path}{suffix}").unlink(missing_ok=True)
        Path(f"{old}{suffix}").unlink(missing_ok=True)
    old.rename(made.path)
    return made


def stored(made: World) -> list[tuple[Any, ...]]:
    names = ", ".join(f'"{c.name}"' for c in tables.ledger.c if c.name not in ("actor", "token"))
    with made.raw() as raw:
        return [tuple(row) for row in raw.execute(f"SELECT {names} FROM ledger ORDER BY seq")]


def test_a_stored_entry_gets_its_actor_when_it_is_read_and_keeps_its_bytes(earlier: World) -> None:
    before = stored(earlier)
    with pytest.raises(Unavailable, match="revision 0004"):
        earlier.ledger.read()
    create.migrate(earlier.state_dir)
    assert earlier.ledger.verify() == []
    kinds = {e.by: e.actor for e in earlier.ledger.history("flights", 99)}
    assert kinds == {
        "ada": ActorKind.PERSON,
        "alerting@host.7": ActorKind.CONTROL,
        "patrol@host": ActorKind.PATROL,
        "supervisor": ActorKind.SUPERVISOR,
    }
    assert stored(earlier) == before


def test_the_chain_continues_from_entries_of_an_earlier_kedge(earlier: World) -> None:
    create.migrate(earlier.state_dir)
    before = stored(earlier)
    earlier.do(Promote(release=3, override="a test"), by="patrol@mallory")
    assert earlier.ledger.verify() == []
    (new, *rest) = earlier.ledger.history("flights", 99)
    assert (new.by, new.actor) == ("patrol@mallory", ActorKind.PERSON)
    assert stored(earlier)[: len(before)] == before
    assert {e.actor for e in rest if e.by == "patrol@host"} == {ActorKind.PATROL}


@pytest.mark.parametrize("actor", [None, "patrol"])
def test_an_actor_that_was_changed_afterwards_breaks_the_chain(
    earlier: World, actor: str | None
) -> None:
    """The new column is hashed, and an old entry cannot be given one."""
    create.migrate(earlier.state_dir)
    (new,) = earlier.do(Promote(release=3, override="a test"))
    changed = new.seq if actor is None else 1
    with earlier.raw() as raw:
        raw.execute("DROP TRIGGER ledger_no_update")
        raw.execute("UPDATE ledger SET actor = ? WHERE seq = ?", (actor, changed))
    wrong = [fault for fault in earlier.ledger.verify() if fault.startswith(f"entry {changed} ")]
    assert wrong == [f"entry {changed} was changed after it was written: its hash does not match"]


def test_speed_reads_an_earlier_alert_and_an_earlier_rollback_of_the_patrol(earlier: World) -> None:
    create.migrate(earlier.state_dir)
    (found,) = speed_of(Workplace(earlier.state_dir), "flights")
    (one,) = found.incidents
    assert (one.release, one.automatic, one.sign) == (2, True, "alert")


def test_an_alert_that_an_earlier_kedge_opened_is_read_and_ended(earlier: World) -> None:
    create.migrate(earlier.state_dir)
    store = Workplace(earlier.state_dir).alerts
    (found,) = store.live()
    assert (found.topic, found.subject) == (Topic.FAILING, 2)
    after = store.change(1, lambda a: resolve(a, reason="over", at=at(9)), by="me", at=at(9))
    assert after is not None
    assert after == store.find(1)
    assert not after.open
