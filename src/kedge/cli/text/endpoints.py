"""Endpoints as text: one line each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def list_text(found: Sequence[dict[str, Any]]) -> str:
    """Return the status of endpoints, one line each, in columns."""
    rows = [_columns(item) for item in found]
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(3)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]])
        for row in rows
    )


def _columns(item: dict[str, Any]) -> tuple[str, str, str, str]:
    return item["endpoint"], _named(item["production"]), _rollout(item), _standing(item)


def _named(release: dict[str, Any] | None) -> str:
    return f"{release['release']} ({release['version']})" if release is not None else "nothing"


def _rollout(item: dict[str, Any]) -> str:
    """Return what a candidate is given, if there is one."""
    if not item["candidate"]:
        return str(item["stage"])
    share = item["weight"] if item["stage"] == "canary" else item["sample"]
    held = ", held" if item["paused"] else ""
    return f"{item['stage']} {_named(item['candidate'])} {share:g} %{held}"


def _standing(item: dict[str, Any]) -> str:
    """Return what is wrong, the most urgent first, or "ok"."""
    pages = sum(alert["level"] == "page" for alert in item["alerts"])
    faults = [
        *item["faults"],
        *(
            f"{process['name']}: {fault['place']} failed"
            for process in item["processes"]
            for fault in process["faults"]
            if fault["standing"]
        ),
    ]
    readiness = item.get("readiness")
    unready = len(readiness["failed"]) if readiness and not readiness["ready"] else 0
    told = [
        "DRILL" if item["drill"] else "",
        _count(pages, "page"),
        *faults[:1],
        f"{_count(len(faults) - 1, 'fault')} more" if len(faults) > 1 else "",
        _count(len(item["alerts"]) - pages, "warning"),
        f"not ready: {_count(unready, 'check')} failed" if unready else "",
    ]
    return "; ".join(word for word in told if word) or "ok"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}" if number else ""
