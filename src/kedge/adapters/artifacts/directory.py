"""Directory of artifacts by digest: the same bytes are stored once and never change.

    <root>/<hex>/files/...       the bytes, read-only
    <root>/<hex>/manifest.json   path, size and sha256 of each file
    <root>/<hex>/proof.json      the golden rows
    <root>/.tmp-*                a copy under way, or its remains; `lock` in it is its owner's

The digest is that of the sorted manifest. A copy becomes visible by one rename, after all its
bytes are on the disk. A crash leaves a `.tmp-` directory, never half an artifact. The kernel
releases the lock of an ended owner, and the next copy removes its remains.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from kedge.core import codec
from kedge.core.errors import CorruptArtifact, Refused, Unavailable
from kedge.core.values import MOST_DEPTH, MOST_FILES, MOST_NAME, FileEntry, Proof
from kedge.system.durable import sync, sync_all, write_atomically
from kedge.system.files import walk
from kedge.system.locks import open_lock, try_lock
from kedge.system.reserve import get_free, get_reserve

MOST_ENTRIES = 100_000
"""Maximum number of files and folders that are searched, hidden ones included."""
MOST_BYTES = 256 << 30
"""Maximum bytes of one artifact: more than a host can load, and minutes to hash."""

_CHUNK = 1 << 20
_BLOCK = 4096
"""Bytes of a file system's allocation unit."""
_LOOK = 64 << 20
"""Bytes copied between two checks of the free space."""
_SYNCERS = 16
"""Threads that wait for the disk: it writes the requests of many threads at once."""
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_LEFTOVER_S = 86_400
"""Age at which a temporary copy without a lock is removed: an earlier kedge made it, and no copy
takes a day."""


def _nothing(_: int, __: int) -> None:
    pass


