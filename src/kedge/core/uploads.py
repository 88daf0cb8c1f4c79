"""Uploads: sets of files that a caller of control sends, and the rules before a byte is written.

An upload is named by a digest of its holder and of its list of files. So the same files of the same
caller are the same upload: a client that starts again continues it, and sends no byte twice.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from kedge.core import codec
from kedge.core.errors import BadRequest, Overloaded
from kedge.core.values import MOST_DEPTH, MOST_FILES, MOST_NAME, FileEntry, Value

MOST_PART = 255
"""Maximum bytes of one part of a name, as in most file systems."""
COUNT = 64
"""Maximum number of uploads of all callers."""
HOLDER_COUNT = 16
"""Maximum number of uploads of one caller."""
KEPT_S = 24 * 3600.0
"""Seconds after its last byte, or its last use, at which an upload is removed."""
USED_S = 3600.0
"""The same for one that a command has used: what it registered is stored elsewhere. Also the seconds
without a new byte after which an upload makes room for another one."""

_DIGEST = re.compile(r"[0-9a-f]{64}")

Purpose = Literal["register", "outcomes", "features apply", "features training-set", "log export"]
"""The commands that read or write files."""


class UploadRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a caller wants to send."""

    purpose: Purpose
    """The command that will read the files; no other command may."""
    endpoint: Annotated[str, Meta(max_length=64)] | None = None
    """The endpoint of that command; null for a command without one."""
    files: Annotated[tuple[FileEntry, ...], Meta(max_length=MOST_FILES)]
    """The files, in the order in which their bytes follow each other in the upload's content; empty
    for a command that only writes some."""


class UploadStatus(Value, frozen=True, kw_only=True):
    """How far an upload is."""

    upload: str
    """Its name: the last part of its path, and the parameter `upload` of the command."""
    purpose: Purpose
    endpoint: str | None
    size: int
    """Bytes of all files."""
    offset: int
    """Bytes that arrived; the next request begins here."""
    complete: bool
    """Whether all bytes arrived and each file has its digest."""
    expires_at: float
    """Unix time at which it is removed, unless more bytes arrive or a command uses it."""
    results: tuple[FileEntry, ...] = ()
    """The files that the command wrote: to read below `results/` of the upload's path."""


class HeldUpload(NamedTuple):
    """A stored upload, as the bounds count it."""

    upload: str
    holder: str
    size: int
    """Bytes of all its files, whether they have arrived or not."""
    at: float
    """Unix time of its last byte or use."""
    is_used: bool
    """Whether a command has used it."""

    def expires_at(self) -> float:
        """Return the Unix time at which it is removed."""
        return self.at + (USED_S if self.is_used else KEPT_S)

    def makes_room(self, now: float) -> bool:
        """Return whether it can be removed for another one."""
        return self.is_used or now - self.at > USED_S


def name_upload(holder: str, wanted: UploadRequest) -> str:
    """Return the name of an upload: 64 hexadecimal digits."""
    return codec.fingerprint((holder, wanted)).removeprefix("sha256:")


def is_upload_name(text: str) -> bool:
    """Return whether a text has the form of an upload's name."""
    return _DIGEST.fullmatch(text) is not None


def check_files(files: Sequence[FileEntry]) -> None:
    """Check names, sizes and digests, before any of them reaches a file system.

    Raises:
        BadRequest: `bad_upload`: a name could leave the upload's folder, appears twice, is also a
            folder, or is too long; or a size or digest is not one.
    """
    names: set[str] = set()
    folders: set[str] = set()
    for file in files:
        why = _fault(file)
        if not why and file.path in names:
            why = "appears twice"
        if why:
            raise _refused(file.path, why)
        names.add(file.path)
        parts = file.path.split("/")
        folders.update("/".join(parts[:count]) for count in range(1, len(parts)))
    both = sorted(names & folders)
    if both:
        raise _refused(both[0], "is a file and a folder")


