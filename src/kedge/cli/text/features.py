"""Text of features: transformations, their comparisons, runs computed ahead, training sets."""

from __future__ import annotations

from collections.abc import Sequence

from kedge.core.features.schema import Difference
from kedge.core.time.instants import iso
from kedge.core.values import Origin
from kedge.operations.features.apply import (
    AppliedFeatures,
    AppliedTransformation,
    ListedTransformation,
    SchemaUser,
)
from kedge.operations.features.compare import TransformationDiff
from kedge.operations.features.head import HeadMove
from kedge.operations.features.materialise import FedRun, RunStatus
from kedge.operations.features.training_set import WrittenTrainingSet

# ---------------------------------------------------------------- transformations


def applied_text(found: AppliedFeatures) -> str:
    """Return the result of applying a features file."""
    return "\n".join(line for one in found.transformations for line in _applied_lines(one))


def _applied_lines(told: AppliedTransformation) -> list[str]:
    if not told.new:
        lines = [f"{told.version}: unchanged"]
    else:
        takes = (
            f"takes {', '.join(told.raw)}"
            if not told.materialised
            else f"to be computed: kedge features materialise {told.version.partition('/')[0]}"
        )
        reads = f", reads {', '.join(told.reads)} by key" if told.reads else ""
        lines = [f"{told.version}: new; {takes}{reads}"]
    if told.rows == "dependent":
        lines.append(
            "  its answers depend on the rows that are asked together: requests are never merged"
        )
    if told.against:
        lines.append(f"  {comparison_text(told, told.against)}")
    lines += [
        f"  {user.endpoint} uses {user.production or 'no version of it yet'}; "
        + ("it follows the head" if user.follows else "it does not follow the head")
        for user in told.endpoints
        if told.new
    ]
    return lines


def comparison_text(told: AppliedTransformation | TransformationDiff, against: str) -> str:
    """Return the comparison of a transformation: its rows, and the columns that differ."""
    on = ", ".join(f"{number} {ORIGINS[origin]}" for origin, number in told.compared_on.items())
    lines = [f"{told.outcome} against {against}, on {on or 'no rows'}"]
    if told.made:
        lines.append(f"  values by key were made: {', '.join(told.made)}")
    return "\n".join([*lines, *filter(None, [differences_text(told.columns)])])


ORIGINS: dict[Origin, str] = {
    "given": "given",
    "training": "of the training set",
    "log": "of the prediction log",
    "made": "made",
    "unknown": "kept by an earlier version",
}
"""Origin of rows, as text after their number."""


def differences_text(columns: Sequence[Difference]) -> str:
    """Return the columns that differ, one line each."""
    return "\n".join(
        f"  {one.column:<20} {one.outcome:<17} {one.rows:,} rows"
        + (f", by {one.largest:.6g} at most" if one.largest is not None else "")
        + f", for example {one.example[0]} -> {one.example[1]}"
        for one in columns
        if one.example is not None
    )


def transformations_text(found: Sequence[ListedTransformation]) -> str:
    """Return transformation versions, one line each."""
    lines = [
        f"{one.version:<16} {'head' if one.head else '':<5} {one.digest[:19]}…  "
        f"{', '.join(one.production_of)}"
        for one in found
    ]
    return "\n".join(lines) or "no schema is declared: kedge features apply FILE"


def users_text(found: Sequence[SchemaUser]) -> str:
    """Return the endpoints on a schema, one line each."""
    lines = [
        f"{user.endpoint:<20} on {user.production or '-':<14} {user.stage:<8} "
        + ("follows" if user.follows else "holds: moves by its own command only")
        for user in found
    ]
    return "\n".join(lines) or "no endpoint is on this schema"


def head_text(told: HeadMove) -> str:
    """Return the endpoints that move with a head, and those that hold."""
    lines = [
        f"{told.head} {'is' if told.moved else 'would be'} the head"
        + (f" (it was #{told.was})" if told.was else "")
    ]
    for one in told.followers:
        if not one.moves:
            lines.append(f"  {one.endpoint:<20} follows, and is there already")
            continue
        verb = "moved" if told.moved else "would move"
        lines.append(
            f"  {one.endpoint:<20} {verb} from {one.today or 'none'}: {one.outcome}"
            + (f"; REFUSED: {one.obstacle}" if one.obstacle else "")
        )
    lines += [f"  {name:<20} holds" for name in told.holding]
    lines += [
        f"  {one.endpoint}: epoch {one.epoch}, production {one.release}, "
        f"last ack after {one.last_ack_ms:.1f} ms"
        for one in told.receipts
        if one.last_ack_ms is not None
    ]
    return "\n".join(lines)


# ---------------------------------------------------------------- computed ahead


def fed_text(found: Sequence[FedRun]) -> str:
    """Return the result of materialising, one line for each run."""
    return "\n".join(
        f"{one.run}: {one.slices:,} slices ({one.computed:,} computed, the rest out of the"
        f" log), {one.rows:,} rows written so far, {one.standing}"
        + (f"; {one.empty:,} more slices have no rows" if one.empty else "")
        + (f"; known up to {iso(one.watermark)}" if one.watermark is not None else "")
        + (
            f"; {one.ahead_s:.0f} s ahead of what was asked for: check the clocks"
            if one.ahead_s
            else ""
        )
        + "".join(
            f"; {count:,} values of {name} out of range" for name, count in one.violations.items()
        )
        for one in found
    )


def runs_text(found: Sequence[RunStatus]) -> str:
    """Return the progress of runs, one line each."""
    lines = []
    for one in found:
        readers = ", ".join(one.read_by) or "no release"
        lines.append(
            f"{one.run:<24} {one.standing:<9} {one.keys:>9,} keys  {get_reach(one)};"
            f" read by {readers}"
        )
    return "\n".join(lines) or "nothing is materialised: kedge features materialise VIEW"


def get_reach(one: RunStatus) -> str:
    """Return the watermark of a run, and its lag."""
    if one.lag_s is None or one.watermark is None:
        return "nothing in the store"
    behind = f"{_span(abs(one.lag_s))} {'ahead: check the clocks' if one.ahead else 'behind'}"
    return f"known up to {iso(one.watermark)}, {behind}{', STALE' if one.stale else ''}"


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def training_set_text(found: WrittenTrainingSet) -> str:
    """Return the sources of a training set."""
    lines = [f"{found.out}: {found.rows:,} rows of {found.schema}#{found.transformation}"]
    lines += [
        f"  {label}: missing in {count:,} rows ({count / found.rows:.1%})"
        for label, count in found.missing.items()
    ]
    lines += [f"  {name}: {count:,} values" for name, count in found.violations.items()]
    if found.by_row:
        lines.append(
            "  each row was transformed by itself: its features depend on the rows beside it"
        )
    if found.left_out:
        lines.append(f"  left out of the spine, named as a feature: {', '.join(found.left_out)}")
    return "\n".join([*lines, f"  data {found.data}"])
