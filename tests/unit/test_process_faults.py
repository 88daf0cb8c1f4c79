"""A process's report of the faults that its loops survived."""

import sys

from structlog.testing import capture_logs

from kedge.adapters.clock import SystemClock
from kedge.engine.loop import WAITS_S, Net
from kedge.engine.process_faults import OTHER, PLACES, ProcessFaults


def test_a_fault_is_counted_at_its_place_and_stands_until_its_step_succeeds() -> None:
    changes = []
    faults = ProcessFaults(SystemClock(), lambda: changes.append(1))
    faults.note("replica.step", OSError(24, "Too many open files"))
    faults.note("replica.step", OSError(24, "Too many open files"))
    (fault,) = faults.faults
    assert (fault.place, fault.count, fault.standing) == ("replica.step", 2, True)
    assert fault.text == "OSError: [Errno 24] Too many open files"
    faults.clear("replica.step")
    (fault,) = faults.faults
    assert (fault.count, fault.standing) == (2, False)
    assert len(changes) == 2


def test_places_and_bounds_do_not_grow() -> None:
    faults = ProcessFaults(SystemClock())
    for number in range(PLACES + 10):
        faults.note(f"place.{number}", ValueError())
        faults.limit(f"bound.{number}")
    assert len(faults.faults) == PLACES + 1
    assert faults.limited[OTHER] == 10
    assert {fault.place: fault.count for fault in faults.faults}[OTHER] == 10


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_a_fault_whose_text_cannot_be_made_is_counted_too() -> None:
    def breaks() -> None:
        raise ValueError

    faults = ProcessFaults(SystemClock(), breaks)
    faults.note("somewhere", Unspeakable())
    assert faults.faults[0].text == "Unspeakable"


class Hand(SystemClock):
    """A clock whose hand the test moves."""

    at = 0.0

    def monotonic(self) -> float:
        return self.at


def test_a_net_costs_a_step_its_fault_and_waits_before_the_next_try() -> None:
    clock = Hand()
    faults = ProcessFaults(clock)
    net = Net(faults, clock)
    tries = []

    def ends() -> None:
        tries.append(1)
        sys.exit("a library ends the process")

    assert not net.run("part", ends)
    assert not net.run("part", ends)
    assert len(tries) == 1
    assert net.run("another", lambda: None)
    clock.at += WAITS_S[0]
    assert not net.run("part", ends)
    assert faults.faults[0].count == len(tries) == 2
    net.forget("part")
    assert net.run("part", lambda: None)
    assert [fault.standing for fault in faults.faults] == [False]


def test_a_fault_says_what_began_it() -> None:
    faults = ProcessFaults(SystemClock())
    try:
        try:
            raise OSError(5, "Input/output error")
        except OSError as error:
            raise RuntimeError("the ledger cannot be read") from error
    except RuntimeError as error:
        faults.note("replica.ledger", error)
    assert faults.faults[0].text == (
        "RuntimeError: the ledger cannot be read (OSError: [Errno 5] Input/output error)"
    )


def test_an_error_that_is_its_own_cause_ends_no_loop() -> None:
    faults = ProcessFaults(SystemClock())
    error, other = OSError("gone"), ValueError("first")
    error.__cause__, other.__cause__ = other, error
    with (
        capture_logs()
    ):  # the default renderer, which no process of kedge uses, follows it for ever
        faults.note("circle", error)
        error.__cause__ = error
        faults.note("itself", error)
    assert faults.standing("itself") == "OSError: gone"


def test_one_fault_that_is_noted_and_logged_is_counted_once() -> None:
    faults = ProcessFaults(SystemClock())
    faults.note("replica.ledger", OSError("gone"))
    faults.passed("replica.ledger_lost", "OSError: gone")
    assert [(one.place, one.count) for one in faults.faults] == [("replica.ledger", 1)]


def test_a_fault_that_has_passed_wakes_no_loop_and_does_not_stand() -> None:
    changes = []
    faults = ProcessFaults(SystemClock(), lambda: changes.append(1))
    faults.passed("database", "tried again")
    faults.passed("database", "tried again")
    (fault,) = faults.faults
    assert (fault.count, fault.standing, fault.text) == (2, False, "tried again")
    assert changes == []
    faults.note("database", OSError("gone"))
    faults.passed("database", "tried again")
    assert faults.standing("database") == "OSError: gone"
