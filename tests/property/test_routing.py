"""Routing splits evenly, stays put, and only grows."""

import random
import subprocess
import sys

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from kedge.core.release.commands import Canary, Promote, Shadow
from kedge.core.routing import Reason, bucket, compile_plan, key_of
from kedge.core.values import BUCKETS, Arm
from kedge.testing.samples import endpoint, release, run

SEED = 20260105
SETTLED = run(endpoint(release(1), release(2)), Promote(1))
CANARY = run(SETTLED, Canary(2, 100))
SHADOW = run(SETTLED, Shadow(2))

entities = st.text(min_size=1)
weights = st.integers(0, BUCKETS)
draws = st.integers(0, BUCKETS - 1)
salts = st.text(max_size=80)


def chi_square(counts: list[int]) -> float:
    expected = sum(counts) / len(counts)
    return sum((count - expected) ** 2 / expected for count in counts)


def test_buckets_are_uniform_for_each_kind_of_entity() -> None:
    """100 cells, 99 degrees of freedom: chi-square above 149 has a chance of 1 in 1,000.

    Nothing is drawn anew at each run, so a pass today is a pass tomorrow.
    """
    dice = random.Random(SEED)
    kinds = {
        "tail numbers": [f"N{number}" for number in range(100_000)],
        "e-mails": [f"user{number}@example.org" for number in range(100_000)],
        "random": [f"{dice.getrandbits(128):032x}" for _ in range(100_000)],
    }
    for kind, names in kinds.items():
        cells = [0] * 100
        for name in names:
            cells[bucket(key_of("flights/7"), name) // 100] += 1
        assert chi_square(cells) < 149, kind


def test_two_rollouts_split_the_same_callers_independently() -> None:
    """4 cells, 3 degrees of freedom: chi-square above 16.3 has a chance of 1 in 1,000."""
    keys = key_of("flights/7"), key_of("flights/8")
    cells = [0, 0, 0, 0]
    for number in range(100_000):
        first, second = (bucket(key, f"N{number}") < BUCKETS // 2 for key in keys)
        cells[2 * first + second] += 1
    assert chi_square(cells) < 16.3


def test_a_canary_gets_the_share_that_was_asked_for() -> None:
    """Within four standard deviations of a binomial."""
    for weight in (100, 500, 2500, 5000):
        plan = compile_plan(msgspec.structs.replace(CANARY, weight=weight))
        n, p = 50_000, weight / BUCKETS
        hit = sum(plan.choose(f"N{i}", 0).arm is Arm.CANDIDATE for i in range(n))
        assert abs(hit - n * p) < 4 * (n * p * (1 - p)) ** 0.5


@given(salt=salts, entity=entities, smaller=weights, larger=weights)
def test_a_larger_weight_only_adds_entities(
    salt: str, entity: str, smaller: int, larger: int
) -> None:
    smaller, larger = sorted((smaller, larger))
    few, many = (
        compile_plan(msgspec.structs.replace(CANARY, salt=salt, weight=weight))
        for weight in (smaller, larger)
    )
    if few.choose(entity, 0).arm is Arm.CANDIDATE:
        assert many.choose(entity, 0).arm is Arm.CANDIDATE


@given(entity=entities, smaller=weights, larger=weights)
def test_a_larger_sample_only_adds_entities(entity: str, smaller: int, larger: int) -> None:
    smaller, larger = sorted((smaller, larger))
    few, many = (
        compile_plan(msgspec.structs.replace(SHADOW, sample=sample)).choose(entity, 0)
        for sample in (smaller, larger)
    )
    assert few.shadow is None or many.shadow == few.shadow


@given(salt=salts, entity=entities)
def test_a_bucket_is_a_bucket(salt: str, entity: str) -> None:
    assert 0 <= bucket(key_of(salt), entity) < BUCKETS


@given(entity=entities | st.none() | st.just(""), draw=draws, weight=weights)
def test_only_a_lease_lets_a_candidate_answer(entity: str | None, draw: int, weight: int) -> None:
    row = msgspec.structs.replace(CANARY, weight=weight)
    choice = compile_plan(row, lease=False).choose(entity, draw)
    assert (choice.arm, choice.release, choice.reason) == (Arm.PRODUCTION, 1, Reason.LEASE)


@given(entity=entities | st.none() | st.just(""), draw=draws, asked=st.sampled_from((1, 2)))
def test_a_tester_always_gets_what_was_asked(entity: str | None, draw: int, asked: int) -> None:
    assert compile_plan(CANARY).choose(entity, draw, asked).release == asked


@given(entity=entities | st.none(), draw=draws, weight=weights, sample=weights)
def test_a_choice_is_one_of_those_built_at_compile_time(
    entity: str | None, draw: int, weight: int, sample: int
) -> None:
    for row in (
        msgspec.structs.replace(CANARY, weight=weight),
        msgspec.structs.replace(SHADOW, sample=sample),
    ):
        plan = compile_plan(row)
        built = (plan.inside, plan.outside, plan.keyless_inside, plan.keyless_outside)
        choice = plan.choose(entity, draw)
        assert any(choice is one for one in (*built, plan.shadowed))


@settings(max_examples=20)
@given(weight=st.integers(1, BUCKETS - 1))
def test_callers_without_an_entity_never_all_go_to_one_arm(weight: int) -> None:
    plan = compile_plan(msgspec.structs.replace(CANARY, weight=weight))
    arms = [plan.choose(None, draw).arm for draw in range(BUCKETS)]
    assert arms.count(Arm.CANDIDATE) == weight


def test_another_process_with_another_hash_seed_finds_the_same_buckets() -> None:
    names = [f"N{number}" for number in range(50)] + ["Zoë", "東京", "x" * 500]
    script = (
        "import json, sys; from kedge.core.routing import bucket, key_of; "
        "print([bucket(key_of('flights/7'), name) for name in json.load(sys.stdin)])"
    )
    here = [bucket(key_of("flights/7"), name) for name in names]
    for seed in ("0", "1"):
        there = subprocess.run(
            [sys.executable, "-c", script],
            input=msgspec.json.encode(names),
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            stdout=subprocess.PIPE,
            check=True,
        )
        assert msgspec.json.decode(there.stdout) == here
