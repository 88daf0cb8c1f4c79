"""Backups of a real state directory: whole or refused, whenever the process that makes or restores one dies."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from contract.sql_world import FORK, POLICY, Other, World, at, bundle, version
from contract.test_records import row
from kedge.adapters.online.sqlite import SqliteOnline
from kedge.adapters.records.spool import Spool
from kedge.adapters.sql.sqlite.create import create
from kedge.config.locate import find_fault
from kedge.config.model import STATE_DIR
from kedge.core import codec
from kedge.core.errors import KedgeError, Refused, Unavailable
from kedge.core.evidence.records import Outcome
from kedge.core.release.commands import Canary, Freeze, Promote, Restored, Rollback, Thaw
from kedge.core.stored.head import Head
from kedge.core.values import Proof, Stage
from kedge.engine.pins import HostDisk
from kedge.operations.backup.make import BackupContents, make_backup
from kedge.operations.backup.manifest import MANIFEST, UNFINISHED, Sealed, read_manifest
from kedge.operations.backup.restore import BEGAN, find_floor, restore_backup
from kedge.operations.setup import create_workplace
from kedge.workspace import Workplace

CONFIG = """\
[server]
port = 0

[alerts]
smtp = "smtp://kedge:hunter2@mail.example.org"  # the relay

[endpoints.flights]
audience = "internal"
"""


class Origin:
    """A state directory with two releases, r1 in production, and everything that a backup may hold."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = root / "kedge.toml"
        self.config.write_text(CONFIG)
        self.state_dir = root / STATE_DIR
        create(self.state_dir)
        self.place = Workplace(self.state_dir)
        self.world = World(self.state_dir)
        for number in (1, 2):
            self.register(number)
        self.world.configure(POLICY)
        self.world.do(Promote(release=1))
        (self.state_dir / "offline/spend/1/1/1").mkdir(parents=True)
        (self.state_dir / "offline/spend/1/1/1/00000000000000000001.parquet").write_bytes(b"PAR1")
        SqliteOnline(self.state_dir / "online/online.db").write("spend/1/1/1", [("ada", b"row")])
        now = self.place.clock.unix()
        for name in ("a1", "a2"):
            with Spool(self.place.records.spool, name) as spool:
                spool.append([row(f"{name}/0", at=now)])
            if name == "a1":
                self.place.records.ingest(now)
        self.place.records.join("flights", [Outcome("a1/0", 1.0)], now)
        (self.state_dir / "secret").write_text("do not tell")
        (self.state_dir / "logs").mkdir()
        (self.state_dir / "logs/w0.log").write_text("talk")

    def register(self, number: int) -> None:
        """Put a file into the store, and register it and make a release of it."""
        source = self.root / f"model{number}"
        source.write_text(f"model {number}")
        digest, files = self.place.artifacts.put(source)
        self.place.artifacts.write_proof(digest, Proof(inputs={}, outputs={}))
        added = self.world.registry.add(version(number, digest=digest, files=files))
        self.world.registry.release(bundle(added))

    def backup(self, name: str = "backup", wanted: BackupContents = BackupContents()) -> Path:  # noqa: B008 - frozen
        """Make one."""
        directory = self.root / name
        make_backup(Workplace(self.state_dir), directory, self.config, wanted=wanted, say=print)
        return directory


@pytest.fixture
def origin(tmp_path: Path) -> Origin:
    root = tmp_path / "origin"
    root.mkdir()
    return Origin(root)


def restored(backup: Path, root: Path, **more: Any) -> World:
    """Restore a backup below a root, and open its ledger."""
    restore_backup(backup, root / "kedge.toml", **more)
    return World(root / STATE_DIR)


# ---------------------------------------------------------------- what is in it


