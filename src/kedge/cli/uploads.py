"""Uploads of a remote command: its files, sent to the server, and continued after a lost connection.

The list of files names the upload. So a command that starts again after it was killed continues it,
and one that is repeated sends no byte twice.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, NamedTuple, Protocol
from urllib.parse import quote

import msgspec

from kedge.adapters.artifacts.directory import find_files
from kedge.core.errors import KedgeError, Refused, Unavailable
from kedge.core.uploads import Purpose, UploadRequest, UploadStatus, check_files
from kedge.core.values import FileEntry
from kedge.operations.progress import Progress
from kedge.system.durable import replacing
from kedge.system.pause import pause

CHUNK = 8 << 20
"""Bytes of a request: what is sent again after a lost connection, and small enough for proxies."""
LEAST_CHUNK = 256 << 10
"""A proxy may refuse long requests: nginx accepts 1 MB by default."""
PATIENCE_S = 60.0
"""Seconds without a new byte after which a lost connection ends the command; a restart of control
takes a few."""
WAITS_S = (0.2, 0.5, 1.0, 2.0)
"""Waits before the next attempt, by attempts in a row that brought nothing."""
PASSING = frozenset(
    {
        "answer_unreadable",  # of a proxy whose server is restarted
        "body_too_slow",
        "queue_full",
        "server_unreachable",
        "upload_busy",
        "wrong_offset",
    }
)
"""Codes of errors after which the client asks for the offset, and continues."""
RESULT = "result"
"""The name of what a command writes, among the results of an upload."""
STDIN = Path("-")
"""The path that means standard input."""


class Server(Protocol):
    """The part of a server that an upload needs."""

    def send(
        self, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> bytes:
        """Send a request once; return the body of the answer."""


class LocalFile(NamedTuple):
    """A file of this machine, and its entry in the upload."""

    entry: FileEntry
    path: Path


class NamedResult(NamedTuple):
    """The file or folder that a command writes."""

    parameter: str
    path: Path


class NamedFiles(NamedTuple):
    """The files that one parameter of a command names."""

    path: Path
    """A file; of a model also a folder. A dash: standard input."""
    is_model: bool = False
    beside: Sequence[Path] = ()
    """Files that belong to it."""


def send_files(
    server: Server,
    purpose: str,
    endpoint: str | None,
    named: Mapping[str, NamedFiles],
    say: Callable[[str], None],
) -> dict[str, str]:
    """Upload the files of a command; return the parameters that name them.

    The files of the first parameter keep their names, since messages of the server show them. Those
    of the others are in folders of their own.

    Raises:
        Refused: a file cannot be read, or changed meanwhile.
        KedgeError: the server's error.
    """
    files: list[LocalFile] = []
    parameters: dict[str, str] = {}
    with ExitStack() as kept:
        for parameter, given in named.items():
            name, prefix = given.path.name or given.path.resolve().name, ""
            if parameters:
                first = next(iter(parameters.values()))
                prefix = f"{parameter}-of-command/" if first == parameter else f"{parameter}/"
            parameters[parameter] = prefix + name
            if given.path == STDIN:
                files.append(_describe("stdin", kept.enter_context(_spooled())))
            elif given.is_model:
                files += [
                    _describe(f"{prefix}{name}/{found.name}", found.path)
                    if given.path.is_dir()
                    else _describe(prefix + found.name, found.path)
                    for found in find_files(given.path, given.beside)
                ]
            else:
                files.append(_describe(prefix + name, given.path))
                files += [_describe(prefix + each.name, each) for each in given.beside]
        wanted = UploadRequest(
            purpose=msgspec.convert(purpose, Purpose),
            endpoint=endpoint,
            files=tuple(each.entry for each in files),
        )
        upload = _Sending(server, wanted, files, say).run()
    return {"upload": upload, **parameters}


def fetch_results(server: Server, upload: str, target: Path, say: Callable[[str], None]) -> None:
    """Write the results of a command to a file or a folder, each complete or not at all.

    Raises:
        Refused: `wrong_digest`: a result has other bytes than announced.
        Unavailable: `export_failed`: a file cannot be written.
        KedgeError: the server's error; after a lost connection, once nothing moved for a minute.
    """
    raw = server.send("GET", f"/uploads/{upload}")
    found = msgspec.json.decode(raw, type=UploadStatus).results
    check_files(found)  # a server names no path outside the target
    total = sum(entry.size for entry in found)
    progress = Progress(say, time.monotonic, "bytes received", total)
    for entry in found:
        inside = entry.path.removeprefix(RESULT).removeprefix("/")
        path = target / inside if inside else target
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as new, new.open("xb") as file:
                _fetch(
                    server, f"/uploads/{upload}/results/{quote(entry.path)}", entry, file, progress
                )
        except OSError as error:
            raise Unavailable(
                f"{path} cannot be written: {error.strerror or error}",
                code="export_failed",
                hint="name a place with room",
            ) from error


def _fetch(
    server: Server, address: str, entry: FileEntry, file: IO[bytes], progress: Progress
) -> None:
    """Receive one result, part by part, so that a lost connection costs one part."""
    sha, size, moved_at, waited = hashlib.sha256(), 0, time.monotonic(), 0
    while size < entry.size:
        wanted = f"bytes={size}-{min(size + CHUNK, entry.size) - 1}"
        try:
            part = server.send("GET", address, b"", {"range": wanted})
        except KedgeError as error:
            if error.code not in PASSING or time.monotonic() - moved_at > PATIENCE_S:
                raise
            pause(WAITS_S[min(waited, len(WAITS_S) - 1)])
            waited += 1
            continue
        file.write(part)
        sha.update(part)
        size, moved_at, waited = size + len(part), time.monotonic(), 0
        progress.add(len(part))
        if not part:
            break
    if sha.hexdigest() != entry.sha256:
        raise Refused(
            f"{entry.path} changed while it was received",
            code="wrong_digest",
            hint="run the command again",
        )


@contextmanager
def _spooled() -> Iterator[Path]:
    """Yield a file with what standard input has: its size and its digest are told first."""
    with TemporaryDirectory(prefix="kedge-") as folder:
        path = Path(folder) / "stdin"
        with path.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        yield path


def _describe(name: str, path: Path) -> LocalFile:
    try:
        with path.open("rb", buffering=0) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise Refused(
                    f"{path} is not a regular file", code="special_file", hint="copy it into one"
                )
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise _unreadable(path, error) from error
    return LocalFile(FileEntry(path=name, size=size, sha256=digest), path)


def _unreadable(path: Path, error: OSError) -> Refused:
    return Refused(f"{path} cannot be read: {error.strerror or error}", code="source_unreadable")


class _Sending:
    """One upload under way."""

    def __init__(
        self,
        server: Server,
        wanted: UploadRequest,
        files: Sequence[LocalFile],
        say: Callable[[str], None],
    ) -> None:
        self._server = server
        self._wanted = wanted
        self._files = files
        size = sum(each.entry.size for each in files)
        self._progress = Progress(say, time.monotonic, "bytes sent", size)
        self._chunk = CHUNK
        self._furthest = 0
        self._moved_at = time.monotonic()

    def run(self) -> str:
        """Send what the server does not have; return the name of the upload.

        Raises:
            Refused: `source_changed`: a file became shorter.
            KedgeError: the server's error; after a lost connection, once nothing moved for a minute.
        """
        status = self._create()
        self._note(status)
        waited = 0
        while not status.complete:
            try:
                status = self._append(status)
                self._note(status)
                waited = 0
            except KedgeError as error:
                if error.code not in PASSING or self._is_stuck():
                    raise
                if error.code == "answer_unreadable":  # perhaps a proxy's, of a request too long
                    self._chunk = max(self._chunk // 2, min(LEAST_CHUNK, CHUNK))
                pause(WAITS_S[min(waited, len(WAITS_S) - 1)])
                waited += 1
                status = self._look(status)
        return status.upload

    def _create(self) -> UploadStatus:
        raw = self._server.send("POST", "/uploads", msgspec.json.encode(self._wanted))
        return msgspec.json.decode(raw, type=UploadStatus)

    def _append(self, status: UploadStatus) -> UploadStatus:
        raw = self._read(status.offset)
        headers = {
            "content-type": "application/partial-upload",
            "upload-offset": str(status.offset),
            "upload-complete": "?1" if status.offset + len(raw) == status.size else "?0",
        }
        answer = self._server.send("PATCH", f"/uploads/{status.upload}", raw, headers)
        return msgspec.json.decode(answer, type=UploadStatus)

    def _look(self, status: UploadStatus) -> UploadStatus:
        """Ask how far the upload is; what cannot be answered leaves it as it was known."""
        try:
            raw = self._server.send("GET", f"/uploads/{status.upload}")
        except KedgeError as error:
            if error.code == "unknown_upload":  # it expired, or control's disk was replaced
                return self._create()
            if error.code not in PASSING:
                raise
            return status
        found = msgspec.json.decode(raw, type=UploadStatus)
        self._note(found)
        return found

    def _note(self, status: UploadStatus) -> None:
        if status.offset > self._furthest:
            self._progress.add(status.offset - self._furthest)
            self._furthest = status.offset
            self._moved_at = time.monotonic()

    def _is_stuck(self) -> bool:
        return time.monotonic() - self._moved_at > PATIENCE_S

    def _read(self, offset: int) -> bytes:
        """Return the next bytes of the upload, across the ends of files."""
        found, left = bytearray(), self._chunk
        for entry, path in self._files:
            if offset >= entry.size:
                offset -= entry.size
                continue
            try:
                with path.open("rb", buffering=0) as file:
                    file.seek(offset)
                    part = _read_all(file, min(left, entry.size - offset))
            except OSError as error:
                raise _unreadable(path, error) from error
            if len(part) < min(left, entry.size - offset):
                raise Refused(
                    f"{path} became shorter while it was sent",
                    code="source_changed",
                    hint="copy it to a place where nothing writes",
                )
            found += part
            left -= len(part)
            offset = 0
            if not left:
                break
        return bytes(found)


def _read_all(file: IO[bytes], count: int) -> bytes:
    """Read from an unbuffered file, which may return less at once."""
    found = bytearray()
    while len(found) < count and (part := file.read(count - len(found))):
        found += part
    return bytes(found)
