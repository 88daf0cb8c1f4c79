"""Quarantine: the files that callers of control upload, until a command reads them.

    <root>/NAME/about.json   holder, purpose, size; its mtime is that of the last byte or use
    <root>/NAME/files.json   the list of files
    <root>/NAME/parts/N      the bytes of file N, in order; the last one may be incomplete
    <root>/NAME/files/...    the files, once all of them have their digests
    <root>/NAME/used         a command has read them
    <root>/NAME/work-*       the folder of a command that writes files
    <root>/NAME/results/     list.json, and files/ that it wrote
    <root>/NAME/lock         held while bytes are added, and (shared) while a command reads

Theory of operation
-------------------
* The disk alone says how far an upload is. So a client continues after a crash of either side.
* No name that a caller chose is used as a path before all names were checked and all bytes have
  their digests. Until then the files have numbers. `files` appears by one rename.
* What is removed is renamed first, so that no reader finds half of it.
* Bytes never use the reserve of free space: a rollback can be written while an upload fills the disk.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from kedge.core.codec import decode, encode
from kedge.core.errors import BadRequest, KedgeError, Overloaded, Refused, Unavailable
from kedge.core.uploads import (
    HeldUpload,
    Purpose,
    UploadRequest,
    UploadStatus,
    check_files,
    is_upload_name,
    make_room,
    name_upload,
)
from kedge.core.values import FileEntry, Value
from kedge.system.durable import sync, sync_all, write_atomically
from kedge.system.files import make_private, walk
from kedge.system.locks import lock_file, open_lock, try_lock
from kedge.system.reserve import get_free, get_reserve, is_short

UPLOADS_DIR = "uploads"
TOTAL_BYTES = 16 << 30
"""Maximum bytes of all uploads; one caller may have half of it."""
LOCK_S = 5.0
"""Maximum seconds for which a new upload waits for another one to be made."""
_CHUNK = 1 << 20
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC


class _About(Value, frozen=True, kw_only=True):
    """What is stored of an upload beside its list of files."""

    holder: str
    purpose: Purpose
    endpoint: str | None
    size: int


class ReadyUpload(NamedTuple):
    """The files of a complete upload, while a command reads them."""

    folder: Path
    files: tuple[FileEntry, ...]


class Quarantine:
    """The uploads of a state directory; any thread, and more than one process, may use it."""

    def __init__(
        self, state_dir: Path, unix: Callable[[], float], *, most: int = TOTAL_BYTES
    ) -> None:
        """Store uploads below a state directory, with at most this many bytes."""
        self._root = state_dir / UPLOADS_DIR
        self._unix = unix
        self._most = most
        self._dropped = 0
        """Unused uploads that were removed to make room, and that no sweep has returned yet."""

    def create(self, holder: str, wanted: UploadRequest) -> UploadStatus:
        """Make an upload, or return the one of the same holder with the same files.

        Raises:
            BadRequest: `bad_upload`: a name, a size or a digest is refused; nothing was written.
            Overloaded: `upload_too_large`, `uploads_full`.
            Unavailable: `no_room`, `uploads_unavailable`.
        """
        check_files(wanted.files)
        name = name_upload(holder, wanted)
        with self._guard():
            make_private(self._root)
            with lock_file(self._root / "lock", LOCK_S) as taken:
                if not taken:
                    raise Overloaded("other uploads are being made", code="queue_full")
                home = self._root / name
                if not home.is_dir():
                    self._make(home, holder, wanted)
            self._touch(home / "about.json")
            if not any(file.size for file in wanted.files):
                with self.appending(holder, name, 0) as appender:
                    appender.finish()
            return self.find(holder, name)

    def find(self, holder: str, upload: str) -> UploadStatus:
        """Return how far an upload is.

        Raises:
            Refused: `unknown_upload`: it does not exist, has expired, or belongs to another caller.
            Unavailable: `uploads_unavailable`.
        """
        with self._guard():
            home, about = self._open(holder, upload)
            complete = (home / "files").is_dir()
            held = self._held(home, about)
            return UploadStatus(
                upload=upload,
                purpose=about.purpose,
                endpoint=about.endpoint,
                size=about.size,
                offset=about.size if complete else _measure(home, _read_files(home)),
                complete=complete,
                expires_at=held.expires_at(),
                results=_read_results(home),
            )

    def result(self, holder: str, upload: str, path: str) -> Path:
        """Return the path of a file that a command wrote.

        Raises:
            Refused: `unknown_upload`, also for a file that is not among the results.
            Unavailable: `uploads_unavailable`.
        """
        with self._guard():
            home, _ = self._open(holder, upload)
            if path not in {entry.path for entry in _read_results(home)}:
                raise _unknown("the upload has no such result")
            return home / "results" / "files" / path

    @contextmanager
    def appending(self, holder: str, upload: str, offset: int) -> Iterator[Appender]:
        """Yield what adds bytes to an upload at an offset, while nothing else does.

        Raises:
            Refused: `unknown_upload`; `wrong_offset`, with the right one.
            Overloaded: `upload_busy`: another request adds bytes.
            Unavailable: `no_room`, `uploads_unavailable`.
        """
        with self._guard():
            home, about = self._open(holder, upload)
            handle = open_lock(home / "lock")
            try:
                if not try_lock(handle):
                    raise _busy()
                files = _read_files(home)
                complete = (home / "files").is_dir()
                now = about.size if complete else _measure(home, files)
                if offset != now:
                    raise Refused(
                        f"the upload has {now:,} bytes; the request begins at {offset:,}",
                        code="wrong_offset",
                        hint=f"Upload-Offset: {now}",
                        details={"expected-offset": now, "provided-offset": offset},
                    )
                yield Appender(home, files, offset, about.size, complete, self._unix)
            finally:
                os.close(handle)

    def remove(self, holder: str, upload: str) -> None:
        """Remove an upload.

        Raises:
            Refused: `unknown_upload`.
            Overloaded: `upload_busy`: a request adds bytes, or a command reads it.
            Unavailable: `uploads_unavailable`.
        """
        with self._guard():
            home, _ = self._open(holder, upload)
            if not self._discard(home):
                raise _busy()

    @contextmanager
    def reading(
        self, holder: str, upload: str, purpose: str, endpoint: str | None
    ) -> Iterator[ReadyUpload]:
        """Yield the files of an upload, which stay until the context ends.

        Raises:
            Refused: `unknown_upload`; `upload_incomplete`; `upload_purpose`: it was made for another
                command or endpoint.
            Overloaded: `upload_busy`.
            Unavailable: `uploads_unavailable`.
        """
        with self._guard():
            home, about = self._open(holder, upload)
            handle = open_lock(home / "lock")
        try:
            with self._guard():
                if not try_lock(handle, shared=True):
                    raise _busy()
                if (about.purpose, about.endpoint) != (purpose, endpoint):
                    raise Refused(
                        f"the upload was made for {about.purpose} {about.endpoint or ''}".rstrip(),
                        code="upload_purpose",
                        hint="upload the files again for this command",
                    )
                if not (home / "files").is_dir():
                    raise Refused(
                        "bytes of the upload are missing",
                        code="upload_incomplete",
                        hint="HEAD of the upload shows where to continue",
                    )
                files = _read_files(home)
                (home / "used").touch(mode=0o600)  # also if the command refuses what it reads
                self._touch(home / "about.json")
            yield ReadyUpload(home / "files", files)
            with suppress(OSError):  # it is kept as long as one that is used later
                self._touch(home / "about.json")
        finally:
            os.close(handle)

    @contextmanager
    def working(self, ready: ReadyUpload) -> Iterator[Path]:
        """Yield a folder with the files of an upload, in which a command writes its results.

        Raises:
            Unavailable: `no_room`, `uploads_unavailable`.
        """
        work = ready.folder.with_name(f"work-{secrets.token_hex(8)}")
        try:
            with self._guard():
                if is_short(self._root):
                    raise _no_room(self._root, 0)
                shutil.copytree(ready.folder, work, copy_function=os.link)
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def check_room(self) -> None:
        """Raise while the disk has only its reserve left, so that a command must stop to write.

        Raises:
            Unavailable: `no_room`.
        """
        if is_short(self._root):
            raise _no_room(self._root, 0)

    def keep_results(self, ready: ReadyUpload, work: Path, name: str) -> None:
        """Keep the file or folder that a command wrote, in place of earlier ones.

        Raises:
            Unavailable: `no_room`, `uploads_unavailable`.
        """
        home, new = ready.folder.parent, work / ".results"
        with self._guard(), lock_file(home / "results.lock", LOCK_S) as taken:
            if not taken:
                raise _busy()
            (new / "files").mkdir(mode=0o700, parents=True)
            (work / name).rename(new / "files" / name)
            found = [
                FileEntry(path=inside, size=entry.stat().st_size, sha256=_hash(Path(entry.path)))
                for inside, entry in walk(new / "files")
                if entry.is_file(follow_symlinks=False)
            ]
            found.sort(key=lambda entry: entry.path)
            write_atomically(new / "list.json", encode(tuple(found)))
            shutil.rmtree(home / "results", ignore_errors=True)
            new.rename(home / "results")

    @contextmanager
    def keeping(self, name: str, raw: bytes | bytearray) -> Iterator[Path]:
        """Yield a private folder with one file, which is removed when the context ends.

        Raises:
            Unavailable: `no_room`, `uploads_unavailable`.
        """
        folder: Path | None = None
        try:
            with self._guard():
                make_private(self._root)
                if is_short(self._root):
                    raise _no_room(self._root, len(raw))
                folder = self._root / f".inline-{secrets.token_hex(8)}"
                folder.mkdir(mode=0o700)
                handle = open_lock(folder / ".lock")
                try_lock(handle)
                (folder / name).write_bytes(raw)
            try:
                yield folder
            finally:
                os.close(handle)
        finally:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)

    def sweep(self) -> int:
        """Remove expired uploads and the remains of crashes.

        Returns:
            How many uploads were removed unused, since the last sweep: expired, or to make room.

        Raises:
            OSError: the folder cannot be read.
        """
        if not self._root.is_dir():
            return 0
        removed, self._dropped = self._dropped, 0
        for path in [*self._root.iterdir()]:
            if path.name.startswith("."):
                self._sweep_rest(path)
                continue
            with suppress(OSError, msgspec.DecodeError):
                if not is_upload_name(path.name):
                    continue
                held = self._held(path, decode((path / "about.json").read_bytes(), _About))
                if self._unix() > held.expires_at() and self._discard(path):
                    removed += not held.is_used
        return removed

    # ------------------------------------------------------------ inside

    def _make(self, home: Path, holder: str, wanted: UploadRequest) -> None:
        """Make the folder of an upload; remove used ones that are in its way."""
        size = sum(file.size for file in wanted.files)
        for one in make_room(self._list(), holder, size, self._most, self._unix()):
            if not self._discard(self._root / one.upload):
                raise _busy()
            self._dropped += not one.is_used
        if get_free(self._root) < size + get_reserve(os.statvfs(self._root)):
            raise _no_room(self._root, size)
        new = self._root / f".new-{secrets.token_hex(8)}"
        (new / "parts").mkdir(mode=0o700, parents=True)
        about = _About(holder=holder, purpose=wanted.purpose, endpoint=wanted.endpoint, size=size)
        write_atomically(new / "files.json", encode(wanted.files))
        write_atomically(new / "about.json", encode(about))
        new.rename(home)
        sync(self._root)

    def _open(self, holder: str, upload: str) -> tuple[Path, _About]:
        home = self._root / upload
        if is_upload_name(upload):
            with suppress(FileNotFoundError, msgspec.DecodeError):
                about = decode((home / "about.json").read_bytes(), _About)
                if about.holder == holder:
                    return home, about
        raise _unknown("there is no such upload of this caller")

    def _list(self) -> list[HeldUpload]:
        found = []
        for path in self._root.iterdir():
            if is_upload_name(path.name):
                with suppress(FileNotFoundError, msgspec.DecodeError):
                    about = decode((path / "about.json").read_bytes(), _About)
                    found.append(self._held(path, about))
        return found

    @staticmethod
    def _held(home: Path, about: _About) -> HeldUpload:
        at = (home / "about.json").stat().st_mtime
        size = about.size + sum(entry.size for entry in _read_results(home))
        return HeldUpload(home.name, about.holder, size, at, (home / "used").exists())

    def _touch(self, path: Path) -> None:
        now = self._unix()
        os.utime(path, (now, now))

    def _discard(self, home: Path) -> bool:
        """Remove an upload; return False if it is in use."""
        handle = open_lock(home / "lock")
        try:
            if not try_lock(handle):
                return False
            _discard_locked(home)
        finally:
            os.close(handle)
        return True

    def _sweep_rest(self, path: Path) -> None:
        """Remove the remains of a process that ended; a file that is under way has a lock."""
        with suppress(OSError):
            if path.name.startswith(".inline-"):
                handle = open_lock(path / ".lock")
                try:
                    if not try_lock(handle):
                        return
                finally:
                    os.close(handle)
            elif path.name.startswith(".new-"):
                with lock_file(self._root / "lock") as taken:
                    if not taken:
                        return
                    shutil.rmtree(path, ignore_errors=True)
                return
            shutil.rmtree(path, ignore_errors=True)

    @contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise _no_room(self._root, 0) from error
            raise Unavailable(
                f"the uploads cannot be used: {error.strerror or error}",
                code="uploads_unavailable",
                hint="kedge doctor checks the state directory",
            ) from error


class Appender:
    """Adds bytes to one upload, and ends it once all have arrived."""

    def __init__(
        self,
        home: Path,
        files: Sequence[FileEntry],
        offset: int,
        size: int,
        is_complete: bool,
        unix: Callable[[], float],
    ) -> None:
        """Continue at an offset; `Quarantine.appending` makes it."""
        self.offset = offset
        """Bytes of the upload that have arrived."""
        self.size = size
        """Bytes of all files."""
        self.is_complete = is_complete
        """Whether the files can be used."""
        self._home = home
        self._files = files
        self._unix = unix
        self._place = 0
        """The file that gets the next byte."""
        self._within = offset
        """Its bytes that have arrived."""
        self._dirty: set[Path] = set()

    def write(self, raw: bytes) -> None:
        """Write the next bytes.

        Raises:
            BadRequest: `inconsistent_length`: there are more bytes than all files have.
            Unavailable: `no_room`: the rest of the disk is the ledger's.
            OSError: they cannot be written.
        """
        if self.offset + len(raw) > self.size:
            raise BadRequest(
                f"the files have {self.size:,} bytes, and the request has more",
                code="inconsistent_length",
                hint=f"the last request ends at {self.size}",
            )
        if is_short(self._home):
            raise _no_room(self._home, self.size - self.offset)
        view = memoryview(raw)
        while view:
            while self._within >= self._files[self._place].size:
                self._within -= self._files[self._place].size
                self._place += 1
            path = self._home / "parts" / str(self._place)
            part = view[: self._files[self._place].size - self._within]
            with open(os.open(path, _WRITE, 0o600), "wb", buffering=0) as file:  # noqa: PTH123
                written = file.write(part) or 0
            self._dirty.add(path)
            self.offset += written
            self._within += written
            view = view[written:]

    def finish(self) -> None:
        """Put the bytes on the disk; if they are all there, check the digests, and end the upload.

        Raises:
            BadRequest: `wrong_digest`: a file has other bytes than announced; the upload is removed.
            OSError: they cannot be written.
        """
        sync_all(self._dirty)
        self._dirty.clear()
        now = self._unix()
        os.utime(self._home / "about.json", (now, now))
        if self.is_complete or self.offset < self.size:
            return
        tree = self._home / "files.new"
        shutil.rmtree(tree, ignore_errors=True)
        folders = {tree}
        tree.mkdir(mode=0o700)
        for number, entry in enumerate(self._files):
            part = self._home / "parts" / str(number)
            if not entry.size:
                os.close(os.open(part, _WRITE, 0o600))
            found = _hash(part)
            if found != entry.sha256:
                _discard_locked(self._home)
                raise _wrong_digest(entry, found)
            target = tree / entry.path
            if target.parent not in folders:
                target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                folders.add(target.parent)
            target.hardlink_to(part)
        sync_all(folders)
        tree.rename(self._home / "files")
        sync(self._home)
        shutil.rmtree(self._home / "parts", ignore_errors=True)
        self.is_complete = True


def _measure(home: Path, files: Sequence[FileEntry]) -> int:
    """Return how many bytes of an incomplete upload have arrived."""
    numbers = [int(name) for name in os.listdir(home / "parts")]  # noqa: PTH208 - may be many
    if not numbers:
        return 0
    last = max(numbers)
    before = sum(entry.size for entry in files[:last])
    return before + min((home / "parts" / str(last)).stat().st_size, files[last].size)


def _read_files(home: Path) -> tuple[FileEntry, ...]:
    return decode((home / "files.json").read_bytes(), tuple[FileEntry, ...])


def _read_results(home: Path) -> tuple[FileEntry, ...]:
    try:
        return decode((home / "results" / "list.json").read_bytes(), tuple[FileEntry, ...])
    except (FileNotFoundError, msgspec.DecodeError):
        return ()


def _discard_locked(home: Path) -> None:
    gone = home.with_name(f".gone-{secrets.token_hex(8)}")
    home.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def _hash(path: Path) -> str:
    with path.open("rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _wrong_digest(entry: FileEntry, found: str) -> KedgeError:
    return BadRequest(
        f"{entry.path[:80]} has the digest {found}, not {entry.sha256}",
        code="wrong_digest",
        hint="it changed while it was sent; upload it again",
        details={"path": entry.path, "sha256": found},
    )


def _unknown(why: str) -> Refused:
    return Refused(
        why,
        code="unknown_upload",
        hint="one without new bytes is removed after a day: POST /api/v1/uploads again",
    )


def _busy() -> Overloaded:
    return Overloaded("another request uses the upload", code="upload_busy")


def _no_room(path: Path, size: int) -> Unavailable:
    kept = 0
    with suppress(OSError):
        kept = get_reserve(os.statvfs(path)) >> 20
    return Unavailable(
        f"an upload of {size:,} more bytes would leave too little of the {get_free(path):,} that"
        " are free",
        code="no_room",
        hint=f"free some disk space: {kept} MB stay free, so that a rollback can be written",
    )
