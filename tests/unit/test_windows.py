"""Observations into windows: distinct units, bad units, pairs, bounds."""

from __future__ import annotations

from hashlib import blake2b
from random import Random
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kedge.core.evidence.cost_bets import bin_of
from kedge.core.evidence.records import JoinRow
from kedge.core.evidence.units import pick
from kedge.core.evidence.windows import (
    CANDIDATE,
    OURS,
    PRODUCTION,
    Agreement,
    CostCell,
    Spent,
    Window,
    added,
    agreement_sum,
)
from kedge.core.routing import bucket, key_of, unit_of
from kedge.core.values import CostPolicy, Guardrail, LogPolicy, Output, Policy, Prices, Stage, State
from kedge.engine.recording import counter as windows
from kedge.engine.recording import segments, unit_costs
from kedge.engine.recording.counter import Counter, SlowBounds
from kedge.engine.recording.observation import Observation
from kedge.engine.recording.predictions import Log
from kedge.engine.request import Request
from kedge.testing.samples import release

POLICY = Policy(segments=("origin",), output=Output(kind="binary", score="p", threshold=0.5))
STATE = State(
    endpoint="flights",
    stage=Stage.CANARY,
    production=1,
    candidate=2,
    salt="flights/3",
    weight=500,
    policy=POLICY,
)


NONE = SlowBounds()


def request(entity: str | None = "N1", origin: Any = "JFK", rows: int = 1) -> Request:
    column = np.array([origin] * rows, dtype=object)
    return Request(id="q", columns={"origin": column}, rows=rows, entity=entity, draw=0)


def answer(*scores: float) -> dict[str, Any]:
    return {"p": np.array(scores or (0.7,))}


def seen(
    arm: int = PRODUCTION,
    *,
    failed: bool = False,
    micros: int = 100,
    dropped: bool = False,
    settles: bool = False,
    **asked: Any,
) -> Observation:
    return Observation(
        1.0,
        request(**asked),
        arm,
        micros,
        failed,
        500,
        None if settles else answer(),
        dropped=dropped,
        settles=settles,
    )


def pair(ours: float = 0.7, theirs: float | None = 0.7, **more: Any) -> Observation:
    copy = None if theirs is None else answer(theirs)
    known: dict[str, Any] = {
        "micros": 100,
        "failed": False,
        "weight": 0,
        "ours": answer(ours),
        "mirrored": True,
        "theirs": copy,
    }
    return Observation(1.0, request(**more.pop("asked", {})), PRODUCTION, **{**known, **more})


def count(
    *what: Observation, paired: bool = False, bounds: SlowBounds = NONE, at: int = 0
) -> Window:
    return counted(Counter("w0", STATE), *what, paired=paired, bounds=bounds, at=at)


NONE = SlowBounds()


def counted(
    counter: Counter,
    *what: Observation,
    paired: bool = False,
    bounds: SlowBounds = NONE,
    at: int = 0,
) -> Window:
    return counter.window(
        what, at, bounds, number=1, paired=paired, weight=500, lost=0, streak=0, broken=0
    )[0]


def test_requests_are_counted_and_those_with_an_entity_apart() -> None:
    window = count(*[seen() for _ in range(3)], seen(CANDIDATE, entity=None, origin="LGA"))
    assert window.exposed == {"": (3, 1), "origin=JFK": (3, 0), "origin=LGA": (0, 1)}
    assert window.named == {"": (3, 0), "origin=JFK": (3, 0)}
    assert count(seen(entity=None)).named == {}


def test_a_caller_is_reported_with_its_first_request_at_a_weight() -> None:
    counter = Counter("w0", STATE)
    first = counted(counter, seen(failed=True), seen(), seen(CANDIDATE, entity="N2", origin="LGA"))
    assert [(one.arm, one.bad, one.segments) for one in first.first] == [
        (PRODUCTION, 1, ("origin=JFK",)),
        (CANDIDATE, 0, ("origin=LGA",)),
    ]
    assert counted(counter, seen(failed=True), at=5).first == ()
    again = counter.window(
        [seen()], 9, NONE, number=3, paired=False, weight=2_500, lost=0, streak=0, broken=0
    )[0]
    assert len(again.first) == 1


