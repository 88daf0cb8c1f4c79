"""The fence around a model process: the files it may read, and the calls it must not make.

A model is code, whatever its format. So before the process imports the model's library and touches
its artifact, it gives up what a model does not need. It gives up files (Landlock, except `READ` and
the caller's paths), sockets, programs and other processes (seccomp, by `syscalls`), capabilities
and new rights. No step can be undone.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import signal
import socket
import struct
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kedge.adapters.process.syscalls import ABSENT, NEVER, NUMBERS
from kedge.core.errors import UnfitModel

READ: dict[str, str] = {
    "/lib": "shared libraries",
    "/lib64": "shared libraries",
    "/usr/lib": "shared libraries",
    "/usr/lib64": "shared libraries",
    "/usr/local/lib": "shared libraries",
    "/etc/ld.so.cache": "where shared libraries are",
    "/etc/localtime": "the time zone",
    "/usr/share/zoneinfo": "time zones",
    "/dev/urandom": "seeds",
    "/dev/random": "seeds",
    "/proc/self": "its own memory and processor figures",
    "/proc/cpuinfo": "ONNX Runtime picks its kernels by it",
    "/proc/meminfo": "how much memory there is",
    "/proc/stat": "how many processors there are",
    "/sys/devices/system": "processors and caches: OpenMP, OpenBLAS and ONNX Runtime count them",
    "/sys/fs/cgroup": "the limits of its group",
}
"""Paths that every model process may read, beside the interpreter's, its artifact and its
directory."""
WRITE: dict[str, str] = {"/dev/null": "nothing"}
"""Paths that every model process may write, beside its own directory."""
RESOLVER: dict[str, str] = {
    "/etc/hosts": "names",
    "/etc/resolv.conf": "names",
    "/etc/nsswitch.conf": "names",
    "/etc/host.conf": "names",
    "/etc/gai.conf": "names",
    "/etc/services": "names",
    "/etc/ssl": "certificates of an online store",
    "/usr/share/ca-certificates": "the same",
}
"""Paths that a release with an online store over the network may also read."""

FILES = 1024
"""Limit of open files: connections of workers, and the files of a library."""
FILE_BYTES = 256 << 20
"""Limit of bytes in one written file: its directory and its log are no place for data."""
PROBE_CPU_S = 900
"""Processor time limit of one probe or proof; in a serving process an alarm bounds each request."""

# Landlock's and seccomp's own numbers; the same on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_PATH_BENEATH, _NET_PORT = 1, 2
_READ_FILE, _READ_DIR, _WRITE_FILE, _EXECUTE = 1 << 2, 1 << 3, 1 << 1, 1 << 0
_TRUNCATE, _IOCTL_DEV, _REFER = 1 << 14, 1 << 15, 1 << 13
_OWN_FILES = _READ_FILE | _READ_DIR | _WRITE_FILE | _TRUNCATE | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8
"""Rights in its own directory: create and remove directories and files; no sockets, pipes, devices
or links."""
_CONNECT_TCP, _BIND_TCP = 1 << 1, 1 << 0
_SCOPES = 0b11
"""Scopes: abstract Unix sockets and signals of outside processes."""
_PR_SET_NO_NEW_PRIVS, _PR_CAPBSET_DROP, _PR_GET_SECCOMP = 38, 24, 21
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_CLONE_THREAD = 0x00010000
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_LOAD, _JUMP_EQUAL, _JUMP_GREATER, _JUMP_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_DAC_OVERRIDE, _DAC_READ_SEARCH = 1, 2
"""Root's capabilities that stay: Python and the artifacts may be in another user's directories.
Landlock decides what may be read and written there, so without it no capability stays."""
_PR_SET_KEEPCAPS = 8
_USERS = ((66_000, 30_000), (61_000, 3_000))
"""First user id and number of ids: each process that root starts gets its own, by its process id.
No distribution assigns the first range; the second one is also mapped in a container with 65,536
users."""
_TERMINAL_INPUT = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX, which type on the operator's terminal."""
_OWNED_BY_IOCTL = (0x8901, 0x8902)
"""FIOSETOWN and SIOCSPGRP, which make the kernel signal a descriptor's owner."""
_OWNED_BY_FCNTL = (8, 10, 15, 1024)
"""F_SETOWN, F_SETSIG and F_SETOWN_EX: the same; F_SETLEASE makes other processes wait."""
_FILE_FLAGS = (0x40086602, 0x401C5820)
"""FS_IOC_SETFLAGS and FS_IOC_FSSETXATTR, which change a file that is only open for reading."""
_FLAGS = tuple(cloexec | nonblock for cloexec in (0, 0o2000000) for nonblock in (0, 0o4000))
_STREAMS = tuple(int(socket.SOCK_STREAM) | flags for flags in _FLAGS)
_DATAGRAMS = tuple(int(socket.SOCK_DGRAM) | flags for flags in _FLAGS)

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Openings:
    """Openings of one process in addition to the common ones."""

    read: tuple[Path, ...] = ()
    write: tuple[Path, ...] = ()
    own: Path | None = None
    """Directory that it may write; if root started it, its own user owns the directory."""
    hidden: Path | None = None
    """The state directory: never readable, even inside a path of the interpreter."""
    port: int | None = None
    """TCP port of its online store."""
    names: bool = False
    """Whether the store's host is a name, which is looked up by datagrams."""
    unix: bool = False
    """Whether its online store uses a Unix socket."""
    cpu_s: int | None = None


