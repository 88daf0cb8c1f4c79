"""Counts and latencies: bounded, cumulative, and never reported as better than they are."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kedge.core.release.commands import Promote, Shadow
from kedge.core.stored.roster import Tally
from kedge.core.values import Arm
from kedge.engine.recording.counter import BOUND, ROWS
from kedge.engine.recording.counts import ArmLatency, CanaryCounts, summary
from kedge.engine.recording.observation import Observation
from kedge.engine.recording.recorder import (
    MAX_US,
    Recorder,
    bin_upper_us,
    latency_bin,
    quantile_us,
    size_of,
)
from kedge.engine.request import Request
from kedge.testing.samples import endpoint, release, run

ROW = run(endpoint(release(1), release(2)), Promote(1), Shadow(2))
LATENCIES = st.integers(0, MAX_US)


def tally(**counts: int) -> Tally:
    named = {name.replace("__", "."): number for name, number in counts.items()}
    return Tally(
        replica="w0", endpoint="flights", production=1, candidate=2, salt="s", counts=named
    )


# ---------------------------------------------------------------- bins


@given(LATENCIES)
def test_a_latency_lies_in_its_bin_which_is_at_most_an_eighth_wide(us: int) -> None:
    """So an upper bound is at most 12.5 % too high."""
    index = latency_bin(us)
    low = bin_upper_us(index - 1) + 1 if index else 0
    assert low <= us <= bin_upper_us(index)
    assert bin_upper_us(index) - low <= low / 8


@given(LATENCIES, LATENCIES)
def test_a_longer_latency_is_never_in_an_earlier_bin(one: int, other: int) -> None:
    """Bins are in order."""
    assert (latency_bin(one) <= latency_bin(other)) or one > other


def test_bins_have_neither_gaps_nor_overlaps() -> None:
    """Each begins where the one before it ends."""
    last = latency_bin(MAX_US)
    uppers = [bin_upper_us(index) for index in range(last + 1)]
    assert uppers == sorted(set(uppers))
    assert [latency_bin(upper) for upper in uppers] == list(range(last + 1))
    assert [latency_bin(upper + 1) for upper in uppers[:-1]] == list(range(1, last + 1))


def test_the_number_of_bins_is_bounded() -> None:
    """Whatever a clock says."""
    assert latency_bin(10**30) == latency_bin(MAX_US) < 300


# ---------------------------------------------------------------- quantiles


@given(st.lists(LATENCIES, min_size=1, max_size=50), st.floats(0, 1))
def test_a_quantile_is_never_below_the_true_one_and_at_most_an_eighth_above(
    latencies: list[int], q: float
) -> None:
    """It is an upper bound: what is promised was kept."""
    bins: dict[int, int] = {}
    for us in latencies:
        bins[latency_bin(us)] = bins.get(latency_bin(us), 0) + 1
    rank = next(i for i in range(1, len(latencies) + 1) if i >= q * len(latencies))
    true = sorted(latencies)[rank - 1]
    found = quantile_us(bins, q)
    assert found is not None
    assert true <= found <= true * 1.125


@pytest.mark.parametrize("q", [0.0, 0.5, 1.0])
def test_without_observations_there_is_no_quantile(q: float) -> None:
    """Not zero: no request was that fast."""
    assert quantile_us({}, q) is None


# ---------------------------------------------------------------- the recorder


def test_a_recorder_adds_up_from_its_beginning() -> None:
    """Cumulative: reading it changes nothing, so a lost write loses nothing."""
    recorder = Recorder("w0", ROW)
    recorder.count("requests.production")
    first = recorder.tally()
    recorder.count("requests.production")
    recorder.count("rows.production", 5)
    assert first.counts == {"requests.production": 1}
    assert recorder.tally().counts == {"requests.production": 2, "rows.production": 5}
    assert recorder.tally() == recorder.tally()


def test_a_tally_says_whose_comparison_it_counts() -> None:
    """By production, candidate and salt: another rollout of the same two is another comparison."""
    told = Recorder("w0", ROW).tally()
    assert (told.replica, told.endpoint, told.production) == ("w0", "flights", 1)
    assert (told.candidate, told.salt) == (2, ROW.salt)
    assert Recorder("w0", ROW).key != Recorder("w0", msgspec.structs.replace(ROW, salt="s")).key


def test_each_arm_has_its_own_latencies() -> None:
    """An arm without requests has none."""
    recorder = Recorder("w0", ROW)
    recorder.latency(Arm.PRODUCTION, 100)
    recorder.latency(Arm.PRODUCTION, 101)
    recorder.latency("shadow", 5000)
    p50, n = recorder.quantile_us(Arm.PRODUCTION, 0.5)
    assert n == 2
    assert p50 is not None
    assert 100 <= p50 <= 112
    assert recorder.quantile_us(Arm.CANDIDATE, 0.5) == (None, 0)
    assert sum(recorder.tally().latency["shadow"].values()) == 1


@given(st.lists(LATENCIES, max_size=200))
def test_memory_does_not_grow_with_traffic(latencies: list[int]) -> None:
    """A bin holds a count, not its members."""
    recorder = Recorder("w0", ROW)
    for us in latencies:
        recorder.latency(Arm.PRODUCTION, us)
    bins = recorder.tally().latency.get(Arm.PRODUCTION, {})
    assert sum(bins.values()) == len(latencies)
    assert len(bins) <= latency_bin(MAX_US) + 1


# ---------------------------------------------------------------- the summary


def test_counts_of_several_replicas_are_added_up() -> None:
    """Counts and latencies alike."""
    one = msgspec.structs.replace(tally(requests__production=3, keyless=1), latency={"a": {5: 1}})
    two = msgspec.structs.replace(tally(requests__production=4), latency={"a": {5: 2, 6: 1}})
    told = summary([one, two])
    assert told.requests == {"production": 7}
    assert told.keyless == 1
    assert told.latency_us == {"a": ArmLatency(p50=5, p99=6, n=4)}


def test_nothing_counted_is_no_agreement_and_no_coverage() -> None:
    """None, never a hundred per cent: no data is never a pass."""
    shadow = summary([]).shadow
    assert (shadow.agreement, shadow.coverage, shadow.pairs) == (None, None, 0)


def test_a_shadow_that_is_dropped_late_or_failing_is_distinguished() -> None:
    """Each has another remedy; all of them lower the coverage."""
    told = summary(
        [
            tally(
                shadow__requests=10,
                shadow__answered=4,
                shadow__pairs=8,
                shadow__agreeing=6,
                shadow__dropped__full=2,
                shadow__dropped__down=1,
                shadow__failed__model_late=2,
                shadow__failed__model_died=1,
            )
        ]
    )
    assert msgspec.to_builtins(told.shadow) == {
        "requests": 10,
        "answered": 4,
        "pairs": 8,
        "agreeing": 6,
        "agreement": 0.75,
        "coverage": 0.4,
        "dropped": 3,
        "dropped_by_cause": {"down": 1, "full": 2},
        "late": 0,
        "timed_out": 2,
        "failed": 1,
        "failed_by_cause": {"model_died": 1, "model_late": 2},
    }


def test_a_canary_was_asked_also_when_production_answered_instead() -> None:
    """A candidate that always fails over had every request, not none."""
    told = summary(
        [
            tally(
                requests__candidate=5,
                requests__production=9,
                failover__model_late=2,
                failover__breaker_open=1,
            )
        ]
    )
    assert told.canary == CanaryCounts(requests=8, failovers=3, unasked=1)
    assert told.failovers_by_cause == {"breaker_open": 1, "model_late": 2}


def test_refusals_and_errors_are_counted_by_their_code() -> None:
    """And a tester's requests apart."""
    told = summary([tally(refused__wrong_dtype=2, errors__production=1, asked=4)])
    assert told.refused == {"wrong_dtype": 2}
    assert told.errors == {"production": 1}
    assert told.asked == 4


