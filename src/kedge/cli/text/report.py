"""Plain values as text for people at a terminal."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from kedge.core.diagnosis.summary import DiagnosisSummary
from kedge.core.release import commands as r
from kedge.core.stored import notes as n
from kedge.core.stored.head import SHORT
from kedge.core.stored.ledger import Note
from kedge.core.time.instants import iso
from kedge.core.values import BUCKETS, Proof
from kedge.engine.submission import Receipt


def story(event: r.AnyEvent | Note) -> str:
    """One event as a sentence without a full stop."""
    match event:
        case r.Configured(diff=diff):
            return "policy in force" + (f" ({'; '.join(diff)})" if diff else "")
        case r.ContractAdopted(fields=fields):
            return f"contract taken from the first release: {', '.join(f.name for f in fields)}"
        case r.Promoted(release=number, replaced=old, answers=answers):
            taken = (
                f"; callers are promised {', '.join(f.name for f in answers)}" if answers else ""
            )
            return f"r{number} is production" + (f", r{old} is the way back" if old else "") + taken
        case r.ShadowStarted(release=number, sample=sample):
            return f"r{number} is shadowed with {sample / 100:g} % of the inputs"
        case r.SampleSet(sample=sample):
            return f"the shadow gets {sample / 100:g} % of the inputs"
        case r.CanaryStarted(release=number, weight=weight, auto=auto):
            return f"r{number} answers {weight / 100:g} % of the callers" + (
                "; the patrol walks the steps" if auto else ""
            )
        case r.WeightSet(weight=weight, previously=old):
            return f"the candidate's share went from {old / 100:g} % to {weight / 100:g} %"
        case r.Paused():
            return "the rollout is held"
        case r.Resumed():
            return "the rollout goes on"
        case r.ShadowPassed(release=number, production=production):
            return f"r{number} passed its shadow window against r{production}"
        case r.ComparisonFailed(release=number, production=production, reason=reason):
            return f"r{number} failed against r{production}: {reason}"
        case r.Frozen():
            return "automation is stopped"
        case r.Thawed():
            return "automation acts again"
        case r.Followed():
            return "it follows the head of its feature schema"
        case r.Held():
            return "it holds its features: kedge features follow lets it move with the head again"
        case r.Aborted(release=number):
            return f"the rollout of r{number} was aborted; r{number} stays eligible"
        case r.CandidateRolledBack(release=number, weight=weight):
            return f"r{number} went from {weight / 100:g} % to zero and is condemned"
        case r.RolledBack(release=number, left=left):
            return f"production went back from r{left} to r{number}; r{left} is condemned"
        case r.DrillStarted(release=number, left=left):
            return f"a drill: r{number} answers, and r{left} is restored after it"
        case r.DrillEnded(release=number):
            return f"the drill is over: r{number} is production again"
        case r.Restored(seq=seq, hash=of, backup=made):
            return (
                f"restored from the backup of {made[:19]}Z, whose newest entry is"
                f" {seq}:{of[:SHORT]}"
            )
        case Note():
            return _noted(event)


def _noted(note: Note) -> str:
    """A note as a sentence without a full stop."""
    match note.body:
        case n.DrillResult() as result:
            return drill_story(result)
        case n.ReceiptNote(command=command, total_ms=total_ms, last_ack_ms=ack_ms):
            acked = f", last ack after {ack_ms:.1f} ms" if ack_ms else ""
            return f"{command} took {total_ms:.1f} ms{acked}"
        case n.VerdictNote(candidate=candidate, verdict=verdict, code=code):
            return f"judged {candidate}: {verdict} ({code})"
        case n.AlertOpened(alert=number, level=level, summary=summary):
            return f"alert {number} ({level}): {summary}"
        case n.RunbookNote(digest=digest):
            return f"the runbook was written again ({digest[:19]})"
        case n.AlertTested(levels=levels):
            channels = [c for level in levels for c in level.channels]
            works = sum(c.delivered for c in channels)
            return f"a test of the alerts was delivered by {works} of {len(channels)} channels"
        case n.Proven(release=number, ok=ok):
            how = "was deployed from nothing" if ok else "could not be deployed from nothing"
            return f"r{number} {how}"
        case n.ReadinessNote(ready=ready, failed=failed, promoting=promoting):
            let = f"{promoting} is let into production; " if promoting else ""
            return let + (
                "ready" if ready else f"not ready, these checks fail: {', '.join(failed)}"
            )
        case DiagnosisSummary() as found:
            causes = ", ".join(cause.replace("_", " ") for cause in found.causes)
            if found.causes == ("cannot_tell",):  # what it needs is in the headline already
                return f"diagnosed: {causes}: {found.headline}"
            return f"diagnosed: {causes}: {found.headline}; {found.advice}"
    return _noted_by_people(note)


def _noted_by_people(note: Note) -> str:
    """A note of what an operator did, or of an alert's course, as a sentence without a full stop."""
    match note.body:
        case n.LedgerAccepted(heads=heads):
            lost = ", ".join(f"{seq}:{of[:SHORT]}" for seq, of in heads)
            return f"the ledger is followed although its history lacks {lost}"
        case n.ReferenceAccepted(requests=requests, release=number) as window:
            between = _between({"since": window.since, "until": window.until})
            return f"{requests:,} requests of r{number}, {between}, are the reference from now on"
        case n.VersionRegistered(version=version, flavour=flavour, digest=digest):
            return f"{version} was registered ({flavour}, {digest[:19]})"
        case n.InlineTrusted(version=version):
            return f"{version} may run inside the gateway's workers, unproven"
        case n.FeaturesApplied(version=version, outcome=outcome):
            compared = f", {outcome} against the version before" if outcome else ""
            return f"transformation {version} was made{compared}"
        case n.PinDrifts(host=host, why=why):
            return f"host {host} stays pinned: {why}"
        case n.EvidenceLost(detail=detail):
            return "evidence was lost" + (f"; kept: {detail}" if detail else "")
        case n.AlertAcknowledged(alert=number, key=key):
            return f"alert {number} ({key}) was acknowledged"
        case n.AlertResolved(alert=number, key=key):
            return f"alert {number} ({key}) is resolved"
        case n.AlertContinued(alert=number, key=key):
            return f"alert {number} ({key}) goes on as another one"
        case dict() as body:
            return f"{note.kind}: {', '.join(f'{k} {v}' for k, v in body.items())}"
    return note.kind


