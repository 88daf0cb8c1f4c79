"""Plain values as text for people at a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kedge.core import release as r
from kedge.core.values import BUCKETS
from kedge.engine.control import Receipt
from kedge.ports import Entry, Note


def story(event: r.AnyEvent | Note) -> str:
    """One event as a sentence without a full stop."""
    match event:
        case r.Configured(diff=diff):
            return "policy in force" + (f" ({'; '.join(diff)})" if diff else "")
        case r.ContractAdopted(fields=fields):
            return f"contract taken from the first release: {', '.join(f.name for f in fields)}"
        case r.Promoted(release=number, replaced=old):
            return f"r{number} is production" + (f", r{old} is the way back" if old else "")
        case r.ShadowStarted(release=number, sample=sample):
            return f"r{number} is shadowed with {sample / 100:g} % of the inputs"
        case r.SampleSet(sample=sample):
            return f"the shadow gets {sample / 100:g} % of the inputs"
        case r.CanaryStarted(release=number, weight=weight):
            return f"r{number} answers {weight / 100:g} % of the callers"
        case r.WeightSet(weight=weight, previously=old):
            return f"the candidate's share went from {old / 100:g} % to {weight / 100:g} %"
        case r.Paused():
            return "the rollout is held"
        case r.Resumed():
            return "the rollout goes on"
        case r.Aborted(release=number):
            return f"r{number} is no candidate any more (not condemned)"
        case r.CandidateRolledBack(release=number, weight=weight):
            return f"r{number} went from {weight / 100:g} % to zero and is condemned"
        case r.RolledBack(release=number, left=left):
            return f"production went back from r{left} to r{number}; r{left} is condemned"
        case Note(kind="receipt", body=body):
            return f"{body['command']} took {body['total_ms']:.1f} ms" + (
                f", last ack after {body['last_ack_ms']:.1f} ms" if body.get("last_ack_ms") else ""
            )
        case Note(kind=kind, body=body):
            return f"{kind}: {', '.join(f'{k} {v}' for k, v in body.items())}"


def receipt_data(receipt: Receipt) -> dict[str, Any]:
    """What a command did and how long each part took, for --json."""
    last = receipt.events[-1]
    release = getattr(last, "release", None)
    left = getattr(last, "left", None) or release
    return {
        "endpoint": receipt.endpoint,
        "epoch": receipt.epoch,
        "event": type(last).__struct_config__.tag,
        "release": f"r{release or receipt.state.production}",
        "left": f"r{left}" if left is not None else None,
        "stage": receipt.state.stage.value,
        "weight": receipt.state.weight * 100 / BUCKETS,
        "events": receipt.events,
        "receipt": receipt.parts(),
    }


def receipt_text(receipt: Receipt) -> str:
    """The same, for people: milliseconds since the command was submitted."""
    prepared = receipt.decide_ms + receipt.prepare_ms
    parts: list[tuple[str, float | None]] = [("decided", receipt.decide_ms)]
    if receipt.prepare_ms >= 1:
        parts.append(("prepared", prepared))
    parts.append(("written", prepared + receipt.write_ms))
    parts += [(f"ack {n}", ms) for n, ms in sorted(receipt.acks.items(), key=lambda ack: ack[1])]
    parts.append(("first old answer", receipt.first_old_answer_ms))
    parts.append(("total", receipt.total_ms))
    width = max(len(name) for name, _ in parts)
    lines = [f"{receipt.endpoint} epoch {receipt.epoch}: {'; '.join(map(story, receipt.events))}"]
    lines += [f"  {name:{width}}  {ms:9.1f} ms" for name, ms in parts if ms is not None]
    if not receipt.acks and not receipt.silent:
        lines.append("  no replica is known: it takes effect when one starts")
    return "\n".join(lines)


def history_text(entries: Sequence[Entry]) -> str:
    """The ledger's lines, newest first."""
    return "\n".join(
        f"{entry.at[:23]}Z  epoch {entry.epoch:<4} {entry.by}: {story(entry.event)}"
        + (f" — {entry.reason}" if entry.reason else "")
        for entry in entries
    )


