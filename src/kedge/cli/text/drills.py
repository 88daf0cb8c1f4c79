"""Text of drills and speed: the result of a drill, and the times of real rollbacks."""

from __future__ import annotations

from collections.abc import Sequence

from kedge.core.speed import FlipTimes, Incident, Practice, Quantiles, Speed
from kedge.core.stored.notes import ReceiptParts
from kedge.core.stored.stories import drill_story
from kedge.core.time.instants import to_minute
from kedge.operations.drills import DrillReport

SHOWN = 20
"""Maximum number of incidents, and of drills, in the text: the newest."""


SIGNS = {
    "alert": "an alert",
    "verdict": "a failed verdict",
    "patrol": "the patrol itself",
    "command": "the command itself",
}


def speed_text(found: Sequence[Speed]) -> str:
    """Return the times of rollbacks as text, one part for each endpoint."""
    return "\n\n".join("\n".join(_lines(of)) for of in found)


def _lines(of: Speed) -> list[str]:
    lines = [get_counts(of)]
    lines += [f"  {name:<41}  {text}" for name, text in get_figures(of)]
    lines += [f"  {at}  {text}" for at, text in get_events(of)]
    return lines + [f"  {note}" for note in get_notes(of)]


def get_counts(of: Speed) -> str:
    """Return the number of incidents and drills of an endpoint."""
    incidents = _count(len(of.incidents), "incident")
    return f"{of.endpoint}: {incidents}, {_count(len(of.drills), 'drill')}"


def get_figures(of: Speed) -> list[tuple[str, str]]:
    """Return each figure with its name."""
    within = "" if of.within is None else f"; {of.within:.0%} within {of.slo_s:g} s"
    incidents, drills = of.incident_trend, of.drill_trend
    return [
        ("until the first caller got the old release", f"{_spread(of.whole_s)}{within}"),
        ("command until the old release answered", _spread(of.flip_s)),
        ("the same, of drills", _spread(of.drill_s)),
        (
            "incidents, last 90 days and 90 before",
            f"{_median(incidents.last)}, {_median(incidents.before)}",
        ),
        ("drills, last 90 days and 90 before", f"{_median(drills.last)}, {_median(drills.before)}"),
    ]


def get_events(of: Speed) -> list[tuple[str, str]]:
    """Return the newest incidents, then the newest drills, each with its time."""
    return [
        *((_at(one.at), _incident(one)) for one in reversed(of.incidents[-SHOWN:])),
        *((_at(one.at), _practice(one)) for one in reversed(of.drills[-SHOWN:])),
    ]


def get_notes(of: Speed) -> list[str]:
    """Return what is not known."""
    notes = []
    if of.unknown:
        notes.append(f"{_count(of.unknown, 'incident')} without a total: a part of it is not known")
    if of.unreceipted:
        notes.append(
            f"{_count(of.unreceipted, 'flip')} without a receipt: the process died after writing"
        )
    if of.cut is not None:
        notes.append(f"only the newest {of.cut:,} entries were read")
    return notes


def _incident(one: Incident) -> str:
    who = "the patrol" if one.automatic else one.by
    noticed = "?" if one.detect_s is None else f"{_time(one.detect_s)} at most"
    return (
        f"r{one.release} rolled back by {who}: noticed {noticed}"
        f" ({SIGNS[one.sign]}), decided {_time(one.decide_s)}, {_flip(one.machine)}"
    )


def _practice(one: Practice) -> str:
    what = "dry drill" if one.dry else "drill"
    came = "not filed" if one.ok is None else "well" if one.ok else f"FAILED: {one.why}"
    flips = "" if one.dry else f", {_flip(one.back)}"
    return f"{what} to r{one.release} by {one.by}: {came}{flips}"


def _flip(flip: FlipTimes | None) -> str:
    if flip is None:
        return "no receipt"
    return (
        f"prepare {_time(flip.prepare_s)}, write {_time(flip.write_s)}, last ack"
        f" {_time(flip.last_ack_s)}, first old answer {_time(flip.first_answer_s)}, in all"
        f" {_time(flip.total_s)}"
    )


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _spread(of: Quantiles) -> str:
    return f"p50 {_time(of.p50)}, p95 {_time(of.p95)} (n = {of.n})" if of.n else "not measured yet"


def _median(of: Quantiles) -> str:
    return f"{_time(of.p50)} (n = {of.n})" if of.n else "none"


def _time(value: float | None) -> str:
    """Return seconds as text; a dash if they are unknown."""
    if value is None:
        return "-"
    return (
        f"{value * 1e3:.0f} ms"
        if value < 1
        else f"{value:.1f} s"
        if value < 600
        else f"{value / 60:,.0f} min"
    )


def _at(unix: float) -> str:
    return f"{to_minute(unix)}Z"


def drill_text(endpoint: str, filed: DrillReport) -> str:
    """Return the result of a drill as text."""
    lines = [f"{endpoint}: {drill_story(filed)}"]
    titles, rows = get_ladder(filed)
    if titles:
        lines.append("  " + " " * 17 + "".join(f"{name:>14}" for name in titles))
        lines += [f"  {row:<17}{''.join(f'{cell:>14}' for cell in cells)}" for row, *cells in rows]
    return "\n".join([*lines, *(f"  {text}" for text in get_answered(filed))])


def get_ladder(filed: DrillReport) -> tuple[list[str], list[list[str]]]:
    """Return the ways, and a row for each step with the milliseconds until it on each way."""
    columns = [("back", filed.back)] + ([] if filed.dry else [("again", filed.forward)])
    told = [(name, _ladder(parts, dry=filed.dry)) for name, parts in columns if parts is not None]
    steps = dict.fromkeys(step for _, ladder in told for step in ladder)
    rows = [[step, *(_ms(ladder.get(step)) for _, ladder in told)] for step in steps]
    return [name for name, _ in told], rows


def get_answered(filed: DrillReport) -> list[str]:
    """Return how many requests the old release answered, and the page of the drill, as far as known."""
    page = [filed.link] if filed.link else []
    if filed.answered is None:
        return page
    served = f"r{filed.release} answered {filed.answered:,} requests in {filed.lasted_s:.1f} s"
    return [f"{served}, {filed.failed:,} failed", *page]


def _ladder(parts: ReceiptParts, *, dry: bool) -> dict[str, float | None]:
    """Return milliseconds since the command, in order of the steps."""
    prepared = parts.decide_ms + parts.prepare_ms
    if dry:
        return {
            "decided": parts.decide_ms,
            "prepared": prepared,
            "answer asked for": parts.first_old_answer_ms,
            "total": parts.total_ms,
        }
    return {
        "decided": parts.decide_ms,
        "prepared": prepared,
        "written": prepared + parts.write_ms,
        "last ack": parts.last_ack_ms,
        "first answer": parts.first_old_answer_ms,
        "total": parts.total_ms,
    }


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} ms"
