"""Way back of a rollback, as every page shows it: the release, and whether it is warm."""

from __future__ import annotations

from typing import Literal

from kedge.core.values import Stage, Value
from kedge.operations.status.view import EndpointStatus, ReleaseSummary, WayBack
from kedge.web.dashboard.pages.quantities import span

Warmth = Literal["warm", "cold", "unkept", "none"]


class Landing(Value, frozen=True, kw_only=True):
    """What a rollback of production would land on."""

    release: str
    """The release with its version; empty: there is none."""
    warmth: Warmth
    word: str
    """The warmth in words, so that colour is not needed."""
    ready: int = 0
    """Replicas on which it is ready."""
    replicas: int = 0
    cold: tuple[tuple[str, str], ...] = ()
    """Each replica on which it is not ready, and why."""
    load: str = ""
    """How long a load takes."""


def name(release: ReleaseSummary | None) -> str:
    """Return a release with its version: r3 · v2."""
    return f"{release.release} · {release.version}" if release is not None else ""


def landing(back: WayBack | None) -> Landing:
    """Return the landing from a way back."""
    if back is None:
        return Landing(release="", warmth="none", word="no way back")
    total = len(back.ready) + len(back.cold)
    warmth: Warmth = "cold" if back.cold or not total else "warm"
    warmth = warmth if back.kept else "unkept"
    words: dict[Warmth, str] = {
        "warm": f"warm on {len(back.ready)}/{total}",
        "cold": f"warm on {len(back.ready)}/{total}" if total else "no replica",
        "unkept": f"not loaded, load {span(back.load_s)}",
        "none": "no way back",
    }
    return Landing(
        release=name(back),
        warmth=warmth,
        word=words[warmth],
        ready=len(back.ready),
        replicas=total,
        cold=tuple(sorted(back.cold.items())),
        load=span(back.load_s),
    )


def landing_now(status: EndpointStatus) -> Landing:
    """Return where callers are after a rollback: in a canary, on production, which answers now."""
    if status.stage is Stage.CANARY and status.candidate is not None:
        return Landing(release=name(status.production), warmth="warm", word="answers now")
    if status.drill is not None:
        return Landing(release=name(status.production), warmth="warm", word="answers now")
    return landing(status.back)


def undo(status: EndpointStatus) -> str:
    """Return what a rollback without options would do, as a sentence without a full stop."""
    if status.stage is Stage.CANARY and status.candidate is not None:
        return (
            f"takes {name(status.candidate)} from {status.weight:g} % to zero and condemns it;"
            f" production stays {name(status.production)}"
        )
    if status.drill is not None:
        return (
            f"keeps {name(status.production)} in production and ends the drill;"
            f" {status.drill.left}, which the drill left, is condemned"
        )
    if status.back is None:
        return "has nowhere to go: no earlier release is good"
    told = (
        f"sends all callers from {name(status.production)} back to {name(status.back)}"
        f" and condemns {status.production.release if status.production else 'what it leaves'}"
    )
    if status.candidate is not None:
        told += f"; the {status.stage} of {name(status.candidate)} ends, uncondemned"
    return told
