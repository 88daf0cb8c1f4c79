"""Files: private directories, Unix sockets at paths of any length, unreadable files set aside."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

PRIVATE_UMASK = 0o077
"""Umask of every process: only the user that runs kedge may read predictions, labels and ledger."""
ASIDE = ".unreadable-"
"""Text between the name of an unreadable file and the time at which it was set aside."""
ASIDE_COUNT = 5
"""Files kept for one name: a cause that damages a file repeatedly must not fill the disk."""
SOCKET_BYTES = 107
"""Maximum bytes of a Unix socket's address on Linux, without the zero byte at its end."""


def set_umask() -> None:
    """Make files that this process and its children create readable by its user alone."""
    os.umask(PRIVATE_UMASK)


def tighten(directory: Path) -> bool:
    """Close a directory of this user to other users; return whether it was open to them."""
    try:
        found = directory.stat()
        if found.st_uid != os.geteuid() or not stat.S_IMODE(found.st_mode) & PRIVATE_UMASK:
            return False
        directory.chmod(0o700)
    except OSError:
        return False
    return True


def walk(
    top: Path, *, skip: Callable[[str], bool] = lambda name: False
) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield every entry below a directory with its name relative to it; never follow a link.

    It does not recurse, so that any depth works. Entries whose name `skip` accepts are left out,
    with everything below them.

    Raises:
        OSError: a directory cannot be read.
    """
    pending = [("", str(top))]
    while pending:
        prefix, folder = pending.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                if skip(entry.name):
                    continue
                yield f"{prefix}{entry.name}", entry
                if entry.is_dir(follow_symlinks=False):
                    pending.append((f"{prefix}{entry.name}/", entry.path))


def read_bounded(path: Path, most: int) -> bytes:
    """Return the bytes of a file or pipe that a user names; a pipe without a writer is empty.

    Raises:
        OSError: it cannot be read, or has more than `most` bytes: a device may be endless.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        os.set_blocking(handle, True)
        found = file.read(most + 1)
    if len(found) > most:
        raise OSError(errno.EFBIG, f"more than {most:,} bytes", str(path))
    return found


def find_open(directory: Path) -> list[Path]:
    """Return `directory` and what is below, if other users may read or change it; skip links."""
    found = [directory]
    for top, folders, files in os.walk(directory):
        found += [Path(top, name) for name in (*folders, *files)]
    return [path for path in found if _is_open(path)]


def _is_open(path: Path) -> bool:
    try:
        mode = path.lstat().st_mode
    except OSError:
        return False  # gone meanwhile
    return not stat.S_ISLNK(mode) and bool(stat.S_IMODE(mode) & PRIVATE_UMASK)


def open_private(path: Path | str, *, within: int | None = None, tighten: bool = False) -> int:
    """Return a descriptor of a directory that only this user may change; never follow a link.

    `tighten` closes a directory of this user that an earlier kedge left open to others.

    Raises:
        OSError: it cannot be opened, is a link or no directory, another user's, or open to others.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    handle = os.open(path, flags, dir_fd=within)
    try:
        found = os.fstat(handle)
        if found.st_uid != os.geteuid():
            raise PermissionError(f"{path} belongs to another user (uid {found.st_uid})")
        if tighten and stat.S_IMODE(found.st_mode) & PRIVATE_UMASK:
            os.fchmod(handle, 0o700)
        elif found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise PermissionError(f"other users may write to {path}")
    except BaseException:
        os.close(handle)
        raise
    return handle


def make_private(path: Path, *, tighten: bool = False) -> None:
    """Make a directory that only this user may change, or check the existing one.

    Raises:
        OSError: as `open_private`, or it cannot be made.
    """
    with suppress(FileExistsError):
        os.mkdir(path, 0o700)  # noqa: PTH102 - without parents, and never through a link
    os.close(open_private(path, tighten=tighten))


def keep_folder(folder: Path) -> None:
    """Make a run directory and one folder in it again if a cleanup job has deleted them.

    Raises:
        OSError: as `make_private`.
    """
    folder.parent.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    for path in (folder.parent, folder):
        make_private(path)


@contextmanager
def socket_address(path: Path) -> Iterator[str]:
    """Yield an address of the Unix socket at `path` that the kernel accepts for any length of path.

    A path that is too long is reached through a descriptor of its directory. Without /proc the
    path is used unchanged, and binding it fails.
    """
    if len(os.fsencode(path)) <= SOCKET_BYTES:
        yield str(path)
        return
    flags = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    handle = os.open(path.parent, flags)
    try:
        yield f"/proc/self/fd/{handle}/{path.name}"
    finally:
        os.close(handle)


def listen_at(path: Path, backlog: int) -> socket.socket:
    """Listen at a Unix socket that only this user may open; replace any file at its path.

    It is bound under a temporary name and then renamed, so that no client finds it incomplete.

    Raises:
        OSError: it cannot be bound.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with socket_address(temporary) as address:
            listener.bind(address)
        temporary.chmod(0o600)
        listener.listen(backlog)
        temporary.replace(path)
    except OSError:
        listener.close()
        raise
    return listener


