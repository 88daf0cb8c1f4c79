"""What a process says of the faults that its loops survived."""

from kedge.adapters.clock import SystemClock
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