def test_a_caller_that_fails_often_in_a_second_is_one_with_its_times_and_segments() -> None:
    window = count(*[seen(failed=True) for _ in range(5)], seen(failed=True, origin="LGA"))
    (unit,) = window.units
    assert (unit.times, unit.segments) == (6, ("origin=JFK", "origin=LGA"))
    assert unit.bucket == unit_of(key_of(STATE.salt), "N1")[1]


def test_in_pairs_a_first_request_says_whose_fault_it_was() -> None:
    window = count(
        pair(0.7, None, asked={"entity": "A"}),
        pair(failed=True, ours=0.7, asked={"entity": "B"})._replace(ours=None),
        pair(asked={"entity": "C"}),
        paired=True,
    )
    assert [one.bad for one in window.first] == [1, 1 << OURS, 0]


def test_predictions_are_rows_that_were_answered() -> None:
    three = seen(rows=3)._replace(ours=answer(0.1, 0.2, 0.3))
    window = count(three, seen(CANDIDATE, entity=None), seen(CANDIDATE, failed=True))
    assert window.predictions == (3, 1)


def test_a_request_without_a_unit_is_its_own() -> None:
    assert count(*[seen(entity=None) for _ in range(3)]).exposed[""] == (3, 0)


def test_a_failure_of_a_named_unit_travels_as_its_hash() -> None:
    window = count(seen(CANDIDATE, failed=True), seen(entity=None, failed=True))
    (unit,) = window.units
    assert (unit.metric, unit.arm, unit.segments) == (0, CANDIDATE, ("origin=JFK",))
    assert window.bad == {"errors": {"": (1, 0), "origin=JFK": (1, 0)}}


def test_the_hash_is_the_same_in_every_process_and_another_under_another_salt() -> None:
    again = Counter("w1", STATE)
    other = Counter("w0", State(**{**_fields(STATE), "salt": "flights/9"}))
    first = count(seen(failed=True)).units[0].unit
    assert counted(again, seen(failed=True)).units[0].unit == first
    assert counted(other, seen(failed=True)).units[0].unit != first


def _fields(state: State) -> dict[str, Any]:
    return {name: getattr(state, name) for name in state.__struct_fields__}


def test_too_many_callers_are_cut_by_a_hash_that_is_blind_to_the_arm() -> None:
    many = [
        seen(CANDIDATE if n % 2 else PRODUCTION, entity=f"N{n}", failed=True)
        for n in range(2 * windows.UNITS)
    ]
    found = count(*many)
    assert (len(found.units), len(found.first), found.cut) == (
        windows.UNITS,
        windows.UNITS,
        2 * windows.UNITS,
    )
    everything = [u.unit for n in many for u in count(n).units]
    assert {unit.unit for unit in found.units} == set(sorted(everything, key=pick)[: windows.UNITS])


def test_a_slow_request_is_bad_only_where_a_bound_is_known() -> None:
    assert count(seen(micros=10_000, entity=None)).bad == {}
    window = count(seen(micros=10_000, entity=None), bounds=SlowBounds(p50=9_000, p99=20_000))
    assert window.bad == {"latency.p50": {"": (1, 0), "origin=JFK": (1, 0)}}


def test_a_failed_request_has_no_latency() -> None:
    window = count(seen(failed=True), seen(entity="N2"))
    assert window.exposed[""] == (2, 0)
    assert window.answered[""] == (1, 0)


def test_pairs_are_compared_in_the_endpoints_own_sense() -> None:
    window = count(pair(0.7, 0.9), pair(0.7, 0.1), pair(0.1, 0.7), pair(0.1, 0.2), paired=True)
    assert window.agreement[""] == Agreement(4, 2, 1, 1, 1, 1, 0)
    assert [e.production for e in window.examples] == ["0.7", "0.1"]


def test_a_copy_without_an_answer_disagrees_and_is_the_candidates_failure() -> None:
    window = count(pair(theirs=None, asked={"entity": None}), paired=True)
    assert window.agreement[""] == Agreement(1, 0, 0, 0, 0, 0, 1)
    assert window.bad["errors"][""] == (0, 1)
    assert (window.mirrored, window.copied) == (1, 0)


def test_a_copy_that_was_never_sent_is_no_failure_but_lost_coverage() -> None:
    window = count(pair(theirs=None, dropped=True), paired=True)
    assert (window.mirrored, window.copied, window.bad, window.units) == (1, 0, {}, ())