def missing(openings: Openings | None = None) -> tuple[str, ...]:
    """Return the names of the fence's parts that this machine is missing; apply nothing.

    Without sockets, seccomp refuses what Landlock's rules for networks and abstract sockets would.
    These rules count as missing if `openings` has an online store that is reached by a socket.
    """
    found = []
    abi = landlock_abi()
    if abi < 1:
        found.append("landlock")
    elif abi < 3:
        found.append("landlock.truncate")
    if openings is not None and openings.port is not None and 0 < abi < 4:
        found.append("landlock.network")
    if openings is not None and (openings.port is not None or openings.unix) and 0 < abi < 6:
        found.append("landlock.scope")
    if platform.machine() not in _ARCH or not _has_seccomp():
        found.append("seccomp")
    return tuple(found)


def landlock_abi() -> int:
    """Return the version of Landlock that the kernel offers; 0 without."""
    if sys.platform != "linux":
        return 0
    return max(int(_libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)), 0)


def _has_seccomp() -> bool:
    return sys.platform == "linux" and int(_libc.prctl(_PR_GET_SECCOMP, 0, 0, 0, 0)) >= 0


def enter(openings: Openings) -> tuple[str, ...]:
    """Apply the fence to this process permanently; return the parts that could not be applied."""
    _limit(openings)
    if sys.platform != "linux":
        return ("landlock", "seccomp")
    lacking = list(missing(openings))
    if len(os.listdir("/proc/self/task")) != 1:  # noqa: PTH208
        lacking.append("threads")  # running threads would stay outside
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return (*lacking, "no_new_privs")
    if "landlock" not in lacking and not _landlock(openings):
        lacking.append("landlock")
    bounded = "landlock" not in lacking
    if os.geteuid() == 0:
        # Without capabilities it can still reach files that root owns.
        kept = (
            {_DAC_READ_SEARCH}
            if bounded and not openings.write
            else {_DAC_READ_SEARCH, _DAC_OVERRIDE}
        )
        _bound_capabilities(kept)
        if bounded and not _become_another_user(openings.own):
            lacking.append("user")
        _keep_capabilities(kept)
    if "seccomp" not in lacking and not _seccomp(openings):
        lacking.append("seccomp")
    return tuple(lacking)


def enter_or_refuse(openings: Openings, policy: str) -> tuple[str, ...]:
    """Apply the fence according to `[server] fence`; return the parts that could not be applied.

    Raises:
        UnfitModel: `not_fenced`: a part is missing, and `policy` is "require".
    """
    lacking = enter(openings)
    if lacking and policy == "require":
        raise UnfitModel(
            f"the fence around models lacks {', '.join(lacking)} on this machine",
            code="not_fenced",
            hint=(
                "use a newer kernel, or a container that allows it; "
                'fence = "warn" in [server] runs models without it'
            ),
        )
    return lacking


def enclose(hidden: str, policy: str) -> None:
    """Enter the fence as a process without files of its own and without a store.

    `hidden` is the state directory; empty if unknown. Raises as `enter_or_refuse`.
    """
    enter_or_refuse(Openings(hidden=Path(hidden) if hidden else None), policy)


def _limit(openings: Openings) -> None:
    bounds = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: FILES,
        resource.RLIMIT_FSIZE: FILE_BYTES,
        **({resource.RLIMIT_CPU: openings.cpu_s} if openings.cpu_s is not None else {}),
    }
    for which, most in bounds.items():
        _, hard = resource.getrlimit(which)
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(which, (least, least))
    with suppress(
        OSError, ValueError
    ):  # without the capability it may still lower its nice value after the load
        resource.setrlimit(13, (20 - os.getpriority(os.PRIO_PROCESS, 0),) * 2)  # RLIMIT_NICE


