"""Labels whose delay or presence depends on the arm and the outcome: simulated, for an identical candidate.

Of two arms that are equally good, one may get its labels later, or never. What is missing of production's
labels, compared with the candidate's coverage (and one standard error more), is credited to production as
wrong before an alarm may sound: this lowers the evidence only. `plain` is the alarm without that.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, log
from typing import Any

import numpy as np
import units
from simulated import error
from units import ALARM, RESTART_S, Design
from worlds import DAY_S, Floats, Ints

LOOK_S = 300.0
BASE_S = 600.0
"""Mean delay of every label."""
WEIGHT = 0.15


@dataclass(frozen=True)
class Labels:
    """How labels come: by arm (production, candidate) and outcome (right, wrong)."""

    name: str
    present: tuple[tuple[float, float], tuple[float, float]] = ((1.0, 1.0), (1.0, 1.0))
    late: tuple[tuple[float, float], tuple[float, float]] = ((0.0, 0.0), (0.0, 0.0))
    ratio: float = 1.0
    rps: float = 1.0
    share: float = 0.25
    wrong: float = 0.2


TWO_H = 7_200.0
CASES = (
    Labels("labels alike"),
    Labels("the candidate's right labels 2 h later", late=((0.0, 0.0), (TWO_H, 0.0))),
    Labels("a third of the candidate's right labels never", ((1.0, 1.0), (0.67, 1.0))),
    Labels("production's wrong labels 2 h later", late=((0.0, TWO_H), (0.0, 0.0))),
    Labels("a third of production's wrong labels never", ((1.0, 0.67), (1.0, 1.0))),
    Labels("the same, half of all labels", ((0.5, 0.335), (0.5, 0.5))),
    Labels("all of production's labels 2 h later", late=((TWO_H, TWO_H), (0.0, 0.0))),
    Labels("twice as wrong, labels alike", ratio=2.0),
    Labels("twice as wrong, half of all labels", ((0.5, 0.5), (0.5, 0.5)), ratio=2.0),
)


def sounds(
    rng: np.random.Generator, case: Labels, design: Design, steps: int = 4
) -> tuple[float, float]:
    """Return when the alarm sounds on one day of labels: without the credit, and with it."""
    n = rng.poisson(case.rps * DAY_S)
    given = np.sort(rng.random(n) * DAY_S)
    arm = (rng.random(n) < case.share).astype(np.int8)
    wrong = (rng.random(n) < case.wrong * np.where(arm == 1, case.ratio, 1.0)).astype(int)
    at = given + np.array(case.late)[arm, wrong] + rng.exponential(BASE_S, n)
    come = (rng.random(n) < np.array(case.present)[arm, wrong]) & (at < DAY_S)
    order = np.argsort(at[come])
    at, side, bad = at[come][order], arm[come][order], wrong[come][order] == 1
    looks = np.arange(LOOK_S, DAY_S + 1, LOOK_S)
    predicted = [np.searchsorted(given[arm == a], looks) for a in (0, 1)]
    labelled = [np.searchsorted(at[side == a], looks) for a in (0, 1)]
    missing = credit(predicted, labelled)
    need = log(1 / design.alpha) - log(
        WEIGHT * (1 - design.segment_stake) * design.ramp / steps * design.firsts
    )
    events, theirs = at[bad], at[bad & (side == 1)]
    plain = _first(design, events, theirs, looks, np.zeros(len(looks)), case.share, need)
    return plain, _first(design, events, theirs, looks, missing, case.share, need)


def credit(predicted: list[Ints], labelled: list[Ints]) -> Floats:
    """Return the labels that production misses compared with the candidate's coverage, and one standard error."""
    g0, g1 = (np.maximum(count, 1) for count in predicted)
    both = (labelled[0] + labelled[1]) / (g0 + g1)
    spread = g0 * np.sqrt(both * (1 - both) * (1 / g0 + 1 / g1))
    return np.asarray(np.maximum(labelled[1] / g1 * g0 - labelled[0] + spread, 0.0))


def _first(
    design: Design,
    events: Floats,
    theirs: Floats,
    looks: Floats,
    extra: Floats,
    share: float,
    need: float,
) -> float:
    """Return the first look at which a restart's bets on wrong labels reach their promise."""
    found = inf
    c: Ints = np.searchsorted(theirs, looks)
    n: Ints = np.searchsorted(events, looks)
    for k in range(int(DAY_S // RESTART_S)):
        begin = k * RESTART_S
        i, j = np.searchsorted(looks, [begin, min(begin + units.life(k), found)], "right")
        mine = c[i:j] - np.searchsorted(theirs, begin)
        every = n[i:j] - np.searchsorted(events, begin) + extra[i:j]
        wealth = mine[:, None] * np.log(ALARM) - every[:, None] * np.log1p(share * (ALARM - 1))
        hit = np.flatnonzero(
            (units.log_mean(wealth) >= need - log(units.stake(k))) & (mine >= design.min_bad)
        )
        if len(hit):
            found = min(found, float(looks[i + hit[0]]))
    return found


def table(runs: int, seed: int) -> list[dict[str, Any]]:
    """Return one line for each way in which labels come."""
    lines = []
    for number, case in enumerate(CASES):
        times = np.array(
            [
                sounds(np.random.Generator(np.random.SFC64((seed, number, run))), case, Design())
                for run in range(runs)
            ]
        )
        failed = np.isfinite(times)
        lines.append(
            {
                "scenario": case.name,
                "kind": "identical" if case.ratio == 1 else "worse",
                "runs": runs,
                "rolled_back": float(failed[:, 1].mean()),
                "se": error(float(failed[:, 1].mean()), runs),
                "plain": float(failed[:, 0].mean()),
                "median_s": float(np.median(times[failed[:, 1], 1]))
                if failed[:, 1].any()
                else None,
            }
        )
    return lines