def connect_to(path: Path, *, timeout_s: float = 0.0) -> socket.socket:
    """Connect to a Unix socket; non-blocking if there is no timeout.

    Raises:
        OSError: no process listens there, or its queue is full.
    """
    asking = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        asking.settimeout(timeout_s)
        with socket_address(path) as address:
            asking.connect(address)
    except OSError:
        asking.close()
        raise
    return asking


class Door:
    """A listening Unix socket that can be made again when its file was deleted."""

    def __init__(self, path: Path, backlog: int) -> None:
        """Store the path; `open` listens.

        Args:
            path: path of the socket, in a folder of a run directory.
            backlog: maximum number of waiting connections.
        """
        self.path = path
        self._backlog = backlog
        self._seen = (0, 0)

    def open(self) -> socket.socket:
        """Listen, in a folder that is made again if it is missing.

        Raises:
            OSError: it cannot be bound.
        """
        if not self.path.parent.is_dir():
            keep_folder(self.path.parent)
        listener = listen_at(self.path, self._backlog)
        found = self.path.lstat()
        self._seen = (found.st_dev, found.st_ino)
        return listener

    @property
    def is_lost(self) -> bool:
        """Whether no file is at the path any more. A successor's file there is not a loss."""
        return not os.path.lexists(self.path)

    def close(self) -> None:
        """Remove the file, unless it belongs to a successor."""
        with suppress(OSError):
            found = self.path.lstat()
            if (found.st_dev, found.st_ino) == self._seen:
                self.path.unlink()


def name_aside(name: str) -> str:
    """Return a new name for an unreadable file."""
    now = datetime.now(UTC)  # noqa: TID251 - only for the name; no decision depends on it
    return f"{name}{ASIDE}{now.strftime('%Y%m%dT%H%M%S.%fZ')}"


def set_aside(path: Path, *companions: str) -> str:
    """Rename a file that cannot be read, and return its new name.

    `companions` are suffixes of files that belong to it. They are renamed first, so that the
    file's replacement never uses them.

    Raises:
        OSError: it cannot be renamed.
    """
    kept = name_aside(path.name)
    for suffix in (*companions, ""):
        with suppress(FileNotFoundError):
            path.with_name(f"{path.name}{suffix}").rename(path.with_name(f"{kept}{suffix}"))
    for old in list_aside(path)[:-ASIDE_COUNT]:
        for suffix in (*companions, ""):
            with suppress(OSError):
                old.with_name(f"{old.name}{suffix}").unlink()
    return kept


def list_aside(path: Path) -> list[Path]:
    """Return the files that were set aside for a path, the oldest first."""
    found = (one for one in path.parent.glob(f"{path.name}{ASIDE}*"))
    return sorted(one for one in found if one.name.endswith("Z"))