def test_a_restored_ledger_continues_above_all_numbers_that_were_seen(
    origin: Origin, tmp_path: Path
) -> None:
    """The lost history is known by its numbers, what comes after the restore by its own."""
    backup = origin.backup()
    before = origin.world.row()
    for _ in range(20):  # what the backup does not have
        origin.world.do(Freeze())
        origin.world.do(Thaw())
    seen = origin.world.ledger.read().head
    assert seen is not None
    world = restored(backup, tmp_path / "there", reason="the disk failed")
    row = world.row()
    assert row.epoch > max(origin.world.row().epoch, seen.seq)
    assert (row.production, row.stage, row.unconfirmed) == (1, Stage.SETTLED, True)
    newest = world.ledger.history("flights")[0]
    head = read_manifest(backup).head
    assert head is not None
    assert isinstance(newest.event, Restored)
    assert (newest.event.seq, newest.event.hash, newest.reason) == (
        head.seq,
        head.hash,
        "the disk failed",
    )
    assert world.ledger.verify() == []
    assert world.ledger.read(seen).follows, "a replica that saw a newer epoch follows"
    assert world.ledger.read(Head(head.seq, head.hash)).follows
    assert not world.ledger.read(Head(head.seq, "f" * 64)).follows, "another history does not"
    after = world.ledger.read().head
    assert after is not None
    world.do(Promote(release=2, override="a test"))
    assert world.row().epoch == row.epoch + 1
    assert before.salt == world.row().salt

    # The same backup once more, over what was restored: the new entries are lost, and known as lost.
    newer = world.ledger.read().head
    assert newer is not None
    shutil.rmtree(tmp_path / "there" / STATE_DIR)
    again = restored(backup, tmp_path / "there", heads=[newer])
    assert again.row().epoch > newer.seq
    assert again.ledger.read(newer).follows

    # An older copy in its place, after the restore, is found as ever.
    shutil.rmtree(tmp_path / "there" / STATE_DIR)
    once_more = restored(backup, tmp_path / "there")
    mine = once_more.ledger.read().head
    assert mine is not None
    assert not once_more.ledger.read(Head(mine.seq + 1, "a" * 64)).follows


def test_rollback_works_there_and_thaw_confirms_it(origin: Origin, tmp_path: Path) -> None:
    origin.world.do(Promote(release=2, override="a test"))
    world = restored(origin.backup(), tmp_path / "there")
    world.do(Rollback())
    assert world.row().production == 1
    assert world.row().unconfirmed, "a person's command does not say that it is the real one"
    world.do(Thaw())
    assert not world.row().unconfirmed
    assert world.ledger.verify() == []


def test_a_canary_keeps_its_share_and_a_freeze_from_before_is_known(
    origin: Origin, tmp_path: Path
) -> None:
    origin.world.do(Canary(release=2, weight=500))
    origin.world.do(Freeze())
    row = restored(origin.backup(), tmp_path / "there").row()
    assert (row.stage, row.candidate, row.weight) == (Stage.CANARY, 2, 500)
    assert (row.automation.frozen, row.unconfirmed) == (True, True)


def test_everything_is_there_with_its_modes_and_no_secret(origin: Origin, tmp_path: Path) -> None:
    origin.world.do(Promote(release=2, override="a test"))
    disk = HostDisk(origin.state_dir)
    disk.remember("w0", origin.world.row())
    disk.pin("flights", Rollback(), by="ada", reason="", at=at())
    backup = origin.backup()
    text = (backup / "kedge.toml").read_text()
    assert "hunter2" not in text
    assert 'smtp = "smtp://kedge:***@mail.example.org"' in text
    assert not [p for p in backup.rglob("*") if p.is_file() and b"hunter2" in p.read_bytes()]
    assert not [p for p in backup.rglob("*") if p.name in ("secret", "w0.log", "roster.db")]
    left = {each.what for each in read_manifest(backup).left_out}
    assert any("secret" in what for what in left)
    assert "kedge.toml: alerts.smtp" in left
    assert [p for p in (backup, *backup.rglob("*")) if p.stat().st_mode & 0o077] == []
    restore_backup(backup, tmp_path / "there/kedge.toml")
    state = tmp_path / "there" / STATE_DIR
    assert (state / "offline/spend/1/1/1/00000000000000000001.parquet").read_bytes() == b"PAR1"
    assert HostDisk(state).pins()["flights"].state.production == 1
    assert {p.name for p in (state / "ledger").iterdir()} >= {"ledger.db", "ballast", "CREATED"}
    assert [p for p in (state, *state.rglob("*")) if p.stat().st_mode & 0o077] == []
    place = Workplace(state)
    assert SqliteOnline(state / "online/online.db").read("spend/1/1/1", ["ada"]) == [b"row"]
    place.records.ingest(place.clock.unix())
    found = place.records.join("flights", [Outcome("a2/0", 1.0)], place.clock.unix())
    assert found.joined == 1, "a label that comes later finds its prediction"
    assert len(place.records.labels("flights", 0, 10)[1]) == 2
    for digest in read_manifest(backup).artifacts:
        place.artifacts.verify(digest)
        place.artifacts.proof(digest)


