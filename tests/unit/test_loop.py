"""Loops: the effect of a fault, leadership, and the stop."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable

from kedge.adapters.clock import SystemClock
from kedge.engine.loop import WAITS_S, Duty, Loop
from kedge.engine.process_faults import ProcessFaults


def duty(leads: Callable[[], bool] = lambda: True) -> Duty:
    clock = SystemClock()
    return Duty(clock, ProcessFaults(clock), leads)


def test_a_fault_costs_its_step_and_a_lasting_fault_is_reported() -> None:
    given, steps, told = duty(), [], list[str]()

    def step() -> None:
        steps.append(1)
        if len(steps) == 1:
            raise SystemExit("a library")
        loop.stop()

    loop = Loop(given, "part.look", step, every_s=0.01, told=told.append)
    loop.run()
    assert (len(steps), told[0], told[-1]) == (2, "SystemExit: a library", "")
    assert 1 < len(told) <= 2 + WAITS_S[0] / 0.01, "a step that failed waits before the next try"


def test_a_step_that_has_more_to_do_is_followed_at_once() -> None:
    steps = []

    def step() -> bool:
        steps.append(1)
        if len(steps) == 50:
            loop.stop()
        return len(steps) < 50

    loop = Loop(duty(), "part.look", step, every_s=60)
    began = time.monotonic()
    loop.run()
    assert (len(steps), time.monotonic() - began < 5) == (50, True)


def test_a_loop_that_does_not_lead_forgets_and_takes_no_step() -> None:
    done: list[str] = []
    loop = Loop(
        duty(lambda: False),
        "part.look",
        lambda: done.append("step"),
        every_s=60,
        forget=lambda: done.append("forget"),
    )
    loop.turn()
    assert done == ["forget"]


def test_a_loop_that_rests_ends_at_once_and_takes_its_last_step() -> None:
    done: list[str] = []
    loop = Loop(
        duty(),
        "part.look",
        lambda: done.append("step"),
        every_s=60,
        rests_first=True,
        last=lambda: done.append("last"),
    )
    thread = loop.start("part")
    loop.stop()
    thread.join(5)
    assert (done, thread.is_alive()) == (["last"], False)
    began = time.monotonic()
    loop.rest(60)
    loop.rest(60)
    assert time.monotonic() - began < 5, "a later rest does not wait either"


def test_a_signal_handler_may_stop_the_loop_that_it_interrupts() -> None:
    """An event's `set` there waits for ever when it meets the `wait` of the same thread."""
    loop = Loop(duty(), "part.look", lambda: True, every_s=0)
    before = signal.signal(signal.SIGUSR1, lambda *_: loop.stop())
    try:
        main = threading.main_thread().ident
        assert main is not None
        ask = threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGUSR1))
        ask.start()
        loop.run()
        ask.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert loop.is_stopped
