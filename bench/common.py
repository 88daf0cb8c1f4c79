"""Common parts of the benches: the machine and its load, CPU time, quantiles, results.

The driver of a bench and its load generator run on one CPU, the server on another. Ratios are
taken within a run, between rounds that lie side by side; what others used of the machine
meanwhile is measured and stands in the result, so that a figure from a busy hour is known as one.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import msgspec

BENCH = Path(__file__).resolve().parent
ROOT = BENCH.parent
RESULTS = BENCH / "results"

CPUS = sorted(os.sched_getaffinity(0))
SERVER_CPU = CPUS[0]
LOAD_CPU = CPUS[1 % len(CPUS)]
"""The same one on a machine with a single CPU: then the conditions say so."""

BEGAN = time.monotonic()
TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
LIBRARIES = (
    "kedge",
    "uvicorn",
    "uvloop",
    "httptools",
    "granian",
    "msgspec",
    "numpy",
    "onnxruntime",
    "scikit-learn",
    "skops",
    "sqlalchemy",
)

QUIET = 0.10
"""A machine of which others use less than this is called quiet."""
QUIET_FIRST_S, QUIET_EACH_S, QUIET_QUICK_S = 60.0, 15.0, 1.0


def talk(text: str) -> None:
    """Print progress for the user; data goes to stdout."""
    print(f"{time.monotonic() - BEGAN:6.1f} s  {text}", file=sys.stderr, flush=True)


# ---------------------------------------------------------------- processes and CPUs


def place(pid: int, cpu: int) -> None:
    """Put a process, with every thread that it has by now, on one CPU."""
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                os.sched_setaffinity(int(thread.name), {cpu})


@contextlib.contextmanager
def on(cpus: Iterable[int]) -> Iterator[None]:
    """What is started in here begins on these CPUs; a child inherits where its parent is."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(cpus))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; empty when the process is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", errors="replace")
    except OSError:
        return []
    return text[text.rindex(")") + 2 :].split()


def tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    children: dict[int, list[int]] = {}
    for each in Path("/proc").glob("[0-9]*"):
        if stat := _stat(int(each.name)):
            children.setdefault(int(stat[1]), []).append(int(each.name))
    found, todo = [], [pid]
    while todo:
        found.append(todo.pop())
        todo += children.get(found[-1], [])
    return found


def cpu_s(pids: Iterable[int]) -> float:
    """CPU seconds of these processes so far, with those of their children that have ended."""
    ticks = 0
    for pid in pids:
        stat = _stat(pid)
        ticks += sum(map(int, stat[11:15])) if stat else 0
    return ticks / TICK


def memory_mb(pid: int) -> tuple[float, float]:
    """Resident and proportional memory of one process, in MB."""
    found = {"Rss:": 0, "Pss:": 0}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines():
        name = line.split(maxsplit=1)[0]
        if name in found:
            found[name] = int(line.split()[1])
    return found["Rss:"] * 1024 / 1e6, found["Pss:"] * 1024 / 1e6


def alive(pid: int) -> bool:
    """Whether it runs (a zombie does not)."""
    stat = _stat(pid)
    return bool(stat) and stat[0] != "Z"


# ---------------------------------------------------------------- how busy the machine is


def machine_s() -> tuple[float, float]:
    """CPU seconds that the whole machine has used since boot, and those stolen from it."""
    with Path("/proc/stat").open("r", encoding="ascii") as file:
        user, nice, system, _idle, _iowait, irq, softirq, steal = map(
            int, file.readline().split()[1:9]
        )
    return (user + nice + system + irq + softirq) / TICK, steal / TICK


class Others:
    """What others used of the machine since this began, as a share of all its CPUs."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._machine, self._stolen = machine_s()
        self._own = cpu_s(tree(os.getpid()))

    def share(self) -> tuple[float, float]:
        """Others' share, and the share that the host stole from this machine."""
        used, stolen = machine_s()
        own = cpu_s(tree(os.getpid())) - self._own
        whole = max(time.monotonic() - self._begun, 1e-3) * (os.cpu_count() or 1)
        others = max(0.0, used - self._machine - own) / whole
        return round(others, 3), round((stolen - self._stolen) / whole, 3)


def wait_quiet(limit_s: float) -> float:
    """Wait until others leave the machine alone, at most so long; the share they last used."""
    until = time.monotonic() + limit_s
    while True:
        others = Others()
        time.sleep(min(0.5, max(limit_s / 2, 0.1)))
        share = others.share()[0]
        if share < QUIET or time.monotonic() >= until:
            return share


# ---------------------------------------------------------------- numbers


