"""Decisions of an endpoint: each entry of the ledger with what was seen, and two releases compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kedge.core.stored import notes as n
from kedge.core.stored.ledger import Entry, Note
from kedge.core.values import Release, Value
from kedge.operations.status.view import features_of
from kedge.web.dashboard.pages.endpoint import EndpointHead
from kedge.web.dashboard.pages.marks import EventLine, lines_of
from kedge.web.dashboard.pages.page import DashboardPage, PagePart
from kedge.web.dashboard.pages.quantities import milliseconds, span
from kedge.web.dashboard.pages.readings import PageReading

DEPTH = 3
"""Levels of nested figures that are shown."""
FACTS = 40
"""Figures of one decision that are shown."""
TEXT = 200
"""Characters of one figure."""


class DecisionEntry(Value, frozen=True, kw_only=True):
    """One entry of the ledger with its figures."""

    line: EventLine
    seen: tuple[tuple[str, str], ...]
    """The figures that the decision saw."""
    parts: tuple[tuple[str, str], ...]
    """How long each part of the command took."""
    acks: tuple[tuple[str, str], ...]
    policy: str
    """The digest of the policy in force, shortened; empty: not known."""


class ReleaseRow(Value, frozen=True):
    """One property of two releases."""

    what: str
    one: str
    other: str
    differs: bool


class DecisionsView(Value, frozen=True, kw_only=True):
    """The entries, and the comparison of two releases."""

    endpoint: str
    entries: tuple[DecisionEntry, ...]
    releases: tuple[str, ...]
    one: str
    other: str
    rows: tuple[ReleaseRow, ...]


def decisions_page(
    reading: PageReading, head: EndpointHead, at: float, *, one: str = "", other: str = ""
) -> DashboardPage:
    """Return the page of an endpoint's decisions; `one` and `other` name the compared releases."""
    status = reading.status
    known = {release.label: release for release in reading.releases}
    usual = [
        part.release
        for part in (status.previous, status.production, status.candidate)
        if part is not None
    ]
    one = one if one in known else usual[-2] if len(usual) > 1 else next(iter(known), "")
    other = other if other in known else usual[-1] if usual else one
    view = DecisionsView(
        endpoint=status.endpoint,
        entries=entries_of(reading.entries),
        releases=tuple(known),
        one=one,
        other=other,
        rows=compare(known.get(one), known.get(other)),
    )
    return DashboardPage(
        title=f"Decisions · {status.endpoint}",
        template="endpoint_page.html",
        parts=(
            PagePart("head", "endpoint_head.html", head),
            PagePart("decisions", "decisions.html", view),
        ),
        endpoint=status.endpoint,
        tab="decisions",
        at=at,
    )


def entries_of(entries: Sequence[Entry]) -> tuple[DecisionEntry, ...]:
    """Return the entries, newest first, each with the receipt that was written for it."""
    receipts = {
        entry.event.body.of: entry.event.body.parts
        for entry in entries
        if isinstance(entry.event, Note) and isinstance(entry.event.body, n.ReceiptNote)
    }
    by_seq = {entry.seq: entry for entry in entries}
    policies = _policies(entries)
    found = []
    for line in lines_of(entries):
        parts = receipts.get(line.seq)
        found.append(
            DecisionEntry(
                line=line,
                seen=seen_by(by_seq[line.seq]),
                parts=_parts(parts) if parts is not None else (),
                acks=tuple((k, milliseconds(v)) for k, v in sorted(parts.acks.items()))
                if parts is not None
                else (),
                policy=policies.get(line.seq, ""),
            )
        )
    return tuple(found)


def _policies(entries: Sequence[Entry]) -> dict[int, str]:
    """Return by entry the policy that was in force, as far as the entries tell it."""
    found, now = {}, ""
    for entry in reversed(entries):
        digest = getattr(entry.event, "digest", "")
        if not isinstance(entry.event, Note) and digest:
            now = str(digest).removeprefix("sha256:")[:12]
        found[entry.seq] = now
    return found


def _parts(parts: n.ReceiptParts) -> tuple[tuple[str, str], ...]:
    measured = (
        ("decide", parts.decide_ms),
        ("prepare", parts.prepare_ms),
        ("write", parts.write_ms),
        ("last ack", parts.last_ack_ms),
        ("first old answer", parts.first_old_answer_ms),
        ("total", parts.total_ms),
    )
    return tuple((name, milliseconds(took)) for name, took in measured if took is not None)


def seen_by(entry: Entry) -> tuple[tuple[str, str], ...]:
    """Return the figures that a decision saw, flat."""
    if isinstance(entry.event, Note):
        body = entry.event.body
        if not isinstance(body, n.VerdictNote):
            return ()
        seen: Mapping[str, object] = {
            name: getattr(body, name) for name in body.__struct_fields__ if getattr(body, name)
        }
    else:
        seen = entry.event.evidence or {}
    return tuple(_flat(seen, "", DEPTH))[:FACTS]


def _flat(seen: Mapping[str, object], prefix: str, depth: int) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, value in seen.items():
        if isinstance(value, Mapping) and depth > 1:
            found += _flat(value, f"{prefix}{name} · ", depth - 1)
        elif isinstance(value, list | tuple) and value and isinstance(value[0], Mapping):
            for number, one in enumerate(value, 1):
                if isinstance(one, Mapping) and depth > 1:
                    found += _flat(one, f"{prefix}{name} {number} · ", depth - 1)
        else:
            found.append((f"{prefix}{name}".replace("_", " "), _text(value)))
    return found


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(_text(one) for one in value)[:TEXT]
    return str(value)[:TEXT]


def compare(one: Release | None, other: Release | None) -> tuple[ReleaseRow, ...]:
    """Return the properties of two releases side by side."""
    if one is None or other is None:
        return ()
    ours, theirs = _properties(one), _properties(other)
    return tuple(
        ReleaseRow(what, ours[what], theirs[what], ours[what] != theirs[what]) for what in ours
    )


def _properties(release: Release) -> dict[str, str]:
    signature = release.signature
    return {
        "release": release.label,
        "version": f"v{release.version}",
        "model": release.model,
        "model digest": release.model_digest.removeprefix("sha256:")[:16],
        "flavour": release.flavour,
        "features": features_of(release) or "none",
        "feature values": release.generation or "none computed ahead",
        "inputs": ", ".join(f"{field.name}: {field.dtype}" for field in signature.inputs),
        "outputs": ", ".join(f"{field.name}: {field.dtype}" for field in signature.outputs),
        "runs": release.placement.value,
        "load": span(release.load_s) if release.load_s else "not measured",
    }