def test_in_a_pair_only_what_differs_is_bad() -> None:
    slow = pair(asked={"entity": None}, micros=50_000, their_micros=60_000)
    late = pair(asked={"entity": None}, their_micros=60_000)
    window = count(slow, late, paired=True, bounds=SlowBounds(p50=9_000, p99=20_000))
    assert window.bad["latency.p50"][""] == (0, 1)


def test_features_that_break_their_schema_are_bad_and_in_a_pair_only_where_they_differ() -> None:
    alone = seen(CANDIDATE, entity=None)._replace(violated=True)
    assert count(alone).bad == {"violations": {"": (0, 1), "origin=JFK": (0, 1)}}
    named = count(seen(CANDIDATE)._replace(violated=True))
    assert [(unit.metric, unit.arm) for unit in named.units] == [(3, CANDIDATE)]
    both = pair(asked={"entity": None}, violated=True, their_violated=True)
    theirs = pair(asked={"entity": None}, their_violated=True)
    assert count(both, theirs, paired=True).bad["violations"][""] == (0, 1)


def test_segment_values_are_bounded_and_the_rest_is_other() -> None:
    many = [
        seen(entity=None, origin=f"A{n}")
        for _ in range(segments.LEAST)
        for n in range(segments.VALUES + 100)
    ]
    window = count(*many)
    told = segments.VALUES - segments.AT_ONCE
    assert len(window.exposed) == segments.VALUES + 2
    beyond = told * (segments.LEAST - 1) + 100 * segments.LEAST
    assert window.exposed["origin=other"] == (beyond, 0)
    assert window.other == beyond


def test_a_million_rows_of_other_values_are_bounded_in_one_request_too() -> None:
    column = np.array([f"A{n}" for n in range(1_000_000)], dtype=object)
    wanted = Request(id="", columns={"origin": column}, rows=len(column), entity=None, draw=0)
    window = count(Observation(1.0, wanted, PRODUCTION, 100, failed=False, weight=0))
    assert len(window.exposed) == segments.AT_ONCE + 2
    assert window.other == 1_000_000 - segments.AT_ONCE


def test_a_request_without_a_segment_field_counts_in_the_others_and_in_all() -> None:
    state = State(**{**_fields(STATE), "policy": Policy(segments=("origin", "dest"))})
    both = {"origin": np.array(["JFK"], object), "dest": np.array([3])}
    asked = [both, {"dest": both["dest"]}, {"origin": both["origin"]}, {}]
    wanted = [Request(id="", columns=c, rows=1, entity=None, draw=0) for c in asked]
    window = counted(
        Counter("w0", state),
        *[Observation(1.0, w, PRODUCTION, 1, failed=False, weight=0) for w in wanted],
    )
    assert window.exposed == {"": (4, 0), "origin=JFK": (2, 0), "dest=3": (2, 0)}


@pytest.mark.parametrize("value", [["a", "list"], [["of"], ["lists"]]])
def test_a_value_that_cannot_be_looked_up_is_its_text(value: Any) -> None:
    column = np.empty(1, dtype=object)
    column[0] = value
    wanted = Request(id="q", columns={"origin": column}, rows=1, entity=None, draw=0)
    odd = seen()._replace(request=wanted)
    assert set(count(odd, seen(entity=None)).exposed) == {"", f"origin={value}", "origin=JFK"}


@pytest.mark.parametrize("value", [None, float("nan")])
def test_a_missing_value_is_a_segment_of_its_own(value: Any) -> None:
    assert set(count(seen(origin=value)).exposed) == {"", "origin=null"}


def test_each_row_is_a_prediction_with_a_record_of_its_own() -> None:
    counter = Counter("w0", STATE)
    one = Observation(5.0, request(rows=2), CANDIDATE, 1, False, 500, answer(0.2, 0.9))  # noqa: FBT003
    _, rows = counter.window(
        [one], 5, SlowBounds(), number=1, paired=False, weight=500, lost=0, streak=0, broken=0
    )
    assert [(r.id, r.arm, r.score, r.decision) for r in rows] == [
        ("q/0", "candidate", 0.2, "0"),
        ("q/1", "candidate", 0.9, "1"),
    ]


