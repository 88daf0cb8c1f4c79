"""Manifest of a backup: its contents, the parts left out, and the digest of every file.

DIR/manifest.json    written last: a backup without one was interrupted
   /unfinished       exists and is locked while a backup is being made
   /kedge.toml       without secrets
   /state/...        as in the state directory
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec

from kedge.core import codec
from kedge.core.errors import Refused
from kedge.core.stored.head import Head
from kedge.core.values import Value
from kedge.system.durable import sync, sync_all, write_atomically
from kedge.system.files import PRIVATE_UMASK, walk

MANIFEST = "manifest.json"
UNFINISHED = "unfinished"
STATE = "state"
OF_THE_DISK = "lost+found"
"""Directory that an empty file system contains."""
CONFIG = "kedge.toml"
FORMAT = 1
"""Version of the manifest and the layout. A backup of an unknown version is not restored."""
SHOWN = 5
"""Limit of faults of a damaged backup in one message; its details have all."""
_SYNCERS = 16


class Copied(Value, frozen=True):
    """One file of a backup: its path in it, its size in bytes and its sha256."""

    path: str
    size: int
    sha256: str


class LeftOut(Value, frozen=True):
    """A part that a backup lacks: the reason, and the fix after a restore."""

    what: str
    why: str
    remedy: str = ""
    damaged: bool = False
    """Whether it was left out because it was damaged, and not by design."""


class Manifest(Value, kw_only=True, frozen=True):
    """The description of a backup."""

    format: int = FORMAT
    kedge: str
    """The version of kedge that made it."""
    revision: str
    """The revision of the ledger's tables."""
    made_at: str
    made_by: str
    host: str
    state_dir: str
    head: Head | None
    """The newest ledger entry in it. None: the ledger is empty."""
    epochs: dict[str, int]
    """The epoch of each endpoint."""
    production: dict[str, str]
    """The production release of each endpoint: r3."""
    seen: tuple[Head, ...] = ()
    """Heads that replicas of the host had seen, if they are not in the ledger."""
    artifacts: tuple[str, ...]
    """Digests of the artifacts."""
    files: tuple[Copied, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def size(self) -> int:
        """Size of all files in bytes."""
        return sum(file.size for file in self.files)


class Sealed(Value, frozen=True):
    """The manifest file: a manifest and its digest."""

    digest: str
    manifest: Manifest


class _Format(msgspec.Struct):
    format: int


class _Outline(msgspec.Struct):
    manifest: _Format


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write the manifest, which completes a backup.

    Raises:
        OSError: it cannot be written.
    """
    raw = codec.encode(Sealed(codec.fingerprint(manifest), manifest))
    write_atomically(directory / MANIFEST, raw, via=directory / f"{MANIFEST}.new")
    sync(directory)


def read_manifest(directory: Path) -> Manifest:
    """Return the manifest of a backup.

    Raises:
        Refused: `no_backup`, `backup_unfinished`, `backup_format`, `backup_damaged`.
    """
    path = directory / MANIFEST
    try:
        raw = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        if (directory / UNFINISHED).exists():
            raise Refused(
                f"the backup in {directory} was interrupted, or is still being made: it has no"
                f" {MANIFEST}",
                code="backup_unfinished",
                hint=f"kedge backup {directory} restarts it",
            ) from None
        raise Refused(
            f"there is no backup in {directory}: {MANIFEST} is missing",
            code="no_backup",
            hint="name the directory that kedge backup made",
        ) from None
    except OSError as error:
        raise _damaged([f"{path}: {error.strerror or error}"]) from error
    try:
        found = codec.decode(raw, _Outline).manifest.format
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _damaged([f"{MANIFEST} cannot be read: {error}"]) from error
    if found != FORMAT:
        raise Refused(
            f"the backup in {directory} has format {found}, and this kedge reads {FORMAT}",
            code="backup_format",
            hint="restore it with the kedge that made it",
        )
    try:
        sealed = codec.decode(raw, Sealed)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _damaged([f"{MANIFEST} cannot be read: {error}"]) from error
    if codec.fingerprint(sealed.manifest) != sealed.digest:
        raise _damaged([f"{MANIFEST} was changed: its digest does not match"])
    return sealed.manifest


def check_files(directory: Path, manifest: Manifest) -> None:
    """Compare every file of a backup with its manifest.

    Raises:
        Refused: `backup_damaged`: a file is missing, added, truncated or changed.
    """
    wanted = {file.path: file for file in manifest.files}
    try:
        there = {file.path: file for file in measure(directory)}
    except OSError as error:
        raise _damaged([f"it cannot be read: {error}"]) from error
    faults = [f"{path} is missing" for path in wanted if path not in there]
    faults += [f"{path} was added" for path in there if path not in wanted]
    for path, file in there.items():
        known = wanted.get(path)
        if known is not None and known.size != file.size:
            faults.append(f"{path} has {file.size:,} bytes, and had {known.size:,}")
        elif known is not None and known.sha256 != file.sha256:
            faults.append(f"{path} was changed: its digest does not match")
    if faults:
        raise _damaged(faults)


def _damaged(faults: list[str]) -> Refused:
    more = f"; and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
    return Refused(
        f"the backup is not what was made: {'; '.join(faults[:SHOWN])}{more}",
        code="backup_damaged",
        hint="nothing was restored; take another backup",
        details={"faults": faults},
    )


def measure(directory: Path) -> Iterator[Copied]:
    """Yield every file of a backup, except the manifest, with its size and digest.

    Raises:
        OSError: a file cannot be read.
    """
    found = walk(directory, skip=lambda name: name == OF_THE_DISK)
    for name, entry in sorted(found, key=lambda each: each[0]):
        if entry.is_dir(follow_symlinks=False) or name in (MANIFEST, f"{MANIFEST}.new", UNFINISHED):
            continue
        if not entry.is_file(follow_symlinks=False):
            yield Copied(name, -1, "")  # a link or a device: no backup contains one
            continue
        with Path(entry.path).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            yield Copied(name, file.tell(), digest)


def finish(directory: Path) -> None:
    """Restrict everything below a directory to its owner and sync it to disk, many files at once.

    Raises:
        OSError: it cannot be written.
    """
    found = walk(directory, skip=lambda name: name == OF_THE_DISK)
    entries = [Path(entry.path) for _, entry in found]
    for path in (*entries, directory):
        mode = stat.S_IMODE(path.lstat().st_mode)
        if mode & PRIVATE_UMASK:
            path.chmod(mode & ~PRIVATE_UMASK)
    sync_all([*entries, directory])