def status_text(item: dict[str, Any]) -> str:
    """One endpoint's status."""
    lines = [
        f"{item['endpoint']}  epoch {item['epoch']}  {item['stage']}{' (held)' if item['paused'] else ''}"
    ]
    lines.append(f"  production  {_release(item['production'])}")
    if item["candidate"]:
        share = f"{item['weight']:g} % of the callers" if item["stage"] == "canary" else \
            f"shadowed with {item['sample']:g} % of the inputs"  # fmt: skip
        after = f", next step {item['next_weight']:g} %" if item["next_weight"] else ""
        lines.append(f"  candidate   {_release(item['candidate'])}: {share}{after}")
    none = "none: this is the first good release" if item["production"] else "none yet"
    lines.append(f"  way back    {_way_back(item['back']) or none}")
    if item["condemned"]:
        lines.append(f"  condemned   {', '.join(item['condemned'])}")
    lines += [f"  replica     {_replica(replica)}" for replica in item["replicas"]]
    lines += _counts(item["counts"], item["stage"])
    if item["pin"]:
        pin = item["pin"]
        lines.append(
            f"  PINNED      to {pin['serves']} by {pin['by']} at {pin['at']}: {pin['reason'] or 'no reason'}"
        )
        if pin["drift"]:
            lines.append(
                f"  DRIFT       {pin['drift']}; kedge unpin {item['endpoint']} follows the ledger again"
            )
    lines += [f"  !           {fault}" for fault in item["faults"]]
    return "\n".join(lines)


def _release(found: dict[str, Any] | None) -> str:
    if found is None:
        return "-"
    return f"{found['release']} ({found['model']} {found['version']}, {found['flavour']}, {found['runtime']})"


def _way_back(back: dict[str, Any] | None) -> str:
    if back is None:
        return ""
    if not back["cold"]:
        return f"{_release(back)}, ready on {len(back['ready'])} of {len(back['ready'])} replicas"
    total = len(back["ready"]) + len(back["cold"])
    return f"{_release(back)}, ready on {len(back['ready'])} of {total}; cold: a rollback loads {back['load_s']:.1f} s"


def _replica(replica: dict[str, Any]) -> str:
    served = f"pinned to {replica['pinned']}" if replica["pinned"] else f"epoch {replica['epoch']}"
    state = "silent" if replica["silent"] else served
    holds = ", ".join(f"{h['release']} {h['placement']} {h['state']}" for h in replica["holds"])
    contact = "" if replica["lease"] else "  NO LEDGER"
    return (
        f"{replica['name']}  {state}  heard {replica['beat_age_s']:.1f} s ago  [{holds}]{contact}"
    )


def _counts(counts: dict[str, Any], stage: str) -> list[str]:
    asked = counts["requests"]
    lines = []
    if asked:
        arms = ", ".join(f"{arm} {number:,}" for arm, number in asked.items())
        lines.append(f"  requests    {arms}; without an entity {counts['keyless']:,}")
    refused = sum(counts["refused"].values())
    if refused or counts["errors"]:
        lines.append(
            f"  refused     {refused:,} {counts['refused'] or ''}; errors {counts['errors'] or 0}"
        )
    if stage == "canary" or counts["failovers"]:
        lines.append(f"  canary      {counts['canary']['requests']:,} requests, {counts['failovers']:,} failed over "
                     f"to production{_causes(counts['failovers_by_cause'])}")  # fmt: skip
    shadow = counts["shadow"]
    if shadow["requests"]:
        agreement = "-" if shadow["agreement"] is None else f"{shadow['agreement']:.2%}"
        coverage = "-" if shadow["coverage"] is None else f"{shadow['coverage']:.2%}"
        lines.append(f"  shadow      {shadow['pairs']:,} pairs, agreement {agreement}; coverage {coverage} "
                     f"(dropped {shadow['dropped']:,}{_causes(shadow['dropped_by_cause'])}, "
                     f"timed out {shadow['timed_out']:,}, failed {shadow['failed']:,})")  # fmt: skip
    return lines


def _causes(by_cause: dict[str, int]) -> str:
    """Counts by their cause, in brackets; nothing when there are none."""
    told = ", ".join(f"{cause} {number:,}" for cause, number in by_cause.items())
    return f" ({told})" if told else ""