def test_a_row_says_what_was_asked_and_what_both_said() -> None:
    policy = Policy(segments=("origin",), output=POLICY.output, log=LogPolicy(sample=100))
    state = State(**{**_fields(STATE), "policy": policy})
    pairs = pair(0.2, 0.9), pair(0.7, None, asked={"entity": None, "origin": None})
    unanswered = pair()._replace(ours=None, failed=True)
    _, rows = Counter("w0", state).window(
        [*pairs, unanswered], 5, NONE, number=1, paired=True, weight=7, lost=0, streak=0, broken=0
    )
    common: dict[str, Any] = {
        "id": "q/0",
        "at": 1.0,
        "endpoint": "flights",
        "production": 1,
        "candidate": 2,
        "salt": "flights/3",
        "weight": 7,
        "arm": "production",
        "failed": False,
    }
    assert rows == [
        JoinRow(
            **common,
            unit="N1",
            segments=("origin=JFK",),
            score=0.2,
            decision="0",
            shadow_score=0.9,
            shadow_decision="1",
            paired=True,
            inputs=msgspec.msgpack.encode({"origin": "JFK"}),
        ),
        JoinRow(
            **common,
            unit="",
            segments=("origin=null",),
            score=0.7,
            decision="1",
            inputs=msgspec.msgpack.encode({"origin": None}),
        ),
    ]


@pytest.mark.parametrize("sample", [0, 0.001, 30, 99.9, 100])
def test_a_unit_is_sampled_by_the_number_that_its_hash_is(sample: float) -> None:
    log = Log(State(**{**_fields(STATE), "policy": Policy(log=LogPolicy(sample=sample))}))
    for unit in [*map(str, range(500)), "half a pair \ud800"]:
        digest = blake2b(unit.encode(errors="surrogatepass"), digest_size=8, key=b"log").digest()
        assert log.keeps(unit) == (int.from_bytes(digest) < int(sample / 100 * 2**64))


def test_the_split_is_checked_on_units_each_once() -> None:
    counter = Counter("w0", STATE)
    assert counted(counter, seen(), seen(), seen(CANDIDATE, entity="N2")).fresh == (1, 1)
    assert counted(counter, seen(), at=60).fresh == (0, 0)
    assert counted(counter, pair(), paired=True).fresh is None


@given(st.lists(st.tuples(st.sampled_from(["", "a", "b"]), st.integers(0, 9), st.integers(0, 9))))
def test_counts_add_up_in_any_order(cells: list[tuple[str, int, int]]) -> None:
    there: dict[str, list[int]] = {}
    back: dict[str, list[int]] = {}
    for name, production, candidate in cells:
        added(there, {name: (production, candidate)})
    for name, production, candidate in reversed(cells):
        added(back, {name: (production, candidate)})
    assert there == back


def test_two_counts_of_pairs_add_up() -> None:
    assert agreement_sum(Agreement(3, 2, 1, 1, 0, 1), Agreement(1, 0, 0, 0, 0, 0, 1)) == Agreement(
        4, 2, 1, 1, 0, 1, 1
    )


# ---------------------------------------------------------------- cost, noise, custom comparison

PRICED = State(
    **{
        **_fields(STATE),
        "policy": Policy(
            cost=CostPolicy(
                per_call=1.0,
                tokens="n",
                reported="paid",
                per_token=0.5,
                versions={"v2": Prices(per_call=3.0)},
            ),
            output=Output(kind="score", score="p"),
        ),
        "releases": {n: release(n) for n in (1, 2)},
    }
)


def test_the_cost_of_an_inference_is_counted_by_arm_with_the_prices_of_its_version() -> None:
    used = {"p": np.array([0.5]), "n": np.array([4]), "paid": np.array([0.25])}
    ours = seen()._replace(ours=used)
    theirs = seen(CANDIDATE)._replace(ours=used)
    failed = seen(failed=True)
    found = counted(Counter("w0", PRICED), ours, theirs, failed)
    assert found.costs[""] == Spent((1, 3.25, 3.25**2), (1, 3.25, 3.25**2))


def test_a_pair_costs_something_on_both_sides_or_on_none() -> None:
    pairs = [pair(), pair(theirs=None), pair(dropped=True, theirs=None)]
    found = counted(Counter("w0", PRICED), *pairs, paired=True)
    assert found.costs[""] == Spent((1, 1.0, 1.0), (1, 3.0, 9.0))


def priced(**changed: Any) -> State:
    policy = msgspec.structs.replace(
        PRICED.policy, guardrails={"cost": Guardrail(worse_by=0.2)}, **changed
    )
    return msgspec.structs.replace(PRICED, policy=policy)


