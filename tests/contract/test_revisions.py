"""Ledgers of an earlier and of a later revision: commands work on them and change nothing in them."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from contract.sql_world import World, at, world
from contract.test_stored_earlier import migrated_to
from kedge.adapters.sql.sqlite import create, revisions
from kedge.core.alerts.alerts import Raise, SuccessAnnouncement, Topic
from kedge.core.errors import Unavailable
from kedge.core.release.commands import Canary, Pause, Promote, Rollback
from kedge.core.tokens import Token
from kedge.operations.alerts import acknowledge, alerts_of
from kedge.operations.backup.make import BackupContents, make_backup
from kedge.operations.status.read import status_of
from kedge.workspace import Workplace

TABLES = (
    "artifact",
    "feature_schema",
    "model_version",
    "transform_version",
    "generation",
    "release",
    "policy",
    "endpoint",
    "ledger",
    "condemned",
    "alert",
    "alert_cursor",
)
PAGE = Raise(key="failing:r2", topic=Topic.FAILING, level="page", lasts="condition", summary="bad")


def turned_back(made: World, revision: str) -> World:
    """The same ledger as the kedge of an earlier revision would have made it."""
    made.close()
    old = made.path.with_suffix(".old")
    migrated_to(old, revision)
    raw = sqlite3.connect(old, isolation_level=None)
    raw.execute("PRAGMA foreign_keys = OFF")
    raw.execute("ATTACH ? AS made", (str(made.path),))
    raw.execute("DELETE FROM alert_cursor")
    for name in TABLES:
        names = ", ".join(f'"{row[1]}"' for row in raw.execute(f"PRAGMA main.table_info({name})"))
        raw.execute(f"INSERT INTO main.{name} ({names}) SELECT {names} FROM made.{name}")
    raw.close()
    for path in (made.path, old):
        for suffix in ("-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
    old.rename(made.path)
    return made


def schema(made: World) -> list[tuple[object, ...]]:
    """Everything in the file but rows."""
    with made.raw() as raw:
        return [
            *raw.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY 1, 2"),
            *raw.execute("SELECT version_num FROM alembic_version"),
            *raw.execute("PRAGMA user_version"),
        ]


def found_revision(made: World) -> str:
    with made.raw() as raw:
        (found,) = raw.execute("SELECT version_num FROM alembic_version").fetchone()
    return str(found)


@pytest.fixture(params=["0007", "0008"])
def earlier(tmp_path: Path, request: pytest.FixtureRequest) -> World:
    """r1 was production, r2 is, r3 is a canary, and an alert is open."""
    made = world(tmp_path / "state")
    made.do(Promote(release=1))
    made.do(Promote(release=2, full=True, override="a test"))
    made.do(Canary(release=3, weight=2500, override="a test"))
    Workplace(made.state_dir).alerts.raise_all([("flights", PAGE)], by="me", at=at(), now=1.0)
    return turned_back(made, request.param)


def test_the_tests_cover_the_whole_window() -> None:
    assert revisions.OLDEST == "0007"
    assert revisions.REVISION == "0009"


def test_an_incident_is_handled_on_an_earlier_ledger_and_changes_no_table(earlier: World) -> None:
    """Status, pause, acknowledgement and rollbacks, as between `pip install` and `kedge restart`."""
    before = schema(earlier)
    place = Workplace(earlier.state_dir)
    (status,) = status_of(place, "flights")
    assert (status.epoch, len(status.alerts)) == (4, 1)
    control = place.control(lambda _: None, None)
    control.submit("flights", Pause(), by="ada", reason="look")
    assert acknowledge(place, 1, "ada").acknowledged_by == "ada"
    assert control.submit("flights", Rollback(), by="ada").state.candidate is None
    assert control.submit("flights", Rollback(), by="ada").state.production == 1
    assert [alert.number for alert in alerts_of(place, "flights", over=False)] == [1]
    newest = place.ledger.history("flights", 1)[0]
    assert newest.token == ""
    assert place.ledger.verify() == []
    assert schema(earlier) == before


def test_its_entries_are_chained_on_after_the_migration(earlier: World) -> None:
    Workplace(earlier.state_dir).control(lambda _: None, None).submit(
        "flights", Rollback(), by="ada"
    )
    create.migrate(earlier.state_dir)
    place = Workplace(earlier.state_dir)
    place.control(lambda _: None, None).submit("flights", Rollback(), by="ben")
    assert place.ledger.verify() == []
    (row,) = place.ledger.read().states.values()
    assert (row.production, sorted(row.condemned)) == (1, [2, 3])
    with earlier.raw() as raw:
        assert raw.execute("SELECT version_num FROM alembic_version").fetchone() == ("0009",)


def test_what_needs_a_newer_table_is_refused_and_nothing_is_written(earlier: World) -> None:
    place = Workplace(earlier.state_dir)
    sent = SuccessAnnouncement(
        number=1,
        endpoint="flights",
        key="promoted:1",
        topic=Topic.PROMOTED,
        level="warn",
        lasts="event",
        summary="x",
        opened_at=at(),
    )
    place.alerts.raise_all([], by="me", at=at(), now=1.0, seen=99, announced=[sent])
    assert place.alerts.announcements() == ()
    token = Token(0, "ci", "x", created_at=1.0, created_by="ada")
    remote = Workplace(earlier.state_dir, token="token ci").control(lambda _: None, None)
    if found_revision(earlier) == "0008":
        assert place.tokens.create(token, at=at()).number == 1
        assert remote.submit("flights", Pause(), by="ci").epoch == 5
        return
    seen = place.ledger.read().head
    assert place.tokens.all() == ()
    with pytest.raises(Unavailable, match="revision 0007") as raised:
        place.tokens.create(token, at=at())
    assert (raised.value.code, "kedge restart" in raised.value.hint) == ("ledger_revision", True)
    with pytest.raises(Unavailable, match="revision 0007"):
        remote.submit("flights", Pause(), by="ci")
    assert place.ledger.read().head == seen


def test_a_ledger_of_a_later_revision_that_only_adds_is_used_as_it_is(tmp_path: Path) -> None:
    """As by a process that was started before a newer kedge migrated the ledger."""
    made = world(tmp_path)
    made.do(Promote(release=1))
    made.do(Promote(release=2, full=True, override="a test"))
    made.close()
    with made.raw() as raw:
        raw.execute("ALTER TABLE ledger ADD COLUMN later TEXT")
        raw.execute("CREATE TABLE later (x)")
        raw.execute("UPDATE alembic_version SET version_num = '0010'")
    place = Workplace(made.state_dir)
    done = place.control(lambda _: None, None).submit("flights", Rollback(), by="ada")
    assert done.state.production == 1
    create.migrate(made.state_dir)
    with made.raw() as raw:
        assert raw.execute("SELECT version_num FROM alembic_version").fetchone() == ("0010",)


def test_each_ledger_states_the_earliest_revision_that_may_use_it(tmp_path: Path) -> None:
    made = world(tmp_path)
    with made.raw() as raw:
        assert raw.execute("PRAGMA user_version").fetchone() == (int(revisions.OLDEST),)


def test_a_backup_of_an_earlier_ledger_names_its_revision(earlier: World, tmp_path: Path) -> None:
    place = Workplace(earlier.state_dir)
    wanted = BackupContents(damaged=False)  # the world has releases without artifacts
    made = make_backup(place, tmp_path / "to", tmp_path / "kedge.toml", wanted=wanted, say=print)
    assert made.revision == found_revision(earlier)
