"""Counters for Prometheus: they go up only, whatever happens to the workers that count."""

from __future__ import annotations

import msgspec

from kedge.core.metrics import definitions as of
from kedge.core.metrics.totals import Series, Totals
from kedge.core.stored.roster import Member, ProcessFault, Tally
from kedge.core.values import Stage, State

STATE = State(
    endpoint="flights", stage=Stage.CANARY, production=1, candidate=2, salt="s", weight=500
)
OURS, THEIRS = ("flights", "r1", "production"), ("flights", "r2", "candidate")
ANSWERED = Series(of.REQUESTS.name, OURS)


def tally(replica: str = "w0.1", **counts: int) -> Tally:
    named = {name.replace("__", "."): number for name, number in counts.items()}
    return Tally(replica, "flights", 1, 2, "s", named)


def answered(replica: str, number: int) -> Tally:
    return tally(replica, requests__production=number)


def test_totals_begin_at_zero_with_control() -> None:
    totals = Totals(["flights"])
    totals.fold(STATE, [answered("w0.1", 1_000)])
    assert totals.series[ANSWERED] == 0
    totals.fold(STATE, [answered("w0.1", 1_003), answered("w1.2", 4)])
    assert totals.series[ANSWERED] == 7


def test_an_endpoint_that_is_created_later_counts_from_its_first_request() -> None:
    totals = Totals(["another"])
    totals.fold(STATE, [answered("w0.1", 5)])
    assert totals.series[ANSWERED] == 5


def test_a_worker_that_restarts_takes_nothing_away() -> None:
    totals = Totals([])
    totals.fold(STATE, [answered("w0.1", 5)])
    totals.fold(STATE, [answered("w0.1", 8), answered("w0.2", 1)])
    totals.fold(STATE, [answered("w0.2", 2)])  # the first tally was deleted
    assert totals.series[ANSWERED] == 10


def test_a_worker_that_returns_to_a_comparison_counts_again_from_zero() -> None:
    totals = Totals([])
    totals.fold(STATE, [tally(requests__production=50, requests__candidate=9)])
    totals.fold(STATE, [tally(requests__production=3, requests__candidate=10)])
    assert totals.series[ANSWERED] == 53
    assert totals.series[Series(of.REQUESTS.name, THEIRS)] == 19


def test_a_tally_that_is_read_twice_counts_once() -> None:
    totals = Totals([])
    for _ in range(3):
        totals.fold(STATE, [answered("w0.1", 5)])
    assert totals.series[ANSWERED] == 5


def test_counts_carry_the_release_that_they_are_about() -> None:
    totals = Totals([])
    counts = {
        "errors.candidate": 1,
        "failover.model_late": 2,
        "late.candidate": 3,
        "refused.bad_request": 4,
        "unrecorded.sampling": 5,
        "violations.candidate.price.net.range": 6,
        "shadow.requests": 7,
        "shadow.dropped.full": 8,
        "shadow.failed.model_raised": 9,
        "errors.after_answer": 10,
        "keyless": 11,
    }
    latency = {"production": {17: 2}, "shadow": {30: 1}}
    totals.fold(STATE, [Tally("w0.1", "flights", 1, 2, "s", counts, latency)])
    expected = {
        Series(of.ERRORS.name, THEIRS): 1,
        Series(of.FAILOVERS.name, ("flights", "r2", "model_late")): 2,
        Series(of.LATE.name, ("flights", "r2")): 3,
        Series(of.REFUSED.name, ("flights", "bad_request")): 4,
        Series(of.UNRECORDED.name, ("flights", "sampling")): 5,
        Series(of.VIOLATIONS.name, (*THEIRS, "price.net", "range")): 6,
        Series(of.SHADOW_REQUESTS.name, ("flights", "r2")): 7,
        Series(of.SHADOW_DROPPED.name, ("flights", "r2", "full")): 8,
        Series(of.SHADOW_FAILED.name, ("flights", "r2", "model_raised")): 9,
        Series(of.DURATION.name, OURS, 17): 2,
        Series(of.DURATION.name, ("flights", "r2", "shadow"), 30): 1,
    }
    assert {series: n for series, n in totals.series.items() if n} == expected


def test_after_a_promotion_a_copy_is_counted_for_the_release_that_was_left() -> None:
    settled = State(
        endpoint="flights", stage=Stage.SETTLED, production=2, previous=1, back=1, salt="t"
    )
    counted = Tally("w0.1", "flights", 2, None, "t", {"shadow.requests": 3})
    totals = Totals([])
    totals.fold(settled, [counted])
    later = msgspec.structs.replace(counted, counts={"shadow.requests": 5})
    totals.fold(msgspec.structs.replace(settled, back=None, salt="u"), [later])
    assert totals.series[Series(of.SHADOW_REQUESTS.name, ("flights", "r1"))] == 5


def member(began: str, count: int, **limited: int) -> Member:
    fault = ProcessFault("replica.step", "OSError: no", count, began)
    return Member(
        name="host/w0.1",
        host="host",
        pid=1,
        kind="gateway",
        address="",
        started_at=began,
        beat_at=0.0,
        ledger_at=0.0,
        faults=(fault,),
        limited=limited,
    )


def test_faults_of_processes_add_up_over_restarts() -> None:
    totals = Totals([])
    totals.fold_processes([member("monday", 4)])
    totals.fold_processes([member("monday", 6, bodies_full=2)])
    totals.fold_processes([member("tuesday", 1)])
    assert totals.series == {
        Series(of.FAULTS.name, ("gateway", "replica.step")): 3,
        Series(of.LIMITED.name, ("gateway", "bodies_full")): 2,
    }