def test_a_caller_s_costs_are_reported_by_its_hash_and_bucket_and_others_by_bin() -> None:
    ours = [
        seen(entity="anna"),
        seen(entity="anna"),
        seen(entity=None),
        seen(CANDIDATE, entity=None),
    ]
    found = counted(Counter("w0", priced()), *ours)
    (caller,) = found.callers
    assert caller.bucket == bucket(key_of(PRICED.salt), "anna")
    assert (caller.requests, caller.cost) == ((2, 0), (2.0, 0.0))
    assert [(cell.requests, cell.cost) for cell in found.cells] == [
        ((1, 0), (1.0, 0.0)),
        ((0, 1), (0.0, 3.0)),
    ]
    assert counted(Counter("w0", PRICED), *ours).callers == (), "no guardrail on cost"


def test_pairs_without_a_caller_are_reported_by_pairs_of_bins() -> None:
    found = counted(Counter("w0", priced()), *[pair(asked={"entity": None})] * 2, paired=True)
    (cell,) = found.cells
    assert cell == CostCell((bin_of(1.0), bin_of(3.0)), (2, 2), (2.0, 6.0))


def test_costs_above_the_largest_are_clipped_and_counted() -> None:
    capped = CostPolicy(per_call=1.0, max=2.0, versions={"v2": Prices(per_call=3.0)})
    found = counted(Counter("w0", priced(cost=capped)), seen(), seen(CANDIDATE))
    assert found.clips == (0, 1)
    assert found.costs[""].candidate == (1, 2.0, 4.0)


