"""Text of a backup: its content, the parts left out, and the result of a restore."""

from __future__ import annotations

from kedge.operations.backup.make import BackupSummary
from kedge.operations.backup.restore import RestoredBackup


def backup_text(found: BackupSummary) -> str:
    """Return the content of a backup, and the next steps."""
    return "\n".join(
        [
            (
                f"backed up into {found.backup}: {found.files:,} files, {found.bytes:,} bytes,"
                f" {found.artifacts} artifacts"
            ),
            f"  ledger    up to entry {found.head or '-'}",
            *_endpoints(found),
            *_left_out(found),
            f"next: copy it to another machine; kedge restore {found.backup} restores it",
        ]
    )


def restored_text(done: RestoredBackup) -> str:
    """Return the restored and the lost parts, and the next steps."""
    return "\n".join(
        [
            (
                f"restored into {done.state_dir} from the backup of {done.made_at[:19]}Z by"
                f" {done.made_by}"
            ),
            f"  ledger    from entry {done.head or '-'}; whatever came after it is lost",
            f"  config    {done.config}"
            + ("" if done.config_written else " was there and is not changed"),
            *_endpoints(done),
            *_left_out(done),
            "kedge promotes, rolls back, drills and alerts nothing by itself yet",
            "next: kedge up, then kedge status; where this copy is the real one: "
            + (", ".join(f"kedge thaw {name}" for name in done.epochs) or "nothing to confirm"),
        ]
    )


def _endpoints(found: BackupSummary) -> list[str]:
    return [
        f"  {name}  epoch {epoch}, {found.production.get(name, 'nothing')} in production"
        for name, epoch in found.epochs.items()
    ]


def _left_out(found: BackupSummary) -> list[str]:
    """Return the parts that a backup does not have."""
    return [
        f"  {'DAMAGED ' if each.damaged else 'left out'}  {each.what} ({each.why})"
        + (f": {each.remedy}" if each.remedy else "")
        for each in found.left_out
    ]