class DirectoryArtifacts:
    """Artifacts by digest, in one directory that several processes may share."""

    def __init__(self, root: Path, copied: Callable[[int, int], None] = _nothing) -> None:
        """Store below `root`; `copied` gets the bytes of each part of a copy, and all of them."""
        self._root = root
        self._copied = copied

    def put(self, source: Path, beside: Sequence[Path] = ()) -> tuple[str, tuple[FileEntry, ...]]:
        """Copy a file or a directory in; return its digest and its per-file manifest.

        Files `beside` it are added under their own names, and replace files with the same names.

        Putting the same bytes again changes nothing, but the stored ones are verified, and replaced
        if they are damaged. The golden rows stay.

        Raises:
            Refused: the source is missing, contains a symbolic link or special file, exceeds
                `MOST_FILES`, `MOST_DEPTH` or `MOST_BYTES`, or grew meanwhile.
            Unavailable: `no_room`: the copy would use the ledger's reserve of free space; or
                the disk cannot be written.
        """
        found = find_files(source, beside)
        with self._writing(), self._temporary() as temporary:
            self._check_room(found)
            copy = temporary / "artifact"
            files = tuple(_Copying(self._root, found, self._copied).run(copy / "files"))
            digest = codec.fingerprint(files)
            write_atomically(copy / "manifest.json", codec.canonical(files))
            sync_all(copy / "files" / entry.path for entry in files)
            _sync_tree(copy)
            copy.chmod(0o700)
            self._install(copy, digest)
        return digest, files

    def sweep(self) -> None:
        """Remove the temporary copies of processes that have ended.

        Raises:
            Unavailable: the disk cannot be written.
        """
        with self._writing(), self._temporary():
            pass

    @contextmanager
    def _temporary(self) -> Iterator[Path]:
        """Yield a directory for this copy only; remove those of ended owners."""
        self._root.mkdir(parents=True, exist_ok=True)
        while True:
            made = Path(tempfile.mkdtemp(prefix=".tmp-", dir=self._root))
            lock = _lock(made)
            if lock is not None:
                break
        try:
            self._sweep(made)
            yield made
        finally:
            shutil.rmtree(made, ignore_errors=True)
            os.close(lock)

    def _check_room(self, found: list[FoundFile]) -> None:
        """Refuse a copy that leaves too little for the ledger. Holes count: they are copied."""
        size = sum(_BLOCK + -(-each.size // _BLOCK) * _BLOCK for each in found)
        free = get_free(self._root)
        if free < size + _reserve(self._root):
            raise _no_room(self._root, size, free)

    def _install(self, copy: Path, digest: str) -> None:
        home = self._home(digest)
        if home.exists():
            try:
                self.verify(digest)
            except CorruptArtifact:
                self._replace(home, copy)
            return
        try:
            copy.rename(home)
        except OSError:
            self.verify(digest)  # another process stored the same bytes first
        sync(self._root)

    def _replace(self, home: Path, copy: Path) -> None:
        """Swap damaged bytes for sound ones. For a moment there are none: readers fail then, too."""
        if (home / "proof.json").is_file():
            shutil.copyfile(home / "proof.json", copy / "proof.json")
            sync_all([copy / "proof.json"])
            sync(copy)
        home.rename(copy.with_name("damaged"))
        copy.rename(home)
        sync(self._root)

    def path(self, digest: str) -> Path:
        """Return the directory of the files, unverified.

        Raises:
            CorruptArtifact: the artifact is missing.
        """
        files = self._home(digest) / "files"
        if not files.is_dir():
            raise CorruptArtifact(
                f"{digest} is not in {self._root}", hint="register the model again from its source"
            )
        return files

    def verify(self, digest: str) -> Path:
        """Hash every byte again, then return the directory of the files.

        Raises:
            CorruptArtifact: a file is missing, was added, or differs; the error names it.
        """
        files = self.path(digest)
        try:
            manifest = self._manifest(digest)
            wanted = {entry.path: entry for entry in manifest}
            there = {
                name: Path(entry.path)
                for name, entry in sorted(walk(files), key=lambda each: each[0])
                if not entry.is_dir(follow_symlinks=False)
            }
            faults = [f"{name} is missing" for name in wanted if name not in there]
            faults += [f"{name} was added" for name in there if name not in wanted]
            faults += [
                f"{name} was changed"
                for name, path in there.items()
                if name in wanted and not _is(path, wanted[name])
            ]
        except OSError as error:
            raise CorruptArtifact(f"{digest}: cannot be read: {error}") from error
        if faults:
            raise CorruptArtifact(
                f"{digest}: {'; '.join(faults)}",
                hint="register the model again from its source",
                details={"faults": faults},
            )
        return files

    def fetch(self, digest: str, into: Path) -> None:
        """Copy an artifact, its manifest and its golden rows, unverified, into another store's root.

        A special file is copied as such, so that verification finds it there.

        Raises:
            CorruptArtifact: the artifact is missing.
            Unavailable: the artifact cannot be copied.
        """
        home = self.path(digest).parent
        try:
            shutil.copytree(
                home, into / home.name, symlinks=True, ignore=shutil.ignore_patterns(".tmp-*")
            )
        except OSError as error:  # shutil's own error is one, and names every file
            raise Unavailable(
                f"{digest} cannot be copied: {error}",
                code="artifacts_unavailable",
                hint="kedge doctor looks at every artifact",
            ) from error

    def write_proof(self, digest: str, proof: Proof) -> None:
        """Store the golden rows beside the files; they replace existing ones, whole."""
        home = self.path(digest).parent
        with self._writing(), self._temporary() as temporary:
            via = temporary / "proof.json"
            write_atomically(home / "proof.json", codec.encode(proof), via=via)
            sync(home)

    def proof(self, digest: str) -> Proof:
        """Return the golden rows.

        Raises:
            CorruptArtifact: the golden rows are missing or unreadable.
        """
        file = self.path(digest).parent / "proof.json"
        try:
            return codec.decode(file.read_bytes(), Proof)
        except (OSError, msgspec.DecodeError) as error:
            raise CorruptArtifact(
                f"{digest} has no readable golden rows: {error}", hint="register the model again"
            ) from error

    def _home(self, digest: str) -> Path:
        match = _DIGEST.fullmatch(digest)
        if match is None:
            raise CorruptArtifact(f"{digest!r:.80} is not a digest")
        return self._root / match[1]

    def _manifest(self, digest: str) -> tuple[FileEntry, ...]:
        try:
            raw = (self._home(digest) / "manifest.json").read_bytes()
            manifest = codec.decode(raw, tuple[FileEntry, ...])
        except (OSError, msgspec.DecodeError) as error:
            raise CorruptArtifact(f"{digest}: manifest.json: {error}") from error
        if codec.fingerprint(manifest) != digest:
            raise CorruptArtifact(f"{digest}: manifest.json was changed")
        return manifest

    def _sweep(self, own: Path) -> None:
        """Remove the remains of ended owners; a lock that can be taken has no owner."""
        now = own.stat().st_mtime  # the file system's time: it may be another host's
        for path in self._root.glob(".tmp-*"):
            if path == own:
                continue
            try:
                handle = os.open(path / "lock", os.O_RDWR | os.O_CLOEXEC)
            except OSError:
                self._sweep_unlocked(path, now)
                continue
            try:
                if try_lock(handle):  # otherwise its owner lives
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(handle)

    def _sweep_unlocked(self, path: Path, now: float) -> None:
        with suppress(OSError):
            path.rmdir()  # its owner ended before it took its lock, or will make another
            return
        with suppress(OSError):
            if now - path.stat().st_mtime > _LEFTOVER_S:
                shutil.rmtree(path, ignore_errors=True)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Unavailable(
                f"cannot write to {self._root}: {error.strerror or error}",
                code="artifacts_unavailable",
                hint="free some disk space or fix the permissions, then try again",
            ) from error


class FoundFile(NamedTuple):
    """A file of a model: its name inside the artifact, its path, and its size with its holes."""

    name: str
    path: Path
    size: int


def find_files(source: Path, beside: Sequence[Path]) -> list[FoundFile]:
    """Return the files of a model, and those beside it, sorted by name inside the artifact.

    Raises:
        Refused: `no_files`, `source_unreadable`; `symlink`, `special_file`, `bad_file_name`; or
            there are too many, too deep, or too large ones.
    """
    if source.is_symlink():
        raise Refused(
            f"{source} is a symbolic link", code="symlink", hint=f"name it: {source.resolve()}"
        )
    try:
        if not source.exists():
            raise Refused(f"{source} does not exist", code="no_files")
        if source.is_dir():
            found = list(_below(source))
        else:
            found = [_checked(source.name, source, source.lstat())]
        further = [_checked(each.name, each, each.lstat()) for each in beside]
        instead = {each.name for each in further}
        found = [each for each in found if each.name not in instead] + further
    except OSError as error:
        raise Refused(
            f"{source} cannot be read: {error.strerror or error}", code="source_unreadable"
        ) from error
    if not found:
        raise Refused(f"{source} holds no files", code="no_files")
    size = sum(each.size for each in found)
    if size > MOST_BYTES:
        raise Refused(
            f"{source} has {size:,} bytes (limit {MOST_BYTES:,})",
            code="artifact_too_large",
            hint="holes of a sparse file count",
        )
    return sorted(found)


def _below(directory: Path) -> Iterator[FoundFile]:
    """Yield the files below a directory. The first fault ends the search, however large it is."""
    files = 0
    for entries, (name, entry) in enumerate(walk(directory, skip=_is_skipped), 1):
        if entries > MOST_ENTRIES:
            raise _too_many(directory, f"{MOST_ENTRIES:,} files and folders")
        folder = entry.is_dir(follow_symlinks=False)
        if len(name.split("/")) - 1 + folder > MOST_DEPTH:
            raise Refused(
                f"{directory} has folders more than {MOST_DEPTH} deep",
                code="artifact_too_deep",
                hint="register the folder that holds the model",
            )
        if folder:
            continue
        files += 1
        if files > MOST_FILES:
            raise _too_many(directory, f"{MOST_FILES:,} files")
        yield _checked(name, Path(entry.path), entry.stat(follow_symlinks=False))


def _is_skipped(name: str) -> bool:
    return name.startswith(".") or name == "__pycache__"


def _too_many(directory: Path, limit: str) -> Refused:
    return Refused(
        f"{directory} has more than {limit}",
        code="artifact_too_many_files",
        hint="register the folder that holds the model and nothing else",
    )


def _checked(name: str, path: Path, found: os.stat_result) -> FoundFile:
    if stat.S_ISLNK(found.st_mode):
        raise Refused(
            f"{name} is a symbolic link",
            code="symlink",
            hint="put a copy of what it points to in its place",
        )
    if not stat.S_ISREG(found.st_mode):
        raise Refused(f"{name} is neither a file nor a directory", code="special_file")
    if not name.isprintable():
        raise Refused(f"{name!a} is not a printable name", code="bad_file_name")
    if len(os.fsencode(name)) > MOST_NAME:
        raise Refused(
            f"{name[:60]}... has a name of more than {MOST_NAME:,} bytes", code="bad_file_name"
        )
    return FoundFile(name, path, found.st_size)


class _Copying:
    """Copier that hashes files; it stops if a file grows, or the disk fills meanwhile."""

    def __init__(
        self, root: Path, found: list[FoundFile], copied: Callable[[int, int], None]
    ) -> None:
        self._root = root
        self._found = found
        self._copied = copied
        self._size = sum(each.size for each in found)
        self._unseen = 0

    def run(self, into: Path) -> Iterator[FileEntry]:
        """Copy all files; each entry describes the written bytes, not the current source."""
        into.mkdir(parents=True)
        folders = {""}
        for each in self._found:
            folder = each.name.rpartition("/")[0]
            if folder not in folders:
                (into / folder).mkdir(parents=True, exist_ok=True)
                folders.add(folder)
            yield self._copy(each, into / each.name)

    def _copy(self, each: FoundFile, target: Path) -> FileEntry:
        sha, size = hashlib.sha256(), 0
        with target.open("xb", buffering=0) as writer:
            for chunk in _read(each):
                size += len(chunk)
                if size > each.size:
                    raise Refused(
                        f"{each.name} grew while it was copied: more than {each.size:,} bytes",
                        code="source_changed",
                        hint="copy it to a place where nothing writes, and register that",
                    )
                sha.update(chunk)
                self._look(len(chunk))
                writer.write(chunk)
                self._copied(len(chunk), self._size)
            os.fchmod(writer.fileno(), 0o400)
        return FileEntry(path=each.name, size=size, sha256=sha.hexdigest())

    def _look(self, more: int) -> None:
        self._unseen += more
        if self._unseen >= _LOOK:
            self._unseen = 0
            free = get_free(self._root)
            if free < _reserve(self._root):
                raise _no_room(self._root, _LOOK, free)


def _read(each: FoundFile) -> Iterator[bytes]:
    """Yield the bytes of a source file; its faults are not the store's."""
    try:
        source = os.open(each.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(source, "rb", buffering=0) as reader:
            if not stat.S_ISREG(os.fstat(source).st_mode):
                raise Refused(f"{each.name} is not a file any more", code="special_file")
            while chunk := reader.read(_CHUNK):
                yield chunk
    except OSError as error:
        raise Refused(
            f"{each.path} cannot be read: {error.strerror or error}", code="source_unreadable"
        ) from error


def _reserve(directory: Path) -> int:
    """Return the free bytes that a copy leaves to the ledger, so that a rollback can be written."""
    return get_reserve(os.statvfs(directory))


def _no_room(root: Path, size: int, free: int) -> Unavailable:
    return Unavailable(
        f"a copy of {size:,} bytes into {root} would leave too little of the {free:,} that are"
        " free",
        code="no_room",
        hint=(
            f"free some disk space: {_reserve(root) >> 20} MB stay free, so that a rollback can be"
            " written"
        ),
    )


def _lock(directory: Path) -> int | None:
    """Take the owner's lock of a new temporary directory; None if a sweep was faster."""
    try:
        handle = open_lock(directory / "lock")
    except FileNotFoundError:
        return None
    try:
        own = os.fstat(handle)
        if try_lock(handle) and os.path.samestat(own, (directory / "lock").stat()):
            return handle
    except FileNotFoundError:
        pass
    except BaseException:
        os.close(handle)
        raise
    os.close(handle)
    return None


def _is(path: Path, entry: FileEntry) -> bool:
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode) or found.st_size != entry.size:
        return False
    with path.open("rb") as reader:
        return hashlib.file_digest(reader, "sha256").hexdigest() == entry.sha256


def _sync_tree(directory: Path) -> None:
    for _, entry in walk(directory):
        if entry.is_dir(follow_symlinks=False):
            sync(Path(entry.path))
    sync(directory)
