"""Text of a receipt: the result of a command, the time of each part, and the newest finding."""

from __future__ import annotations

from kedge.core.stored.stories import story
from kedge.operations.receipts import CommandReceipt, FindingBeside, PinnedHost


def receipt_text(done: CommandReceipt) -> str:
    """Return a receipt as text: milliseconds since the command was submitted."""
    times = get_times(done)
    width = max(len(name) for name, _ in times)
    lines = [f"{done.endpoint} epoch {done.epoch}: {get_head(done)}"]
    lines += [f"  {name:{width}}  {ms:9.1f} ms" for name, ms in times]
    return "\n".join([*lines, *(f"  {note}" for note in get_notes(done))])


def get_head(done: CommandReceipt) -> str:
    """Return what the command changed."""
    return "; ".join(map(story, done.events))


def get_times(done: CommandReceipt) -> list[tuple[str, float]]:
    """Return each part that is known, with its milliseconds, in their order."""
    receipt = done.receipt
    prepared = receipt.decide_ms + receipt.prepare_ms
    parts: list[tuple[str, float | None]] = [("decided", receipt.decide_ms)]
    if receipt.prepare_ms >= 1:
        parts.append(("prepared", prepared))
    parts.append(("written", prepared + receipt.write_ms))
    parts += [(f"ack {n}", ms) for n, ms in sorted(receipt.acks.items(), key=lambda ack: ack[1])]
    parts.append(("first old answer", receipt.first_old_answer_ms))
    parts.append(("total", receipt.total_ms))
    return [(name, ms) for name, ms in parts if ms is not None]


def get_notes(done: CommandReceipt) -> list[str]:
    """Return what the times do not say."""
    receipt = done.receipt
    notes = [f"{name} ended meanwhile: it answers no caller" for name in receipt.ended]
    if not (receipt.acks or receipt.silent or receipt.ended):
        notes.append("no replica is known: it takes effect when one starts")
    return [*notes, done.link] if done.link else notes


def pinned_text(pinned: PinnedHost) -> str:
    """Return the result of a rollback of this host alone."""
    acks = "".join(f"\n  ack {name} {ms:.1f} ms" for name, ms in pinned.acks.items())
    return (
        f"this host is pinned to {pinned.serves} (it left epoch {pinned.left_epoch}){acks}\n"
        "the command is handed in when the ledger is back; kedge unpin ends the pin"
    )


def finding_text(found: FindingBeside) -> str:
    """Return the newest finding, as text beside a rollback's receipt."""
    return "\n".join(f"  {name:7}  {text}" for name, text, _ in get_finding(found))


def get_finding(found: FindingBeside) -> list[tuple[str, str, bool]]:
    """Return the newest finding as names, texts, and whether each contradicts the rollback."""
    if found.fault or not found.causes:
        return [("finding", f"could not be read: {found.fault}", False)]
    causes = ", ".join(found.causes).replace("_", " ")
    age = f"{(found.age_s or 0.0) / 60:.0f} min ago"
    told = [("finding", f"{age}: {causes}: {found.headline}", False)]
    if found.against:
        advice = f"the diagnosis speaks against this rollback: {found.advice}"
        told.append(("AGAINST", advice, True))
    return told
