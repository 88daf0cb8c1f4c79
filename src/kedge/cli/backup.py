"""The commands `kedge backup` and `kedge restore`."""

from __future__ import annotations

from pathlib import Path

import click

from kedge.cli.context import Context, end_in_order, prints, verb
from kedge.core.stored.head import read_head
from kedge.operations.backup.make import BackupContents, BackupSummary, make_backup, summary
from kedge.operations.backup.restore import RestoredBackup, restore_backup
from kedge.system.terminal import one_line


@click.command()
@click.argument("directory", type=click.Path(path_type=Path), metavar="DIR")
@click.option("--without-records", is_flag=True, help="Leave predictions and labels out.")
@click.option("--skip-damaged", is_flag=True, help="Leave out what is damaged, and list it.")
@verb
@prints(BackupSummary)
def backup(context: Context, directory: Path, without_records: bool, skip_damaged: bool) -> None:
    """Copy the state directory into DIR, while kedge runs."""
    end_in_order()

    found = make_backup(
        context.place(),
        directory.resolve(),
        context.config,
        wanted=BackupContents(records=not without_records, damaged=not skip_damaged),
        say=lambda text: None if context.as_json else context.say(text),
    )
    data = summary(found, directory.resolve())
    lines = [
        (
            f"backed up into {data.backup}: {data.files:,} files, {data.bytes:,} bytes,"
            f" {data.artifacts} artifacts"
        ),
        f"  ledger    up to entry {data.head or '-'}",
        *(
            f"  {name}  epoch {epoch}, {data.production.get(name, 'nothing')} in production"
            for name, epoch in data.epochs.items()
        ),
        *_left_out(data),
        f"next: copy it to another machine; kedge restore {data.backup} restores it",
    ]
    context.out(data, "\n".join(one_line(line) for line in lines))


@click.command()
@click.argument("directory", type=click.Path(path_type=Path), metavar="DIR")
@click.option("--reason", default="", help="Why, for the ledger.")
@click.option(
    "--head",
    "heads",
    multiple=True,
    metavar="NUMBER:HASH",
    help="A head of the lost ledger's chain, from an alert: is the backup of that ledger?",
)
@verb
@prints(RestoredBackup)
def restore(context: Context, directory: Path, reason: str, heads: tuple[str, ...]) -> None:
    """Restore the backup in DIR; nothing acts before kedge thaw."""
    end_in_order()
    known = [read_head(text) for text in heads]
    done = restore_backup(directory.resolve(), context.config_here, heads=known, reason=reason)
    lines = [
        (
            f"restored into {done.state_dir} from the backup of {done.made_at[:19]}Z by"
            f" {done.made_by}"
        ),
        f"  ledger    from entry {done.head or '-'}; whatever came after it is lost",
        f"  config    {done.config}"
        + ("" if done.config_written else " was there and is not changed"),
        *(
            f"  {name}  epoch {epoch}, {done.production.get(name, 'nothing')} in production"
            for name, epoch in done.epochs.items()
        ),
        *_left_out(done),
        "kedge promotes, rolls back, drills and alerts nothing by itself yet",
        "next: kedge up, then kedge status; where this copy is the real one: "
        + (", ".join(f"kedge thaw {name}" for name in done.epochs) or "nothing to confirm"),
    ]
    context.out(done, "\n".join(one_line(line) for line in lines))


def _left_out(data: BackupSummary) -> list[str]:
    """Return what a backup does not have."""
    return [
        f"  {'DAMAGED ' if each.damaged else 'left out'}  {each.what} ({each.why})"
        + (f": {each.remedy}" if each.remedy else "")
        for each in data.left_out
    ]
