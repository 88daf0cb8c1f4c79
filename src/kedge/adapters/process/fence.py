"""The fence around a model process: what it may read, and what it may not do.

A model is code, whatever its format says. So before the model's library is imported and its artifact touched, the
process gives up what a model does not need: files (Landlock, by `READ` and what the caller names), sockets, programs
and other processes (seccomp, by `syscalls`), capabilities, new rights. Nothing of it can be taken back.
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
"""What every model process may read, beside the interpreter's paths, its artifact and its directory."""
WRITE: dict[str, str] = {"/dev/null": "nothing"}
"""What every model process may write, beside its own directory."""
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
"""What a release that reads an online store over the network may read as well."""

FILES = 1024
"""Open files: connections of workers, and the files of a library."""
FILE_BYTES = 256 << 20
"""Of one file that it writes: its directory and its log are no place for data."""
PROBE_CPU_S = 900
"""Processor time of one probe or proof; of a serving process an alarm bounds each request."""

# Landlock's and seccomp's own numbers; the same on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_PATH_BENEATH, _NET_PORT = 1, 2
_READ_FILE, _READ_DIR, _WRITE_FILE, _EXECUTE = 1 << 2, 1 << 3, 1 << 1, 1 << 0
_TRUNCATE, _IOCTL_DEV, _REFER = 1 << 14, 1 << 15, 1 << 13
_CONNECT_TCP, _BIND_TCP = 1 << 1, 1 << 0
_SCOPES = 0b11
"""Abstract Unix sockets and signals of processes outside."""
_PR_SET_NO_NEW_PRIVS, _PR_CAPBSET_DROP, _PR_GET_SECCOMP = 38, 24, 21
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_CLONE_THREAD = 0x00010000
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_LOAD, _JUMP_EQUAL, _JUMP_GREATER, _JUMP_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_KEPT_CAPABILITIES = frozenset({1, 2})
"""DAC_OVERRIDE and DAC_READ_SEARCH, where it was started as root: an environment of another user's has to be read.
What may be read is Landlock's to say."""
_TERMINAL_INPUT = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX: they type on the operator's terminal."""

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Openings:
    """What one process may reach beside what all may."""

    read: tuple[Path, ...] = ()
    write: tuple[Path, ...] = ()
    hidden: Path | None = None
    """The state directory: never readable, even where a path of the interpreter holds it."""
    port: int | None = None
    """The TCP port of its online store."""
    unix: bool = False
    """Whether its online store is reached by a Unix socket."""
    cpu_s: int | None = None


def missing() -> tuple[str, ...]:
    """The parts of the fence that this machine does not have, by name; nothing is applied."""
    found = []
    abi = landlock_abi()
    if abi < 1:
        found.append("landlock")
    elif abi < 3:
        found.append("landlock.truncate")
    if 0 < abi < 4:
        found.append("landlock.network")
    if 0 < abi < 6:
        found.append("landlock.scope")
    if platform.machine() not in _ARCH or not _has_seccomp():
        found.append("seccomp")
    return tuple(found)


def landlock_abi() -> int:
    """The version of Landlock that the kernel offers; 0 without."""
    if sys.platform != "linux":
        return 0
    return max(int(_libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)), 0)


def _has_seccomp() -> bool:
    return sys.platform == "linux" and int(_libc.prctl(_PR_GET_SECCOMP, 0, 0, 0, 0)) >= 0


def enter(openings: Openings) -> tuple[str, ...]:
    """Apply the fence to this process for good. Returns the names of the parts that could not be applied."""
    _limit(openings)
    if sys.platform != "linux":
        return ("landlock", "seccomp")
    lacking = list(missing())
    if len(os.listdir("/proc/self/task")) != 1:  # noqa: PTH208
        lacking.append("threads")  # those that run already would stay outside
    _drop_capabilities()
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return (*lacking, "no_new_privs")
    if "landlock" not in lacking and not _landlock(openings):
        lacking.append("landlock")
    if "seccomp" not in lacking and not _seccomp(openings):
        lacking.append("seccomp")
    return tuple(lacking)


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
    ):  # without the capability it may still return from its nice load
        resource.setrlimit(13, (20 - os.getpriority(os.PRIO_PROCESS, 0),) * 2)  # RLIMIT_NICE


