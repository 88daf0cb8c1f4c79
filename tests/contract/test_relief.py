"""Earlier workers are relieved in order, and no process is taken for another."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kedge.adapters.clock import SystemClock
from kedge.engine import relief as reliefs
from kedge.engine.relief import Predecessor, Process, Relief, defers, process_of, takes
from kedge.runtime.restart import reap, words_of
from support.waiting import wait_until

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
"""A process that hears no SIGTERM."""
Start = Callable[..., Process]


@pytest.fixture
def start() -> Iterator[Start]:
    made: list[subprocess.Popen[bytes]] = []

    def begin(code: str = "import time; time.sleep(60)") -> Process:
        script = f"print(flush=True); {code}"
        made.append(subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE))
        assert made[-1].stdout is not None
        made[-1].stdout.readline()
        return process_of(made[-1].pid)

    yield begin
    for one in made:
        one.kill()
        one.wait()


def test_nothing_is_touched_before_the_new_workers_are_ready(start: Start) -> None:
    """Then the workers, then their models, then the folder."""
    worker, host = start(), start()
    removed: list[Path] = []
    told: list[str] = []
    relief = Relief([Predecessor("folder", (worker,), (host,))], removed.append)
    relief.relieved = lambda: told.append("relieved")
    relief.step(0.0, ready=lambda: False)
    assert relief.waiting
    assert relief.workers == {worker.pid}
    assert (worker.alive, host.alive, told) == (True, True, [])

    relief.step(1.0, ready=lambda: True)
    assert told == ["relieved"]
    assert not relief.waiting
    wait_until(lambda: not worker.alive, "its end")
    relief.step(2.0, ready=lambda: True)
    wait_until(lambda: not host.alive, "its end")
    assert removed == []
    relief.step(3.0, ready=lambda: True)
    assert removed == [Path("folder")]
    assert relief.predecessors == []


def test_a_process_that_does_not_end_is_killed_after_its_time(start: Start) -> None:
    """A worker and a model process that hang do not stay for ever."""
    worker, host = start(STUBBORN), start(STUBBORN)
    relief = Relief([Predecessor("", (worker,), (host,))], lambda _: None)
    relief.step(0.0, ready=lambda: True)
    relief.step(reliefs.DRAIN_S - 1, ready=lambda: True)
    assert worker.alive
    relief.step(reliefs.DRAIN_S + 1, ready=lambda: True)
    wait_until(lambda: not worker.alive, "its end")
    relief.step(100.0, ready=lambda: True)
    assert host.alive
    relief.step(100.0 + reliefs.END_S + 1, ready=lambda: True)
    wait_until(lambda: not host.alive, "its end")


def test_what_was_never_ready_ends_at_once_while_what_it_should_relieve_serves(
    start: Start,
) -> None:
    """But not when nothing else is left."""
    old, useless = start(), start()
    relief = Relief(
        [Predecessor("", (old,)), Predecessor("", (useless,), served=False)], lambda _: None
    )
    relief.step(0.0, ready=lambda: False)
    wait_until(lambda: not useless.alive, "its end")
    assert old.alive
    only = start()
    alone = Relief([Predecessor("", (only,), served=False)], lambda _: None)
    alone.step(0.0, ready=lambda: False)
    assert only.alive


def test_control_ends_before_another_starts(start: Start) -> None:
    """It holds the port."""
    control = start()
    relief = Relief([Predecessor("", (), (), (control,))], lambda _: None)
    assert relief.others_alive(0.0)
    wait_until(lambda: not control.alive, "its end")
    assert not relief.others_alive(0.1)


def test_a_process_with_the_number_of_another_is_never_signalled(start: Start) -> None:
    """Numbers come again; the start time tells them apart."""
    running = start()
    gone = Process(running.pid, "1")
    relief = Relief([Predecessor("", (gone,), (gone,))], lambda _: None)
    relief.step(0.0, ready=lambda: True)
    relief.stop("workers")
    relief.wait("workers", SystemClock(), 0.0)
    assert running.alive


def test_a_stop_signals_all_processes_and_kills_those_that_ignore_it(start: Start) -> None:
    """Within one deadline."""
    polite, deaf = start(), start(STUBBORN)
    relief = Relief([Predecessor("", (polite, deaf))], lambda _: None)
    clock = SystemClock()
    relief.stop("workers")
    wait_until(lambda: not polite.alive, "its end")
    relief.wait("workers", clock, clock.monotonic() + 0.2)
    wait_until(lambda: not deaf.alive, "its end")


def test_a_signal_is_sent_only_to_a_process_with_a_handler(start: Start) -> None:
    """A worker of an older kedge would die of it."""
    hears = start(
        "import signal, time; signal.signal(12, print); print(flush=True); time.sleep(60)"
    )
    wait_until(lambda: takes(hears, signal.SIGUSR2), "the handler")
    assert not takes(hears, signal.SIGUSR1)
    assert not takes(Process(0), signal.SIGUSR1)


def test_a_signal_that_waits_is_not_lost_on_an_image_that_starts(start: Start) -> None:
    """It is blocked from the exec on until there is a function for it."""
    block = "import signal, time; signal.pthread_sigmask(signal.SIG_BLOCK, [12]); time.sleep(60)"
    blocking = start(block)
    wait_until(lambda: defers(blocking, signal.SIGUSR2), "the blocked signal")
    assert not takes(blocking, signal.SIGUSR2)
    assert not defers(blocking, signal.SIGUSR1)


def test_only_unknown_children_are_reaped() -> None:
    """The others have a parent that needs their exit code."""
    known, unknown = subprocess.Popen(["false"]), subprocess.Popen(["true"])
    wait_until(
        lambda: not process_of(known.pid).alive and not process_of(unknown.pid).alive, "both ends"
    )
    found = reap({known.pid})
    assert known.wait() == 1
    found += reap(set())
    assert unknown.pid in found
    assert known.pid not in found


@pytest.mark.parametrize(
    "raw, told",
    [
        (
            b'{"error": {"code": "x", "message": "port taken", "hint": "move"}}\nhint: move\n',
            ("port taken", "move"),
        ),
        (
            b"Traceback\n  File\nImportError: no kedge\n",
            ("the new code does not start: ImportError: no kedge", ""),
        ),
        (b"", ("the new code does not start: it ended with code 7 and no message", "")),
    ],
)
def test_the_reason_of_a_failed_trial_is_reported_in_its_own_words(
    raw: bytes, told: tuple[str, str]
) -> None:
    assert words_of(raw, 7) == told
