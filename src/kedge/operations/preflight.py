"""Preflight of `kedge up`: checks of what this machine must allow, before anything is served.

A gateway that reports "serving" and then cannot write records, or runs out of descriptors, fails
at the worst time. A fault that prevents serving is refused; one that costs a part is reported.
"""

from __future__ import annotations

import errno
import getpass
import os
import resource
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from kedge.core.errors import Unavailable
from kedge.engine.supervisor_lock import NAME as LOCK
from kedge.system.files import tighten

DIRECTORIES = (
    ("ledger", "no command is carried out"),
    ("roster", "no command is acknowledged"),
    ("evidence", "nothing is counted, and no guardrail sees a fault"),
    ("records", "no prediction is kept, and no outcome finds its prediction"),
    ("records/spool", "no prediction is kept, and no outcome finds its prediction"),
    ("records/hours", "no prediction is kept, and no outcome finds its prediction"),
    ("artifacts", "nothing can be registered"),
    ("replicas", "a start needs the ledger"),
    ("pins", "rollback --local cannot pin this host"),
    ("apart", "a release that hung runs inline again"),
    ("logs", "nothing is logged"),
    ("proving", "readiness cannot be proven"),
)
"""Directories below the state directory that kedge writes, and the cost if it cannot."""
READ_ONLY = frozenset({"artifacts"})
"""Directories whose files are not written again."""
OWN_FILES = 40
"""Open files of a process without callers or models: a worker had 31, the supervisor 37."""
ENDPOINT_FILES = 4
"""Open files per endpoint: connections to both processes of live releases, logs, a file in use."""
SPARE_FILES = 24
"""Open files for events while all connections are in use: a load, a command."""


class Obstacle(NamedTuple):
    """A fault of a directory or file, and its fix."""

    path: Path
    fault: str
    remedy: str
    cost: str

    def told(self) -> str:
        """Return the obstacle as one sentence."""
        return f"{self.path} cannot be written: {self.fault}; {self.cost}. {self.remedy}"


def check_machine(
    state_dir: Path, max_in_flight: int, endpoints: int, say: Callable[[str], None]
) -> None:
    """Refuse faults that prevent serving, and report those that only cost a part.

    Raises:
        Unavailable: `not_writable`, `too_few_files`.
    """
    check_state_dir(state_dir)
    if tighten(state_dir):
        say(f"{state_dir} was open to other users of this machine; closed (0700)")
    for obstacle in find_obstacles(state_dir):
        say(f"warning: {obstacle.told()}")
    few = check_open_files(max_in_flight, endpoints)
    if few is not None:
        say(f"warning: {few}")


def check_control_port(port: int) -> str | None:
    """Return a sentence if another process uses control's port, as a second kedge here would."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
            trial.listen(1)
        except OSError as error:
            return (
                f"control cannot listen on port {port} yet: {error.strerror or error}. Callers are"
                " served; automation, alerts and the API start once the port is free. If another"
                " kedge uses it, set [server] control_port"
            )
    return None


# ---------------------------------------------------------------- directories


def check_state_dir(state_dir: Path) -> None:
    """Create the state directory, and check whether a supervisor can run in it.

    Raises:
        Unavailable: `not_writable`.
    """
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _refusal(_obstacle(state_dir, error, "")) from error
    found = _try(state_dir, "") or _try_file(state_dir / LOCK, "")
    if found is not None:
        raise _refusal(found)


def find_obstacles(state_dir: Path) -> list[Obstacle]:
    """Return the directories and files that kedge must write but cannot, with the cost of each."""
    found = []
    for name, cost in DIRECTORIES:
        folder = state_dir / name
        if not os.path.lexists(folder):
            continue  # kedge will create it in the state directory
        one = _try(folder, cost)
        if one is None and name not in READ_ONLY:
            one = next(_files(folder, cost), None)
        if one is not None:
            found.append(one)
    return found + _temporary_obstacles()


def _temporary_obstacles() -> list[Obstacle]:
    cost = "nothing can be registered, replayed or proven"
    try:
        folder = Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        where = Path("/tmp")  # noqa: S108 - the first that is tried; named in a message only
        return [Obstacle(where, error.strerror or str(error), "set TMPDIR to a directory", cost)]
    one = _try(folder, cost)
    return [one] if one is not None else []


def _try(folder: Path, cost: str) -> Obstacle | None:
    """Write a byte into an unnamed file; return why that failed, or None.

    A full disk is no obstacle: callers are still served, and the reserve (`kedge.system.reserve`)
    allows a rollback.
    """
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            file.write(b"\0")
    except OSError as error:
        return None if error.errno == errno.ENOSPC else _obstacle(folder, error, cost)
    return None


def _files(folder: Path, cost: str) -> Iterator[Obstacle]:
    """Yield files that this user cannot write: of another user, after a command with sudo."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False):
                    one = _try_file(Path(entry.path), cost)
                    if one is not None:
                        yield one
    except OSError as error:
        if error.errno != errno.ENOSPC:
            yield _obstacle(folder, error, cost)