def test_a_kedge_toml_that_is_there_stays_and_says_where(origin: Origin, tmp_path: Path) -> None:
    config = tmp_path / "there/kedge.toml"
    config.parent.mkdir()
    config.write_text('[server]\nstate_dir = "elsewhere"\n')
    done = restore_backup(origin.backup(), config)
    assert (done.config_written, config.read_text()) == (
        False,
        '[server]\nstate_dir = "elsewhere"\n',
    )
    assert (tmp_path / "there/elsewhere/ledger/ledger.db").exists()


def test_epochs_go_above_what_is_known_and_a_clock_that_stands_still_is_not_believed(
    origin: Origin,
) -> None:
    manifest = read_manifest(origin.backup())
    made = int(find_floor(manifest, [], 0.0))
    assert made > 1_000_000
    assert find_floor(manifest, [], BEGAN) == made
    assert find_floor(manifest, [Head(10**12, "a" * 64)], 0.0) == 10**12
    assert find_floor(msgspec.structs.replace(manifest, epochs={"x": 10**13}), [], 0.0) == 10**13


def _busy(tell: Any, root: Path) -> None:
    """Register, move the row, and let retention remove what it has just taken in, until told to end."""
    origin = Origin(root)
    tell.send("ready")
    number = 2
    while not tell.poll():
        number += 1
        origin.register(number)
        origin.world.do(Freeze() if number % 2 else Thaw())
        now = origin.place.clock.unix()
        with Spool(origin.place.records.spool, f"b{number}") as spool:
            spool.append([row(f"b{number}/0", at=now)])
        origin.place.records.ingest(now)
        origin.place.records.prune(now + 60 * 86_400)
    tell.recv()


def test_each_backup_under_writes_registrations_and_retention_is_whole(tmp_path: Path) -> None:
    root = tmp_path / "origin"
    root.mkdir()
    other = Other(_busy, root)
    assert other.heard(30) == "ready"
    seen = 0
    for turn in range(4):
        backup = tmp_path / f"backup{turn}"
        make_backup(
            Workplace(root / STATE_DIR),
            backup,
            root / "kedge.toml",
            wanted=BackupContents(),
            say=print,
        )
        world = restored(backup, tmp_path / f"there{turn}")
        assert world.ledger.verify() == []
        numbers = [one.number for one in world.registry.versions("flights")]
        assert len(numbers) > seen, "the other process goes on"
        seen = len(numbers)
        place = Workplace(world.state_dir)
        for registered in world.registry.versions("flights"):
            place.artifacts.verify(registered.digest)
            place.artifacts.proof(registered.digest)
    other.told.send("end")
    other.end()


# ---------------------------------------------------------------- what is refused


