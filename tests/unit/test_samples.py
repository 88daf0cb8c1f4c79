"""Samples for Prometheus: what each value of the row, the roster and the evidence becomes."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from kedge.core.evidence.label_summary import LabelDelays, LabelSummary
from kedge.core.evidence.records import Reused
from kedge.core.evidence.rules import Verdict
from kedge.core.metrics import definitions as of
from kedge.core.metrics.definitions import METRICS, MODEL_BOUNDS, Metric, MetricKind
from kedge.core.metrics.history import Durations, LedgerHistory
from kedge.core.metrics.readings import (
    CopyReading,
    EndpointReading,
    EvidenceReading,
    SiteReading,
)
from kedge.core.metrics.samples import build
from kedge.core.metrics.totals import SUM, Series
from kedge.core.stored.roster import Member, ReplicaHold
from kedge.core.values import Placement, Stage, State
from kedge.engine.recording.recorder import bin_upper_us, latency_bin

CANARY = State(
    endpoint="flights",
    epoch=7,
    stage=Stage.CANARY,
    production=1,
    candidate=2,
    salt="s",
    weight=2_500,
    back=1,
)
LABELS = LabelSummary(
    metric="error_rate",
    version="v1",
    versions={"v1": 30},
    units=(20, 10),
    loss=(0.1, None),
    figures=(0.2, None),
    estimates={},
    declined=0,
    unfit=0,
    output=None,
    reads="class",
    unfit_because=(),
    matched=(0, 0),
    fault="",
    delay_s=LabelDelays(60.0, None),
    coverage={"production": (20, 80)},
    uneven="",
    reused=Reused(),
)


def verdict(
    segment: str, units: int, word: Any = "inconclusive", metric: str = "errors"
) -> Verdict:
    return Verdict(
        metric=metric, segment=segment, verdict=word, reason="", units=(units, units), bad=(1, 2)
    )


def evidence(*verdicts: Verdict) -> EvidenceReading:
    return EvidenceReading(
        judged=(1, 2),
        arms=("production", "candidate"),
        log_arms=("production", "candidate"),
        decision="broken input",
        verdicts=verdicts,
        threshold=100.0,
        margins={"errors": 0.5},
        healthy_s=0.0,
        window_s=None,
        newest=90.0,
        labels=LABELS,
    )


def site(*endpoints: EndpointReading, members: tuple[Member, ...] = ()) -> SiteReading:
    return SiteReading(
        at=100.0,
        version="1.2",
        endpoints=endpoints,
        members=members,
        silent=frozenset({"quiet"}),
        ledger=True,
        evidence=False,
    )


def reading(state: State = CANARY, **more: Any) -> EndpointReading:
    return EndpointReading(state=state, step=(3, 4), history=LedgerHistory().totals(), **more)


def samples(
    of_site: SiteReading, metric: Metric, series: dict[Series, int] | None = None, **how: bool
) -> dict[tuple[str, ...], Any]:
    found = build(of_site, series or {}, bin_upper_us, segments=how.get("segments", True))
    return {s.labels: s.value for f in found if f.metric == metric for s in f.samples}


def test_every_metric_has_a_base_unit_and_labels_of_its_kind() -> None:
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    for metric in METRICS:
        assert (metric.kind is MetricKind.COUNTER) == metric.name.endswith("_total")
        assert bool(metric.bounds) == (metric.kind is MetricKind.HISTOGRAM)
        assert not metric.name.endswith(("_ms", "_percent", "_us"))
        assert ("segment" in metric.labels) == (metric in (of.UNITS, of.BAD_UNITS, of.VERDICTS))


def test_the_row_is_exported() -> None:
    whole = site(reading())
    assert samples(whole, of.EPOCH) == {("flights",): 7}
    assert samples(whole, of.STAGE)["flights", "canary"] == 1
    assert samples(whole, of.STAGE)["flights", "shadow"] == 0
    assert samples(whole, of.WEIGHT) == {
        ("flights", "r1", "production"): 0.75,
        ("flights", "r2", "candidate"): 0.25,
    }
    assert samples(whole, of.STEP) == {("flights",): 3}
    assert samples(whole, of.BUILD) == {("1.2",): 1}
    assert samples(whole, of.LEDGER) == {(): 1}
    assert samples(whole, of.EVIDENCE) == {(): 0}


def replica(name: str, epoch: int, state: str = "ready", **more: Any) -> Member:
    hold = ReplicaHold("flights", 1, Placement.INLINE, state)
    return Member(
        name=name,
        host="h",
        pid=1,
        kind="gateway",
        address="",
        started_at="",
        beat_at=0.0,
        ledger_at=0.0,
        epochs={"flights": epoch},
        holds=(hold,),
        **more,
    )


def test_replicas_are_counted_by_what_they_serve() -> None:
    members = (
        replica("w0", 7),
        replica("w1", 6, "loading"),
        replica("w2", 7, pinned={"flights": 1}),
        replica("quiet", 7),
        replace(replica("control", 0), kind="control"),
    )
    whole = site(reading(), members=members)
    assert samples(whole, of.REPLICAS) == {
        ("flights", "acknowledged"): 1,
        ("flights", "behind"): 1,
        ("flights", "silent"): 1,
        ("flights", "pinned"): 1,
    }
    assert samples(whole, of.BACK) == {
        ("flights", "r1", "ready"): 3,
        ("flights", "r1", "cold"): 1,
    }
    assert samples(whole, of.PROCESSES) == {("gateway",): 4, ("control",): 1}


def test_ratios_have_a_value_only_where_something_was_counted() -> None:
    shadow = replace(CANARY, stage=Stage.SHADOW, sample=10_000)
    whole = site(reading(shadow, copies=CopyReading(8, 6, 0, 0)))
    assert samples(whole, of.COVERAGE) == {("flights", "r2"): 0.75}
    assert samples(whole, of.AGREEMENT) == {}


def test_readiness_is_unknown_without_a_check() -> None:
    assert samples(site(reading()), of.READY) == {}
    assert samples(site(reading(failed=())), of.READY) == {("flights",): 1}
    failed = site(reading(failed=("owner",)))
    assert samples(failed, of.READY) == {("flights",): 0}
    assert samples(failed, of.UNREADY) == {("flights", "owner"): 1}


def test_the_largest_segments_are_named_and_the_others_added_up() -> None:
    many = [verdict(f"origin={n}", n) for n in range(1, 61)]
    many[3] = replace(many[3], verdict="fail")
    whole = site(reading(evidence=evidence(verdict("", 9_999, "pass"), *many)))
    units = samples(whole, of.UNITS)
    theirs = {key[-1]: value for key, value in units.items() if key[1] == "r2"}
    assert len(theirs) == 52
    assert theirs[""] == 9_999
    assert theirs["origin=60"] == 60
    assert theirs["origin=11"] == 11
    assert theirs[of.OTHER] == sum(range(1, 11))
    words = samples(whole, of.VERDICTS)
    assert words["flights", "r2", "errors", of.OTHER, "fail"] == 1
    assert words["flights", "r2", "errors", of.OTHER, "inconclusive"] == 9
    assert words["flights", "r2", "errors", "", "pass"] == 1
    assert samples(whole, of.BAD_UNITS)["flights", "r1", "production", "errors", of.OTHER] == 10


def test_a_setting_removes_every_value_of_a_segment() -> None:
    whole = site(reading(evidence=evidence(verdict("", 5), verdict("origin=JFK", 5))))
    for metric in (of.UNITS, of.BAD_UNITS, of.VERDICTS):
        place = metric.labels.index("segment")
        found = samples(whole, metric, segments=False)
        assert {labels[place] for labels in found} == {""}
    everything = build(whole, {}, bin_upper_us, segments=False)
    assert "JFK" not in repr(everything)


def test_evidence_is_exported_with_its_threshold() -> None:
    proven = Verdict(
        metric="errors",
        segment="",
        verdict="fail",
        reason="",
        units=(9, 9),
        bad=(0, 5),
        ratio=2.0,
        interval=(1.5, None),
        log_e=10_000.0,
    )
    whole = site(reading(evidence=evidence(proven)))
    (value,) = samples(whole, of.E_VALUE).values()
    assert 1e300 < value < float("inf")
    assert samples(whole, of.E_THRESHOLD) == {("flights",): 100.0}
    assert samples(whole, of.RATE_RATIO) == {
        ("flights", "r2", "errors", "estimate"): 2.0,
        ("flights", "r2", "errors", "lower"): 1.5,
    }
    decided = samples(whole, of.DECISION)
    assert decided["flights", "r2", "broken_input"] == 1
    assert sum(decided.values()) == 1
    assert samples(whole, of.EVIDENCE_AGE) == {("flights",): 10.0}
    assert samples(whole, of.HEALTHY) == {}
    assert samples(whole, of.LABELS)["flights", "r2", "candidate"] == 10
    assert samples(whole, of.LABEL_COVERAGE) == {("flights", "r1", "production"): 0.25}
    assert samples(whole, of.LABEL_DELAY) == {("flights", "50"): 60.0}
    assert samples(whole, of.QUALITY) == {("flights", "r1", "production", "error_rate"): 0.2}
    assert samples(whole, of.DIFFERENCE) == {}


def test_of_losses_the_difference_is_exported() -> None:
    lost = replace(verdict("", 9), difference=0.01, interval=(0.004, None))
    whole = site(reading(evidence=evidence(lost)))
    assert samples(whole, of.RATE_RATIO) == {}
    assert samples(whole, of.DIFFERENCE) == {
        ("flights", "r2", "errors", "estimate"): 0.01,
        ("flights", "r2", "errors", "lower"): 0.004,
    }


def test_losses_are_compared_as_their_margin_and_have_no_bad_units() -> None:
    lost = replace(
        verdict("", 9),
        metric="quality",
        losses=(0.2, 0.3),
        loss_ratio=1.5,
        loss_interval=(1.2, 1.8),
    )
    found = evidence(lost)
    for metric, counted in (("log_loss", False), ("error_rate", True)):
        whole = site(reading(evidence=replace(found, labels=replace(found.labels, metric=metric))))
        assert samples(whole, of.LOSS_RATIO) == {
            ("flights", "r2", "quality", "estimate"): 1.5,
            ("flights", "r2", "quality", "lower"): 1.2,
            ("flights", "r2", "quality", "upper"): 1.8,
        }
        assert bool(samples(whole, of.BAD_UNITS)) is counted
        assert samples(whole, of.UNITS)


def test_after_a_promotion_the_release_that_was_left_is_the_measure() -> None:
    found = replace(
        evidence(verdict("", 5)),
        judged=(1, 2),
        arms=("previous", "production"),
        log_arms=("candidate", "production"),
    )
    whole = site(reading(evidence=found))
    assert set(samples(whole, of.UNITS)) == {
        ("flights", "r1", "previous", "errors", ""),
        ("flights", "r2", "production", "errors", ""),
    }
    assert samples(whole, of.LABEL_COVERAGE) == {("flights", "r2", "production"): 0.25}


@pytest.mark.parametrize("slowest", [50_000, 30_000_000])
def test_a_bucket_counts_exactly_what_is_faster_than_its_bound(slowest: int) -> None:
    taken = [int(1.013**n) for n in range(2_000) if 1.013**n < slowest]
    bins: dict[int, int] = {}
    for us in taken:
        bins[latency_bin(us)] = bins.get(latency_bin(us), 0) + 1
    labels = ("flights", "r1", "production")
    series = {Series(of.DURATION.name, labels, index): n for index, n in bins.items()}
    series[Series(of.DURATION.name, labels, SUM)] = sum(taken)
    found = samples(site(), of.DURATION, series)[labels]
    assert isinstance(found, Durations)
    exact = [sum(us < bound * 1e6 for us in taken) for bound in MODEL_BOUNDS]
    assert list(found.counts) == [*exact, len(taken)]
    assert found.total == pytest.approx(sum(taken) / 1e6, rel=1e-12)


def test_no_sample_lacks_a_label() -> None:
    whole = site(
        reading(
            evidence=evidence(verdict("", 5)), failed=("owner",), copies=CopyReading(1, 1, 1, 1)
        )
    )
    for family in build(whole, {}, bin_upper_us, segments=True):
        for sample in family.samples:
            assert len(sample.labels) == len(family.metric.labels)