def _try_file(path: Path, cost: str) -> Obstacle | None:
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return _obstacle(path, OSError(errno.EINVAL, "not a regular file"), cost)
        os.close(os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC))
    except FileNotFoundError:
        return None
    except OSError as error:
        return None if error.errno == errno.ENOSPC else _obstacle(path, error, cost)
    return None


def _obstacle(path: Path, error: OSError, cost: str) -> Obstacle:
    return Obstacle(path, error.strerror or str(error), _remedy(path, error.errno), cost)


def _remedy(path: Path, number: int | None) -> str:
    match number:
        case errno.EACCES | errno.EPERM:
            return f"Give it to this user: chown -R {_user()} {path}"
        case errno.EROFS:
            return "Its file system is read-only: mount it for writing"
        case errno.ENOSPC | errno.EDQUOT:
            return "Free some disk space"
        case errno.EMFILE | errno.ENFILE:
            return "Raise the limit of open files"
        case errno.ENOENT if path.is_symlink():
            return "It is a link to nothing: mount or make what it points to"
    return "Move away what stands there"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user number may have no name
        return str(os.geteuid())


def _refusal(found: Obstacle) -> Unavailable:
    return Unavailable(
        f"{found.path} cannot be written: {found.fault}", code="not_writable", hint=found.remedy
    )


# ---------------------------------------------------------------- open files


class OpenFiles(NamedTuple):
    """The limit of open files, and what one process of kedge needs."""

    limit: int
    """The hard limit: kedge raises the soft one to it."""
    least: int
    """Below this limit kedge cannot serve."""
    full: int
    """From this limit on a worker can hold `max_in_flight` requests, each on its own connection."""

    def fault(self) -> str | None:
        """Return what the limit costs, or None if it is high enough."""
        if self.limit >= self.full:
            return None
        most = max(self.limit - self.least, 0)
        return (
            f"this process may open {self.limit} files (hard limit), and a gateway worker needs"
            f" {self.full}: {self.least} of its own and one for each connection. At most about"
            f" {most} connections are kept by each worker; further ones close those that are idle"
        )


RAISE = (
    "raise it: LimitNOFILE= in the systemd unit, --ulimit nofile= for a container, or ulimit -n as"
    " root"
)


def count_open_files(max_in_flight: int, endpoints: int, pid: int = 0) -> OpenFiles:
    """Return the limit of a process (0: this one), and the limits that it needs."""
    try:
        _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    except OSError:  # it ended, or is of another user
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    least = OWN_FILES + ENDPOINT_FILES * max(endpoints, 1)
    unlimited = hard == resource.RLIM_INFINITY
    return OpenFiles(
        limit=1 << 30 if unlimited else hard,
        least=least,
        full=least + SPARE_FILES + max_in_flight,
    )


def check_open_files(max_in_flight: int, endpoints: int) -> str | None:
    """Return a warning if the limit of open files costs connections.

    Raises:
        Unavailable: `too_few_files`: kedge cannot serve.
    """
    found = count_open_files(max_in_flight, endpoints)
    if found.limit < found.least:
        raise Unavailable(
            f"this process may open {found.limit} files (hard limit), and kedge needs {found.least}"
            f" to serve {max(endpoints, 1)} endpoints",
            code="too_few_files",
            hint=RAISE,
        )
    fault = found.fault()
    return f"{fault}; {RAISE}" if fault else None