def damages() -> dict[str, Callable[[Path, Path], None]]:
    """What may happen to a backup: the backup, and another one of the same ledger."""

    def cut(backup: Path, _: Path) -> None:
        os.truncate(backup / "state/ledger/ledger.db", 8192)

    def altered(backup: Path, _: Path) -> None:
        path = next((backup / "state/artifacts").glob("*/files/*"))
        path.chmod(0o600)
        path.write_bytes(b"x" * path.stat().st_size)

    def lost(backup: Path, _: Path) -> None:
        next((backup / "state/artifacts").glob("*/proof.json")).unlink()

    def added(backup: Path, _: Path) -> None:
        (backup / "state/pins").mkdir(exist_ok=True)
        (backup / "state/pins/flights.json").write_text("{}")

    def linked(backup: Path, _: Path) -> None:
        path = backup / "state/ledger/ledger.db"
        path.rename(backup.parent / "moved.db")
        path.symlink_to(backup.parent / "moved.db")

    def mixed(backup: Path, other: Path) -> None:
        shutil.copyfile(other / "state/ledger/ledger.db", backup / "state/ledger/ledger.db")

    def relabelled(backup: Path, other: Path) -> None:
        shutil.copyfile(other / MANIFEST, backup / MANIFEST)

    def edited(backup: Path, _: Path) -> None:
        path = backup / MANIFEST
        path.write_text(
            path.read_text().replace("ada", "eve").replace('"made_at":"2', '"made_at":"3')
        )

    return {f.__name__: f for f in (cut, altered, lost, added, linked, mixed, relabelled, edited)}


@pytest.mark.parametrize("damage", damages())
def test_a_backup_that_is_not_what_was_made_is_refused_with_what_is_wrong(
    origin: Origin, tmp_path: Path, damage: str
) -> None:
    backup = origin.backup()
    origin.world.do(Freeze())
    other = origin.backup("other")
    damages()[damage](backup, other)
    with pytest.raises(Refused) as refused:
        restore_backup(backup, tmp_path / "there/kedge.toml")
    assert refused.value.code == "backup_damaged"
    assert any(word in str(refused.value) for word in (".db", ".json", "artifacts"))
    assert not (tmp_path / "there" / STATE_DIR / "ledger").exists()
    assert not (tmp_path / "there/kedge.toml").exists()


def test_files_that_fit_a_forged_manifest_are_checked_by_what_they_are(
    origin: Origin, tmp_path: Path
) -> None:
    """A manifest can be made anew for changed files; the chain and the artifacts' digests cannot."""
    backup, other = origin.backup(), None
    origin.world.do(Freeze())
    other = origin.backup("other")
    shutil.copyfile(backup / "state/ledger/ledger.db", other / "state/ledger/ledger.db")
    sealed = codec.decode((other / MANIFEST).read_bytes(), Sealed)
    mine = {file.path: file for file in read_manifest(backup).files}
    files = tuple(
        mine[f.path] if f.path.endswith("ledger.db") else f for f in sealed.manifest.files
    )
    forged = msgspec.structs.replace(sealed.manifest, files=files)
    (other / MANIFEST).write_bytes(codec.encode(Sealed(codec.fingerprint(forged), forged)))
    with pytest.raises(Refused, match="newest entry is not the manifest's"):
        restore_backup(other, tmp_path / "there/kedge.toml")
    assert [*(tmp_path / "there" / STATE_DIR).iterdir()] == []


def test_a_head_of_another_ledger_is_refused(origin: Origin, tmp_path: Path) -> None:
    backup = origin.backup()
    head = read_manifest(backup).head
    assert head is not None
    with pytest.raises(Refused) as refused:
        restore_backup(backup, tmp_path / "there/kedge.toml", heads=[Head(head.seq, "ab" * 32)])
    assert refused.value.code == "other_history"
    restore_backup(backup, tmp_path / "there/kedge.toml", heads=[head])


