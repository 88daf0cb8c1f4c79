"""Receipts in words: what a rollback of this host did, and the finding beside a rollback."""

from __future__ import annotations

from kedge.operations.rollback import FindingBeside, PinnedHost


def pinned_text(pinned: PinnedHost) -> str:
    """Return what a rollback of this host alone did."""
    acks = "".join(f"\n  ack {name} {ms:.1f} ms" for name, ms in pinned.acks.items())
    return (
        f"this host is pinned to {pinned.serves} (it left epoch {pinned.left_epoch}){acks}\n"
        "the command is handed in when the ledger is back; kedge unpin ends the pin"
    )


def finding_text(found: FindingBeside) -> str:
    """Return the newest finding as it stands beside a rollback's receipt."""
    if found.fault or not found.causes:
        return f"  finding  could not be read: {found.fault}"
    causes = ", ".join(found.causes).replace("_", " ")
    lines = [f"  finding  {(found.age_s or 0.0) / 60:.0f} min ago: {causes}: {found.headline}"]
    if found.against:
        lines.append(f"  AGAINST  the diagnosis speaks against this rollback: {found.advice}")
    return "\n".join(lines)
