"""Machine limits: the processors and the memory that this process may use.

A container's limits are those of its control group (version 2 or 1), not the machine's: two
processors of 64 count as two. Each level above limits it as well, so the smallest limit counts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

WORKERS = 2, 8
"""Default number of gateway workers, lower and upper limit. With two, one is left when one dies.
Eight answer more than one host's models do, and each holds the models that run inline."""
SHARE = 0.8
"""Share of the memory that one kind of processes may use; the rest is for others and the kernel."""
WORKER_MB = 768
"""Memory of a gateway worker without its models: bodies, counts and records, all bounded."""
LEAST_MB = 256
"""Below this, no worker starts; with less memory, the kernel kills processes."""
UNLIMITED = 1 << 60
"""Bytes from which a limit is none: version 1 writes a larger number if there is no limit."""


class Machine(NamedTuple):
    """The limits, and the sources that they come from."""

    processors: float
    memory: int
    """Bytes; 0 if unknown."""
    processors_by: str = "the machine"
    memory_by: str = "the machine"

    @property
    def workers(self) -> int:
        """The default number of gateway workers."""
        least, most = WORKERS
        return min(max(int(self.processors), least), most)

    def for_model(self, memory_mb: int) -> int:
        """Return the bytes that a model's process may allocate; its policy allows `memory_mb`."""
        return self._within(memory_mb << 20, 1)

    def for_worker(self, inline_mb: int, workers: int) -> int:
        """Return the bytes that one of `workers` may hold, with inline models of `inline_mb`."""
        return self._within((WORKER_MB + inline_mb) << 20, workers)

    def _within(self, wanted: int, among: int) -> int:
        if not self.memory:
            return wanted
        return min(wanted, max(int(self.memory * SHARE) // among, LEAST_MB << 20))


def read_machine(root: Path = Path("/"), affinity: int | None = None) -> Machine:
    """Read what this process may use.

    Args:
        root: where /proc and /sys are.
        affinity: the processors that it may be scheduled on. None: ask the kernel.
    """
    processors = float(affinity if affinity is not None else _affinity())
    found = Machine(processors, _total(root))
    for folder, kind, level in _groups(root):
        quota = _quota(folder, kind)
        if quota is not None and quota < found.processors:
            found = found._replace(processors=quota, processors_by=f"control group {level}")
        limit = _memory(folder, kind)
        if limit is not None and (not found.memory or limit < found.memory):
            found = found._replace(memory=limit, memory_by=f"control group {level}")
    return found


def _affinity() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # no Linux
        return os.cpu_count() or 1


def _total(root: Path) -> int:
    for line in _text(root / "proc/meminfo").splitlines():
        name, _, rest = line.partition(":")
        if name == "MemTotal":
            return int(rest.split()[0]) << 10
    return 0


def _groups(root: Path) -> Iterator[tuple[Path, str, str]]:
    """Yield the directories of this process's groups and their parents, with kind and name."""
    mounts = list(_mounts(root))
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        governs = {"unified"} if number == "0" and not names else set(names.split(","))
        for kind in sorted(governs & {"unified", "cpu", "memory"}):
            for controllers, base, point in mounts:
                if kind in controllers:
                    yield from (
                        (folder, kind, level) for folder, level in _levels(root, point, base, path)
                    )


def _mounts(root: Path) -> Iterator[tuple[set[str], str, str]]:
    """Yield the mounted hierarchies: the controllers of each, the group at its root, the path."""
    for line in _text(root / "proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        parts, what = left.split(), right.split()
        if len(parts) < 5 or len(what) < 3:
            continue
        if what[0] == "cgroup2":
            yield {"unified"}, parts[3], parts[4]
        elif what[0] == "cgroup":
            yield set(what[2].split(",")), parts[3], parts[4]


def _levels(root: Path, point: str, base: str, path: str) -> Iterator[tuple[Path, str]]:
    """Yield a group's directory and the mounted ones above it."""
    where = PurePosixPath(path)
    # In a container the path may be the host's; only the part below its own group is mounted.
    inner = (
        where.relative_to(base) if where.is_relative_to(base) else PurePosixPath(path.lstrip("/"))
    )
    mounted = root / point.lstrip("/")
    for level in (inner, *inner.parents):
        folder = mounted / level
        if ".." not in level.parts and folder.is_dir():
            yield folder, f"/{'' if str(level) == '.' else level}"


def _quota(folder: Path, kind: str) -> float | None:
    """Return the processors that a group may use; None without a limit."""
    if kind == "unified":
        words = _text(folder / "cpu.max").split()
        quota, period = (*words, "", "")[:2]
    elif kind == "cpu":
        quota = _text(folder / "cpu.cfs_quota_us").strip()
        period = _text(folder / "cpu.cfs_period_us").strip()
    else:
        return None
    if not quota.isdigit() or not period.isdigit() or int(period) == 0:
        return None
    return int(quota) / int(period)


def _memory(folder: Path, kind: str) -> int | None:
    """Return the bytes that a group may hold; None without a limit."""
    names = {
        "unified": ("memory.max", "memory.high"),
        "memory": ("memory.limit_in_bytes",),
    }.get(kind, ())
    texts = [_text(folder / name).strip() for name in names]
    limits = [int(text) for text in texts if text.isdigit() and int(text) < UNLIMITED]
    return min(limits, default=None)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
