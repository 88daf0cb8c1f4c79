"""Decisions of an endpoint: each entry of the ledger with what was seen, and two releases compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from kedge.core.release.commands import Configured
from kedge.core.stored import notes as n
from kedge.core.stored.ledger import Entry, Note
from kedge.core.values import Value
from kedge.web.dashboard.pages.comparison import ReleaseComparison
from kedge.web.dashboard.pages.endpoint import EndpointHead
from kedge.web.dashboard.pages.flat import flatten
from kedge.web.dashboard.pages.marks import EventLine, lines_of
from kedge.web.dashboard.pages.page import DashboardPage, PagePart
from kedge.web.dashboard.pages.readings import (
    HistoryReading,
    PageReading,
    PolicyEntry,
)
from kedge.web.dashboard.pages.receipts import AckLine, ack_lines, part_lines

FACTS = 40
"""Figures of one decision that are shown."""


class DecisionEntry(Value, frozen=True, kw_only=True):
    """One entry of the ledger with its figures."""

    line: EventLine
    seen: tuple[tuple[str, str], ...]
    """The figures that the decision saw."""
    parts: tuple[tuple[str, str], ...]
    """How long each part of the command took."""
    acks: tuple[AckLine, ...]
    policy: str
    """The digest of the policy in force, shortened; empty: not known."""
    policy_seq: int | None
    """The entry that brought it into force."""
    token: str
    """The token or session that allowed it; empty: a command on the machine itself."""


class DecisionsView(Value, frozen=True, kw_only=True):
    """The entries, and the comparison of two releases."""

    endpoint: str
    entries: tuple[DecisionEntry, ...]
    is_newest: bool
    """Whether the list begins with the newest entry."""
    older: str
    """The cursor of older entries; empty: there are none."""
    releases: tuple[str, ...]
    one: str
    other: str
    comparison: ReleaseComparison | None
    """None: there are no two releases, or they cannot be read."""


def chosen(reading: PageReading, one: str, other: str) -> tuple[str, str]:
    """Return the names of the releases to compare: those that are asked for, or the last two."""
    status = reading.status
    known = [release.label for release in reading.releases]
    usual = [
        part.release
        for part in (status.previous, status.production, status.candidate)
        if part is not None
    ]
    one = one if one in known else usual[-2] if len(usual) > 1 else next(iter(known), "")
    return one, other if other in known else usual[-1] if usual else one


def decisions_page(
    reading: PageReading,
    history: HistoryReading,
    names: tuple[str, str],
    comparison: ReleaseComparison | None,
    head: EndpointHead,
    at: float,
) -> DashboardPage:
    """Return the page of an endpoint's decisions; `names` are those of the compared releases."""
    status = reading.status
    view = DecisionsView(
        endpoint=status.endpoint,
        entries=entries_of(history.entries, history.policies),
        is_newest=not history.cursor,
        older=history.next or "",
        releases=tuple(release.label for release in reading.releases),
        one=names[0],
        other=names[1],
        comparison=comparison,
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


class DecisionView(Value, frozen=True, kw_only=True):
    """The entries of one command, or one entry that no command wrote."""

    endpoint: str
    seq: int
    entries: tuple[DecisionEntry, ...]


def decision_page(
    history: HistoryReading, seq: int, head: EndpointHead, at: float
) -> DashboardPage:
    """Return the page of one entry, with the others of its command.

    Args:
        history: the entry and later ones of its endpoint, newest first.
        seq: its number in the ledger.
        head: the head of the endpoint's pages.
        at: Unix time of the reading.
    """
    (wanted,) = (entry for entry in history.entries if entry.seq == seq)
    of = {entry.seq for entry in history.entries if _is_beside(entry, wanted)}
    found = entries_of(history.entries, history.policies)
    view = DecisionView(
        endpoint=head.endpoint, seq=seq, entries=tuple(one for one in found if one.line.seq in of)
    )
    return DashboardPage(
        title=f"Entry {seq} · {head.endpoint}",
        template="endpoint_page.html",
        parts=(
            PagePart("head", "endpoint_head.html", head),
            PagePart("decision", "decision.html", view),
        ),
        endpoint=head.endpoint,
        tab="decisions",
        at=at,
    )


def _is_beside(entry: Entry, wanted: Entry) -> bool:
    """Return whether one command wrote both entries."""
    if isinstance(wanted.event, Note) or isinstance(entry.event, Note):
        return entry.seq == wanted.seq
    return (entry.at, entry.by) == (wanted.at, wanted.by)


def entries_of(
    entries: Sequence[Entry], policies: Sequence[PolicyEntry] = ()
) -> tuple[DecisionEntry, ...]:
    """Return the entries, newest first, each with its receipt and the policy in force.

    `policies` are those that came into force, newest first.
    """
    receipts = {
        entry.event.body.of: entry.event.body.parts
        for entry in entries
        if isinstance(entry.event, Note) and isinstance(entry.event.body, n.ReceiptNote)
    }
    by_seq = {entry.seq: entry for entry in entries}
    found = []
    for line in lines_of(entries):
        parts = receipts.get(line.seq)
        in_force = next((e for e in policies if (e.epoch, e.seq) <= (line.epoch, line.seq)), None)
        found.append(
            DecisionEntry(
                line=line,
                seen=seen_by(by_seq[line.seq]),
                parts=part_lines(parts) if parts is not None else (),
                acks=ack_lines(parts) if parts is not None else (),
                policy=in_force.digest.removeprefix("sha256:")[:12] if in_force else "",
                policy_seq=in_force.seq if in_force else None,
                token=by_seq[line.seq].token,
            )
        )
    return tuple(found)


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
    if isinstance(entry.event, Configured):
        return flatten(msgspec.to_builtins(entry.event.policy))
    return flatten(seen)[:FACTS]