def _become_another_user(own: Path | None) -> bool:
    """Run as a user that no other process has; return whether that is possible here."""
    _libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
    for first, many in _USERS:
        user = first + os.getpid() % many
        try:
            if own is not None:
                os.chown(own, user, user)
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
        except OSError:
            continue  # not mapped in this container, or root lacks the right
        return True
    return False


def _bound_capabilities(kept: set[int]) -> None:
    """Drop the right to regain root's other capabilities; only root may."""
    for number in range(64):
        if number not in kept:
            _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)


def _keep_capabilities(kept: set[int]) -> None:
    """Drop root's other capabilities."""
    header = struct.pack("=Ii", 0x20080522, 0)
    old = ctypes.create_string_buffer(24)
    if _libc.syscall(_number("capget"), header, old) != 0:
        return
    _, permitted, *_ = struct.unpack("=6I", old.raw)
    mask = permitted & sum(1 << number for number in kept)
    _libc.syscall(_number("capset"), header, struct.pack("=6I", mask, mask, 0, 0, 0, 0))


def _number(name: str) -> int:
    own = {"capget": (125, 90), "capset": (126, 91)}
    pair = own[name] if name in own else NUMBERS[name]
    return pair[0 if platform.machine() == "x86_64" else 1]


# ---------------------------------------------------------------- Landlock


def _landlock(openings: Openings) -> bool:
    abi = landlock_abi()
    files = (1 << (13 + min(abi, 3) - 1)) - 1 | (_IOCTL_DEV if abi >= 5 else 0)
    network = _BIND_TCP | _CONNECT_TCP if abi >= 4 else 0
    attributes = struct.pack("=QQQ", files, network, _SCOPES if abi >= 6 else 0)
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    ruleset = _libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(size), 0)
    if ruleset < 0:
        return False
    try:
        for path in _readable(openings):
            _beneath(ruleset, path, _READ_FILE | _READ_DIR)
        for path in map(Path, WRITE):
            _beneath(ruleset, path, (_READ_FILE | _WRITE_FILE | _TRUNCATE) & files)
        for path in (*openings.write, *([openings.own] if openings.own is not None else [])):
            _beneath(ruleset, path, files & _OWN_FILES)
        if openings.port is not None and network:
            rule = struct.pack("=QQ", _CONNECT_TCP, openings.port)
            _libc.syscall(_ADD_RULE, ruleset, _NET_PORT, rule, 0)
        return int(_libc.syscall(_RESTRICT_SELF, ruleset, 0)) == 0
    finally:
        os.close(ruleset)


def _beneath(ruleset: int, path: Path, rights: int) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # this machine is missing it
    try:
        if not path.is_dir():
            rights &= _READ_FILE | _WRITE_FILE | _TRUNCATE
        rule = struct.pack("=Qi", rights, opened)
        _libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
    finally:
        os.close(opened)


def _readable(openings: Openings) -> Iterator[Path]:
    yield from map(Path, READ)
    if openings.port is not None or openings.unix:
        yield from map(Path, RESOLVER)
    yield from openings.read
    for path in interpreter_paths():
        yield from _without(path, openings.hidden)


