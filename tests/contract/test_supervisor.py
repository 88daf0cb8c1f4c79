"""The supervisor's loop: a fault costs its step, and children stop on command only."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import models
from kedge.adapters.sql.sqlite.signal import DirectorySignal
from kedge.core.stored.roster import Member, ProcessFault
from kedge.engine.child import Launch
from kedge.engine.loop import Duty
from kedge.engine.process_faults import ProcessFaults
from kedge.engine.relief import Relief
from kedge.engine.station import Station
from kedge.engine.supervisor import Launches, Supervisor
from kedge.operations.setup import create_workplace
from kedge.system.machine import Machine
from kedge.workspace import Workplace
from support.waiting import wait_until

SLEEPS = ("/bin/sleep", "1000")


def build(root: Path, workers: dict[str, tuple[str, ...]], **other: Any) -> Supervisor:
    """A supervisor over a real state directory, with these children."""
    state_dir = root / ".kedge"
    if not state_dir.exists():
        create_workplace(state_dir)
    place = Workplace(state_dir, patience_s=1.0)
    place.disk.pins_dir.mkdir(parents=True, exist_ok=True)
    signal_ = DirectorySignal(state_dir / "ledger")
    member = Member(
        name="here/supervisor",
        host="here",
        pid=os.getpid(),
        kind="supervisor",
        address="",
        started_at=place.clock.now(),
        beat_at=0.0,
        ledger_at=0.0,
    )
    given: dict[str, Any] = {
        "ledger": place.ledger,
        "stamp": place.ledger.stamp,
        "roster": place.roster,
        "disk": place.disk,
        "relief": Relief([], lambda _: None),
        "reap": lambda _: [],
        "drain_s": 1.0,
        "machine": Machine(2.0, 0),
        "close_door": lambda: None,
    }
    given |= other
    names = ("ledger", "stamp", "roster", "disk")
    station = Station(
        duty=Duty(place.clock, ProcessFaults(place.clock, signal_.wake)),
        member=member,
        signal=signal_,
        **{name: given.pop(name) for name in names},
    )
    launches = Launches(
        workers={name: Launch(line) for name, line in workers.items()},
        listener_fd=None,
        host=lambda state, release, path: Launch(SLEEPS),
        others={},
        environment=os.environ,
        host_environment=os.environ,
        log_dir=root / "logs",
    )
    return Supervisor(
        station,
        launches,
        run_dir=root,
        **given,
    )


@contextmanager
def running(supervisor: Supervisor) -> Iterator[Supervisor]:
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    try:
        yield supervisor
    finally:
        supervisor.stop()
        thread.join(30)
        assert not thread.is_alive()


def pid(supervisor: Supervisor, name: str) -> int:
    process = supervisor.children[name].process
    return process.pid if process is not None and process.poll() is None else 0


def told(supervisor: Supervisor) -> dict[str, ProcessFault]:
    return {fault.place: fault for fault in supervisor._faults.faults}


def test_a_child_that_cannot_be_started_costs_the_others_nothing(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    supervisor = build(tmp_path, {"w0": (str(missing),), "w1": SLEEPS})
    with running(supervisor):
        wait_until(lambda: pid(supervisor, "w1"), "w1")
        fault = wait_until(lambda: told(supervisor).get("supervisor.start.w0"), "the fault")
        assert "missing" in fault.text
        first = pid(supervisor, "w1")
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: pid(supervisor, "w1") not in {0, first}, "another w1")
        assert "code -9" in told(supervisor)["supervisor.child.w1"].text
        missing.symlink_to("/bin/yes")
        wait_until(lambda: pid(supervisor, "w0"), "w0")
        assert not told(supervisor)["supervisor.start.w0"].standing


def test_without_a_file_for_its_log_a_child_is_still_started(tmp_path: Path) -> None:
    (tmp_path / "logs" / "w0.log").mkdir(parents=True)
    supervisor = build(tmp_path, {"w0": SLEEPS})
    with running(supervisor):
        wait_until(lambda: pid(supervisor, "w0"), "w0")
        assert (
            "directory"
            in wait_until(lambda: told(supervisor).get("supervisor.log.w0"), "the fault").text
        )


def test_without_descriptors_a_child_is_started_with_the_spare_ones(tmp_path: Path) -> None:
    """In a process of its own, whose limit is the number of files that it has open."""
    program = """
        import os, resource, signal, sys, time
        from pathlib import Path
        from contract.test_supervisor import SLEEPS, build, pid, running
        from support.waiting import wait_until

        supervisor = build(Path(sys.argv[1]), {"w0": SLEEPS})
        with running(supervisor):
            first = wait_until(lambda: pid(supervisor, "w0"), "w0")
            time.sleep(1)
            limit = max(map(int, os.listdir("/proc/self/fd"))) + 1
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
            held = []
            try:
                while True:
                    held.append(os.open("/dev/null", os.O_RDONLY))
            except OSError:
                pass
            os.kill(first, signal.SIGKILL)
            wait_until(lambda: pid(supervisor, "w0") not in (0, first), "another w0")
    """
    script = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)]
    subprocess.run(script, check=True, timeout=60, env=models.environment())


class Raising:
    """A part of the outside whose every call raises what no kedge code expects."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*_: object, **__: object) -> None:
            raise SystemExit(f"{name} was called")

        return call


@pytest.mark.parametrize(
    "part, place",
    [("ledger", "supervisor.read"), ("roster", "supervisor.beat"), ("stamp", "supervisor.read")],
)
def test_whatever_a_part_raises_children_are_tended(tmp_path: Path, part: str, place: str) -> None:
    broken: Any = Raising()
    supervisor = build(
        tmp_path, {"w0": SLEEPS}, **{part: broken.stamp if part == "stamp" else broken}
    )
    with running(supervisor):
        first = wait_until(lambda: pid(supervisor, "w0"), "w0")
        assert "was called" in wait_until(lambda: told(supervisor).get(place), "the fault").text
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: pid(supervisor, "w0") not in {0, first}, "another w0")


def test_an_exception_out_of_the_loop_leaves_the_children_and_a_code(tmp_path: Path) -> None:
    program = """
        import sys
        from pathlib import Path
        from contract.test_supervisor import SLEEPS, build, pid

        supervisor = build(Path(sys.argv[1]), {"w0": SLEEPS})
        supervisor._wait = lambda: (print(pid(supervisor, "w0"), flush=True), sys.exit("a bug"))
        supervisor.run()
    """
    script = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)]
    ended = subprocess.run(
        script, stdout=subprocess.PIPE, text=True, check=False, timeout=60, env=models.environment()
    )
    child = int(ended.stdout.split()[-1])
    try:
        assert ended.returncode != 0
        os.kill(child, 0)  # it lives
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


def test_a_log_is_rotated_while_the_child_writes(tmp_path: Path) -> None:
    """Six megabytes a second: what is on the disk is bounded."""
    supervisor = build(
        tmp_path,
        {"w0": ("/bin/sh", "-c", "while :; do head -c 300000 /dev/zero; sleep 0.05; done")},
    )
    supervisor.children["w0"].log._limit = 1_000_000
    with running(supervisor):
        wait_until((tmp_path / "logs" / "w0.log.2").exists, "two rotations", 30)
        sizes = [path.stat().st_size for path in (tmp_path / "logs").iterdir()]
        assert sum(sizes) < 12_000_000
