"""Text of a plan: the time at each step to find a worse candidate, and to prove a good one."""

from __future__ import annotations

from kedge.cli.text.layout import PLAIN_WIDTH, rate, rough, table, wrap
from kedge.operations.evidence.read import PlannedStep, RolloutPlan

HEADS = [
    ("", "weight"),
    ("found", "after"),
    ("failed", "requests"),
    ("caused", "by it"),
    ("proven", "after"),
]
OWN = ("its", "callers")


def plan_text(found: RolloutPlan, width: int = PLAIN_WIDTH) -> str:
    """Return the times to find or prove a candidate, one line for each step."""
    own = found.callers is not None
    heads = [*HEADS, OWN] if own else HEADS
    above = [[" ".join(words).strip() for words in heads]]
    if width < PLAIN_WIDTH:
        above = [[first for first, _ in heads], [second for _, second in heads]]
    rows = [*above, *(get_row(step, callers=own) for step in found.steps)]
    lines = [*wrap(get_traffic(found), width), *table(rows, width, right=[True] * len(rows[0]))]
    notes = get_notes(found)
    return "\n".join([*lines, *(line for note in notes for line in wrap(note, width, "  ", "  "))])


def get_traffic(found: RolloutPlan) -> str:
    """Return the traffic that the plan assumes, and the meaning of its times."""
    callers = found.callers
    by = "" if callers is None else f" by about {callers:,} callers"
    return (
        f"{found.endpoint}: {rate(found.rate)}{by}, {found.errors:.3%} of them fail. Found after:"
        f" a candidate that fails {found.times:g} times as often. Proven after: one that fails as"
        " often as production."
    )


def get_notes(found: RolloutPlan) -> list[str]:
    """Return what cannot be shown with so few callers."""
    callers = found.callers
    fewest = min((step.callers or 0 for step in found.steps), default=0) if callers else 0
    notes = []
    if callers is not None and not fewest:
        notes.append(
            "At a step without callers nothing can be shown, and it is not left by itself."
        )
    if callers is not None and fewest < found.provable:
        notes.append(
            f"Evidence counts callers. Fewer than about {found.provable} callers of the"
            " candidate cannot prove a candidate without failures: promote it by hand."
        )
    return notes


def get_row(step: PlannedStep, *, callers: bool) -> list[str]:
    """Return one step as cells."""
    return [
        f"{step.weight:g} %",
        _after(step.seconds),
        f"{step.harmed:,}",
        f"{step.excess:,}",
        _after(step.proven_s),
        *([f"{step.callers:,}"] if callers else []),
    ]


def _after(seconds: float | None) -> str:
    return (
        "> 30 days"
        if seconds is None
        else "at once"
        if not seconds
        else rough(seconds).removeprefix("about ")
    )
