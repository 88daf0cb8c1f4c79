"""Restoring of a backup: into an empty place, verified, complete with its last rename.

The parts are assembled in `STATE_DIR/restoring/` and moved out of it, the ledger last. A directory
without a ledger is no state directory, so that a killed restore can be started again.

The lost history that others saw is unknown here. So entries and epochs continue above the number of
milliseconds since 2026, which grows faster than any ledger, and above every known one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from kedge.adapters.sql.sqlite.create import LEDGER_DIR, complete, migrate
from kedge.adapters.sql.sqlite.revisions import REVISION
from kedge.adapters.sql.sqlite.snapshot import find_damage
from kedge.config.load import read
from kedge.config.locate import RESTORING, find_workers
from kedge.config.model import STATE_DIR
from kedge.core.errors import BadConfig, Refused, Unavailable
from kedge.core.stored.head import Head
from kedge.core.time.instants import read_instant
from kedge.operations.backup.claim import claim
from kedge.operations.backup.make import BackupSummary, find_artifact_faults, summary
from kedge.operations.backup.manifest import (
    CONFIG,
    OF_THE_DISK,
    STATE,
    Manifest,
    check_files,
    finish,
    read_manifest,
)
from kedge.system.durable import sync, write_atomically
from kedge.system.reserve import get_free
from kedge.workspace import Workplace, actor

LOCK = "lock"
BEGAN = read_instant("2026-01-01T00:00:00Z")
"""Start of the milliseconds above which the epochs of restored ledgers continue."""


class RestoredBackup(BackupSummary, frozen=True, kw_only=True):
    """A restored backup. Epochs are those after the restore."""

    state_dir: str
    config: str
    """The path of kedge.toml."""
    config_written: bool
    """Whether it came from the backup; an existing one stays."""


def find_state_dir(source: Path, config: Path) -> Path:
    """Return the state directory of a restore: that of the local kedge.toml, else of the backup's.

    Raises:
        BadConfig: the local kedge.toml has faults.
    """
    if config.exists():
        where = read(config.read_text(encoding="utf-8-sig"), where=config.name).server.state_dir
    else:
        try:
            where = read((source / CONFIG).read_text(encoding="utf-8")).server.state_dir
        except (OSError, BadConfig):
            where = STATE_DIR
    return (config.parent / where).absolute()


def restore_backup(
    source: Path, config: Path, *, heads: Sequence[Head] = (), reason: str = ""
) -> RestoredBackup:
    """Restore a backup; nothing acts automatically there until an operator confirms it.

    Args:
        source: the directory of the backup.
        config: the path of its kedge.toml; an existing file stays.
        heads: heads of the ledger's chain that others know, such as in an alert.
        reason: the reason, for the ledger.

    Raises:
        Refused: `restore_not_empty`, `restore_running`, `still_running`, `other_history`,
            and the refusals of `read_manifest` and `check_files`.
        Unavailable: `no_room`, `not_writable`, `ledger_revision`.
        BadConfig: the local kedge.toml has faults.
    """
    manifest = read_manifest(source)
    if manifest.revision > REVISION:
        raise Unavailable(
            f"the backup's ledger is at revision {manifest.revision}, and this kedge needs"
            f" {REVISION}",
            code="ledger_revision",
            hint=f"a newer kedge wrote it: install {manifest.kedge}",
        )
    state_dir = find_state_dir(source, config)
    _refuse_running(state_dir)
    check_files(source, manifest)
    try:
        with _claimed(state_dir) as making:
            _check_room(state_dir, manifest)
            shutil.copytree(source / STATE, making / STATE, copy_function=_copy)
            epochs = _prepare(making / STATE, manifest, heads, reason)
            finish(making / STATE)
            written = _write_config(source, config)
            _move_out(making, state_dir)
    except OSError as error:
        raise Unavailable(
            f"it cannot be restored: {error.filename or state_dir}: {error.strerror or error}",
            code="not_writable",
            hint="nothing was restored; run it again once that is fixed",
        ) from error
    found = msgspec.structs.replace(summary(manifest, source), epochs=epochs)
    return RestoredBackup(
        **msgspec.structs.asdict(found),
        state_dir=str(state_dir),
        config=str(config),
        config_written=written,
    )


def _refuse_running(state_dir: Path) -> None:
    living = find_workers(state_dir)
    if living:
        raise Refused(
            f"kedge runs on {state_dir}: gateway workers {', '.join(map(str, living))}",
            code="still_running",
            hint="stop it first: callers are refused until kedge up runs on the restored directory",
        )


@contextmanager
def _claimed(state_dir: Path) -> Iterator[Path]:
    """Hold the state directory, and a directory in it to assemble the parts.

    Raises:
        Refused: `restore_not_empty`, `restore_running`.
    """
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    making = state_dir / RESTORING
    with claim(
        making / LOCK,
        check=lambda: _refuse_used(state_dir),
        release=lambda: shutil.rmtree(making, ignore_errors=True),
        told=f"another kedge restore writes to {state_dir}",
        code="restore_running",
    ):
        _sweep(state_dir)
        try:
            yield making
        except BaseException:
            if not (state_dir / LEDGER_DIR).exists():
                _sweep(state_dir)
                shutil.rmtree(making, ignore_errors=True)
            raise
        shutil.rmtree(making, ignore_errors=True)
        sync(state_dir)


def _refuse_used(state_dir: Path) -> None:
    """Refuse a directory that is not empty, unless a restore was interrupted there.

    Raises:
        Refused: `restore_not_empty`.
    """
    names = {path.name for path in state_dir.iterdir()} - {OF_THE_DISK}
    if LEDGER_DIR in names or (names and RESTORING not in names):
        raise Refused(
            f"{state_dir} is not empty",
            code="restore_not_empty",
            hint=(
                "kedge restores into an empty place only: stop kedge and move that directory away,"
                " or name another one by [server] state_dir in a kedge.toml here"
            ),
        )


def _sweep(state_dir: Path) -> None:
    """Remove the remains of a killed restore: the directory was empty before it."""
    for path in (*state_dir.iterdir(), *(state_dir / RESTORING).iterdir()):
        if path.name in (RESTORING, LOCK, OF_THE_DISK):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _check_room(state_dir: Path, manifest: Manifest) -> None:
    free = get_free(state_dir)
    if free < manifest.size:
        raise Unavailable(
            f"the backup has {manifest.size:,} bytes, and {free:,} are free in {state_dir}",
            code="no_room",
            hint="free some disk space, or set [server] state_dir to another disk",
        )


def _copy(source: str, target: str) -> str:
    """Copy a file; files of artifacts stay read-only."""
    shutil.copyfile(source, target, follow_symlinks=False)
    read_only = not os.stat(source).st_mode & 0o200  # noqa: PTH116 - of thousands
    os.chmod(target, 0o400 if read_only else 0o600)  # noqa: PTH101 - as above
    return target


def _prepare(state: Path, manifest: Manifest, heads: Sequence[Head], reason: str) -> dict[str, int]:
    """Verify the copy, and record the restore in its ledger."""
    faults = [
        f"{path.relative_to(state)}: {told}"
        for path in sorted(state.rglob("*.db"))
        if (told := find_damage(path))
    ]
    faults += find_artifact_faults(state / "artifacts", manifest.artifacts)
    if faults:
        raise _damaged(faults)
    complete(state / LEDGER_DIR)
    migrate(state)
    place = Workplace(state)
    try:
        faults = place.ledger.verify()
        head = place.ledger.read().head
        if faults or head != manifest.head:
            raise _damaged(faults or ["the ledger's newest entry is not the manifest's"])
        _check_history(place, heads, head)
        at = place.clock.now()
        place.ledger.begin_restored(
            backup=manifest.made_at,
            above=find_floor(manifest, heads, place.clock.unix()),
            by=actor(),
            reason=reason or f"restored from the backup of {manifest.made_at}",
            at=at,
        )
        return {name: state.epoch for name, state in place.ledger.read().states.items()}
    finally:
        place.database.close()


def find_floor(manifest: Manifest, heads: Sequence[Head], now: float) -> int:
    """Return a number above every lost entry and epoch; each epoch takes an entry of its own.

    Args:
        manifest: the manifest of the backup.
        heads: known heads of the lost history.
        now: Unix time. A clock before the backup's time is ignored.
    """
    known = [*heads, *manifest.seen, *([manifest.head] if manifest.head else [])]
    since = max(now, read_instant(manifest.made_at)) - BEGAN
    return max(int(since * 1000), *manifest.epochs.values(), *(head.seq for head in known), 0)


def _check_history(place: Workplace, heads: Sequence[Head], newest: Head | None) -> None:
    """Refuse a backup whose history differs from the known heads: another or rewritten ledger."""
    last = newest.seq if newest is not None else 0
    other = place.ledger.missing([head for head in heads if head.seq <= last])
    if other:
        told = "; ".join(f"{head.short}, and {text}" for head, text in other.items())
        raise Refused(
            f"the backup has another history: it is missing {told}",
            code="other_history",
            hint="it is the backup of another ledger, or the entry was changed",
        )


def _damaged(faults: list[str]) -> Refused:
    return Refused(
        f"the backup is not whole: {'; '.join(faults)}",
        code="backup_damaged",
        hint="nothing was restored; take another backup",
        details={"faults": faults},
    )


def _write_config(source: Path, config: Path) -> bool:
    """Write the backup's kedge.toml, unless one exists."""
    if config.exists() or not (source / CONFIG).exists():
        return False
    config.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(config, (source / CONFIG).read_bytes())
    sync(config.parent)
    return True


def _move_out(making: Path, state_dir: Path) -> None:
    """Move every part to its place, the ledger last: it makes a state directory."""
    ready = making / STATE
    for path in sorted(ready.iterdir()):
        if path.name != LEDGER_DIR:
            path.rename(state_dir / path.name)
    sync(state_dir)
    (ready / LEDGER_DIR).rename(state_dir / LEDGER_DIR)
    sync(state_dir)
