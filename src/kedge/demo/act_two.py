"""Act two: the same model, and a transformation with a realistic mistake.

A colleague takes the schedule out of the wrong column: UTC instead of local time. Both are minutes of a
day, both are in range, nothing is null, so no test of a schema can tell. Quality falls though the
model is the same; the features are taken back, and the model is not touched.
"""

from __future__ import annotations

from math import log
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedge.demo.questions import apply, diagnosed
from kedge.system.terminal import show

if TYPE_CHECKING:
    from kedge.demo.processes import TrafficProcess
    from kedge.demo.stage import Demo

LABELLED, LATE_S = 1_250, 7.0
"""How long the mistake is in production: until so many outcomes are there, which come late."""
CAP = -log(1e-3)
"""kedge judges log loss over this cap, so that it lies in [0, 1]."""
AFTER_S = 2.0


def features_act(demo: Demo, traffic: TrafficProcess, work: Path) -> dict[str, Any]:
    """Roll the mistake into production with an override, and roll it back."""
    demo.step("act two: the same model, and a transformation that takes the hour in UTC")
    told = apply(demo, work, wrong=True)
    number = told["version"].partition("#")[2]
    refused = demo.shell("features", "roll", "flights", number, codes=(1,)).error
    show(f"  refused ({refused['code']}): {refused['message']}")
    before = held(demo)
    forced = demo.shell(
        "features", "roll", "flights", number, "--override", "demo: so that you see it"
    )
    wrong = forced.data["release"]
    lasts = demo.watch_answers(traffic, LABELLED, LATE_S)
    quality = judged(demo)
    diagnosed(demo, "features", lasts)
    said = demo.shell("rollback", "flights", "--axis", "features")
    receipt = said.data["receipt"]
    after = held(demo)
    show(
        f"  {said.data['release']} answers again: last ack {receipt['last_ack_ms']:.1f} ms, first"
        f" answer {receipt['first_old_answer_ms'] or float('nan'):.1f} ms after the command"
    )
    reloads = sum(after[pid] - before.get(pid, 0) for pid in after)
    same = set(before) == set(after)
    show(
        f"  times the model was loaded meanwhile: {reloads}; the same processes:"
        f" {'yes' if same else 'NO'}"
    )
    demo.watch(traffic, AFTER_S)
    return {
        "rollback_ms": receipt["last_ack_ms"],
        "first_old_answer_ms": receipt["first_old_answer_ms"],
        "model_reloads": reloads,
        "same_processes": same,
        "right": said.data["release"],
        "wrong": wrong,
        "outcome": told["outcome"],
        "columns": [c["column"] for c in told["columns"] if c["outcome"] != "bit-equal"],
        "quality": quality,
    }


def held(demo: Demo) -> dict[int, int]:
    """Count how often each serving process has loaded production's model, by process id."""
    status = demo.kedge.status()
    digest = status["production"]["digest"]
    return {replica["pid"]: replica["loads"].get(digest, 0) for replica in status["replicas"]}


def judged(demo: Demo) -> dict[str, Any]:
    """What outcomes say of both transformations on the same flights, the model being the same.

    After the roll, what was left silently gets the same inputs, and is the measure.
    """
    labels = demo.kedge.run("evidence", "flights").data["labels"]
    right, wrong = (None if one is None else round(one * CAP, 4) for one in labels["loss"])
    if right and wrong:
        show(
            f"  the same model on the same {labels['units'][0]:,} flights: log loss {right:.3f}"
            f" with local hours, {wrong:.3f} with UTC"
        )
    return {"flights": labels["units"][0], "log_loss_local": right, "log_loss_utc": wrong}
