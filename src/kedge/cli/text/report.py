"""Plain values as text for people at a terminal."""

from __future__ import annotations

from typing import Any

from kedge.cli.text.layout import get_period

# ---------------------------------------------------------------- diagnosis


def diagnosis_text(told: dict[str, Any]) -> str:
    """A diagnosis, for people: the headline first."""
    found, window, reference = told["diagnosis"], told["window"], told["reference"]
    lines = [found["headline"], ""]
    for one in found["findings"]:
        share = f", {one['share']:.0%} of the rise" if one["share"] is not None else ""
        effect = f" ({_estimate(one['effect'])}{share})" if one["effect"] else ""
        kind = f", {one['kind'].replace('_', ' ')}" if one["kind"] else ""
        lines.append(
            f"  found   {one['cause'].replace('_', ' ')}{kind}: {one['statement']}{effect}"
        )
    lines += [f"  do      {found['action']['sentence']}", "", "  evidence"]
    lines += [_evidence_line(row) for row in found["evidence"]]
    of = f", {window['segment']} only" if window["segment"] else ""
    lines += ["", f"  today      {_window_line(window)}{of}"]
    if reference is None:
        lines.append("  reference  none: no earlier window has enough labels")
    else:
        lines.append(
            f"  reference  {reference['rule']}: {_window_line(reference)}, of {reference['of']}"
        )
    lines += [
        f"  replayed   {count:,} requests on the {'newer' if which == 'new' else 'older'} release"
        for which, count in told["replayed"].items()
    ]
    lines += [f"  without    {fault}" for fault in told["faults"]]
    lines += [f"  missing    {lack['log']}" for lack in found["missing"]]
    lines += [f"  could change if  {text}" for text in found["would_change"]]
    return "\n".join(lines)


def _estimate(found: dict[str, Any]) -> str:
    return f"{found['value']:+.3g} [{found['low']:+.3g}, {found['high']:+.3g}]"


def _evidence_line(row: dict[str, Any]) -> str:
    figure = ""
    if row["figure"] is not None:
        figure = f"{row['figure']:+.4g}"
        if row["low"] is not None:
            figure += f" [{row['low']:+.3g}, {row['high']:+.3g}]"
    return (
        f"    {row['question'].replace('_', ' '):<14}{row['verdict']:<11}{figure:<32}"
        f" {row['answer']}"
    )


def _window_line(window: dict[str, Any]) -> str:
    more = [
        f"{window[key]:,} {text}"
        for key, text in (
            ("unread", "older ones left out by the bound"),
            ("beyond", "of those with an outcome"),
            ("without_inputs", "left out: their inputs are not logged"),
            ("torn_hours", "hours of the log torn"),
        )
        if window[key]
    ]
    if window["lost"]:
        more.append(f"{window['lost']:.1%} of the log lost")
    if window["left_out"]:
        more.append(f"{', '.join(window['left_out'])} not compared: ids or times")
    said = f"{_between(window)}: {window['requests']:,} requests, {window['labelled']:,} labelled"
    return said + (f" ({'; '.join(more)})" if more else "")


def _between(window: dict[str, Any]) -> str:
    return get_period(window["since"], window["until"])