def _fault(file: FileEntry) -> str:
    """Return why an entry is refused; empty if it is not."""
    path, parts = file.path, file.path.split("/")
    try:
        raw = path.encode()
    except UnicodeEncodeError:
        return "is not Unicode text"
    if not path.isprintable() or "\\" in path:
        return "has a character that is not printable, or a backslash"
    if any(part in ("", ".", "..") for part in parts):
        return "must be relative, without empty parts, . and .."
    if len(parts) - 1 > MOST_DEPTH:
        return f"is more than {MOST_DEPTH} folders deep"
    if len(raw) > MOST_NAME or any(len(part.encode()) > MOST_PART for part in parts):
        return f"has more than {MOST_NAME:,} bytes, or a part of more than {MOST_PART}"
    if file.size < 0:
        return "has a negative size"
    return "" if _DIGEST.fullmatch(file.sha256) else "has no SHA-256 in 64 lower-case digits"


def _refused(path: str, why: str) -> BadRequest:
    return BadRequest(
        f"file {path[:80]!a} {why}",
        code="bad_upload",
        hint='{"path": "model/weights.onnx", "size": 123, "sha256": "..."}',
        details={"path": path[:80].encode("utf-8", "replace").decode()},
    )


def check_inside(paths: Sequence[str], files: Sequence[FileEntry]) -> None:
    """Check that paths are files or folders of an upload, so that a command reads nothing else.

    Raises:
        BadRequest: `not_in_upload`.
    """
    for path in paths:
        below = f"{path}/"
        if not any(file.path == path or file.path.startswith(below) for file in files):
            raise BadRequest(
                f"the upload has no file or folder {path[:80]!a}",
                code="not_in_upload",
                hint="a path of its list of files",
            )


def check_new(name: str, files: Sequence[FileEntry]) -> None:
    """Check that a result does not take the place of a file that was uploaded.

    Raises:
        BadRequest: `bad_parameters`.
    """
    if any(file.path.split("/")[0] == name for file in files):
        raise BadRequest(
            f"the upload has {name!a} already", code="bad_parameters", hint="name another result"
        )


def make_room(
    held: Sequence[HeldUpload], holder: str, size: int, most: int, now: float
) -> tuple[HeldUpload, ...]:
    """Return the used and the abandoned uploads to remove, oldest first, so that another one fits.

    Args:
        held: the stored uploads.
        holder: the caller of the new one, which may have half of the bytes.
        size: its bytes.
        most: the bytes of all uploads.
        now: Unix time.

    Raises:
        Overloaded: `upload_too_large`; `uploads_full`: not even without those.
    """
    if size > most // 2:
        raise Overloaded(
            f"the files have {size:,} bytes (limit {most // 2:,})",
            code="upload_too_large",
            hint="run the command on the host of the state directory",
        )
    mine = [one for one in held if one.holder == holder]
    removed = _evict(mine, size, (HOLDER_COUNT, most // 2), "this caller has", now)
    others = [one for one in held if one not in removed]
    return removed + _evict(others, size, (COUNT, most), "all callers have", now)


def _evict(
    held: Sequence[HeldUpload], size: int, bounds: tuple[int, int], whose: str, now: float
) -> tuple[HeldUpload, ...]:
    """Return the uploads, oldest first, without which one more of this size is in bounds."""
    count, room = bounds
    going = sorted((one for one in held if one.makes_room(now)), key=lambda one: one.at)
    taken = sum(one.size for one in held)
    for removed in range(len(going) + 1):
        left = taken - sum(one.size for one in going[:removed])
        if len(held) - removed < count and left + size <= room:
            return tuple(going[:removed])
    raise Overloaded(
        f"{whose} {len(held)} uploads of {taken:,} bytes (limits {count} and {room:,})",
        code="uploads_full",
        hint="use or delete one of them; one without new bytes makes room after an hour",
    )