def interpreter_paths() -> list[Path]:
    """Return the paths of Python and its packages, without the working directory from `-m`."""
    entries = list(sys.path)
    if entries and not sys.flags.safe_path and entries[0] in ("", os.getcwd()):  # noqa: PTH109
        entries = entries[1:]
    named = sysconfig.get_paths()
    entries += [named[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    entries += os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    entries += [f"{sys.base_prefix}/lib", f"{sys.prefix}/pyvenv.cfg"]
    found = {Path(entry).resolve() for entry in entries if entry}
    return sorted(path for path in found if path.exists() and path != Path("/"))


def _without(path: Path, hidden: Path | None) -> Iterator[Path]:
    """Yield a path, or its parts that are not hidden: Landlock allows whole trees only."""
    inner = hidden.resolve() if hidden is not None else None
    if inner is None or (inner != path and path not in inner.parents):
        yield path
    elif inner != path:
        with suppress(OSError):
            for child in path.iterdir():
                yield from _without(child.resolve(), hidden)


# ---------------------------------------------------------------- seccomp


class _Filter:
    """Program of classic BPF over one system call; by default it allows the call."""

    def __init__(self) -> None:
        self._code: list[tuple[int, int, int, int]] = []

    def add(self, code: int, value: int, yes: int = 0, no: int = 0) -> None:
        self._code.append((code, yes, no, value))

    def refuse(self, name: str, error: int) -> None:
        """Refuse a call with any arguments."""
        number = _number(name)
        if number >= 0:
            self.add(_JUMP_EQUAL, number, 0, 1)
            self.add(_RETURN, _ERRNO | error)

    def only(self, name: str, *allowed: tuple[int, tuple[int, ...]]) -> None:
        """Refuse a call unless the low half of each of these arguments is one of its values."""
        number = _number(name)
        if number < 0:
            return
        self.add(_JUMP_EQUAL, number, 0, sum(len(values) + 2 for _, values in allowed) + 2)
        for argument, values in allowed:
            self.add(_LOAD, 16 + 8 * argument)
            for place, value in enumerate(values):
                self.add(_JUMP_EQUAL, value & 0xFFFFFFFF, len(values) - place, 0)
            self.add(_RETURN, _ERRNO | errno.EPERM)
        self.add(_RETURN, _ALLOW)
        self.add(_LOAD, 0)

    def never(self, name: str, argument: int, refused: tuple[int, ...]) -> None:
        """Refuse a call where the low half of an argument is one of these."""
        number = _number(name)
        self.add(_JUMP_EQUAL, number, 0, len(refused) + 4)
        self.add(_LOAD, 16 + 8 * argument)
        for place, value in enumerate(refused):
            self.add(_JUMP_EQUAL, value, len(refused) - place, 0)
        self.add(_RETURN, _ALLOW)
        self.add(_RETURN, _ERRNO | errno.EPERM)
        self.add(_LOAD, 0)

    def install(self) -> bool:
        self.add(_RETURN, _ALLOW)
        code = b"".join(struct.pack("=HBBI", *one) for one in self._code)
        held = ctypes.create_string_buffer(code, len(code))
        program = struct.pack("@HP", len(self._code), ctypes.addressof(held))
        number = _SECCOMP[platform.machine()]
        return int(_libc.syscall(number, 1, 1, program)) == 0  # a filter, on all threads


def _sockets(openings: Openings) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the families and the types of sockets that it may make, for its online store."""
    if openings.port is not None:
        kinds = (*_STREAMS, *_DATAGRAMS) if openings.names else _STREAMS
        return (int(socket.AF_INET), int(socket.AF_INET6)), kinds
    return ((int(socket.AF_UNIX),) if openings.unix else ()), _STREAMS


def _seccomp(openings: Openings) -> bool:
    machine, own = platform.machine(), os.getpid()
    to = _Filter()
    to.add(_LOAD, 4)  # the architecture
    to.add(_JUMP_EQUAL, _ARCH[machine], 1, 0)
    to.add(_RETURN, _KILL)
    to.add(_LOAD, 0)  # the number
    if machine == "x86_64":  # numbers of another ABI would pass unchecked
        to.add(_JUMP_GREATER, 0x40000000, 0, 1)
        to.add(_RETURN, _ERRNO | errno.ENOSYS)
    reached, kinds = _sockets(openings)
    for names in NEVER.values():
        for name in names:
            if not (reached and name in ("socket", "connect")):
                to.refuse(name, errno.EPERM)
    for names in ABSENT.values():
        for name in names:
            to.refuse(name, errno.ENOSYS)
    if reached:
        to.only("socket", (0, reached), (1, kinds))
    # An event loop wakes itself by a pair. A pair of datagram sockets could send to any address.
    to.only("socketpair", (0, (int(socket.AF_UNIX),)), (1, _STREAMS))
    to.only("kill", (0, (own,)))
    to.only("tgkill", (0, (own,)))
    to.only("prlimit64", (0, (0, own)))
    to.only("setpriority", (1, (0,)))
    to.only("ioprio_set", (1, (0,)))
    for name in ("sched_setaffinity", "sched_setattr", "sched_setparam", "sched_setscheduler"):
        to.only(name, (0, (0,)))
    # These signals are the timers of a request that does not end.
    to.never("rt_sigaction", 0, (int(signal.SIGALRM), int(signal.SIGPROF)))
    to.never("ioctl", 1, (*_TERMINAL_INPUT, *_OWNED_BY_IOCTL, *_FILE_FLAGS))
    to.never("fcntl", 1, _OWNED_BY_FCNTL)
    to.add(_JUMP_EQUAL, _number("clone"), 0, 4)  # threads, but no processes
    to.add(_LOAD, 16)
    to.add(_JUMP_SET, _CLONE_THREAD, 1, 0)
    to.add(_RETURN, _ERRNO | errno.EPERM)
    to.add(_RETURN, _ALLOW)
    return to.install()
