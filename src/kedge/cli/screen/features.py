"""Screen of features: transformations, endpoints on a schema, and runs computed ahead."""

from __future__ import annotations

from collections.abc import Sequence

from kedge.cli.blocks import Cell, Column, Grid, Screen, bad, faint, good, strong
from kedge.cli.text.features import get_reach
from kedge.operations.features.apply import ListedTransformation
from kedge.operations.features.materialise import RunStatus

VERSIONS = (
    Column("TRANSFORMATION"),
    Column("HEAD", whole=True),
    Column("DIGEST", whole=True),
    Column("PRODUCTION OF"),
)
RUNS = (
    Column("RUN"),
    Column("STATE", whole=True),
    Column("KEYS", right=True, whole=True),
    Column("REACHES"),
    Column("READ BY"),
)


def transformations_screen(found: Sequence[ListedTransformation]) -> Screen:
    """Return transformation versions, one row each."""
    rows: list[tuple[Cell, ...]] = [
        (
            strong(one.version),
            good("head") if one.head else "",
            faint(f"{one.digest[:19]}…"),
            ", ".join(one.production_of),
        )
        for one in found
    ]
    return [Grid(VERSIONS, rows)]


def runs_screen(found: Sequence[RunStatus]) -> Screen:
    """Return the progress of runs, one row each."""
    rows: list[tuple[Cell, ...]] = [
        (
            strong(one.run),
            one.standing,
            f"{one.keys:,}",
            bad(get_reach(one)) if one.stale else get_reach(one),
            ", ".join(one.read_by) or "no release",
        )
        for one in found
    ]
    return [Grid(RUNS, rows)]
