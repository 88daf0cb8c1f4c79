"""Counters for Prometheus: they go up only, whatever happens to the workers that count."""

from __future__ import annotations

import msgspec

from kedge.core.codec import decode, encode
from kedge.core.metrics import definitions as of
from kedge.core.metrics.totals import KEPT_S, Series, StoredSeries, StoredTotals, Totals
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


# ---------------------------------------------------------------- a restart of control


def restarted(totals: Totals) -> Totals:
    """The totals of the next control, by what this one has stored."""
    raw = encode(totals.stored())
    return Totals(["flights"], decode(raw, StoredTotals))


def test_a_control_that_restarts_misses_no_request_and_takes_nothing_away() -> None:
    totals = Totals([])
    totals.fold(STATE, [answered("w0.1", 5)])
    later = restarted(totals)
    assert later.series[ANSWERED] == 5
    later.fold(STATE, [answered("w0.1", 8), answered("w1.2", 4)])
    assert later.series[ANSWERED] == 12
    later.fold(STATE, [answered("w0.1", 9), answered("w1.2", 4)])
    assert later.series[ANSWERED] == 13
    again = restarted(later)
    again.fold(STATE, [answered("w0.1", 9), answered("w1.2", 4)])
    assert again.series[ANSWERED] == 13


def test_workers_that_restart_with_control_take_nothing_away() -> None:
    totals = Totals([])
    totals.fold(STATE, [answered("w0.1", 5)])
    later = restarted(totals)
    later.fold(STATE, [answered("w0.1", 6), answered("w0.9", 2)])
    assert later.series[ANSWERED] == 8


def test_counts_that_were_lost_while_control_was_down_take_nothing_away() -> None:
    totals = Totals([])
    totals.fold(STATE, [answered("w0.1", 50)])
    later = restarted(totals)
    later.fold(STATE, [answered("w0.1", 3)])  # the file was lost; this worker began again
    assert later.series[ANSWERED] == 50
    later.fold(STATE, [answered("w0.1", 7)])
    assert later.series[ANSWERED] == 54


def test_totals_that_were_stored_before_an_endpoint_was_read_are_kept() -> None:
    totals = Totals([])
    totals.fold(STATE, [answered("w0.1", 5)])
    unread = restarted(restarted(totals))
    unread.fold(STATE, [answered("w0.1", 6)])
    assert unread.series[ANSWERED] == 6


def test_a_baseline_of_the_first_control_is_one_for_the_next() -> None:
    first = Totals(["flights"])
    first.fold(STATE, [answered("w0.1", 1_000)])
    later = restarted(first)
    later.fold(STATE, [answered("w0.1", 1_002)])
    assert later.series[ANSWERED] == 2


def test_after_a_restart_copies_still_belong_to_the_release_that_was_left() -> None:
    settled = State(
        endpoint="flights", stage=Stage.SETTLED, production=2, previous=1, back=1, salt="t"
    )
    later = msgspec.structs.replace(settled, back=None, salt="u")
    counted = Tally("w0.1", "flights", 2, None, "t", {"shadow.requests": 3})
    totals = Totals([])
    totals.fold(settled, [counted])
    next_one = restarted(totals)
    next_one.fold(later, [counted])
    series = Series(of.SHADOW_REQUESTS.name, ("flights", "r1"))
    assert {k: n for k, n in next_one.series.items() if n} == {series: 3}


def test_faults_go_on_over_a_restart_of_control() -> None:
    totals = Totals([])
    totals.fold_processes([])
    totals.fold_processes([member("monday", 4)])
    later = restarted(totals)
    later.fold_processes([member("monday", 6), member("tuesday", 1)])
    assert later.series[Series(of.FAULTS.name, ("gateway", "replica.step"))] == 7


def test_stored_series_of_another_version_are_left_out() -> None:
    stored = StoredTotals(
        (
            StoredSeries("kedge_unheard_of_total", ("a",), -1, 4, 4),
            StoredSeries(of.REQUESTS.name, ("flights",), -1, 4, 4),
        )
    )
    assert Totals([], stored).series == {}


def test_series_of_a_release_that_left_end_after_a_day_and_those_of_a_lost_endpoint_at_once() -> (
    None
):
    totals = Totals([])
    totals.fold(STATE, [tally(requests__candidate=3, refused__queue_full=1)])
    theirs = Series(of.REQUESTS.name, THEIRS)
    settled = msgspec.structs.replace(
        STATE, stage=Stage.SETTLED, candidate=None, previous=None, salt="t"
    )
    totals.forget({"flights": STATE}, 0.0)
    totals.forget({"flights": settled}, KEPT_S)
    assert theirs in totals.series
    totals.forget({"flights": settled}, KEPT_S + 1)
    assert theirs not in totals.series
    assert ANSWERED in totals.series
    assert Series(of.REFUSED.name, ("flights", "queue_full")) in totals.series
    totals.forget({}, KEPT_S + 2)
    assert totals.series == {}
