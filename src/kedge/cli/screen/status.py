"""Screen of status: one line for each endpoint, and the whole status of one."""

from __future__ import annotations

from collections.abc import Sequence

from kedge.cli.blocks import (
    Cell,
    Column,
    Grid,
    Paragraph,
    Phrase,
    Screen,
    Tone,
    bad,
    facts,
    faint,
    faults,
    good,
    strong,
    warn,
)
from kedge.cli.text.status import counted, get_cells, get_facts, get_faults, head_text, named
from kedge.core.values import Stage
from kedge.operations.status.view import EndpointStatus

COLUMNS = (
    Column("ENDPOINT"),
    Column("PRODUCTION", whole=True),
    Column("CANDIDATE", whole=True),
    Column("STAGE"),
    Column("ROLLBACK TO"),
    Column("READY"),
    Column("ALERTS"),
    Column("OWNER"),
    Column("ON CALL"),
)
MIDDLE = (*COLUMNS[:5], Column("STATE"), Column("ON CALL"))
NARROW = (
    Column("ENDPOINT"),
    Column("PRODUCTION", whole=True),
    Column("ROLLOUT"),
    Column("STATE"),
    Column("ON CALL"),
)
UNCUT = 10_000
"""Columns of a sentence that the screen itself wraps."""


def list_screen(found: Sequence[EndpointStatus]) -> Screen:
    """Return the status of endpoints, one row each, and their faults below."""
    ends = [(_state(item), _on_call(item)) for item in found]
    narrow = [(*get_cells(item)[:3], *end) for item, end in zip(found, ends, strict=True)]
    middle = [(*_row(item)[:5], *end) for item, end in zip(found, ends, strict=True)]
    rows = [_row(item) for item in found]
    table = Grid(COLUMNS, rows, narrow=Grid(MIDDLE, middle, narrow=Grid(NARROW, narrow)))
    below = [
        paragraph
        for item in found
        for paragraph in faults([f"{item.endpoint}: {fault}" for fault in get_faults(item)])
    ]
    return [table, *below]


def _row(item: EndpointStatus) -> tuple[Cell, ...]:
    return (
        strong(item.endpoint),
        named(item.production),
        named(item.candidate) if item.candidate else faint("-"),
        _stage(item),
        _landing(item),
        _readiness(item),
        _alerts(item),
        item.owner or warn("none"),
        _on_call(item),
    )


def _on_call(item: EndpointStatus) -> Cell:
    return item.on_call or warn("none")


def _stage(item: EndpointStatus) -> Cell:
    """Return the stage, with the share of callers or, in a shadow, of copied inputs."""
    if item.drill:
        return warn("DRILL")
    share = item.weight if item.stage is Stage.CANARY else item.sample
    words = f"{item.stage} {share:g} %" if item.candidate else str(item.stage)
    return (words, warn(", held")) if item.paused else words


def _landing(item: EndpointStatus) -> Cell:
    """Return the release that a rollback would land on, and whether it is loaded."""
    if item.back is None:
        return warn("nothing") if item.production else faint("-")
    if not item.back.cold:
        return named(item.back)
    return (named(item.back), warn(f", loads {item.back.load_s:.1f} s"))


def _readiness(item: EndpointStatus) -> Cell:
    if item.readiness is None:
        return faint("unchecked")
    if item.readiness.ready:
        return good("yes")
    return bad(f"NO: {len(item.readiness.failed)} fail")


def _alerts(item: EndpointStatus) -> Cell:
    pages = sum(alert.level == "page" for alert in item.alerts)
    told = (bad(counted(pages, "page")), warn(counted(len(item.alerts) - pages, "warning")))
    return _joined([piece for piece in told if piece.text]) or faint("-")


def _state(item: EndpointStatus) -> Cell:
    """Return the number of problems by kind, the most urgent first, or "ok"."""
    pages = sum(alert.level == "page" for alert in item.alerts)
    told = (
        bad(counted(pages, "page")),
        bad(counted(len(get_faults(item)), "fault")),
        bad("not ready" if item.readiness and not item.readiness.ready else ""),
        warn(counted(len(item.alerts) - pages, "warning")),
    )
    return _joined([piece for piece in told if piece.text]) or good("ok")


def _joined(pieces: Sequence[Phrase]) -> tuple[Phrase, ...]:
    """Return pieces with commas between them."""
    return tuple(each for piece in pieces for each in (Phrase(", "), piece))[1:]


def status_screen(found: Sequence[EndpointStatus]) -> Screen:
    """Return the whole status of each endpoint."""
    blocks: list[Grid | Paragraph] = []
    for item in found:
        rows: list[tuple[Cell, Cell]] = [
            (
                Phrase(one.name, one.tone if one.tone is not Tone.PLAIN else Tone.FAINT),
                Phrase(one.text, one.tone),
            )
            for one in get_facts(item, UNCUT)
        ]
        blocks += [Paragraph(strong(head_text(item))), facts(rows)]
    return blocks
