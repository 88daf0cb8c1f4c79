"""Text of status: one line for each endpoint, and the whole status of one."""

from __future__ import annotations

from collections.abc import Sequence

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
    rows = [_columns(item) for item in found]
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(3)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]])
        for row in rows
    )


def _columns(item: EndpointStatus) -> tuple[str, str, str, str]:
    return item.endpoint, _named(item.production), _rollout(item), _standing(item)


def _named(release: ReleaseSummary | None) -> str:
    return f"{release.release} ({release.version})" if release is not None else "nothing"


def _rollout(item: EndpointStatus) -> str:
    """Return the share of a candidate, if there is one."""
    if not item.candidate:
        return str(item.stage)
    share = item.weight if item.stage is Stage.CANARY else item.sample
    held = ", held" if item.paused else ""
    return f"{item.stage} {_named(item.candidate)} {share:g} %{held}"


def _standing(item: EndpointStatus) -> str:
    """Return the problems, the most urgent first, or "ok"."""
    pages = sum(alert.level == "page" for alert in item.alerts)
    faults = [
        *item.faults,
        *(
            f"{process.name}: {fault.place} failed"
            for process in item.processes
            for fault in process.faults
            if fault.standing
        ),
    ]
    readiness = item.readiness
    unready = len(readiness.failed) if readiness and not readiness.ready else 0
    told = [
        "DRILL" if item.drill else "",
        _count(pages, "page"),
        *faults[:1],
        f"{_count(len(faults) - 1, 'fault')} more" if len(faults) > 1 else "",
        _count(len(item.alerts) - pages, "warning"),
        f"not ready: {_count(unready, 'check')} failed" if unready else "",
    ]
    return "; ".join(word for word in told if word) or "ok"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}" if number else ""


# ---------------------------------------------------------------- one endpoint


def status_text(item: EndpointStatus) -> str:
    """Return one endpoint's status as text."""
    held = " (held)" if item.paused else ""
    lines = [f"{item.endpoint}  epoch {item.epoch}  {item.stage}{held}"]
    lines.append(f"  production  {_release(item.production)}")
    if item.candidate:
        share = (
            f"{item.weight:g} % of the callers"
            if item.stage is Stage.CANARY
            else f"shadowed with {item.sample:g} % of the inputs"
        )
        after = f", next step {item.next_weight:g} %" if item.next_weight else ""
        lines.append(f"  candidate   {_release(item.candidate)}: {share}{after}")
    lines += [
        f"  {'rollout' if not n else '':11} {line}"
        for n, line in enumerate(rollout_lines(item, get_width() - 14))
    ]
    lines += [
        f"  rows        of {part.release} {MARKS[part.rows]}"
        for part in (item.production, item.candidate)
        if part is not None and part.rows != "independent"
    ]
    lines += [
        f"  libraries   of {part.release}: {'; '.join(part.libraries)}"
        for part in (item.production, item.candidate)
        if part is not None and part.libraries
    ]
    none = "none: no earlier release is good" if item.production else "none yet"
    lines.append(f"  way back    {_way_back(item.back) or none}")
    if item.drill:
        lines.append(f"  DRILL       {item.drill.left} is restored in {item.drill.left_s:.0f} s")
    if item.readiness:
        lines.append(f"  readiness   {_readiness(item.endpoint, item.readiness)}")
    if item.condemned:
        lines.append(f"  condemned   {', '.join(item.condemned)}")
    lines += [f"  failed      {release}: {why}" for release, why in item.failed.items()]
    lines += [f"  replica     {_replica(replica)}" for replica in item.replicas]
    lines += _counts(item.counts, item.stage)
    lines += _unrecorded_lines(item.unrecorded, "  no record   ")
    if item.pin:
        pin = item.pin
        lines.append(
            f"  PINNED      to {pin.serves} by {pin.by} at {pin.at}: {pin.reason or 'no reason'}"
        )
        if pin.drift:
            lines.append(
                f"  DRIFT       {pin.drift}; kedge unpin {item.endpoint} follows the ledger again"
            )
    lines += _alert_lines(item.alerts)
    lines += [f"  !           {fault}" for fault in item.faults]
    lines += _process_lines(item.processes)
    return "\n".join(lines)


