"""System calls that fail once, in the processes of a site: traced in one run, failed in others.

`Kit.install` copies this file to a folder on a site's PYTHONPATH as `sitecustomize.py`; there it wraps
the functions of Python that make system calls. Which call of which process fails stands in `plan.json`
beside it. A pair is a call and the place in kedge's own code that made it, in a kind of process.

What is made in C past Python (uvloop's reads and writes on connections, the files of SQLite) is not
seen. SQLite's errors are raised by its driver instead.
"""

from __future__ import annotations

import builtins
import errno
import fcntl
import io
import json
import os
import socket
import subprocess
import sys
import threading
from importlib import import_module
from pathlib import Path
from typing import Any

OWN = f"{os.sep}src{os.sep}kedge{os.sep}"
SHARED = {"engine/loop.py", "system/durable.py", "system/locks.py"}
"""Files whose functions make the calls of many places: what called them is meant."""
MARK = "injected-"
"""Begins the text of each error, and its number follows: what names it is found by that."""
TRACE, FIRED, ARMED, PLAN = "trace", "fired", "armed", "plan.json"
LARGEST = 4096

E = errno
ERRNOS = {
    "open": (E.ENOSPC, E.EMFILE, E.EROFS, E.EIO, E.EISDIR),
    "write": (E.ENOSPC, E.EIO),
    "rename": (E.EROFS, E.EIO, E.ENOSPC),
    "unlink": (E.EROFS, E.EIO, E.EISDIR),
    "stat": (E.EIO,),
    "list": (E.EIO, E.EMFILE),
    "read": (E.EIO, E.EISDIR),
    "descriptor": (E.EMFILE,),
    "bind": (E.EROFS, E.EIO),
    "connect": (E.EAGAIN, E.EIO),
    "accept": (E.EMFILE, E.EIO),
    "send": (E.EPIPE, E.EAGAIN),
    "fork": (E.EAGAIN, E.EMFILE),
    "thread": (E.EAGAIN,),
    "lock": (E.EIO,),
    "stream": (E.EPIPE, E.ENOSPC, E.EIO),
    "database": (E.ENOSPC, E.EIO, E.EROFS, E.EMFILE, E.EAGAIN),
}
"""Which errors a kind of call can have."""
OS_CALLS = {
    "open": "open",
    "mkdir": "rename",
    "write": "write",
    "pwrite": "write",
    "fsync": "write",
    "fdatasync": "write",
    "ftruncate": "write",
    "truncate": "write",
    "posix_fallocate": "write",
    "rename": "rename",
    "replace": "rename",
    "link": "rename",
    "symlink": "rename",
    "chmod": "rename",
    "utime": "rename",
    "unlink": "unlink",
    "remove": "unlink",
    "rmdir": "unlink",
    "stat": "stat",
    "lstat": "stat",
    "fstat": "stat",
    "readlink": "stat",
    "statvfs": "stat",
    "scandir": "list",
    "listdir": "list",
    "read": "read",
    "pread": "read",
    "dup": "descriptor",
    "dup2": "descriptor",
    "pipe": "descriptor",
    "pipe2": "descriptor",
    "fork": "fork",
    "posix_spawn": "fork",
}
SOCKET_CALLS = {
    "bind": "bind",
    "listen": "bind",
    "connect": "connect",
    "accept": "accept",
    "send": "send",
    "sendall": "send",
    "sendmsg": "send",
    "recv": "read",
    "recvmsg": "read",
    "recv_into": "read",
}
SQLITE_CODES = {
    E.ENOSPC: (13, "database or disk is full"),
    E.EIO: (10, "disk I/O error"),
    E.EROFS: (8, "attempt to write a readonly database"),
    E.EMFILE: (14, "unable to open database file"),
    E.EAGAIN: (5, "database is locked"),
}


def role_of(line: list[str]) -> str:
    """Return which of kedge's long-lived processes this is; empty for any other."""
    if "gateway-worker" in line:
        return "worker"
    if "kedge.adapters.process" in line:
        return "model" if "serve" in line else ""
    if "control" in line:
        return "control"
    return "supervisor" if "up" in line or "gateway" in line else ""


class Calls:
    """The wrapped calls of one process."""

    def __init__(self, folder: str, role: str) -> None:
        plan = json.loads(Path(folder, PLAN).read_bytes())
        self.role = role
        self.faults = {tuple(fault["pair"]): fault for fault in plan["faults"]}
        self.armed_path = f"{folder}/{ARMED}"
        self.armed = False
        self.stat = os.stat
        self.write, self.pread, self.pwrite = os.write, os.pread, os.pwrite
        self.trace = self._keep(folder, TRACE, os.O_WRONLY | os.O_APPEND) if plan["trace"] else -1
        self.fired = self._keep(folder, FIRED, os.O_RDWR)
        self.seen: set[tuple[Any, ...]] = set()
        self.inside = threading.local()

    @staticmethod
    def _keep(folder: str, name: str, flags: int) -> int:
        """Open it under a high number, so that the process's own files keep theirs."""
        handle = os.open(f"{folder}/{name}", flags | os.O_CREAT | os.O_CLOEXEC, 0o600)
        high = fcntl.fcntl(handle, fcntl.F_DUPFD_CLOEXEC, 500)
        os.close(handle)
        return high

    def meet(self, call: str, kind: str, error: Any = OSError) -> None:
        """Note that a call is made, and raise where the plan says so."""
        if getattr(self.inside, "on", False):
            return
        self.inside.on = True
        try:
            place = place_of()
            if place is None:
                return
            if not self.armed:
                try:
                    self.stat(self.armed_path)
                    self.armed = True
                except OSError:
                    pass
            pair = (self.role, call, kind, *place)
            if self.trace >= 0 and (self.armed, pair) not in self.seen:
                self.seen.add((self.armed, pair))
                line = json.dumps([self.armed, *pair]) + "\n"
                self.write(self.trace, line.encode())
            fault = self.faults.get(pair)
            if fault is None or fault["armed"] > self.armed or not self.take(fault["number"]):
                return
        finally:
            self.inside.on = False
        raise self.error(error, fault)

    @staticmethod
    def error(kind: Any, fault: dict[str, Any]) -> BaseException:
        number, text = fault["errno"], f"{MARK}{fault['number']}-"
        if kind is RuntimeError:
            return RuntimeError(f"can't start new thread {text}")
        if kind is not OSError:  # the driver's
            code, words = SQLITE_CODES[number]
            error: BaseException = kind(f"{words} {text}")
            error.sqlite_errorcode = code  # type: ignore[attr-defined]
            return error
        return OSError(number, f"{os.strerror(number)} {text}")

    def take(self, number: int) -> bool:
        """Whether this is the first time, in any process."""
        fcntl.lockf(self.fired, fcntl.LOCK_EX)
        try:
            if self.pread(self.fired, 1, number) == b"x":
                return False
            self.pwrite(self.fired, b"x", number)
        finally:
            fcntl.lockf(self.fired, fcntl.LOCK_UN)
        return True


