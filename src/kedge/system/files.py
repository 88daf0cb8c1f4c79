"""Files: private directories, Unix sockets whatever the length of their path, and what is set aside."""

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
"""For every process: predictions, labels and the ledger are for the user that runs kedge alone."""
ASIDE = ".unreadable-"
"""Between the name of what could not be read, and when it was set aside."""
ASIDE_COUNT = 5
"""Files of one name that are kept: whatever damages one again and again must not fill the disk."""
SOCKET_BYTES = 107
"""Bytes of a Unix socket's address on Linux, without the zero byte at its end."""


def set_umask() -> None:
    """Make what this process and its children create readable by its user alone."""
    os.umask(PRIVATE_UMASK)


def tighten(directory: Path) -> bool:
    """Close a directory of this user's to others; return whether it was open to them."""
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
    """Yield every entry below a directory with its name relative to it; never through a link.

    It does not recurse, so that no depth is too much for it. What `skip` says of a name is left out, with all below.

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
    """Return the bytes of a file or pipe that a user names; a pipe that nothing writes to is empty.

    Raises:
        OSError: it cannot be read, or has more than `most` bytes: a device may never end.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        os.set_blocking(handle, True)
        found = file.read(most + 1)
    if len(found) > most:
        raise OSError(errno.EFBIG, f"more than {most:,} bytes", str(path))
    return found


def find_open(directory: Path) -> list[Path]:
    """Return what in a directory, and it itself, other users may read or change. Links are not followed."""
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
    """Return a descriptor of a directory that only this user may change; never through a link.

    `tighten` closes one of ours that others may enter, as an earlier kedge left it.

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
    """Make a directory that only this user may change; one that is there is checked.

    Raises:
        OSError: as `open_private`, or it cannot be made.
    """
    with suppress(FileExistsError):
        os.mkdir(path, 0o700)  # noqa: PTH102 - without parents, and never through a link
    os.close(open_private(path, tighten=tighten))


def keep_folder(folder: Path) -> None:
    """Make a run directory and one folder in it again where a cleanup job has deleted them.

    Raises:
        OSError: as `make_private`.
    """
    folder.parent.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    for path in (folder.parent, folder):
        make_private(path)


@contextmanager
def socket_address(path: Path) -> Iterator[str]:
    """Yield an address of the Unix socket at `path` that the kernel takes, however long the path is.

    A path that is too long is reached through a descriptor of its directory. Where there is no
    /proc the path stays what it is, and binding it fails.
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
    """Listen at a Unix socket that only this user may open; whatever stood there is replaced.

    It is bound under a temporary name that then becomes the name: no client finds it half made.

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
    """Connect to a Unix socket; non-blocking where there is no timeout.

    Raises:
        OSError: nothing listens there, or its queue is full.
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
    """A listening Unix socket that is put back when its file was deleted."""

    def __init__(self, path: Path, backlog: int) -> None:
        """Remember where; `open` listens.

        Args:
            path: of the socket, in a folder of a run directory.
            backlog: connections that may wait.
        """
        self.path = path
        self._backlog = backlog
        self._seen = (0, 0)

    def open(self) -> socket.socket:
        """Listen, in a folder that is made again where it is gone.

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
        """Whether nothing stands at the path any more. What a successor put there is not lost."""
        return not os.path.lexists(self.path)

    def close(self) -> None:
        """Remove the file, unless it is a successor's."""
        with suppress(OSError):
            found = self.path.lstat()
            if (found.st_dev, found.st_ino) == self._seen:
                self.path.unlink()


def name_aside(name: str) -> str:
    """Return the name under which something unreadable is kept from now on."""
    now = datetime.now(UTC)  # noqa: TID251 - only to name it; nothing is decided by it
    return f"{name}{ASIDE}{now.strftime('%Y%m%dT%H%M%S.%fZ')}"


def set_aside(path: Path, *companions: str) -> str:
    """Rename a file that cannot be read, and return the name under which it is kept.

    `companions` are suffixes of files that belong to it: they are renamed first, so that what
    takes the file's place never meets them.

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
    """Return what was set aside under a file's name, the oldest first."""
    found = (one for one in path.parent.glob(f"{path.name}{ASIDE}*"))
    return sorted(one for one in found if one.name.endswith("Z"))