def _drop_capabilities() -> None:
    """Give up what root may do, as far as a model needs none of it. Without root there is nothing to drop."""
    for number in range(64):
        if number not in _KEPT_CAPABILITIES:
            _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)
    header = struct.pack("=Ii", 0x20080522, 0)
    old = ctypes.create_string_buffer(24)
    if _libc.syscall(_number("capget"), header, old) != 0:
        return
    words = list(struct.unpack("=6I", old.raw))
    mask = sum(1 << number for number in _KEPT_CAPABILITIES)
    kept = [word & (mask if at < 3 else 0) for at, word in enumerate(words)]
    _libc.syscall(_number("capset"), header, struct.pack("=6I", *kept))


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
        for path in openings.write:
            _beneath(ruleset, path, files & ~(_EXECUTE | _IOCTL_DEV | _REFER))
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
        return  # it is not on this machine
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
    """Where Python and its packages lie; without the working directory, which `-m` may put in front."""
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
    """A path, or what is in it but for what is hidden: Landlock allows whole trees, and takes nothing back."""
    inner = hidden.resolve() if hidden is not None else None
    if inner is None or (inner != path and path not in inner.parents):
        yield path
    elif inner != path:
        with suppress(OSError):
            for child in path.iterdir():
                yield from _without(child.resolve(), hidden)


# ---------------------------------------------------------------- seccomp


class _Filter:
    """A program of classic BPF over one system call: it falls through to allowing it."""

    def __init__(self) -> None:
        self._code: list[tuple[int, int, int, int]] = []

    def add(self, code: int, value: int, yes: int = 0, no: int = 0) -> None:
        self._code.append((code, yes, no, value))

    def refuse(self, name: str, error: int) -> None:
        """Refuse a call whatever its arguments are."""
        number = _number(name)
        if number >= 0:
            self.add(_JUMP_EQUAL, number, 0, 1)
            self.add(_RETURN, _ERRNO | error)

    def only(self, name: str, argument: int, allowed: tuple[int, ...]) -> None:
        """Refuse a call unless the low half of an argument is one of these."""
        number = _number(name)
        if number < 0:
            return
        self.add(_JUMP_EQUAL, number, 0, len(allowed) + 4)
        self.add(_LOAD, 16 + 8 * argument)
        for place, value in enumerate(allowed):
            self.add(_JUMP_EQUAL, value & 0xFFFFFFFF, len(allowed) - place, 0)
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


def _seccomp(openings: Openings) -> bool:
    machine, own = platform.machine(), os.getpid()
    to = _Filter()
    to.add(_LOAD, 4)  # the architecture
    to.add(_JUMP_EQUAL, _ARCH[machine], 1, 0)
    to.add(_RETURN, _KILL)
    to.add(_LOAD, 0)  # the number
    if machine == "x86_64":  # numbers of another ABI would pass by unseen
        to.add(_JUMP_GREATER, 0x40000000, 0, 1)
        to.add(_RETURN, _ERRNO | errno.ENOSYS)
    reached = (
        (int(socket.AF_INET), int(socket.AF_INET6))
        if openings.port is not None
        else (int(socket.AF_UNIX),)
        if openings.unix
        else ()
    )
    for names in NEVER.values():
        for name in names:
            if not (reached and name in ("socket", "connect")):
                to.refuse(name, errno.EPERM)
    for names in ABSENT.values():
        for name in names:
            to.refuse(name, errno.ENOSYS)
    if reached:
        to.only("socket", 0, reached)
    to.only("socketpair", 0, (int(socket.AF_UNIX),))  # an event loop wakes itself by one
    to.only("kill", 0, (own,))
    to.only("tgkill", 0, (own,))
    to.only("prlimit64", 0, (0, own))
    to.only("setpriority", 1, (0,))
    to.only("ioprio_set", 1, (0,))
    for name in ("sched_setaffinity", "sched_setattr", "sched_setparam", "sched_setscheduler"):
        to.only(name, 0, (0,))
    to.never("rt_sigaction", 0, (int(signal.SIGALRM),))  # the alarm of a request that does not end
    to.never("ioctl", 1, _TERMINAL_INPUT)
    to.add(_JUMP_EQUAL, _number("clone"), 0, 4)  # threads, and no processes
    to.add(_LOAD, 16)
    to.add(_JUMP_SET, _CLONE_THREAD, 1, 0)
    to.add(_RETURN, _ERRNO | errno.EPERM)
    to.add(_RETURN, _ALLOW)
    return to.install()
