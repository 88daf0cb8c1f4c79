"""Stories: each entry of a ledger as one sentence, for terminals and pages."""

from __future__ import annotations

from kedge.core.diagnosis.summary import DiagnosisSummary
from kedge.core.release import commands as r
from kedge.core.stored import notes as n
from kedge.core.stored.head import SHORT
from kedge.core.stored.ledger import Note
from kedge.core.time.instants import to_minute


def story(event: r.AnyEvent | Note) -> str:
    """Return one event as a sentence without a full stop."""
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
            return "the rollout continues"
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
    """Return a note as a sentence without a full stop."""
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
            if found.causes == ("cannot_tell",):  # the headline already says what it needs
                return f"diagnosed: {causes}: {found.headline}"
            return f"diagnosed: {causes}: {found.headline}; {found.advice}"
    return _noted_by_people(note)


def _noted_by_people(note: Note) -> str:
    """Return a note on an operator's action or an alert as a sentence without a full stop."""
    match note.body:
        case n.LedgerAccepted(heads=heads):
            lost = ", ".join(f"{seq}:{of[:SHORT]}" for seq, of in heads)
            return f"the ledger is followed although its history is missing {lost}"
        case n.ReferenceAccepted(requests=requests, release=number) as window:
            between = f"{to_minute(window.since)} to {to_minute(window.until)} UTC"
            return f"{requests:,} requests of r{number}, {between}, are the reference from now on"
        case n.VersionRegistered(version=version, flavour=flavour, digest=digest, runs_code=runs):
            code = "; it runs code when it is loaded" if runs else ""
            return f"{version} was registered ({flavour}, {digest[:19]}){code}"
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
        case n.TokenCreated(name=name, role=role, scopes=scopes):
            return f"token {name} was created: {', '.join([*filter(None, [role]), *scopes])}"
        case n.TokenRevoked(name=name):
            return f"token {name} was revoked"
        case n.AlertContinued(alert=number, key=key):
            return f"an operator continued despite alert {number} ({key})"
        case dict() as body:
            return f"{note.kind}: {', '.join(f'{k} {v}' for k, v in body.items())}"
    return note.kind


def drill_story(result: n.DrillResult) -> str:
    """Return the result of a drill as a sentence without a full stop."""
    what, to = "a dry drill" if result.dry else "a drill", f"r{result.release}"
    if not result.ok:
        return f"{what} of going back to {to} failed: {result.why}"
    took = "would go back" if result.dry else f"went back in {result.total_s * 1e3:.0f} ms"
    return f"{what} {took} to {to}" + (f" ({result.why})" if result.why else "")