def drill_story(result: n.DrillResult) -> str:
    """How a drill came out, as a sentence without a full stop."""
    what, to = "a dry drill" if result.dry else "a drill", f"r{result.release}"
    if not result.ok:
        return f"{what} of going back to {to} failed: {result.why}"
    took = "would go back" if result.dry else f"went back in {result.total_s * 1e3:.0f} ms"
    return f"{what} {took} to {to}" + (f" ({result.why})" if result.why else "")


def receipt_data(receipt: Receipt) -> dict[str, Any]:
    """What a command did and how long each part took, for --json."""
    moves = [event for event in receipt.events if not isinstance(event, r.Held)]
    last = (moves or receipt.events)[-1]
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
    lines += [f"  {name} ended meanwhile: it answers no caller" for name in receipt.ended]
    if not (receipt.acks or receipt.silent or receipt.ended):
        lines.append("  no replica is known: it takes effect when one starts")
    return "\n".join(lines)


MARKS = {
    "independent": "independent of each other",
    "dependent": "dependent on each other: requests are never merged",
    "unknown": "not known to be independent: requests are never merged",
}
"""Batch marks, for people."""


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


# ---------------------------------------------------------------- features


def fed_text(found: list[dict[str, Any]]) -> str:
    """What materialising did, for people."""
    return "\n".join(
        f"{one['run']}: {one['slices']:,} slices ({one['computed']:,} computed, the rest out of the"
        f" log), {one['rows']:,} rows written so far, {one['standing']}"
        + (f"; {one['empty']:,} more slices have no rows" if one["empty"] else "")
        + (f"; known up to {iso(one['watermark'])}" if one["watermark"] is not None else "")
        + (
            f"; {one['ahead_s']:.0f} s ahead of what was asked for: is a clock wrong?"
            if one["ahead_s"]
            else ""
        )
        + "".join(
            f"; {count:,} values of {name} out of range"
            for name, count in one["violations"].items()
        )
        for one in found
    )


def runs_text(found: list[dict[str, Any]]) -> str:
    """How far the runs of what is computed ahead are, for people."""
    lines = []
    for one in found:
        if one["lag_s"] is None:
            far = "nothing in the store"
        else:
            behind = (
                f"{_span(abs(one['lag_s']))}"
                f" {'ahead: is a clock wrong?' if one['ahead'] else 'behind'}"
            )
            far = (
                f"known up to {iso(one['watermark'])}, {behind}{', STALE' if one['stale'] else ''}"
            )
        readers = ", ".join(one["read_by"]) or "no release"
        lines.append(
            f"{one['run']:<24} {one['standing']:<9} {one['keys']:>9,} keys  {far}; read by"
            f" {readers}"
        )
    return "\n".join(lines) or "nothing is materialised: kedge features materialise VIEW"


def training_set_text(found: dict[str, Any]) -> str:
    """What a training set was made of."""
    lines = [
        f"{found['out']}: {found['rows']:,} rows of {found['schema']}#{found['transformation']}"
    ]
    lines += [
        f"  {label}: missing in {count:,} rows ({count / found['rows']:.1%})"
        for label, count in found["missing"].items()
    ]
    lines += [f"  {name}: {count:,} values" for name, count in found["violations"].items()]
    if found["by_row"]:
        lines.append(
            "  each row was transformed by itself: its features depend on the rows beside it"
        )
    if found["left_out"]:
        lines.append(f"  left out of the spine, named as a feature: {', '.join(found['left_out'])}")
    return "\n".join([*lines, f"  data {found['data']}"])


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
    begin, end = (datetime.fromtimestamp(window[key], UTC) for key in ("since", "until"))
    return f"{begin:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC"


def placing(proof: Proof) -> str:
    """Where a version may run, for people."""
    if proof.inline and not (proof.plain is not None and proof.plain.apart):
        return f"inline, as {proof.inline}"
    if proof.plain is None or not proof.plain.proven:
        return f"in a process: {proof.plain.why if proof.plain is not None else 'not walked yet'}"
    return f"inline: proven plain ({', '.join(proof.plain.found)})"