def test_a_directory_with_something_in_it_is_refused(origin: Origin, tmp_path: Path) -> None:
    backup = origin.backup()
    state = tmp_path / "there" / STATE_DIR
    state.mkdir(parents=True)
    (state / "secret").write_text("another program's")
    with pytest.raises(Refused) as refused:
        restore_backup(backup, tmp_path / "there/kedge.toml")
    assert (refused.value.code, (state / "secret").read_text()) == (
        "restore_not_empty",
        "another program's",
    )
    for directory, code in (
        (backup, "backup_exists"),
        (tmp_path / "there", "backup_not_empty"),
        (origin.state_dir / "x", "backup_not_empty"),
    ):
        with pytest.raises(Refused) as refused:
            make_backup(origin.place, directory, origin.config, wanted=BackupContents(), say=print)
        assert refused.value.code == code
    with pytest.raises(Refused) as refused:
        read_manifest(tmp_path)
    assert refused.value.code == "no_backup"


def test_a_damaged_file_is_refused_by_name_or_left_out_and_listed(
    origin: Origin, tmp_path: Path
) -> None:
    """One old model that was damaged does not cost the backup of everything else."""
    (digest,) = (v.digest for v in origin.world.registry.versions("flights") if v.number == 2)
    path = next((origin.state_dir / "artifacts" / digest.partition(":")[2]).glob("files/*"))
    path.chmod(0o600)
    path.write_text("changed")
    (hour,) = (origin.state_dir / "records/hours").glob("*.db")
    for damaged in (hour, origin.state_dir / "online/online.db"):
        damaged.write_bytes(b"no database at all")
    with pytest.raises(Refused) as refused:
        origin.backup()
    assert refused.value.code == "backup_source_damaged"
    assert "--skip-damaged" in refused.value.hint
    names = [
        "online/online.db",
        str(hour.relative_to(origin.state_dir)),
        "the artifact of flights v2",
    ]
    faults = refused.value.details["faults"]
    assert isinstance(faults, list)
    assert [fault.partition(": ")[0] for fault in faults] == names
    assert not (origin.root / "backup").exists()
    backup = origin.backup(wanted=BackupContents(damaged=False))
    manifest = read_manifest(backup)
    assert [each.what for each in manifest.left_out if each.damaged] == names
    assert digest not in manifest.artifacts
    there = restored(backup, tmp_path / "there")
    assert there.row().production == 1
    place = Workplace(tmp_path / "there" / STATE_DIR)
    (tmp_path / "model2").write_text("model 2")
    assert place.artifacts.put(tmp_path / "model2")[0] == digest, "registered again, it is there"
    place.artifacts.verify(digest)


def test_a_damaged_ledger_is_refused_whatever_may_be_left_out(origin: Origin) -> None:
    ledger = origin.state_dir / "ledger/ledger.db"
    with ledger.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))
    with pytest.raises(Refused) as refused:
        origin.backup(wanted=BackupContents(damaged=False))
    assert refused.value.code == "backup_source_damaged"
    assert "--skip-damaged" not in refused.value.hint


def test_an_lmdb_store_of_the_state_directory_is_copied_as_of_one_instant(
    origin: Origin, tmp_path: Path
) -> None:
    """Every row of a transaction is in the copy, or none, while another process writes."""
    lmdb = pytest.importorskip("lmdb")
    origin.config.write_text(f'{CONFIG}\n[online]\nstore = "lmdb"\n')
    path = origin.state_dir / "online/lmdb"
    path.mkdir()
    process = FORK.Process(target=_write_pairs, args=(path,), daemon=True)
    process.start()
    try:
        while not (path / "written").exists():
            process.join(0.01)
        backup = origin.backup()
    finally:
        process.kill()
        process.join()
    assert not [each for each in read_manifest(backup).left_out if "online" in each.what]
    restore_backup(backup, tmp_path / "there/kedge.toml")
    copy = tmp_path / "there" / STATE_DIR / "online/lmdb"
    with lmdb.open(str(copy), max_dbs=1) as env, env.begin(db=env.open_db(b"spend/1/1/1")) as txn:
        assert txn.get(b"ada") == txn.get(b"bob") is not None
    (path / "data.mdb").write_bytes(b"no store at all" * 1000)
    with pytest.raises(Refused, match="online/lmdb") as refused:
        origin.backup("second")
    assert refused.value.code == "backup_source_damaged"


