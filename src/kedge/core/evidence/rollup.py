"""Rollup of windows: seconds into minutes, minutes into hours.

A roll is a sum, so rolls of rolls are rolls. Bad units are counted once a second and worker here.
That suffices for a course of time, and the judge never reads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from kedge.core.evidence.windows import (
    METRICS,
    Agreement,
    Counts,
    Growing,
    Spent,
    Window,
    added,
    agreement_sum,
)
from kedge.core.values import Value

MINUTE, HOUR = 60, 3_600
SEGMENTS = 1_000
"""Most segments of one roll; those with the least traffic are left out, and counted."""


class Roll(Value, frozen=True, kw_only=True):
    """Counts of one comparison in a minute or an hour. Pairs are (production, candidate)."""

    endpoint: str
    production: int
    candidate: int
    salt: str
    weight: int
    paired: bool
    at: int
    """Start, Unix seconds."""
    span: int
    """Length in seconds."""
    exposed: Counts = {}
    answered: Counts = {}
    bad: dict[str, Counts] = {}
    agreement: dict[str, Agreement] = {}
    costs: dict[str, Spent] = {}
    mirrored: int = 0
    copied: int = 0
    lost: int = 0
    left_out: int = 0
    """Segments beyond the bound."""

    @property
    def key(self) -> tuple[str, int, int, str, int, bool, int]:
        """Return the comparison, stratum and time of the roll."""
        return (
            self.endpoint,
            self.production,
            self.candidate,
            self.salt,
            self.weight,
            self.paired,
            self.at,
        )


def roll_of(window: Window) -> Roll:
    """Return one window as the roll of its minute."""
    bad: dict[str, Growing] = {}
    for metric, cells in window.bad.items():
        added(bad.setdefault(metric, {}), cells)
    for unit in window.units:
        slices = bad.setdefault(METRICS[unit.metric], {})
        for name in ("", *unit.segments):
            slices.setdefault(name, [0, 0])[unit.arm] += 1
    return Roll(
        endpoint=window.endpoint,
        production=window.production,
        candidate=window.candidate,
        salt=window.salt,
        weight=window.weight,
        paired=window.paired,
        at=window.at - window.at % MINUTE,
        span=MINUTE,
        exposed=window.exposed,
        answered=window.answered,
        bad={metric: _frozen(cells) for metric, cells in bad.items()},
        agreement=window.agreement,
        costs=window.costs,
        mirrored=window.mirrored,
        copied=window.copied,
        lost=window.lost,
    )


def rolled(rolls: Iterable[Roll], span: int) -> list[Roll]:
    """Add up rolls by comparison, stratum and `span` seconds, oldest first."""
    found: dict[tuple[object, ...], list[Roll]] = {}
    for one in rolls:
        key = (*one.key[:-1], one.at - one.at % span)
        found.setdefault(key, []).append(one)
    return sorted((_sum(group, span) for group in found.values()), key=lambda roll: roll.at)


def _sum(group: Sequence[Roll], span: int) -> Roll:
    first = group[0]
    exposed, answered = _counts(r.exposed for r in group), _counts(r.answered for r in group)
    names = sorted(exposed, key=lambda name: (bool(name), -sum(exposed[name]), name))
    kept = set(names[: SEGMENTS + 1])
    agreement: dict[str, Agreement] = {}
    costs: dict[str, Spent] = {}
    for roll in group:
        for name, cell in roll.agreement.items():
            agreement[name] = agreement_sum(agreement.get(name, Agreement()), cell)
        for name, spent in roll.costs.items():
            costs[name] = costs.get(name, Spent()).plus(spent)
    metrics = {metric for roll in group for metric in roll.bad}
    return Roll(
        endpoint=first.endpoint,
        production=first.production,
        candidate=first.candidate,
        salt=first.salt,
        weight=first.weight,
        paired=first.paired,
        at=first.at - first.at % span,
        span=span,
        exposed=_frozen(exposed, kept),
        answered=_frozen(answered, kept),
        bad={m: _frozen(_counts(r.bad.get(m, {}) for r in group), kept) for m in sorted(metrics)},
        agreement={name: cell for name, cell in agreement.items() if name in kept},
        costs={name: spent for name, spent in costs.items() if name in kept},
        mirrored=sum(r.mirrored for r in group),
        copied=sum(r.copied for r in group),
        lost=sum(r.lost for r in group),
        left_out=max(len(names) - len(kept), 0) + sum(r.left_out for r in group),
    )


def _counts(many: Iterable[Mapping[str, Sequence[int]]]) -> Growing:
    found: Growing = {}
    for cells in many:
        added(found, cells)
    return found


def _frozen(cells: Growing, kept: set[str] | None = None) -> Counts:
    return {
        name: (cell[0], cell[1]) for name, cell in cells.items() if kept is None or name in kept
    }