def _unrecorded_lines(lost: UnrecordedPredictions | None, head: str = "  ") -> list[str]:
    """Return the number of predictions without a record, and the causes."""
    said = sentence(lost.answered, lost.by_cause) if lost else ""
    return [head + said] if said else []


def _process_lines(processes: Sequence[ProcessStatus]) -> list[str]:
    """Return the faults of the roster's processes, and their refusals by bound."""
    lines = []
    for process in processes:
        lines += [
            f"  {'!' if fault.standing else 'past fault':11} {process.name}: {fault.place}"
            f" failed {fault.count} times, last at {fault.at}: {fault.text}"
            for fault in process.faults
        ]
        if process.limited:
            counts = ", ".join(
                f"{bound} {count}" for bound, count in sorted(process.limited.items())
            )
            lines.append(f"  refused     {process.name}: {counts}")
    return lines


def _readiness(endpoint: str, found: ReadinessStatus) -> str:
    standing = "ready" if found.ready else f"NOT READY: {', '.join(found.failed)}"
    return f"{standing} (as of {found.at[:19]}Z; kedge check {endpoint})"


def _alert_lines(alerts: Sequence[OpenAlert]) -> list[str]:
    """Return the number of open alerts, and the newest three."""
    if not alerts:
        return []
    pages = sum(alert.level == "page" for alert in alerts)
    alone = sum(not alert.acknowledged_by for alert in alerts)
    return [
        (
            f"  alerts      {len(alerts)} open, pages: {pages}, not acknowledged: {alone}; kedge"
            " alerts"
        ),
        *(f"  {alert.level:11} #{alert.number} {alert.summary}" for alert in alerts[:3]),
    ]


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


def _replica(replica: ReplicaStatus) -> str:
    served = f"pinned to {replica.pinned}" if replica.pinned else f"epoch {replica.epoch}"
    state = "silent" if replica.silent else served
    holds = ", ".join(f"{h.release} {h.placement} {h.state}" for h in replica.holds)
    contact = "" if replica.lease else "  NO LEDGER"
    return f"{replica.name}  {state}  heard {replica.beat_age_s:.1f} s ago  [{holds}]{contact}"


def _counts(counts: CountSummary, stage: Stage) -> list[str]:
    asked = counts.requests
    lines = []
    if asked:
        arms = ", ".join(f"{arm} {number:,}" for arm, number in asked.items())
        lines.append(f"  requests    {arms}; without an entity {counts.keyless:,}")
    refused = sum(counts.refused.values())
    if refused or counts.errors:
        lines.append(
            f"  refused     {refused:,} {counts.refused or ''}; errors {counts.errors or 0}"
        )
    for arm, found in counts.violations.items():
        if found:
            lines.append(
                f"  features    {arm}: out of range or unseen: "
                + ", ".join(f"{name} {number:,}" for name, number in found.items())
            )
    if stage is Stage.CANARY or counts.failovers:
        lines.append(
            f"  canary      {counts.canary.requests:,} requests, {counts.failovers:,}"
            f" failed over to production{causes(counts.failovers_by_cause)}"
        )
        if counts.canary.unasked:
            lines.append(
                f"  never asked {counts.canary.unasked:,} of them: no failures, and no evidence"
            )
    shadow = counts.shadow
    if shadow.requests:
        agreement = "-" if shadow.agreement is None else f"{shadow.agreement:.2%}"
        coverage = "-" if shadow.coverage is None else f"{shadow.coverage:.2%}"
        lines.append(
            f"  shadow      {shadow.pairs:,} pairs, agreement {agreement}; coverage {coverage} "
            f"(dropped {shadow.dropped:,}{causes(shadow.dropped_by_cause)}, "
            f"timed out {shadow.timed_out:,}, failed {shadow.failed:,})"
        )
    return lines