def _write_pairs(path: Path) -> None:
    from kedge.adapters.online.lmdb import LmdbOnline

    store = LmdbOnline(path)
    for number in itertools.count():
        store.write("spend/1/1/1", [("ada", b"%d" % number), ("bob", b"%d" % number)])
        (path / "written").touch()


@pytest.mark.parametrize(
    ("line", "named"),
    [
        (
            'store = "redis"\nurl = "redis://kedge:hunter2@cache.example.org:6379/0"',
            "cache.example.org:6379",
        ),
        ('store = "redis"', "KEDGE_ONLINE_URL"),
        ('store = "lmdb"\npath = "/srv/values"', "/srv/values"),
        ('path = "values.db"', "values.db"),
    ],
)
def test_an_online_store_elsewhere_is_named_among_what_is_left_out(
    origin: Origin, line: str, named: str
) -> None:
    origin.config.write_text(f"{CONFIG}\n[online]\n{line}\n")
    found = read_manifest(origin.backup()).left_out
    (left,) = (each for each in found if each.what.startswith("the online store"))
    assert named in left.what
    assert "hunter2" not in left.what
    assert left.remedy.startswith("kedge features materialise")


def test_a_backup_of_nothing_is_refused_in_the_words_for_it(origin: Origin) -> None:
    shutil.rmtree(origin.state_dir / "ledger")
    with pytest.raises(Unavailable) as refused:
        make_backup(
            Workplace(origin.state_dir),
            origin.root / "b",
            origin.config,
            wanted=BackupContents(),
            say=print,
        )
    assert refused.value.code == "ledger_gone"
    assert not (origin.root / "b").exists()


def _overtaken(tell: Any, work: str, finished: Path, target: Path, *paths: Path) -> None:
    """Do the work, while another process completes the same just before the directory is held."""
    late: list[int] = []

    def hook(event: str, args: tuple[Any, ...]) -> None:
        held = str(Path(f"/proc/self/fd/{args[0]}").readlink()) if event == "fcntl.flock" else ""
        if held.startswith(str(target)) and not late:
            late.append(1)
            shutil.copytree(finished, target, dirs_exist_ok=True)

    place = Workplace(paths[0])
    sys.addaudithook(hook)
    try:
        if work == "backup":
            make_backup(place, target, paths[1], wanted=BackupContents(), say=print)
        else:
            restore_backup(paths[1], paths[2])
    except Refused as refused:
        tell.send((len(late), refused.code))
    else:
        tell.send((len(late), ""))


def overtaken(*paths: str | Path) -> tuple[int, str]:
    """Run it in a process of its own; how often it was overtaken, and how it was refused."""
    told, tell = FORK.Pipe(duplex=False)
    process = FORK.Process(target=_overtaken, args=(tell, *paths), daemon=True)
    process.start()
    tell.close()
    found: tuple[int, str] = told.recv()
    process.join(30)
    return found


def test_a_copy_that_another_process_completed_meanwhile_is_never_removed(
    origin: Origin, tmp_path: Path
) -> None:
    """A directory is looked at again once it is held: it was unfinished a moment ago."""
    whole = origin.backup("whole")
    target = tmp_path / "target"
    target.mkdir()
    (target / UNFINISHED).touch()
    found = overtaken("backup", whole, target, origin.state_dir, origin.config)
    assert found == (1, "backup_exists")
    assert not (target / UNFINISHED).exists()
    there = tmp_path / "there"
    world = restored(target, there)
    config = tmp_path / "late/kedge.toml"
    state = config.parent / STATE_DIR
    (state / "restoring").mkdir(parents=True)
    found = overtaken("restore", there / STATE_DIR, state, origin.state_dir, whole, config)
    assert found == (1, "restore_not_empty")
    assert World(state).row() == world.row()
    assert not (state / "restoring").exists()


