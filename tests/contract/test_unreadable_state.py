"""Evidence and roster that are damaged, or of a newer kedge: kept, created again, never trusted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest

from contract.sql_world import world
from contract.test_patrol import Watched
from kedge.adapters.sql.alerts import SqlAlerts
from kedge.adapters.sql.roster import SqlEvidence, SqlRoster
from kedge.adapters.sql.sqlite.create import open_evidence, open_roster
from kedge.adapters.sql.sqlite.version import dbapi
from kedge.adapters.sql.windows import SqlWindows
from kedge.core.alerts.alerts import Raise, Topic
from kedge.core.codec import encode
from kedge.core.errors import Unavailable
from kedge.core.release.commands import Canary, Promote, Resume, Rollback, Shadow
from kedge.core.stored.ledger import Note
from kedge.core.stored.roster import Member, ProcessFault, ReplicaHold, Tally
from kedge.core.values import Placement, Stage
from kedge.engine.control.alerting import _told_by
from kedge.engine.pins import HostDisk
from kedge.engine.snapshot import UNREADABLE
from kedge.engine.watch import comparison_of
from kedge.operations.doctor import examine
from kedge.operations.status.read import status_of
from kedge.system.files import ASIDE_COUNT, list_aside
from kedge.workspace import Workplace

MEMBER = Member(
    name="here/w0.1",
    host="here",
    pid=1,
    kind="gateway",
    address="",
    started_at="",
    beat_at=1.0,
    ledger_at=1.0,
    epochs={"flights": 3},
    holds=(ReplicaHold("flights", 2, Placement.INLINE, "ready"),),
    faults=(ProcessFault("a", "b", 1, "c"),),
)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 + 100])


def overwrite(path: Path) -> None:
    path.write_bytes(os.urandom(path.stat().st_size))


def overwrite_middle(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[4096:] = os.urandom(len(raw) - 4096)
    path.write_bytes(raw)


def make_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


HARMS = {
    "cut off": cut,
    "empty": lambda path: path.write_bytes(b""),
    "random": overwrite,
    "random pages": overwrite_middle,
    "a directory": make_directory,
}


def rest(path: Path) -> None:
    """Make the file all that there is: without the log beside it."""
    raw = dbapi.connect(str(path), isolation_level=None)
    raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    raw.close()
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("name", ["evidence", "roster"])
def test_an_unreadable_file_is_kept_and_created_again(tmp_path: Path, name: str, harm: str) -> None:
    opened: Any = {"evidence": open_evidence, "roster": open_roster}[name]
    path = tmp_path / name / f"{name}.db"

    def use() -> int:
        database = opened(tmp_path)
        try:
            if name == "roster":
                SqlRoster(database).publish(MEMBER)
                return len(SqlRoster(database).members())
            SqlWindows(database).keep("e", "x", b"1")
            return len(SqlWindows(database).kept("e", "x") or b"")
        finally:
            database.close()

    assert use() == 1
    rest(path)
    HARMS[harm](path)
    before = path.read_bytes() if path.is_file() else None
    assert use() == 1
    (kept,) = list_aside(path)
    assert kept.name.startswith(f"{name}.db.unreadable-")
    assert before is None or kept.read_bytes() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
@pytest.mark.parametrize("mode", [0o000, 0o400])
def test_a_file_with_wrong_permissions_is_kept_and_created_again(mode: int) -> None:
    """As `sudo kedge status` leaves one behind: the user who runs kedge owns the directory only."""
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from kedge.adapters.sql.sqlite.create import open_evidence\n"
        "from kedge.adapters.sql.windows import SqlWindows\n"
        "root = Path(sys.argv[1])\n"
        "SqlWindows(open_evidence(root / 'imports')).keep('e', 'x', b'1')\n"
        "os.setgid(65534)\n"
        "os.setuid(65534)\n"
        "SqlWindows(open_evidence(root)).keep('e', 'x', b'1')\n"
    )
    with TemporaryDirectory() as root:  # another user may enter it, unlike pytest's own
        Path(root).chmod(0o755)
        SqlWindows(open_evidence(Path(root))).keep("e", "x", b"0")
        folder = Path(root) / "evidence"
        rest(folder / "evidence.db")
        os.chown(folder, 65534, 65534)
        (folder / ".lock").chmod(0o666)
        (folder / "evidence.db").chmod(mode)
        line = [sys.executable, "-c", code, root]
        done = subprocess.run(line, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-800:]
        assert len(list_aside(folder / "evidence.db")) == 1


def test_what_is_kept_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "roster" / "roster.db"
    for _ in range(ASIDE_COUNT + 3):
        database = open_roster(tmp_path)
        SqlRoster(database).publish(MEMBER)
        database.close()
        path.write_bytes(b"no database")
    database = open_roster(tmp_path)
    assert SqlRoster(database).members() == ()
    assert len(list_aside(path)) == ASIDE_COUNT


# ---------------------------------------------------------------- rows of a newer kedge


def put(path: Path, query: str, *given: object) -> None:
    raw = dbapi.connect(str(path), isolation_level=None)
    raw.execute(query, given)
    raw.close()


def newer(body: bytes) -> bytes:
    return msgspec.json.encode({**msgspec.json.decode(body), "added_later": {"a": 1}})


def test_a_replica_of_a_newer_kedge_still_acknowledges(tmp_path: Path) -> None:
    roster = SqlRoster(open_roster(tmp_path))
    roster.publish(MEMBER)
    said = msgspec.json.decode(encode(MEMBER))
    for part in (said, *said["holds"], *said["faults"]):
        part["added_later"] = 1
    put(tmp_path / "roster/roster.db", "UPDATE replica SET body = ?", msgspec.json.encode(said))
    (member,) = roster.members()
    assert (member.epochs, member.holds) == (MEMBER.epochs, MEMBER.holds)


@pytest.mark.parametrize("body", [b"", b"\x00\xff\xfe", b'{"name": 3}', b'{"name": "a"', b"[]"])
def test_a_damaged_row_of_the_roster_hides_no_other(tmp_path: Path, body: bytes) -> None:
    roster = SqlRoster(open_roster(tmp_path))
    roster.publish(MEMBER)
    roster.publish(msgspec.structs.replace(MEMBER, name="here/w1.2"))
    query = "UPDATE replica SET body = ? WHERE name = 'here/w1.2'"
    put(tmp_path / "roster/roster.db", query, body)
    assert [m.name for m in roster.members()] == ["here/w0.1"]
    (kept,) = roster.list_aside()
    assert kept.startswith("here/w1.2.unreadable-")
    roster.publish(msgspec.structs.replace(MEMBER, name="here/w1.2"))
    assert [m.name for m in roster.members()] == ["here/w0.1", "here/w1.2"]


def test_counts_of_a_newer_kedge_hide_no_others(tmp_path: Path) -> None:
    evidence = SqlEvidence(open_evidence(tmp_path))
    told = [Tally(f"w{n}@t/1", "flights", 1, None, "", {"a": n}) for n in range(3)]
    evidence.publish(told)
    query = "UPDATE tally SET body = ? WHERE replica = 'w1@t/1'"
    put(tmp_path / "evidence/evidence.db", query, newer(encode(told[1])))
    assert evidence.tallies("flights") == (told[0], told[2])


def test_an_alert_of_a_newer_kedge_hides_no_other_alert(
    tmp_path: Path,
) -> None:
    site = world(tmp_path)
    alerts = SqlAlerts(site.database)
    found = [
        ("flights", Raise(key=key, topic=Topic.BLIND, level="warn", lasts="event", summary=key))
        for key in ("a", "b")
    ]

    def tell() -> tuple[Any, ...]:
        return alerts.raise_all(found, by="x", at="2026-11-23T12:00:00Z", now=1.0)

    tell()
    with site.raw() as raw:
        ((body,),) = raw.execute("SELECT body FROM alert WHERE key = 'a'").fetchall()
        raw.execute("UPDATE alert SET body = ? WHERE key = 'a'", (newer(body),))
    assert [a.key for a in alerts.live()] == ["b"]
    assert [a.key for a in tell()] == ["a"]
    assert sorted(a.key for a in alerts.listed("flights", over=False, limit=9)) == ["a", "b"]


def test_a_file_of_a_replica_that_cannot_be_read_is_kept(tmp_path: Path) -> None:
    site = world(tmp_path)
    site.do(Promote(release=1))
    disk = HostDisk(site.state_dir)
    disk.remember("w0", site.row())
    path = site.state_dir / "replicas/w0/flights.json"
    body = newer(path.read_bytes())
    path.write_bytes(body)
    (name,) = disk.set_aside_unreadable("w0")
    assert (path.parent / name).read_bytes() == body
    assert disk.remembered() == {}
    assert disk.set_aside_unreadable("w0") == []
    disk.remember("w0", site.row())
    assert disk.remembered()["flights"] == site.row()
    (told,) = (
        fault
        for fault in status_of(Workplace(site.state_dir), "flights")[0].faults
        if "kept" in fault
    )
    assert name in told


def test_pins_that_cannot_be_read_are_shown_and_stop_neither_status_nor_doctor(
    tmp_path: Path,
) -> None:
    """A pin file that cannot be read is not the same as none, and no traceback."""
    site = world(tmp_path)
    site.do(Promote(release=1))
    place = Workplace(site.state_dir)
    (place.disk.pins_dir / "flights.json").mkdir(parents=True)
    told = "the pins of this host cannot be read"
    assert any(told in fault for fault in status_of(place, "flights")[0].faults)
    findings = examine(site.state_dir, tmp_path / "kedge.toml")
    (pins,) = (one for one in findings if one.check == "pins")
    assert not pins.ok
    assert told in pins.detail


# ---------------------------------------------------------------- a rollout under way


def judged_by_newer(site: Watched) -> None:
    body = site.place.windows.kept("flights", comparison_of(site.world.row()))
    assert body is not None
    more = msgspec.msgpack.encode({**msgspec.msgpack.decode(body), "added_later": 0})
    put(evidence_db(site), "UPDATE judged SET body = ?", more)


def judged_flipped(site: Watched) -> None:
    body = bytearray(site.place.windows.kept("flights", comparison_of(site.world.row())) or b"")
    body[len(body) // 2] ^= 1
    put(evidence_db(site), "UPDATE judged SET body = ?", bytes(body))


def evidence_db(site: Watched) -> Path:
    return site.world.state_dir / "evidence/evidence.db"


def overwrite_all(site: Watched) -> None:
    for suffix in ("-wal", "-shm"):
        Path(f"{evidence_db(site)}{suffix}").unlink(missing_ok=True)
    overwrite(evidence_db(site))


def delete_all(site: Watched) -> None:
    for suffix in ("-wal", "-shm", ""):
        Path(f"{evidence_db(site)}{suffix}").unlink(missing_ok=True)


LOSSES = {
    "newer": (judged_by_newer, False),
    "a flipped bit": (judged_flipped, False),
    "overwritten while control was dead": (overwrite_all, False),
    "overwritten": (overwrite_all, True),
    "deleted while control was dead": (delete_all, False),
    "deleted": (delete_all, True),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_a_rollout_whose_evidence_is_lost_is_paused_until_a_person_resumes(
    tmp_path: Path, loss: str
) -> None:
    site = Watched(tmp_path)
    site.world.do(Canary(release=2, weight=500, auto=True))
    site.look()
    site.pass_time(3)
    site.look()
    site.patrol._keep(force=True)
    harm, lives = LOSSES[loss]
    harm(site)
    patrol = site.patrol if lives else site.fresh("patrol@next")
    for _ in range(60):
        site.pass_time(2)
        site.look(patrol)
    row = site.world.row()
    assert (row.stage, row.weight, row.paused) == (Stage.CANARY, 500, True)
    assert row.automation.failures == ()
    notes = [
        e
        for e in site.world.ledger.history("flights", 50)
        if isinstance(e.event, Note) and e.event.kind == "evidence_lost"
    ]
    (note,) = notes
    alert = _told_by(note)
    assert alert is not None
    assert (alert.topic, alert.subject) == (Topic.EVIDENCE, 2)
    site.world.do(Resume())
    for _ in range(60):
        site.pass_time(2)
        site.look(patrol)
    assert site.world.row().production == 2


@pytest.mark.parametrize("loss", LOSSES)
def test_a_failing_candidate_is_rolled_back_whatever_evidence_was_lost(
    tmp_path: Path, loss: str
) -> None:
    site = Watched(tmp_path)
    site.world.do(Canary(release=2, weight=2500, auto=True))
    site.look()
    site.pass_time(1)
    site.look()
    site.patrol._keep(force=True)
    harm, lives = LOSSES[loss]
    harm(site)
    patrol = site.patrol if lives else site.fresh("patrol@next")
    for _ in range(30):
        site.pass_time(1, bad=(1, 4))
        site.look(patrol)
    assert site.world.row().condemned == (2,)


def test_a_shadow_whose_evidence_is_lost_is_not_promoted(tmp_path: Path) -> None:
    site = Watched(tmp_path)
    site.world.do(Shadow(release=2))
    site.pass_time(3)
    site.look()
    overwrite_all(site)
    for _ in range(3):
        site.pass_time(12)
        site.look(site.fresh("patrol@next"))
    assert (site.world.row().production, site.world.row().paused) == (1, True)


def test_status_names_what_is_kept_by_endpoint(tmp_path: Path) -> None:
    site = Watched(tmp_path)
    site.world.do(Canary(release=2, weight=500))
    site.pass_time(3)
    site.look()
    site.patrol._keep(force=True)
    judged_by_newer(site)
    site.look(site.fresh("patrol@next"))
    faults = status_of(Workplace(site.world.state_dir), "flights")[0].faults
    (told,) = (fault for fault in faults if "kept" in fault)
    assert f"{comparison_of(site.world.row())}.unreadable-" in told


def test_windows_of_a_newer_kedge_pass_nothing_and_still_fail(tmp_path: Path) -> None:
    site = Watched(tmp_path)
    site.world.do(Canary(release=2, weight=2500, auto=True))
    site.pass_time(1)
    site.look()
    for _ in range(60):
        site.pass_time(1)
        query = "UPDATE window SET body = ? WHERE seq = (SELECT max(seq) FROM window)"
        put(evidence_db(site), query, b"\x81\xa1x\x01")
        site.pass_time(2)
        site.look()
    assert (site.world.row().weight, site.world.row().paused) == (2500, False)
    for _ in range(150):
        site.pass_time(1, bad=(1, 4))
        site.look()
    assert site.world.row().condemned == (2,)


def test_a_roster_that_cannot_be_read_keeps_no_rollback_from_being_written(tmp_path: Path) -> None:
    site = Watched(tmp_path)
    site.world.do(Promote(release=2, override="a test"))
    site.place.roster.publish(MEMBER)
    path = site.world.state_dir / "roster/roster.db"
    rest(path)
    overwrite(path)
    site.place.control(lambda text: None, None).submit("flights", Rollback(), by="ada")
    assert site.world.row().production == 1
    assert len(list_aside(path)) == 1


def test_the_ledger_is_never_made_again(tmp_path: Path) -> None:
    site = world(tmp_path)
    site.close()
    rest(site.path)
    overwrite(site.path)
    before = site.path.read_bytes()
    with pytest.raises(Unavailable):
        Workplace(site.state_dir).ledger.read()
    assert site.path.read_bytes() == before
    assert list_aside(site.path) == []


def test_evidence_reports_that_it_started_again(tmp_path: Path) -> None:
    site = Watched(tmp_path)
    site.world.do(Canary(release=2, weight=500))
    site.pass_time(3)
    site.look()
    site.patrol._keep(force=True)
    judged_by_newer(site)
    patrol = site.fresh("patrol@next")
    site.look(patrol)
    assert patrol._watches["flights"].restarted == UNREADABLE