def test_callers_and_pairs_beyond_the_bound_are_left_out_and_counted() -> None:
    found = unit_costs.UnitCosts(paired=True)
    for at in range(unit_costs.PAIRS + 10):
        found.add("", (1, 1), (1.1 ** (at % 40), 1.1 ** (at // 40)))
    assert len(found.cells()) == unit_costs.PAIRS
    for at in range(unit_costs.CALLERS + 5):
        found.add(f"c{at}", (1, 1), (1.0, 1.0))
    callers, left_out = found.callers(b"k")
    assert (len(callers), left_out) == (unit_costs.CALLERS, 15)


def test_without_prices_nothing_is_counted() -> None:
    assert count(seen()).costs == {}


def test_productions_second_answer_is_its_noise_and_no_evidence() -> None:
    again = [pair(0.7, 0.8)._replace(again=True), pair(0.7, 0.1)._replace(again=True)]
    found = count(*again, paired=True)
    assert found.noise == (2, 1)
    assert (found.mirrored, found.agreement, found.exposed) == (0, {}, {})


# ---------------------------------------------------------------- against plain counting

ASKED = st.lists(
    st.tuples(
        st.sampled_from([None, "a", "b", "c"]),
        st.lists(st.sampled_from(["JFK", "EWR", None, 3, float("nan")]), min_size=1, max_size=3),
        st.sampled_from([PRODUCTION, CANDIDATE]),
        st.sampled_from([0.2, 0.7, float("nan"), None]),
        st.booleans(),
    ),
    max_size=12,
)
"""Who asks, the segment of each row, which arm, the copy's score, and whether it failed."""


def _names(origins: list[Any]) -> list[str]:
    return [
        "origin=null" if o is None or o != o else f"origin={o}"  # noqa: PLR0124 - NaN
        for o in origins
    ]


def _exposures(asked: Any, *, paired: bool) -> dict[str, tuple[int, int]]:
    """Plain counting: each request in everything and once in each of its rows' segments."""
    cells: dict[str, list[int]] = {}
    for _, origins, arm, *_ in asked:
        for name in {"", *_names(list(origins))}:
            cell = cells.setdefault(name, [0, 0])
            for place in (0, 1) if paired else (arm,):
                cell[place] += 1
    return {name: (cell[0], cell[1]) for name, cell in cells.items()}


@given(ASKED)
def test_exposures_are_those_that_plain_counting_finds(asked: Any) -> None:
    found = []
    for unit, origins, arm, _, failed in asked:
        column = np.array(origins, dtype=object)
        wanted = Request(id="q", columns={"origin": column}, rows=len(origins), entity=unit, draw=0)
        found.append(Observation(1.0, wanted, arm, 100, failed, 500, answer(*[0.7] * len(origins))))
    window = count(*found)
    assert window.exposed == _exposures(asked, paired=False)
    assert window.answered == _exposures_of_sound(asked)


def _exposures_of_sound(asked: Any) -> dict[str, tuple[int, int]]:
    return _exposures(
        [(unit or f"#{n}", *rest) for n, (unit, *rest) in enumerate(asked) if not rest[-1]],
        paired=False,
    )


@pytest.mark.parametrize("seed", range(8))
def test_a_second_of_several_parts_is_counted_as_a_whole(seed: int) -> None:
    dice = Random(seed)
    number = dice.randrange(windows.PART - 2, 3 * windows.PART)
    rests: list[int] = []
    asked: list[Observation] = []
    for _ in range(number):
        size = dice.choice([1, 1, 1, 3, 150])
        one = seen(
            dice.choice([PRODUCTION, CANDIDATE]),
            failed=dice.random() < 0.1,
            rows=size,
            entity=dice.choice([None, "a", "b", str(dice.random())]),
            origin=dice.choice(["JFK", "EWR", None]),
        )
        asked.append(one._replace(ours=answer(*[0.7] * size)))
    plain = [
        (one.request.entity, one.request.columns["origin"], one.arm, None, one.failed)
        for one in asked
    ]
    counter = Counter("w0", STATE, lambda: rests.append(1))
    window, rows = counter.window(
        asked, 0, NONE, number=1, paired=False, weight=500, lost=0, streak=0, broken=0
    )
    assert window.exposed == _exposures(plain, paired=False)
    assert window.answered == _exposures_of_sound(plain)
    assert len(rows) == sum(one.request.rows for one in asked)
    assert len(rests) >= len(rows) / (windows.PART + 150)


@given(ASKED)
def test_pairs_are_those_that_plain_counting_finds(asked: Any) -> None:
    pairs: list[Observation] = []
    cells: dict[str, list[int]] = {}
    for unit, origins, _, score, _ in asked:
        rows = len(origins)
        wanted = Request(
            id="q",
            columns={"origin": np.array(origins, dtype=object)},
            rows=rows,
            entity=unit,
            draw=0,
        )
        theirs = None if score is None else answer(*[score] * rows)
        ours = answer(*[0.7] * rows)
        pairs.append(
            Observation(
                1.0,
                wanted,
                PRODUCTION,
                100,
                failed=False,
                weight=0,
                ours=ours,
                mirrored=True,
                theirs=theirs,
            )
        )
        for name in _names(origins):
            for slice_ in ("", name):
                cell = cells.setdefault(slice_, [0] * 7)
                cell[0] += 1
                yes = score is not None and score >= 0.5
                cell[1] += yes
                cell[6 if score is None else 2 if yes else 3] += 1
    window = count(*pairs, paired=True)
    assert window.agreement == {name: Agreement(*cell) for name, cell in cells.items()}
    assert window.exposed == _exposures(asked, paired=True)


def test_what_was_never_asked_is_no_unit_and_still_in_the_split_and_in_the_log() -> None:
    """The assignment is what the split is checked with; the caller was answered by production."""
    spared = seen(CANDIDATE, entity="N2", failed=True, dropped=True)
    window, rows = Counter("w0", STATE).window(
        [seen(), spared], 0, NONE, number=1, paired=False, weight=500, lost=0, streak=0, broken=0
    )
    assert (window.exposed[""], window.fresh) == ((1, 0), (1, 1))
    assert (window.units, window.bad) == ((), {})
    assert [row.arm for row in rows] == ["production", "production"]
    alone = count(spared)
    assert (alone.exposed, alone.fresh) == ({}, (0, 1))


def test_how_a_release_fared_is_counted_when_it_is_known_and_no_second_time_in_the_split() -> None:
    bounds = SlowBounds(10_000, 50_000)
    window, rows = Counter("w0", STATE).window(
        [
            seen(CANDIDATE, entity=None, failed=True, dropped=True),
            seen(CANDIDATE, entity=None, micros=80_000, settles=True),
            seen(CANDIDATE, entity=None, failed=True, settles=True),
        ],
        0,
        bounds,
        number=1,
        paired=False,
        weight=500,
        lost=0,
        streak=0,
        broken=0,
    )
    assert (window.exposed[""], window.answered[""], window.fresh) == ((0, 2), (0, 1), (0, 1))
    assert {metric: cells[""] for metric, cells in window.bad.items()} == {
        "errors": (0, 1),
        "latency.p50": (0, 1),
        "latency.p99": (0, 1),
    }
    assert len(rows) == 1
