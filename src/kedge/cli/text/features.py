"""Transformations and comparisons of them as text for people at a terminal."""

from __future__ import annotations

from typing import Any


def applied_text(found: dict[str, Any]) -> str:
    """What applying a features file did, for people."""
    lines = []
    for told in found["transformations"]:
        if not told["new"]:
            lines.append(f"{told['version']}: unchanged")
        else:
            takes = (
                f"takes {', '.join(told['raw'])}"
                if not told["materialised"]
                else (
                    "to be computed: kedge features materialise"
                    f" {told['version'].partition('/')[0]}"
                )
            )
            reads = f", reads {', '.join(told['reads'])} by key" if told["reads"] else ""
            lines.append(f"{told['version']}: new; {takes}{reads}")
        if told["rows"] == "dependent":
            lines.append(
                "  its answers depend on the rows that are asked together: requests are never"
                " merged"
            )
        if told["against"]:
            lines.append(f"  {comparison_text(told, told['against'])}")
        lines += [
            f"  {item['endpoint']} uses {item['production'] or 'no version of it yet'}; "
            + ("it follows the head" if item["follows"] else "it does not follow the head")
            for item in told["endpoints"]
            if told["new"]
        ]
    return "\n".join(line for line in lines if line)


def comparison_text(told: dict[str, Any], against: str) -> str:
    """How a transformation compares, on which rows, and the columns that differ, for people."""
    on = ", ".join(f"{number} {ORIGINS[origin]}" for origin, number in told["compared_on"].items())
    lines = [f"{told['outcome']} against {against}, on {on or 'no rows'}"]
    if told["made"]:
        lines.append(f"  values by key were made: {', '.join(told['made'])}")
    return "\n".join([*lines, *filter(None, [differences_text(told["columns"])])])


ORIGINS = {
    "given": "given",
    "training": "of the training set",
    "log": "of the prediction log",
    "made": "made",
    "unknown": "kept by an earlier version",
}
"""Where rows come from, after their number."""


def differences_text(columns: list[dict[str, Any]]) -> str:
    """Columns that differ, for people."""
    return "\n".join(
        f"  {one['column']:<20} {one['outcome']:<17} {one['rows']:,} rows"
        + (f", by {one['largest']:.6g} at most" if one["largest"] is not None else "")
        + f", for example {one['example'][0]} -> {one['example'][1]}"
        for one in columns
        if one["example"] is not None
    )
