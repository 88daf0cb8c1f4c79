"""Text of status: one line for each endpoint, and the whole status of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from kedge.cli.blocks import Tone
from kedge.cli.text.estimate import rollout_lines
from kedge.cli.text.evidence import causes
from kedge.cli.text.layout import get_width
from kedge.cli.text.models import MARKS
from kedge.core.evidence.unrecorded import sentence
from kedge.core.values import Stage
from kedge.engine.recording.counts import CountSummary
from kedge.engine.unrecorded import UnrecordedPredictions
from kedge.operations.status.view import (
    EndpointStatus,
    OpenAlert,
    ProcessStatus,
    ReadinessStatus,
    ReleaseSummary,
    ReplicaStatus,
    WayBack,
)


def list_text(found: Sequence[EndpointStatus]) -> str:
    """Return the status of endpoints, one line each, in columns."""
    rows = [(*get_cells(item)[:3], _people(item), get_cells(item)[3]) for item in found]
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(4)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]])
        for row in rows
    )


def get_cells(item: EndpointStatus) -> tuple[str, str, str, str]:
    """Return an endpoint in four cells: name, production, rollout, and its problems or "ok"."""
    return item.endpoint, named(item.production), _rollout(item), _standing(item)


def _people(item: EndpointStatus) -> str:
    """Return the owner and the person on call."""
    return f"owner {item.owner or '-'}, on call {item.on_call or '-'}"


def named(release: ReleaseSummary | None) -> str:
    """Return a release with its version."""
    return f"{release.release} ({release.version})" if release is not None else "nothing"


def _rollout(item: EndpointStatus) -> str:
    """Return the share of a candidate, if there is one."""
    if not item.candidate:
        return str(item.stage)
    share = item.weight if item.stage is Stage.CANARY else item.sample
    held = ", held" if item.paused else ""
    return f"{item.stage} {named(item.candidate)} {share:g} %{held}"


def _standing(item: EndpointStatus) -> str:
    """Return the problems, the most urgent first, or "ok"."""
    pages = sum(alert.level == "page" for alert in item.alerts)
    faults = get_faults(item)
    readiness = item.readiness
    unready = len(readiness.failed) if readiness and not readiness.ready else 0
    told = [
        "DRILL" if item.drill else "",
        counted(pages, "page"),
        *faults[:1],
        f"{counted(len(faults) - 1, 'fault')} more" if len(faults) > 1 else "",
        counted(len(item.alerts) - pages, "warning"),
        f"not ready: {counted(unready, 'check')} failed" if unready else "",
    ]
    return "; ".join(word for word in told if word) or "ok"


def get_faults(item: EndpointStatus) -> list[str]:
    """Return the faults for the operator to check, those of processes too."""
    return [
        *item.faults,
        *(
            f"{process.name}: {fault.place} failed"
            for process in item.processes
            for fault in process.faults
            if fault.standing
        ),
    ]


def counted(number: int, what: str) -> str:
    """Return a number of things; empty if there are none."""
    return f"{number} {what}{'s' if number != 1 else ''}" if number else ""


# ---------------------------------------------------------------- one endpoint


class Fact(NamedTuple):
    """One line of a status: what it is about, and what is known."""

    name: str
    text: str
    tone: Tone = Tone.PLAIN


def status_text(item: EndpointStatus) -> str:
    """Return one endpoint's status as text."""
    facts = [f"  {one.name:11} {one.text}" for one in get_facts(item, get_width() - 14)]
    return "\n".join([head_text(item), *facts])


def head_text(item: EndpointStatus) -> str:
    """Return the first line of one endpoint's status."""
    held = " (held)" if item.paused else ""
    return f"{item.endpoint}  epoch {item.epoch}  {item.stage}{held}"


def get_facts(item: EndpointStatus, width: int) -> list[Fact]:
    """Return the facts about one endpoint, in order; sentences have at most `width` columns."""
    facts = [Fact("production", _release(item.production))]
    if item.candidate:
        share = (
            f"{item.weight:g} % of the callers"
            if item.stage is Stage.CANARY
            else f"shadowed with {item.sample:g} % of the inputs"
        )
        after = f", next step {item.next_weight:g} %" if item.next_weight else ""
        facts.append(Fact("candidate", f"{_release(item.candidate)}: {share}{after}"))
    facts += [
        Fact("rollout" if not n else "", line) for n, line in enumerate(rollout_lines(item, width))
    ]
    live = [part for part in (item.production, item.candidate) if part is not None]
    facts += [
        Fact("rows", f"of {part.release} {MARKS[part.rows]}")
        for part in live
        if part.rows != "independent"
    ]
    facts += [
        Fact("libraries", f"of {part.release}: {'; '.join(part.libraries)}", Tone.WARN)
        for part in live
        if part.libraries
    ]
    facts += _ways(item)
    if item.condemned:
        facts.append(Fact("condemned", ", ".join(item.condemned)))
    facts += [Fact("failed", f"{release}: {why}") for release, why in item.failed.items()]
    facts += [Fact("replica", *_replica(replica)) for replica in item.replicas]
    facts += _counts(item.counts, item.stage)
    facts += _unrecorded(item.unrecorded)
    if item.pin:
        pin = item.pin
        why = pin.reason or "no reason"
        text = f"to {pin.serves} by {pin.by} at {pin.at}: {why}"
        facts.append(Fact("PINNED", text, Tone.WARN))
        if pin.drift:
            text = f"{pin.drift}; kedge unpin {item.endpoint} follows the ledger again"
            facts.append(Fact("DRIFT", text, Tone.BAD))
    facts.append(Fact("people", _people(item)))
    facts += _alerts(item.alerts)
    facts += [Fact("!", fault, Tone.BAD) for fault in item.faults]
    facts += _processes(item.processes)
    return [*facts, Fact("dashboard", item.link)] if item.link else facts