def test_production_is_timed_by_the_size_of_the_request() -> None:
    """Each size is twice the one before; a single row is in the whole."""
    recorder = Recorder("w0", ROW)
    for rows, micros in ((1, 5), (2, 50), (3, 70), (4, 80), (1_024, 9_000)):
        recorder.answered(("production", "r", "w"), rows, micros, keyless=False)
    recorder.answered(("candidate", "r", "w"), 1_024, 90_000, keyless=False)
    sized = recorder.sized()
    assert {size: n for size, (_, _, n) in sized.items()} == {1: 1, 2: 2, 10: 1}
    assert 9_000 <= sized[10][1] < 10_200
    assert [size_of(rows) for rows in (0, 1, 2, 3, 4, 5, 1_024, 1_025)] == [
        0,
        0,
        1,
        2,
        2,
        3,
        10,
        11,
    ]


def seen_of(rows: int) -> Observation:
    asked = Request(id="a", columns={}, rows=rows, entity=None, draw=0)
    return Observation(1.0, asked, 0, 1, False, 0)  # noqa: FBT003


def test_what_waits_is_bounded_by_requests_and_by_rows_and_the_rest_is_counted() -> None:
    """A batch job sends a thousand rows a request: memory follows the rows."""
    for rows, kept in ((1, BOUND), (1_000, ROWS // 1_000)):
        recorder = Recorder("w0", endpoint())
        for _ in range(kept + 7):
            recorder.offer(seen_of(rows))
        waiting, lost, *_ = recorder.taken()
        assert (len(waiting), lost) == (kept, 7)
        recorder.offer(seen_of(rows))
        assert len(recorder.taken()[0]) == 1