def place_of() -> tuple[str, str, int] | None:
    """Return the innermost place in kedge's code; None where there is none, or while it imports.

    A shared file is the place only on a thread that runs nothing else of kedge.
    """
    frame, shared = sys._getframe(3), None
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith("<frozen importlib"):
            return None
        at = name.find(OWN)
        if at >= 0:
            place = name[at + len(OWN) :], frame.f_code.co_name, frame.f_lineno
            if place[0] not in SHARED:
                return place
            shared = shared or place
        frame = frame.f_back  # type: ignore[assignment]
    return shared


def wrap(
    calls: Calls, module: Any, name: str, kind: str, called: str, error: Any = OSError
) -> None:
    """Put a function in the place of another that meets the plan first."""
    real = getattr(module, name)

    def call(*given: Any, **named: Any) -> Any:
        calls.meet(called, kind, error)
        return real(*given, **named)

    for known in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks):
        if real in known:
            known.add(call)
    setattr(module, name, call)


def wrap_files(calls: Calls) -> None:
    """Wrap `open`, and the writes of what it opens."""
    real = io.open

    class Raw(io.FileIO):
        def write(self, data: Any) -> int:
            calls.meet("file.write", "write")
            return super().write(data) or 0

    def opens(file: Any, mode: str = "r", buffering: int = -1, *more: Any, **named: Any) -> Any:
        calls.meet("open", "open")
        plain = not more and not any(named.values())
        if mode in ("wb", "ab") and buffering == -1 and plain:
            return io.BufferedWriter(Raw(file, mode[0]))
        return real(file, mode, buffering, *more, **named)

    builtins.open = io.open = opens


def wrap_sockets(calls: Calls) -> None:
    """Wrap what sockets do, and making them."""
    for name, kind in SOCKET_CALLS.items():
        real = getattr(socket.socket, name)

        def call(
            self: Any,
            *given: Any,
            _real: Any = real,
            _name: str = name,
            _kind: str = kind,
            **named: Any,
        ) -> Any:
            calls.meet(f"socket.{_name}", _kind)
            return _real(self, *given, **named)

        setattr(socket.socket, name, call)
    begin = socket.socket.__init__

    def made(self: Any, *given: Any, **named: Any) -> None:
        if named.get("fileno", given[3] if len(given) > 3 else None) is None:
            calls.meet("socket", "descriptor")
        begin(self, *given, **named)

    setattr(socket.socket, "__init__", made)  # noqa: B010 - as the others
    wrap(calls, socket, "socketpair", "descriptor", "socketpair")


def dbapi() -> Any:
    """Return the driver that kedge takes."""
    try:
        return import_module("pysqlite3.dbapi2")
    except ImportError:
        return import_module("sqlite3.dbapi2")


def wrap_databases(calls: Calls) -> None:
    """Wrap the driver of SQLite, whose system calls are made in C."""
    driver: Any = dbapi()
    failed = driver.OperationalError

    class Cursor(driver.Cursor):  # type: ignore[misc]
        def execute(self, *given: Any) -> Any:
            calls.meet("sqlite.execute", "database", failed)
            return super().execute(*given)

    class Connection(driver.Connection):  # type: ignore[misc]
        def cursor(self, factory: Any = Cursor) -> Any:
            return super().cursor(factory)

        def execute(self, *given: Any) -> Any:
            calls.meet("sqlite.execute", "database", failed)
            return super().execute(*given)

        def commit(self) -> None:
            calls.meet("sqlite.commit", "database", failed)
            super().commit()

    real = driver.connect

    def connect(*given: Any, **named: Any) -> Any:
        calls.meet("sqlite.connect", "database", failed)
        named.setdefault("factory", Connection)
        return real(*given, **named)

    driver.connect = connect


def install(folder: str) -> None:
    """Wrap the calls of this process, if it is one of the long-lived ones."""
    role = role_of(sys.orig_argv)
    if not role:
        return
    calls = Calls(folder, role)
    for name, kind in OS_CALLS.items():
        wrap(calls, os, name, kind, f"os.{name}")
    wrap_files(calls)
    wrap_sockets(calls)
    wrap_databases(calls)
    wrap(calls, fcntl, "flock", "lock", "flock")
    wrap(calls, subprocess, "_fork_exec", "fork", "fork_exec")
    wrap(calls, threading, "_start_new_thread", "thread", "thread", RuntimeError)


if __name__ == "sitecustomize":
    install(str(Path(__file__).resolve().parent))
