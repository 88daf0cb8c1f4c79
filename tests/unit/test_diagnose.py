"""The cause that is named, from which facts; and the result if a fact is missing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from kedge.core.diagnosis.contrast import Cell, Floats
from kedge.core.diagnosis.diagnose import diagnose
from kedge.core.diagnosis.facts import Facts, Instruments, Sample
from kedge.core.diagnosis.findings import Act, Cause, Diagnosis, Evidence, Kind
from kedge.core.errors import Refused
from kedge.core.values import ColumnStatistics, Output

N = 4_000
OUTPUT = Output(kind="binary", score="p")
BOTH = (("new", "new"), ("old", "old"), ("new", "old"), ("old", "new"))
Columns = dict[str, Any]


def logit(c: Columns, concept: float = 0.0) -> Floats:
    return np.asarray(1.5 * c["a"] - 2 * concept * c["b"] + c["b"] + 0.7 * (c["c"] == "oslo"))


def chance(eta: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-eta)))


def columns(seed: int, n: int = N) -> Columns:
    rng = np.random.default_rng(seed)
    words = rng.choice(["oslo", "lima", "kyoto"], n).astype(object)
    return {"a": rng.normal(size=n), "b": rng.normal(size=n), "c": words}


def model(c: Columns, *, worse: float = 0.0, fill: float = 0.0) -> Floats:
    """A model that knows the truth, but for what it is made worse by."""
    known = {**c, "a": np.where(np.isnan(c["a"]), fill, c["a"])}
    return chance(logit(known) * (1 - worse))


def outcomes(c: Columns, seed: int, concept: float = 0.0) -> Floats:
    rng = np.random.default_rng(seed)
    return (rng.random(len(c["a"])) < chance(logit(c, concept))).astype(np.float64)


def facts(
    *,
    seed: int = 1,
    worse: float = 0.0,
    bug: float = 1.0,
    concept: float = 0.0,
    labelled: int = 2_000,
    today: Columns | None = None,
    served: Columns | None = None,
    truth: Floats | None = None,
    **more: Any,
) -> Facts:
    """A product: the new model is `worse`, the new features multiply `b` by `bug`."""
    before, now = columns(10 * seed), today or columns(10 * seed + 1)
    known = outcomes(now, 10 * seed + 3, concept) if truth is None else truth.copy()
    known[labelled:] = np.nan
    seen = served or now
    broken = {**seen, "b": seen["b"] * bug}
    answers: dict[Cell, Floats] = {
        ("new", "new"): model(broken, worse=worse),
        ("old", "old"): model(seen),
        ("new", "old"): model(seen, worse=worse),
        ("old", "new"): model(broken),
    }
    given: dict[str, Any] = {
        "output": OUTPUT,
        "metric": "brier",
        "new": "r3",
        "old": "r2",
        "answers": answers,
        "current": Sample(columns=seen, truth=known),
        "reference": Sample(
            columns=before, truth=outcomes(before, 10 * seed + 2), scores=model(before)
        ),
    }
    return Facts(**{**given, **more})


def row(found: Diagnosis, question: str) -> Evidence:
    return next(each for each in found.evidence if each.question == question)


def codes(found: Diagnosis) -> set[str]:
    return {lack.code for lack in found.missing}


# ---------------------------------------------------------------- one cause


def test_chance_is_named_only_when_it_is_proven() -> None:
    found = diagnose(facts())
    assert found.causes == ("noise",)
    assert found.action.code is Act.NOTHING
    assert "are excluded" in found.findings[0].statement
    few = diagnose(facts(labelled=150))
    assert few.causes == ("cannot_tell",), "absence of evidence is no proof"
    assert "more_outcomes" in codes(few)
    assert few.action.code is Act.HOLD


def test_a_worse_model_is_rolled_back() -> None:
    found = diagnose(facts(worse=0.6))
    assert found.causes == ("model",)
    assert found.action.code is Act.ROLL_BACK_MODEL
    assert found.effect is not None
    assert found.effect.high < 0
    assert found.headline.startswith("rolling r3 back to r2 would change brier by -0.0")
    assert found.findings[0].share == pytest.approx(1.0, abs=0.4)


def test_a_bug_in_the_new_features_is_the_features() -> None:
    base = facts(bug=100.0)
    now = base.current.columns
    mixed = {**now, "b": now["b"] * 100}
    swaps = {
        "b": (model(dict(mixed)), model(dict(now))),
        "a": (model(dict(now)), model(dict(mixed))),
    }
    found = diagnose(replace(base, swaps=swaps))
    assert found.causes == ("features",)
    assert found.findings[0].columns == ("b",)
    assert found.action.code is Act.ROLL_BACK_FEATURES
    assert row(found, "swap").answer == "b"
    assert row(found, "back_features").verdict == "yes"


def test_nulls_upstream_are_the_data_and_rolling_back_does_not_help() -> None:
    served = columns(11)
    served["a"] = np.where(np.arange(N) % 10 < 3, np.nan, served["a"])
    truth = outcomes(columns(11), 13)
    found = diagnose(facts(served=served, truth=truth))
    assert found.causes == ("data",)
    assert found.findings[0].columns == ("a",)
    assert found.action.code is Act.HOLD_FIX_DATA
    assert "it would not help, since the data is broken" in found.headline
    assert found.findings[0].effect is not None
    assert found.findings[0].effect.low > 0


def test_other_outcomes_are_the_world_and_rolling_back_is_the_regression() -> None:
    """The new model is better; it only looks worse than before."""
    found = diagnose(facts(concept=1.0))
    assert found.causes == ("world",)
    assert found.findings[0].kind is Kind.CONCEPT
    assert found.action.code is Act.GO_FORWARD
    assert "it would not help, since the world changed" in found.headline


def test_harder_inputs_are_distinguished_from_other_outcomes() -> None:
    many = columns(11, 10 * N)
    kept = np.flatnonzero(
        np.random.default_rng(5).random(10 * N) < np.exp(-1.5 * np.abs(logit(many)))
    )[:N]
    today = {name: column[kept] for name, column in many.items()}
    found = diagnose(facts(today=today))
    assert found.causes == ("world",)
    assert found.findings[0].kind is Kind.HARDER_INPUTS


def test_more_of_one_outcome_is_the_label_mix() -> None:
    many = columns(11, 10 * N)
    truth = outcomes(many, 13)
    rng = np.random.default_rng(5)
    kept = rng.permutation(
        np.r_[np.flatnonzero(truth == 1)[: 3 * N // 4], np.flatnonzero(truth == 0)[: N // 4]]
    )
    today = {name: column[kept] for name, column in many.items()}
    found = diagnose(facts(today=today, truth=truth[kept]))
    assert found.causes == ("label_mix",)
    assert "threshold" in found.action.sentence


def test_inputs_unlike_any_before_are_not_explained() -> None:
    today = columns(11)
    today["c"] = np.full(N, "quito", dtype=object)
    today |= {name: today[name] + 30 for name in ("a", "b")}
    truth = outcomes(columns(11), 13)
    before = columns(10)
    given = facts(
        today=today,
        truth=truth,
        reference=Sample(
            columns={name: before[name] for name in ("a", "b")},
            truth=outcomes(before, 12),
            scores=model(before),
        ),
    )
    now = Sample(columns={name: today[name] for name in ("a", "b")}, truth=given.current.truth)
    found = diagnose(replace(given, current=now, ranges={}))
    kinds = {f.kind for f in found.findings if f.cause is Cause.WORLD}
    assert kinds <= {Kind.NO_OVERLAP}, "every row is out of range, so there is no clean one"
    assert "data" in found.causes


def test_a_column_that_is_lost_altogether_leaves_no_request_to_judge_the_world_by() -> None:
    served = {**columns(11), "a": np.full(N, np.nan)}
    found = diagnose(facts(served=served, truth=outcomes(columns(11), 13)))
    assert found.causes == ("data",)
    assert row(found, "world").verdict == "not tested"
    assert not found.missing


def shifted(by: float, n: int = 200) -> Diagnosis:
    """Losses of 3 with a spread of 0.5, and today the same `by` more: the rise is exact."""
    lost = 3 + 0.5 * np.sqrt(12) * (np.arange(n) / (n - 1) - 0.5)
    inputs = {"x": np.random.default_rng(1).normal(size=n)}
    same = Facts(
        output=Output(kind="score", tolerance=1.0),
        metric="absolute_error",
        new="r1",
        reference=Sample(columns=inputs, truth=lost, scores=np.zeros(n)),
        reference_of="new",
        current=Sample(columns=inputs, truth=lost + by),
        answers={("new", "new"): np.zeros(n)},
    )
    return diagnose(same)


def test_a_rise_between_chance_and_proof_is_neither() -> None:
    """At 200 requests of each window the standard error is 0.05, and the floor 0.15."""
    assert shifted(0.0).causes == ("noise",)
    assert shifted(0.16).causes == ("cannot_tell",), "3.2 errors up: too much for chance"
    assert shifted(0.22).causes == ("world",)
    assert shifted(0.12, n=20_000).causes == ("noise",), "certain, and no incident"


# ---------------------------------------------------------------- two causes


def test_two_causes_are_two_findings() -> None:
    served = columns(11)
    served["a"] = np.where(np.arange(N) % 10 < 3, np.nan, served["a"])
    found = diagnose(facts(served=served, truth=outcomes(columns(11), 13), worse=0.7))
    assert set(found.causes) == {"model", "data"}
    assert "it would help in part, since the data is broken too" in found.headline
    assert found.action.code is Act.ROLL_BACK_MODEL
    assert "then hold every rollout" in found.action.sentence


def test_model_and_features_can_both_be_to_blame() -> None:
    """Each is worse on its own: the features lose `b`, the model lost `a`."""
    base = facts()
    now = dict(base.current.columns)
    dull = {**now, "b": np.zeros(N)}

    def blind(c: Columns) -> Floats:
        return model({**c, "a": np.zeros(N)})

    answers = {
        ("new", "new"): blind(dull),
        ("old", "old"): model(now),
        ("new", "old"): blind(now),
        ("old", "new"): model(dull),
    }
    found = diagnose(replace(base, answers=answers))
    assert set(found.causes) == {"model", "features"}
    assert found.action.code is Act.ROLL_BACK


def test_an_effect_of_both_parts_together_is_the_release() -> None:
    """New features that only the old model can read, and the other way round, belong to neither alone."""
    base = facts(worse=0.9)
    cells = dict(base.answers)
    cells["new", "old"] = cells["old", "new"] = cells["old", "old"]
    found = diagnose(replace(base, answers=cells))
    assert found.causes == ("release",)
    assert "about the same part" in found.findings[0].statement
    assert found.action.code is Act.ROLL_BACK


def test_what_is_left_beside_broken_rows_is_not_called_harder() -> None:
    """Nulls in the easy requests leave the hard ones over; the world did not change."""
    today = columns(11)
    easy = np.abs(logit(today)) > 1.2
    served = {**today, "a": np.where(easy, np.nan, today["a"])}
    found = diagnose(facts(served=served, truth=outcomes(today, 13)))
    assert found.causes == ("data",)
    assert "broken requests may have been the easier ones" in found.evidence[-1].answer


def test_what_loses_more_than_the_hardest_ever_did_is_the_world_beside_a_broken_column() -> None:
    """A storm takes the sensor away and turns the outcomes over: both are named."""
    today, dice = columns(11), np.random.default_rng(5)
    served = {**today, "a": np.where(dice.random(N) < 0.5, np.nan, today["a"])}
    base = facts(served=served, truth=1 - outcomes(today, 13))
    assert base.reference is not None
    before = {**base.reference.columns, "cold": dice.normal(0, 1, N)}
    now = {**served, "cold": dice.normal(-2.5, 0.5, N)}
    found = diagnose(
        replace(
            base,
            reference=replace(base.reference, columns=before),
            current=replace(base.current, columns=now),
        )
    )
    assert found.causes == ("world", "data")
    assert found.findings[0].kind is Kind.NO_OVERLAP
    assert found.action.code is Act.HOLD_FIX_DATA


def test_a_month_that_passed_is_neither_a_fault_nor_a_difference_of_the_windows() -> None:
    base = facts(truth=1 - outcomes(columns(11), 13))
    assert base.reference is not None
    before = replace(base.reference, columns={**base.reference.columns, "month": np.full(N, 7.0)})
    now = replace(base.current, columns={**base.current.columns, "month": np.full(N, 8.0)})
    found = diagnose(replace(base, reference=before, current=now))
    assert found.causes == diagnose(base).causes == ("world",)
    assert found.findings[0].kind == diagnose(base).findings[0].kind


# ---------------------------------------------------------------- cells that do not exist


def without(base: Facts, *cells: Cell) -> Facts:
    return replace(base, answers={c: v for c, v in base.answers.items() if c not in cells})


def test_across_two_schemas_the_release_is_not_divided() -> None:
    found = diagnose(without(facts(worse=0.6), ("new", "old"), ("old", "new")))
    assert found.causes == ("release",)
    assert found.action.code is Act.ROLL_BACK
    assert "replay" in codes(found)
    assert not [each for each in found.evidence if each.question in ("model", "features")]


def test_one_way_is_enough_to_divide() -> None:
    assert diagnose(without(facts(worse=0.6), ("new", "old"))).causes == ("model",)
    assert diagnose(without(facts(bug=100.0), ("old", "new"))).causes == ("features",)


def test_a_release_that_differs_in_one_part_needs_no_replay() -> None:
    base = without(facts(worse=0.6), ("new", "old"), ("old", "new"))
    assert diagnose(replace(base, changed=frozenset({"model"}))).causes == ("model",)
    assert diagnose(replace(base, changed=frozenset({"features"}))).causes == ("features",)


# ---------------------------------------------------------------- what is missing


def test_without_the_old_release_no_release_is_blamed() -> None:
    found = diagnose(without(facts(worse=0.6), ("old", "old")))
    assert found.causes == ("cannot_tell",)
    assert found.effect is None
    assert "old_answers" in codes(found)
    assert "reverse shadow" in found.headline


def test_without_the_present_answers_no_release_is_blamed() -> None:
    found = diagnose(without(facts(worse=0.6), ("new", "new")))
    assert found.causes == ("cannot_tell",)
    assert "new_answers" in codes(found)


def test_the_first_release_has_no_way_back() -> None:
    base = facts()
    first = replace(
        base, old=None, answers={("new", "new"): base.answers["old", "old"]}, reference_of="new"
    )
    found = diagnose(first)
    assert found.headline == "no earlier release is good: r3 cannot be rolled back"
    assert found.causes == ("noise",), "the release is what it was, and so is the world"
    assert diagnose(replace(first, reference_of="old")).causes == ("cannot_tell",)
    assert "previous" in codes(found)
    now = facts(concept=1.0)
    moved = replace(first, current=now.current, answers={("new", "new"): now.answers["old", "old"]})
    assert diagnose(moved).causes == ("world",), (
        "the same release, then and now: that needs no other"
    )


def test_without_labels_a_diagnosis_names_what_moved_and_not_whether_to_the_worse() -> None:
    found = diagnose(facts(worse=0.6, labelled=0))
    assert found.causes == ("cannot_tell",)
    assert "outcomes" in codes(found)
    moved, kept = row(found, "model"), row(found, "features")
    assert moved.figure is not None
    assert kept.figure is not None
    assert moved.figure > 0.05
    assert kept.figure == pytest.approx(0.0, abs=1e-9)
    assert (moved.verdict, row(found, "release").verdict) == ("unclear", "not tested")


def test_where_every_request_of_few_units_is_labelled_more_units_are_asked_for() -> None:
    """A log that keeps a tenth of 178 bottles has 18 of them, however often they are asked about."""
    one = facts(worse=0.6, labelled=N)
    few = replace(one, current=replace(one.current, units=np.arange(N) % 18))
    found = diagnose(few)
    assert found.causes == ("cannot_tell",)
    assert "more_units" in codes(found)
    assert "outcomes" not in codes(found)


def test_a_broken_column_needs_no_labels() -> None:
    served = columns(11)
    served["a"] = np.where(np.arange(N) % 10 < 3, np.nan, served["a"])
    found = diagnose(facts(served=served, truth=outcomes(columns(11), 13), labelled=0))
    assert found.causes == ("data",)
    assert "outcomes" in codes(found)
    assert "not known yet" in found.headline


def test_without_a_reference_the_release_is_still_judged_and_noise_is_not_claimed() -> None:
    assert diagnose(facts(worse=0.6, reference=None)).causes == ("model",)
    found = diagnose(facts(reference=None))
    assert found.causes == ("cannot_tell",)
    assert "reference" in codes(found)
    assert found.effect is not None, "what rolling back would change is still known"


def test_nothing_but_todays_requests() -> None:
    found = diagnose(Facts(output=OUTPUT, metric="brier", new="r3", current=facts().current))
    assert found.causes == ("cannot_tell",)
    assert codes(found) == {"previous", "reference"}


def test_labels_of_one_arm_serve_both_releases() -> None:
    """Only what production answered gets a label; the replay answered those requests too."""
    base = facts(worse=0.6)
    new = base.answers["new", "new"].copy()
    new[1_500:2_000] = np.nan
    found = diagnose(without(replace(base, answers={**base.answers, ("new", "new"): new})))
    assert found.causes == ("model",)
    assert found.effect is not None
    assert found.effect.n == 1_500


def test_two_arms_that_answered_different_requests_are_compared_as_such() -> None:
    base = without(facts(worse=0.8, labelled=N), ("new", "old"), ("old", "new"))
    half = np.arange(N) % 2 == 0
    cells = {
        cell: np.where(half == (cell[0] == "new"), answers, np.nan)
        for cell, answers in base.answers.items()
    }
    arms = replace(base, answers=cells)
    found = diagnose(arms)
    assert found.causes == ("release",)
    uneven = Instruments(coverage={"production": (1_900, 2_000), "previous": (900, 2_000)})
    found = diagnose(replace(arms, instruments=uneven))
    assert "release" not in found.causes, "labels that come for one arm rather than the other"


@pytest.mark.parametrize(
    ("told", "code"),
    [
        (Instruments(split_fault="8 % of the units instead of 5 %"), "split"),
        (Instruments(lost=0.2), "log"),
    ],
)
def test_figures_that_cannot_be_trusted_blame_no_release(told: Instruments, code: str) -> None:
    found = diagnose(facts(worse=0.6, instruments=told))
    assert found.causes == ("cannot_tell",)
    assert found.findings[0].kind is Kind.INSTRUMENTATION
    assert found.action.code is Act.HOLD_FIX_LOGGING
    assert code in codes(found)
    assert found.effect is None


# ---------------------------------------------------------------- the training set


def trained(nulls: int) -> dict[str, ColumnStatistics]:
    return {"a": ColumnStatistics(count=N, nulls=nulls, std=1.0, distinct=N)}


def test_a_null_that_the_model_never_saw_is_the_model() -> None:
    """The nulls were there before, so nothing upstream broke; the new model was not trained for them."""
    before, now = columns(10), columns(11)
    for each in (before, now):
        each["a"] = np.where(np.arange(N) % 10 < 3, np.nan, each["a"])
    given = facts(
        served=now,
        truth=outcomes(columns(11), 13),
        labelled=0,
        reference=Sample(
            columns=before,
            truth=outcomes(columns(10), 12),
            scores=model(before),
        ),
        training={"new": trained(0), "old": trained(3 * N // 10)},
    )
    found = diagnose(given)
    assert found.causes == ("model",)
    assert found.findings[0].kind is Kind.TRAIN_SERVE
    assert found.action.code is Act.ROLL_BACK_MODEL
    alike = diagnose(replace(given, training={"new": trained(0), "old": trained(0)}))
    assert [f.is_shared for f in (*found.findings, *alike.findings)] == [False, True]
    assert alike.action.code is Act.GO_FORWARD, "the old model was not trained for them either"
    well = diagnose(replace(given, training={"new": trained(3 * N // 10)}))
    assert well.causes == ("cannot_tell",)


def test_a_null_that_came_today_is_the_data_and_not_the_model() -> None:
    served = columns(11)
    served["a"] = np.where(np.arange(N) % 10 < 3, np.nan, served["a"])
    inputs = {"new": {"a_scaled": served["a"] * 2}}
    training = {"new": {"a_scaled": trained(0)["a"]}}
    found = diagnose(
        facts(
            served=served,
            truth=outcomes(columns(11), 13),
            labelled=0,
            inputs=inputs,
            training=training,
        )
    )
    assert found.causes == ("data",)


# ---------------------------------------------------------------- whatever is asked


def test_units_that_repeat_widen_the_interval() -> None:
    base = facts(worse=0.6)
    units = np.array([f"u{n // 20}" for n in range(N)], dtype=object)
    wide = diagnose(replace(base, current=replace(base.current, units=units))).effect
    plain = diagnose(base).effect
    assert wide is not None
    assert plain is not None
    assert wide.value == plain.value
    assert wide.high - wide.low != plain.high - plain.low
    one = np.full(N, "u", dtype=object)
    found = diagnose(replace(base, current=replace(base.current, units=one)))
    assert found.causes == ("cannot_tell",), "one unit is one unit"


@pytest.mark.parametrize("metric", ["error_rate", "log_loss", "brier"])
def test_every_metric_of_a_binary_output(metric: str) -> None:
    assert diagnose(facts(worse=1.3, metric=metric)).causes == ("model",)


def test_a_metric_that_does_not_fit_and_arrays_of_two_lengths_are_refused() -> None:
    with pytest.raises(Refused, match="absolute_error cannot judge"):
        diagnose(facts(metric="absolute_error"))
    base = facts()
    with pytest.raises(ValueError, match="one row a request"):
        diagnose(replace(base, answers={("new", "new"): np.zeros(3)}))


def test_every_diagnosis_says_what_would_change_it() -> None:
    for given in (facts(), facts(worse=0.6), facts(concept=1.0), facts(labelled=0)):
        found = diagnose(given)
        assert found.would_change
        assert found.headline
        assert found.evidence[0].question == "split"


def with_spells(*spells: slice) -> Diagnosis:
    """The same inputs with other outcomes today, and in some spells of the reference as well."""
    before = columns(10)
    truth, other = outcomes(before, 12), outcomes(before, 12, 0.6)
    for spell in spells:
        truth[spell] = other[spell]
    at = np.arange(N) / N
    return diagnose(
        facts(
            concept=0.6,
            reference=Sample(columns=before, truth=truth, scores=model(before), at=20 * at),
            current=Sample(columns=columns(11), truth=outcomes(columns(11), 13, 0.6), at=20 + at),
        )
    )


def test_a_spell_that_came_and_went_before_is_noise_and_one_that_lasts_is_the_world() -> None:
    day = N // 20
    assert with_spells().causes == ("world",)
    usual = with_spells(slice(3 * day, 5 * day), slice(9 * day, 11 * day))
    assert usual.causes == ("noise",)
    assert (
        "it comes and goes: 2 of the 20 stretches" in usual.findings[0].statement
    )  # half, by chance
    assert "the release by more than" in usual.findings[0].statement
    assert usual.action.code is Act.NOTHING
    assert row(usual, "spells").verdict == "yes"
    lasts = with_spells(slice(17 * day, N))
    assert lasts.causes == ("world",)
    assert row(lasts, "spells").verdict == "no"


def test_a_mismatch_that_both_releases_had_all_along_is_not_blamed_beside_labels() -> None:
    before, now = columns(10), columns(11)
    for each in (before, now):
        each["a"] = np.where(np.arange(N) % 10 < 3, np.nan, each["a"])
    known = {"new": trained(0), "old": trained(0)}
    found = diagnose(
        facts(
            served=now,
            bug=3.0,
            truth=outcomes(columns(11), 13),
            changed=frozenset({"features"}),
            reference=Sample(columns=before, truth=outcomes(columns(10), 12), scores=model(before)),
            training=known,
        )
    )
    assert found.causes == ("features",)
    assert row(found, "train_serve").verdict == "yes", "it is still reported"
