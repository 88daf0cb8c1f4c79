"""Artifacts in a directory, by content: the same bytes are stored once and never change.

    <root>/<hex>/files/...       the bytes, read-only
    <root>/<hex>/manifest.json   path, size and sha256 of each file
    <root>/<hex>/proof.json      the golden rows
    <root>/.tmp-*                a copy under way, or what a crash left of one

The digest is that of the sorted manifest. A copy becomes visible by one rename, after every
byte of it is on the disk: a crash leaves a `.tmp-` directory, never half an artifact.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from kedge.core import codec
from kedge.core.errors import CorruptArtifact, Refused, Unavailable
from kedge.core.values import FileEntry
from kedge.ports import Proof

_CHUNK = 1 << 20
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_LEFTOVER_S = 86_400
"""A temporary copy older than a day belongs to nobody: no copy takes so long."""


class DirectoryArtifacts:
    """Bytes by digest, in one directory that several processes may share."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, source: Path) -> tuple[str, tuple[FileEntry, ...]]:
        """Copy a file or a directory in; returns its digest and its per-file manifest.

        Putting the same bytes again changes nothing, but what is there is verified, and
        replaced if it is damaged. The golden rows survive that.

        Raises:
            Refused: there is nothing to copy, or a symbolic link or special file among it.
            Unavailable: the disk is full or cannot be written.
        """
        found = _find(source)
        with self._writing():
            self._root.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=".tmp-", dir=self._root))
            self._sweep(temporary.stat().st_mtime)
            try:
                files = tuple(_copy(path, temporary / "files", name) for name, path in found)
                digest = codec.fingerprint(files)
                _write(temporary / "manifest.json", codec.canonical(files))
                _sync_tree(temporary)
                self._install(temporary, digest)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        return digest, files

    def _install(self, temporary: Path, digest: str) -> None:
        home = self._home(digest)
        if home.exists():
            try:
                self.verify(digest)
            except CorruptArtifact:
                self._replace(home, temporary)
            return
        temporary.chmod(0o700)
        try:
            temporary.rename(home)
        except OSError:
            self.verify(digest)  # another process was first with the same bytes
        _sync(self._root)

    def _replace(self, home: Path, temporary: Path) -> None:
        """Swap damaged bytes for sound ones. For an instant there are none: also a failure."""
        damaged = Path(tempfile.mkdtemp(prefix=".tmp-", dir=self._root)) / "damaged"
        if (home / "proof.json").is_file():
            shutil.copyfile(home / "proof.json", temporary / "proof.json")
            _sync_tree(temporary)
        temporary.chmod(0o700)
        home.rename(damaged)
        temporary.rename(home)
        _sync(self._root)
        shutil.rmtree(damaged.parent, ignore_errors=True)

    def path(self, digest: str) -> Path:
        """Where the files are, unverified.

        Raises:
            CorruptArtifact: it is not there.
        """
        files = self._home(digest) / "files"
        if not files.is_dir():
            raise CorruptArtifact(
                f"{digest} is not in {self._root}", hint="register the model again from its source"
            )
        return files

    def verify(self, digest: str) -> Path:
        """Hash every byte again, then say where the files are.

        Raises:
            CorruptArtifact: a file is missing, was added, or differs; names it.
        """
        files = self.path(digest)
        try:
            manifest = self._manifest(digest)
            wanted = {entry.path: entry for entry in manifest}
            there = {
                path.relative_to(files).as_posix(): path
                for path in sorted(files.rglob("*"))
                if path.is_symlink() or not path.is_dir()
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

        What is no regular file is copied as what it is, so that verifying there finds it.

        Raises:
            CorruptArtifact: it is not there.
            Unavailable: it cannot be copied.
        """
        home = self.path(digest).parent
        try:
            shutil.copytree(home, into / home.name, symlinks=True,
                            ignore=shutil.ignore_patterns(".tmp-*"))  # fmt: skip
        except OSError as error:  # shutil's own is one, and names every file
            raise Unavailable(f"{digest} cannot be copied: {error}", code="artifacts_unavailable",
                              hint="kedge doctor looks at every artifact") from error  # fmt: skip

    def write_proof(self, digest: str, proof: Proof) -> None:
        """Keep the golden rows beside the files; replaces those that are there, whole."""
        home = self.path(digest).parent
        with self._writing():
            handle, name = tempfile.mkstemp(prefix=".tmp-", dir=home)
            os.close(handle)
            _write(Path(name), codec.encode(proof))
            Path(name).replace(home / "proof.json")
            _sync(home)

    def proof(self, digest: str) -> Proof:
        """The golden rows.

        Raises:
            CorruptArtifact: there are none, or they cannot be read.
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

    def _sweep(self, now: float) -> None:
        """Take away what crashes left. `now` is the file system's: it may be another host's."""
        for path in self._root.glob(".tmp-*"):
            try:
                old = now - path.stat().st_mtime > _LEFTOVER_S
            except OSError:
                continue  # its owner was faster
            if old:
                shutil.rmtree(path, ignore_errors=True)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Unavailable(
                f"cannot write to {self._root}: {error.strerror or error}",
                code="artifacts_unavailable",
                hint="free some disk space or mend the permissions, then try again",
            ) from error


def _find(source: Path) -> list[tuple[str, Path]]:
    """List the files to copy, by name inside the artifact, sorted."""
    if source.is_symlink():
        raise Refused(
            f"{source} is a symbolic link", code="symlink", hint=f"name it: {source.resolve()}"
        )
    if not source.exists():
        raise Refused(f"{source} does not exist", code="no_files")
    if source.is_dir():
        found = [(path.relative_to(source).as_posix(), path) for path in _walk(source)]
    else:
        found = [(source.name, source)]
    if not found:
        raise Refused(f"{source} holds no files", code="no_files")
    for name, path in found:
        if path.is_symlink():
            raise Refused(
                f"{name} is a symbolic link", code="symlink",
                hint="put a copy of what it points to in its place",
            )  # fmt: skip
        if not path.is_file():
            raise Refused(f"{name} is neither a file nor a directory", code="special_file")
        if not name.isprintable():
            raise Refused(f"{name!a} is not a printable name", code="bad_file_name")
    return sorted(found)


def _walk(directory: Path) -> Iterator[Path]:
    for path in directory.iterdir():
        if path.name.startswith(".") or path.name == "__pycache__":
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)
        else:
            yield path


def _copy(path: Path, into: Path, name: str) -> FileEntry:
    """Copy one file durably; the entry says what was written, not what the source is by now."""
    target = into / name
    target.parent.mkdir(parents=True, exist_ok=True)
    sha, size = hashlib.sha256(), 0
    source = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(source, "rb") as reader, target.open("xb") as writer:
        while chunk := reader.read(_CHUNK):
            sha.update(chunk)
            writer.write(chunk)
            size += len(chunk)
        writer.flush()
        os.fsync(writer.fileno())
    target.chmod(0o400)
    return FileEntry(path=name, size=size, sha256=sha.hexdigest())


def _is(path: Path, entry: FileEntry) -> bool:
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode) or found.st_size != entry.size:
        return False
    with path.open("rb") as reader:
        return hashlib.file_digest(reader, "sha256").hexdigest() == entry.sha256


def _write(path: Path, raw: bytes) -> None:
    with path.open("wb") as writer:
        writer.write(raw)
        writer.flush()
        os.fsync(writer.fileno())


def _sync_tree(directory: Path) -> None:
    for path in directory.rglob("*"):
        if path.is_dir():
            _sync(path)
    _sync(directory)


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
