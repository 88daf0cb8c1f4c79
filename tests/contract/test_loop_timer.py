"""Control ends when one of its loops stands still, whatever holds it."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from kedge.adapters.clock import SystemClock
from kedge.engine.loop import Net
from kedge.engine.process_faults import ProcessFaults
from kedge.runtime.loop_timer import LoopTimer

SCRIPT = """
import sys, threading, time
from kedge.adapters.clock import SystemClock
from kedge.engine.loop import Net
from kedge.engine.process_faults import ProcessFaults
from kedge.runtime.loop_timer import LoopTimer

clock = SystemClock()
faults = ProcessFaults(clock)
net = Net(faults, clock)
timer = LoopTimer({"patrol": net}, clock, faults, step_s=0.3, end_s=1)

def turns():
    until = time.monotonic() + 30
    while time.monotonic() < until:
        timer.look()
        time.sleep(0.05)

threading.Thread(target=turns, daemon=True).start()
HANG
"""
WAITS = 'net.run("patrol.look", lambda: time.sleep(30))'
HOLDS = """
import ctypes
net.run("patrol.look", lambda: ctypes.PyDLL(None).sleep(30))  # holds the interpreter's lock
"""


@pytest.mark.parametrize("hang", [WAITS, HOLDS])
def test_a_loop_that_stands_still_ends_its_process_and_says_where(hang: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.replace("HANG", hang)],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 1
    assert "Timeout" in done.stderr
    assert "in run" in done.stderr, "it says where each thread stood"


def test_loops_that_turn_or_wait_for_their_next_turn_end_nothing() -> None:
    script = SCRIPT.replace(
        "HANG",
        "for _ in range(30):\n    net.run('patrol.look', lambda: time.sleep(0.02))\n    time.sleep(0.05)\n"
        "timer.stop()\ntime.sleep(1.2)\nprint('alive')",
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=20, check=True
    )
    assert done.stdout.strip() == "alive"


class Hand(SystemClock):
    """A clock whose hand the test moves."""

    at = 0.0

    def monotonic(self) -> float:
        return self.at


def test_a_loop_that_stands_still_is_noted_until_it_turns_again() -> None:
    clock = Hand()
    faults = ProcessFaults(clock)
    loop = SimpleNamespace(began=0.0)
    timer = LoopTimer({"alerting": loop}, clock, faults)
    try:
        timer.look()
        assert faults.faults == ()
        clock.at = 61.0
        timer.look()
        assert "is in one step for 60 s" in faults.standing("control.alerting.turning")
        loop.began = None
        timer.look()
        assert faults.standing("control.alerting.turning") == ""
    finally:
        timer.stop()


def test_a_step_within_a_step_counts_as_a_turn() -> None:
    clock = Hand()
    net = Net(ProcessFaults(clock), clock)
    seen = []

    def inner() -> None:
        clock.at = 20.0
        seen.append(net.began)

    def outer() -> None:
        clock.at = 10.0
        net.run("look.one", inner)
        seen.append(net.began)

    net.run("look", outer)
    assert seen == [10.0, 20.0]
    assert net.began is None