def quantile(values: Sequence[float], q: float) -> float:
    """The value at or below which a share `q` lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def spread(values: Sequence[float], digits: int = 3) -> dict[str, float]:
    """A distribution in a line: how many, the extremes, and the quantiles between."""
    if not values:
        return {"n": 0}
    ordered = sorted(values)
    found: dict[str, float] = {"n": len(ordered), "min": round(ordered[0], digits)}
    for q in (0.05, 0.25, 0.5, 0.75, 0.95, 0.99):
        at = min(len(ordered) - 1, int(q * len(ordered)))
        found[f"p{q * 100:02.0f}"] = round(ordered[at], digits)
    return {**found, "max": round(ordered[-1], digits)}


def interval(
    values: Sequence[float], of: Callable[[Sequence[float]], float] = statistics.median
) -> tuple[float, float]:
    """A 95 % bootstrap interval of a statistic; the values are what is drawn again."""
    if len(values) < 2:
        return (values[0], values[0]) if values else (float("nan"), float("nan"))
    dice = random.Random(7)
    drawn = sorted(of(dice.choices(values, k=len(values))) for _ in range(2000))
    return drawn[49], drawn[1949]


# ---------------------------------------------------------------- one bench


class Phase(NamedTuple):
    """A part of a bench: how long it took and what others used meanwhile."""

    name: str
    seconds: float
    others: float
    stolen: float


class Bench:
    """One run of one script: its options, its conditions, its result."""

    def __init__(
        self,
        name: str,
        doc: str | None,
        *,
        seed: int | None = None,
        workers: int | None = None,
        parts: Sequence[str] = (),
    ) -> None:
        parser = argparse.ArgumentParser(description=(doc or "").split("\n", maxsplit=1)[0])
        parser.add_argument(
            "--quick",
            action="store_true",
            help="few rounds, at most 30 s: does it work? Not a measurement.",
        )
        parser.add_argument("--json", action="store_true", help="print the result as JSON")
        if seed is not None:
            parser.add_argument("--seed", type=int, default=seed, help="of everything drawn")
        if workers is not None:
            parser.add_argument(
                "--workers", type=int, default=workers, help="processes that simulate"
            )
        if parts:
            parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(parts))
        given = parser.parse_args()
        self.parts: tuple[str, ...] = tuple(getattr(given, "parts", ())) or tuple(parts)
        if unknown := {*self.parts} - {*parts}:
            parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(parts)}")
        self.workers: int = 1 if workers is None else given.workers
        self.seed: int = 0 if seed is None else given.seed
        self.name = name
        self.quick: bool = given.quick
        self._json: bool = given.json
        self._phases: list[Phase] = []
        # Read before anything is measured: a file that is edited meanwhile is not what was loaded.
        self._commit = commit()
        self._started = datetime.now(UTC).isoformat(timespec="seconds")
        self._begun = time.monotonic()
        self._waited = wait_quiet(QUIET_QUICK_S if self.quick else QUIET_FIRST_S)
        self.figures: dict[str, float] = {}
        self.detail: dict[str, Any] = {}
        os.sched_setaffinity(0, {LOAD_CPU})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._finish()

    def rounds(self, full: int, quick: int) -> int:
        """How often something is done."""
        return quick if self.quick else full

    def seconds(self, full: float, quick: float) -> float:
        """How long something is done."""
        return quick if self.quick else full

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Wait for a quiet moment, then measure; notes how busy it was after all."""
        if not self.quick:
            wait_quiet(QUIET_EACH_S)
        talk(f"{self.name}: {name}")
        others, begun = Others(), time.monotonic()
        yield
        share, stolen = others.share()
        self._phases.append(Phase(name, round(time.monotonic() - begun, 1), share, stolen))

    def note(self, name: str, value: float, digits: int = 3) -> None:
        """Set a figure."""
        self.figures[name] = round(value, digits)
        talk(f"  {name} = {self.figures[name]:g}")

    def _finish(self) -> None:
        found = {
            "name": self.name,
            "commit": self._commit,
            "conditions": {
                **machine(),
                "quick": self.quick,
                "started_at": self._started,
                "seconds": round(time.monotonic() - self._begun, 1),
                "others_before": self._waited,
                "phases": [phase._asdict() for phase in self._phases],
            },
            "figures": self.figures,
            "detail": self.detail,
        }
        RESULTS.mkdir(exist_ok=True)
        raw = msgspec.json.format(msgspec.json.encode(found), indent=1)
        (RESULTS / f"{self.name}.json").write_bytes(raw + b"\n")
        if self._json:
            print(raw.decode(), flush=True)


def machine() -> dict[str, Any]:
    """What it was measured on."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "cpu": model,
        "cpus": len(CPUS),
        "server_cpu": SERVER_CPU,
        "load_cpu": LOAD_CPU,
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * PAGE / 1e9, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in LIBRARIES},
    }


def version(name: str) -> str | None:
    """The installed version of a distribution."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def commit() -> str | None:
    """The commit that was measured; with a plus sign when files differ from it."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=ROOT, capture_output=True, text=True, check=True, timeout=20
        ).stdout.strip()

    try:
        dirty = bool(git("status", "--porcelain", "--untracked-files=no"))
        return git("rev-parse", "HEAD") + ("+" if dirty else "")
    except (OSError, subprocess.SubprocessError):
        return None