def test_a_file_of_the_users_beside_an_unfinished_backup_is_never_removed(
    origin: Origin, tmp_path: Path
) -> None:
    for name in (UNFINISHED, "novel.md"):
        (tmp_path / name).write_text("chapter one")
    with pytest.raises(Refused) as refused:
        make_backup(origin.place, tmp_path, origin.config, wanted=BackupContents(), say=print)
    assert refused.value.code == "backup_not_empty"
    assert (tmp_path / "novel.md").read_text() == "chapter one"


# ---------------------------------------------------------------- whenever it dies

STEPS = ("os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.truncate", "sqlite3.connect", "open")
"""What changes a directory, or is about to."""


def _dies(tell: Any, step: int, work: str, *paths: Path) -> None:
    """Do the work and be killed at a step; tells how many there were where it was not reached."""
    count = 0

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal count
        if event not in STEPS or (
            event == "open" and "w" not in str(args[1] or "") and not _writes(args)
        ):
            return
        count += 1
        if count == step:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    if work == "backup":
        make_backup(Workplace(paths[0]), paths[1], paths[2], wanted=BackupContents(), say=print)
    else:
        restore_backup(paths[0], paths[1])
    tell.send(count)


def _writes(args: tuple[Any, ...]) -> bool:
    return isinstance(args[2], int) and bool(args[2] & (os.O_WRONLY | os.O_RDWR))


def died(step: int, work: str, *paths: Path) -> int | None:
    """Run it in a process of its own; None where it was killed, else how many steps there are."""
    told, tell = FORK.Pipe(duplex=False)
    process = FORK.Process(target=_dies, args=(tell, step, work, *paths), daemon=True)
    process.start()
    tell.close()
    process.join(30)
    if process.exitcode == -signal.SIGKILL:
        return None
    assert process.exitcode == 0, "it failed without being killed"
    return int(told.recv())


def moments(steps: int) -> list[int]:
    """When it is killed: now and then, and at each of the last steps, where it becomes complete."""
    return [*range(2, steps - 4, max(steps // 5, 1)), *range(steps - 4, steps + 1)]


def test_a_backup_that_was_killed_anywhere_never_looks_complete_and_can_be_repeated(
    origin: Origin, tmp_path: Path
) -> None:
    steps = died(10**6, "backup", origin.state_dir, origin.root / "whole", origin.config)
    assert steps is not None
    directory, complete = origin.root / "killed", 0
    for step in moments(steps):
        assert died(step, "backup", origin.state_dir, directory, origin.config) is None
        if not (directory / MANIFEST).exists():
            with pytest.raises(Refused) as refused:
                restore_backup(directory, tmp_path / "nowhere/kedge.toml")
            assert refused.value.code in ("backup_unfinished", "no_backup")
            continue
        complete += 1
        restore_backup(directory, tmp_path / f"there{step}/kedge.toml")
        shutil.rmtree(directory)
    assert complete <= 3, "only between the manifest and the end"
    origin.backup("killed")
    assert restored(directory, tmp_path / "there").row().production == 1
    assert not (directory / UNFINISHED).exists()


def test_a_restore_that_was_killed_anywhere_is_no_state_directory_and_can_be_repeated(
    origin: Origin, tmp_path: Path
) -> None:
    backup, root = origin.backup(), tmp_path / "there"
    steps = died(10**6, "restore", backup, tmp_path / "whole/kedge.toml")
    assert steps is not None
    config, state = root / "kedge.toml", root / STATE_DIR
    for step in moments(steps):
        assert died(step, "restore", backup, config) is None
        if (state / "ledger").exists():  # the last rename was made
            assert World(state).ledger.verify() == []
            assert World(state).row().unconfirmed
            with pytest.raises(Refused, match="not empty"):
                restore_backup(backup, config)
            shutil.rmtree(root)
            continue
        assert isinstance(find_fault(config, state), KedgeError)
        if state.exists() and any(state.iterdir()):
            with pytest.raises(Unavailable) as refused:
                create_workplace(state)
            assert refused.value.code == "restore_unfinished"
    world = restored(backup, root) if not (state / "ledger").exists() else World(state)
    assert world.ledger.verify() == []
    assert not (state / "restoring").exists()