def _ways(item: EndpointStatus) -> list[Fact]:
    """Return the landing of a rollback, a drill under way, and whether a rollback would work."""
    none = "none: no earlier release is good" if item.production else "none yet"
    facts = [Fact("way back", _way_back(item.back) or none)]
    if item.drill:
        text = f"{item.drill.left} is restored in {item.drill.left_s:.0f} s"
        facts.append(Fact("DRILL", text, Tone.WARN))
    if item.readiness:
        tone = Tone.GOOD if item.readiness.ready else Tone.BAD
        facts.append(Fact("readiness", _readiness(item.endpoint, item.readiness), tone))
    return facts


def _unrecorded(lost: UnrecordedPredictions | None) -> list[Fact]:
    """Return the number of predictions without a record, and the causes."""
    said = sentence(lost.answered, lost.by_cause) if lost else ""
    return [Fact("no record", said, Tone.WARN)] if said else []


def _processes(processes: Sequence[ProcessStatus]) -> list[Fact]:
    """Return the faults of the roster's processes, and their refusals by bound."""
    facts = []
    for process in processes:
        facts += [
            Fact(
                "!" if fault.standing else "past fault",
                f"{process.name}: {fault.place} failed {fault.count} times, last at {fault.at}:"
                f" {fault.text}",
                Tone.BAD if fault.standing else Tone.WARN,
            )
            for fault in process.faults
        ]
        if process.limited:
            counts = ", ".join(
                f"{bound} {count}" for bound, count in sorted(process.limited.items())
            )
            facts.append(Fact("refused", f"{process.name}: {counts}", Tone.WARN))
    return facts


def _readiness(endpoint: str, found: ReadinessStatus) -> str:
    standing = "ready" if found.ready else f"NOT READY: {', '.join(found.failed)}"
    return f"{standing} (as of {found.at[:19]}Z; kedge check {endpoint})"


def _alerts(alerts: Sequence[OpenAlert]) -> list[Fact]:
    """Return the number of open alerts, and the newest three."""
    if not alerts:
        return []
    pages = sum(alert.level == "page" for alert in alerts)
    alone = sum(not alert.acknowledged_by for alert in alerts)
    text = f"{len(alerts)} open, pages: {pages}, not acknowledged: {alone}; kedge alerts"
    newest = [
        Fact(
            alert.level,
            f"#{alert.number} {alert.summary}",
            Tone.BAD if alert.level == "page" else Tone.WARN,
        )
        for alert in alerts[:3]
    ]
    return [Fact("alerts", text), *newest]


def _release(found: ReleaseSummary | None) -> str:
    if found is None:
        return "-"
    return f"{found.release} ({found.model} {found.version}, {found.flavour}, {found.runtime})"


def _way_back(back: WayBack | None) -> str:
    if back is None:
        return ""
    if not back.cold:
        return f"{_release(back)}, ready on {len(back.ready)} of {len(back.ready)} replicas"
    total = len(back.ready) + len(back.cold)
    return (
        f"{_release(back)}, ready on {len(back.ready)} of {total}; cold: a rollback loads"
        f" {back.load_s:.1f} s"
    )


def _replica(replica: ReplicaStatus) -> tuple[str, Tone]:
    served = f"pinned to {replica.pinned}" if replica.pinned else f"epoch {replica.epoch}"
    state = "silent" if replica.silent else served
    holds = ", ".join(f"{h.release} {h.placement} {h.state}" for h in replica.holds)
    contact = "" if replica.lease else "  NO LEDGER"
    text = f"{replica.name}  {state}  heard {replica.beat_age_s:.1f} s ago  [{holds}]{contact}"
    return text, Tone.BAD if replica.silent or not replica.lease else Tone.PLAIN


def _counts(counts: CountSummary, stage: Stage) -> list[Fact]:
    asked = counts.requests
    facts = []
    if asked:
        arms = ", ".join(f"{arm} {number:,}" for arm, number in asked.items())
        facts.append(Fact("requests", f"{arms}; without an entity {counts.keyless:,}"))
    refused = sum(counts.refused.values())
    if refused or counts.errors:
        text = f"{refused:,} {counts.refused or ''}; errors {counts.errors or 0}"
        facts.append(Fact("refused", text, Tone.WARN))
    for arm, found in counts.violations.items():
        if found:
            columns = ", ".join(f"{name} {number:,}" for name, number in found.items())
            text = f"{arm}: out of range or unseen: {columns}"
            facts.append(Fact("features", text, Tone.WARN))
    if stage is Stage.CANARY or counts.failovers:
        text = (
            f"{counts.canary.requests:,} requests, {counts.failovers:,} failed over to"
            f" production{causes(counts.failovers_by_cause)}"
        )
        facts.append(Fact("canary", text))
        if counts.canary.unasked:
            text = f"{counts.canary.unasked:,} of them: no failures, and no evidence"
            facts.append(Fact("never asked", text))
    shadow = counts.shadow
    if shadow.requests:
        agreement = "-" if shadow.agreement is None else f"{shadow.agreement:.2%}"
        coverage = "-" if shadow.coverage is None else f"{shadow.coverage:.2%}"
        text = (
            f"{shadow.pairs:,} pairs, agreement {agreement}; coverage {coverage} "
            f"(dropped {shadow.dropped:,}{causes(shadow.dropped_by_cause)}, "
            f"timed out {shadow.timed_out:,}, failed {shadow.failed:,})"
        )
        facts.append(Fact("shadow", text))
    return facts
