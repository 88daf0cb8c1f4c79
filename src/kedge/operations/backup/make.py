"""Making of a backup: consistent while kedge runs, verified, complete with its last file.

The ledger is copied first. An artifact never changes and is stored before the ledger names it.
So every version of the copied ledger is copied after it. Each database is copied as of one instant;
data that retention removes meanwhile was due for removal. No process waits for a backup.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

from kedge.adapters.artifacts.directory import DirectoryArtifacts
from kedge.adapters.offline.log import OFFLINE_DIR
from kedge.adapters.records import RECORDS_DIR
from kedge.adapters.sql.sqlite.create import EVIDENCE_DIR, LEDGER_DIR
from kedge.adapters.sql.sqlite.revisions import read_revision
from kedge.adapters.sql.sqlite.snapshot import find_damage, read_artifacts, snapshot
from kedge.config.load import read
from kedge.config.model import CONFIG_NAME, ONLINE_DIR, Settings
from kedge.config.secrets import VARIABLES, scrub
from kedge.core.errors import CorruptArtifact, KedgeError, Refused, Unavailable
from kedge.core.features.generations import URL_VARIABLE
from kedge.core.stored.head import Head
from kedge.core.values import State, Value
from kedge.operations.backup.claim import claim
from kedge.operations.backup.manifest import (
    CONFIG,
    MANIFEST,
    OF_THE_DISK,
    STATE,
    UNFINISHED,
    LeftOut,
    Manifest,
    finish,
    measure,
    write_manifest,
)
from kedge.operations.progress import Progress
from kedge.system.durable import sync
from kedge.system.files import tighten, walk
from kedge.system.reserve import is_short
from kedge.workspace import Workplace, actor, host_name

ALWAYS_OUT = (
    LeftOut(
        "the secret of the state directory, and the tokens of testers",
        "secrets stay on their machine",
        "kedge up makes a new secret; put the file of [server] tester_token_file in its place"
        " again",
    ),
    LeftOut(
        "environment variables of kedge up",
        "they hold passwords, such as KEDGE_SMTP_URL, KEDGE_ONLINE_URL and the ${NAME} of channels",
        "set them where it is restored",
    ),
    LeftOut(
        "roster and replicas",
        "they describe processes of this host; their newest heads are in the manifest",
        "made again",
    ),
    LeftOut("logs", "nothing depends on them", "copy .kedge/logs if you want to keep them"),
    LeftOut(
        "Python packages, features files and training sets as files",
        "they are not in the state directory; code of transformations is in artifacts",
        "install the same packages",
    ),
)
RECORDS_OUT = LeftOut(
    "records: predictions, their inputs, and labels",
    "--without-records",
    "outcomes of requests before the backup find no prediction",
)
LEFT_UNFINISHED = {UNFINISHED, CONFIG, STATE, f"{MANIFEST}.new"}
"""Files that an interrupted backup can leave in its directory. The next backup removes them."""
REMATERIALISE = "kedge features materialise VIEW writes it again from the offline log"
REMEDIES = {
    EVIDENCE_DIR: "made again: rollouts under way restart their counts",
    ONLINE_DIR: REMATERIALISE,
    RECORDS_DIR: "outcomes of its requests find no prediction",
}
"""By directory of the state: the fix if a damaged database in it was left out."""
PUT_BACK = "register the same files again, under the same names"

Say = Callable[[str], None]


class BackupContents(Value, frozen=True):
    """The contents that a backup must have."""

    records: bool = True
    """Whether predictions and labels are copied."""
    damaged: bool = True
    """Whether damage is refused. False: damaged parts but the ledger are left out and listed."""


class BackupSummary(Value, frozen=True, kw_only=True):
    """A backup in short form."""

    backup: str
    """Its directory."""
    made_at: str
    made_by: str
    kedge: str
    """The version of kedge that made it."""
    head: str | None
    """The newest ledger entry in it, as NUMBER:HASH; null: the ledger is empty."""
    epochs: dict[str, int]
    """Epochs by endpoint."""
    production: dict[str, str]
    """By endpoint: the production release, as r3."""
    artifacts: int
    files: int
    bytes: int
    """Size of all files in bytes."""
    left_out: tuple[LeftOut, ...]
    """Parts that it does not contain."""


def make_backup(
    place: Workplace, directory: Path, config: Path, *, wanted: BackupContents, say: Say
) -> Manifest:
    """Back up a state directory into an empty or missing directory; return the manifest.

    Args:
        place: the state directory.
        directory: the target. It is unchanged if this fails.
        config: its kedge.toml.
        wanted: the parts to copy, and whether damage is refused.
        say: called with progress messages.

    Raises:
        Refused: `backup_exists`, `backup_not_empty`, `backup_running`;
            `backup_source_damaged`: a part to be copied is damaged.
        Unavailable: `no_room`, `not_writable`, `snapshot_failed`; the ledger cannot be read.
    """
    if directory.resolve().is_relative_to(place.state_dir.resolve()):
        raise Refused(
            f"{directory} is inside the state directory",
            code="backup_not_empty",
            hint="name a directory elsewhere, best on another disk",
        )
    try:
        with _claimed(directory):
            return _Making(place, directory, config, wanted, say).run()
    except OSError as error:
        raise Unavailable(
            f"the backup cannot be written: {error.filename or directory}:"
            f" {error.strerror or error}",
            code="not_writable",
            hint="nothing was left behind; free some space or name another directory",
        ) from error


@contextmanager
def _claimed(directory: Path) -> Iterator[None]:
    """Hold a directory while a backup is made in it; remove the remains of a killed one.

    Raises:
        Refused: the directory is in use.
    """
    made = not directory.exists()
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    unfinished = directory / UNFINISHED
    with claim(
        unfinished,
        check=lambda: _refuse_used(directory),
        release=lambda: unfinished.unlink(missing_ok=True),
        told=f"another kedge backup writes to {directory}",
        code="backup_running",
    ):
        tighten(directory)
        _empty(directory)
        try:
            yield
        except BaseException:
            _empty(directory)
            unfinished.unlink(missing_ok=True)
            if made:
                with suppress(OSError):
                    directory.rmdir()
            raise
        unfinished.unlink(missing_ok=True)


def _refuse_used(directory: Path) -> None:
    """Refuse a directory that contains more than an interrupted backup leaves.

    Raises:
        Refused: `backup_exists`, `backup_not_empty`.
    """
    names = {path.name for path in directory.iterdir()} - {OF_THE_DISK}
    if MANIFEST in names:
        raise Refused(
            f"there is a backup in {directory} already",
            code="backup_exists",
            hint=(
                "a backup is never overwritten: name another directory, such as one with today's"
                " date"
            ),
        )
    if names and (UNFINISHED not in names or names - LEFT_UNFINISHED):
        raise Refused(
            f"{directory} is not empty",
            code="backup_not_empty",
            hint="name a directory that is empty or does not exist",
        )


def _empty(directory: Path) -> None:
    for path in directory.iterdir():
        if path.name in (UNFINISHED, OF_THE_DISK):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


class _Making:
    """A backup in progress."""

    def __init__(
        self, place: Workplace, directory: Path, config: Path, wanted: BackupContents, say: Say
    ) -> None:
        self._place = place
        self._from = place.state_dir
        self._directory = directory
        self._to = directory / STATE
        self._config = config
        self._wanted = wanted
        self._say = say
        self._left_out = list(ALWAYS_OUT)
        self._damaged: list[LeftOut] = []

    def run(self) -> Manifest:
        """Copy, verify, and complete the backup."""
        made_at = self._place.clock.now()
        self._to.mkdir()
        settings = self._copy_config()
        self._snapshot(Path(LEDGER_DIR) / "ledger.db")
        self._check_ledger()
        copy = Workplace(self._to)
        try:
            book = copy.ledger.read()
            artifacts = read_artifacts(copy.database)
            revision = copy.database.read(read_revision)
        finally:
            copy.database.close()
        self._say(f"the ledger is copied as of {made_at[:19]}Z; {len(artifacts)} artifacts follow")
        self._copy_artifacts(tuple(artifacts))
        self._copy_values(settings)
        self._copy_telemetry()
        self._check_databases()
        left = self._check_artifacts(artifacts)
        if self._damaged and self._wanted.damaged:
            raise _refuse([f"{each.what}: {each.why}" for each in self._damaged], skippable=True)
        self._left_out += self._damaged
        finish(self._directory)
        manifest = Manifest(
            kedge=version("kedge"),
            revision=revision,
            made_at=made_at,
            made_by=actor(),
            host=host_name(),
            state_dir=str(self._from),
            head=book.head,
            epochs={name: state.epoch for name, state in book.states.items()},
            production=_production(book.states),
            seen=self._seen(),
            artifacts=left,
            files=tuple(measure(self._directory)),
            left_out=tuple(self._left_out),
        )
        write_manifest(self._directory, manifest)
        if self._directory.parent.exists():
            sync(self._directory.parent)
        return manifest

    # ------------------------------------------------------------ copying

    def _copy_config(self) -> Settings:
        """Copy kedge.toml without secrets; return its settings, or the defaults if damaged."""
        try:
            text = self._config.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            self._leave(CONFIG_NAME, f"it cannot be read: {error}", "write it again")
            return Settings()
        cleaned = scrub(text)
        if cleaned is None:
            self._leave(
                CONFIG_NAME, "it holds a password that cannot be taken out", "copy it by hand"
            )
        else:
            (self._directory / CONFIG).write_bytes(cleaned[0].encode())
            for place in cleaned[1]:
                remedy = f"set {VARIABLES[place]}" if place in VARIABLES else "write it again"
                self._leave(f"{CONFIG_NAME}: {place}", "it holds a password", remedy)
        try:
            return read(text)
        except KedgeError:
            return Settings()

    def _copy_artifacts(self, digests: tuple[str, ...]) -> None:
        root = self._to / "artifacts"
        root.mkdir()
        work = Progress(self._say, self._place.clock.monotonic, "artifacts copied", len(digests))
        for digest in digests:
            self._check_room()
            try:
                self._place.artifacts.fetch(digest, root)
            except CorruptArtifact:
                # Two renames replace a damaged copy by a sound one: check once more.
                with suppress(CorruptArtifact):
                    self._place.artifacts.fetch(digest, root)
            work.add()

    def _copy_values(self, settings: Settings) -> None:
        """Copy values that were computed ahead, pins, and releases that were set aside."""
        self._copy_tree(OFFLINE_DIR, lambda name: name.endswith(".parquet"))
        self._copy_tree("pins", _is_kept)
        self._copy_tree("apart", _is_kept)
        store = settings.online
        if store.store == "redis":
            where = f"the online store, Redis at {get_server(store.url)}"
            self._leave(where, "it is a server of its own", REMATERIALISE)
        elif store.path is not None:
            where = f"the online store, {store.path}"
            self._leave(where, "online.path puts it outside of the state directory", REMATERIALISE)
        elif store.store == "lmdb":
            self._copy_lmdb(Path(ONLINE_DIR) / "lmdb")
        else:
            self._snapshot(Path(ONLINE_DIR) / "online.db")

    def _copy_lmdb(self, path: Path) -> None:
        """Copy the directory of an LMDB store, if it exists."""
        try:
            lmdb = import_module("kedge.adapters.online.lmdb")  # the library is optional
        except ImportError:
            self._leave("the online store", "the package lmdb is not installed here", REMATERIALISE)
            return
        self._check_room()
        target = self._to / path
        target.mkdir(parents=True)
        try:
            told: str = lmdb.copy(self._from / path, target)
        except FileNotFoundError:
            shutil.rmtree(target.parent)
            return
        if told:
            shutil.rmtree(target.parent)
            self._damaged.append(LeftOut(str(path), told, REMATERIALISE, damaged=True))

    def _copy_telemetry(self) -> None:
        """Copy counts and verdicts; also predictions and labels, if wanted."""
        self._snapshot(Path(EVIDENCE_DIR) / "evidence.db")
        self._copy_tree(EVIDENCE_DIR, lambda name: name == "BEGINNING")
        if not self._wanted.records:
            self._left_out.append(RECORDS_OUT)
            return
        # In the order in which predictions move, labels last, so that none is missed.
        records = self._from / RECORDS_DIR
        self._copy_tree(f"{RECORDS_DIR}/spool", lambda _: True)
        for path in sorted(records.glob("hours/*.db")):
            self._snapshot(path.relative_to(self._from))
        self._snapshot(Path(RECORDS_DIR) / "labels.db")
        kept = [*records.glob("hours/*.damaged*"), *self._from.glob("*/*.unreadable-*")]
        if kept:
            self._leave("what could not be read and was set aside", f"{len(kept)} files", "")

    def _snapshot(self, path: Path) -> None:
        """Copy a database, if it exists."""
        self._check_room()
        (self._to / path).parent.mkdir(parents=True, exist_ok=True)
        try:
            told = snapshot(self._from / path, self._to / path)
        except FileNotFoundError:
            if path.parent == Path(LEDGER_DIR):
                self._place.ledger.read()  # raises the error of a lost ledger
            with suppress(OSError):
                (self._to / path).unlink(missing_ok=True)
                (self._to / path).parent.rmdir()
            return
        if told and path.parts[0] == LEDGER_DIR:
            raise _refuse([f"{path}: {told}"], skippable=False)
        if told:
            self._skip_database(path, told)

    def _skip_database(self, path: Path, why: str) -> None:
        (self._to / path).unlink(missing_ok=True)
        self._damaged.append(LeftOut(str(path), why, REMEDIES[path.parts[0]], damaged=True))

    def _copy_tree(self, name: str, is_wanted: Callable[[str], bool]) -> None:
        """Copy regular files below a directory; a file removed meanwhile was not needed."""
        source = self._from / name
        if not source.is_dir():
            return
        for below, entry in walk(source):
            if entry.is_dir(follow_symlinks=False) or not is_wanted(entry.name):
                continue
            if not entry.is_file(follow_symlinks=False):
                continue
            self._check_room()
            target = self._to / name / below
            target.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                shutil.copyfile(entry.path, target, follow_symlinks=False)

    def _check_room(self) -> None:
        if is_short(self._directory):
            raise Unavailable(
                f"the disk of {self._directory} is nearly full",
                code="no_room",
                hint="nothing was left behind; name a directory on another disk",
            )

    def _leave(self, what: str, why: str, remedy: str) -> None:
        self._left_out.append(LeftOut(what, why, remedy))

    # ------------------------------------------------------------ checking

    def _check_ledger(self) -> None:
        """Check every page and every entry of the copy.

        Raises:
            Refused: one is damaged. Without the ledger no other part can be restored.
        """
        path = Path(LEDGER_DIR) / "ledger.db"
        told = find_damage(self._to / path)
        if told:
            raise _refuse([f"{path}: {told}"], skippable=False)
        copy = Workplace(self._to)
        try:
            faults = copy.ledger.verify()
        finally:
            copy.database.close()
        if faults:
            raise _refuse(list(faults), skippable=False)

    def _check_databases(self) -> None:
        """Remove damaged databases from the copy."""
        for path in sorted(self._to.rglob("*.db")):
            name = path.relative_to(self._to)
            if name.parts[0] != LEDGER_DIR and (told := find_damage(path)):
                self._skip_database(name, told)

    def _check_artifacts(self, names: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
        """Remove damaged artifacts from the copy; return the digests of the others."""
        root, left = self._to / "artifacts", []
        work = Progress(self._say, self._place.clock.monotonic, "artifacts verified", len(names))
        for digest, of in names.items():
            faults = find_artifact_faults(root, (digest,))
            work.add()
            if not faults:
                left.append(digest)
                continue
            shutil.rmtree(root / digest.partition(":")[2], ignore_errors=True)
            self._damaged.append(
                LeftOut(f"the artifact of {', '.join(of)}", faults[0], PUT_BACK, damaged=True)
            )
        return tuple(left)

    def _seen(self) -> tuple[Head, ...]:
        """Return the heads that others know of this ledger: a restored copy must exceed them."""
        found = set(self._place.disk.heads().values())
        with suppress(KedgeError):
            found |= {m.head for m in self._place.roster.members() if m.head is not None}
        return tuple(sorted(found, key=lambda head: head.seq))


def find_artifact_faults(root: Path, digests: tuple[str, ...]) -> list[str]:
    """Return the faults of artifacts; every byte is hashed."""
    store, found = DirectoryArtifacts(root), []
    for digest in digests:
        try:
            store.verify(digest)
        except CorruptArtifact as error:
            found.append(str(error))
    return found


def get_server(url: str | None, environ: Mapping[str, str] = os.environ) -> str:
    """Return the host and port of a store's URL, without its user and password."""
    found = url or environ.get(URL_VARIABLE)
    if not found:
        return f"the address in {URL_VARIABLE}"
    parts = urlsplit(found)
    return parts.netloc.rpartition("@")[2] or parts.path


def _refuse(faults: list[str], *, skippable: bool) -> Refused:
    return Refused(
        f"what would be backed up is damaged: {'; '.join(faults)}",
        code="backup_source_damaged",
        hint="kedge help repair explains how to fix it"
        + ("; --skip-damaged backs the rest up" if skippable else ""),
        details={"faults": faults},
    )


def _production(states: dict[str, State]) -> dict[str, str]:
    return {n: f"r{s.production}" for n, s in states.items() if s.production is not None}


def _is_kept(name: str) -> bool:
    return name.endswith(".json") and not name.startswith(".")


def summary(manifest: Manifest, directory: Path) -> BackupSummary:
    """Return a backup in short form."""
    return BackupSummary(
        backup=str(directory),
        made_at=manifest.made_at,
        made_by=manifest.made_by,
        kedge=manifest.kedge,
        head=manifest.head.short if manifest.head is not None else None,
        epochs=manifest.epochs,
        production=manifest.production,
        artifacts=len(manifest.artifacts),
        files=len(manifest.files),
        bytes=manifest.size,
        left_out=manifest.left_out,
    )
