"""Act two: the same model, and a transformation with a realistic mistake.

A colleague takes the schedule out of the wrong column: UTC instead of local time. Both are minutes of a
day, both are in range, nothing is null, so no test of a schema can tell. Quality falls though the
model is the same; the features are taken back, and the model is not touched.
"""

from __future__ import annotations

from math import log, nan
from pathlib import Path
from typing import TYPE_CHECKING

from kedge.demo.questions import apply, diagnosed
from kedge.demo.report import FeaturesFigures, FeaturesQuality
from kedge.operations.evidence.read import RolloutEvidence
from kedge.operations.receipts import CommandReceipt, RollbackReceipt
from kedge.system.terminal import show

if TYPE_CHECKING:
    from kedge.demo.processes import TrafficProcess
    from kedge.demo.stage import Demo

LABELLED, LATE_S = 1_250, 7.0
"""How long the mistake is in production: until so many outcomes are there, which come late."""
CAP = -log(1e-3)
"""kedge judges log loss over this cap, so that it lies in [0, 1]."""
AFTER_S = 2.0


def features_act(demo: Demo, traffic: TrafficProcess, work: Path) -> FeaturesFigures:
    """Roll the mistake into production against advice, and take it back."""
    demo.step("act two: the same model, and a transformation that takes the hour in UTC")
    told = apply(demo, work, wrong=True)
    words = ("features", "roll", "flights", told.version.partition("#")[2])
    demo.refused(*words)
    before = held(demo)
    forced = (*words, "--override", "demo: so that you see it")
    wrong = demo.shell(*forced, prints=CommandReceipt).data.release
    lasts = demo.watch_answers(traffic, LABELLED, LATE_S)
    quality = judged(demo)
    diagnosed(demo, "features", lasts)
    words = ("rollback", "flights", "--axis", "features")
    said = demo.shell(*words, prints=RollbackReceipt).data
    last, first = said.receipt.last_ack_ms, said.receipt.first_old_answer_ms
    after = held(demo)
    show(
        f"  {said.release} answers again: last ack {last or nan:.1f} ms, first"
        f" answer {first or nan:.1f} ms after the command"
    )
    reloads = sum(after[pid] - before.get(pid, 0) for pid in after)
    same = set(before) == set(after)
    show(
        f"  times the model was loaded meanwhile: {reloads}; the same processes:"
        f" {'yes' if same else 'NO'}"
    )
    demo.watch(traffic, AFTER_S)
    return FeaturesFigures(
        rollback_ms=last,
        first_old_answer_ms=first,
        model_reloads=reloads,
        same_processes=same,
        right=said.release,
        wrong=wrong,
        outcome=told.outcome,
        columns=tuple(one.column for one in told.columns if one.outcome != "bit-equal"),
        quality=quality,
    )


def held(demo: Demo) -> dict[int, int]:
    """Count how often each serving process has loaded production's model, by process id."""
    status = demo.kedge.status()
    assert status.production is not None
    digest = status.production.digest
    return {replica.pid: replica.loads.get(digest, 0) for replica in status.replicas}


def judged(demo: Demo) -> FeaturesQuality:
    """Return what outcomes say of both transformations on the same flights, the model being the same.

    After the roll, what was left silently gets the same inputs, and is the measure.
    """
    labels = demo.kedge.run("evidence", "flights", prints=RolloutEvidence).data.labels
    right, wrong = (None if one is None else round(one * CAP, 4) for one in labels.loss)
    if right and wrong:
        show(
            f"  the same model on the same {labels.units[0]:,} flights: log loss {right:.3f}"
            f" with local hours, {wrong:.3f} with UTC"
        )
    return FeaturesQuality(labels.units[0], right, wrong)
