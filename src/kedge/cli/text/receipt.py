"""Text of a receipt: the result of a command, the time of each part, and the newest finding."""

from __future__ import annotations

from kedge.operations.receipts import CommandReceipt, FindingBeside, PinnedHost
from kedge.operations.stories import story


def receipt_text(done: CommandReceipt) -> str:
    """Return a receipt as text: milliseconds since the command was submitted."""
    receipt = done.receipt
    prepared = receipt.decide_ms + receipt.prepare_ms
    parts: list[tuple[str, float | None]] = [("decided", receipt.decide_ms)]
    if receipt.prepare_ms >= 1:
        parts.append(("prepared", prepared))
    parts.append(("written", prepared + receipt.write_ms))
    parts += [(f"ack {n}", ms) for n, ms in sorted(receipt.acks.items(), key=lambda ack: ack[1])]
    parts.append(("first old answer", receipt.first_old_answer_ms))
    parts.append(("total", receipt.total_ms))
    width = max(len(name) for name, _ in parts)
    lines = [f"{done.endpoint} epoch {done.epoch}: {'; '.join(map(story, done.events))}"]
    lines += [f"  {name:{width}}  {ms:9.1f} ms" for name, ms in parts if ms is not None]
    lines += [f"  {name} ended meanwhile: it answers no caller" for name in receipt.ended]
    if not (receipt.acks or receipt.silent or receipt.ended):
        lines.append("  no replica is known: it takes effect when one starts")
    return "\n".join(lines)


def pinned_text(pinned: PinnedHost) -> str:
    """Return the result of a rollback of this host alone."""
    acks = "".join(f"\n  ack {name} {ms:.1f} ms" for name, ms in pinned.acks.items())
    return (
        f"this host is pinned to {pinned.serves} (it left epoch {pinned.left_epoch}){acks}\n"
        "the command is handed in when the ledger is back; kedge unpin ends the pin"
    )


def finding_text(found: FindingBeside) -> str:
    """Return the newest finding, as text beside a rollback's receipt."""
    if found.fault or not found.causes:
        return f"  finding  could not be read: {found.fault}"
    causes = ", ".join(found.causes).replace("_", " ")
    lines = [f"  finding  {(found.age_s or 0.0) / 60:.0f} min ago: {causes}: {found.headline}"]
    if found.against:
        lines.append(f"  AGAINST  the diagnosis speaks against this rollback: {found.advice}")
    return "\n".join(lines)
