"""The commands `kedge backup` and `kedge restore`."""

from __future__ import annotations

from pathlib import Path

import click

from kedge.cli.context import Context, end_in_order, prints, verb
from kedge.cli.text.backup import backup_text, restored_text
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
    context.out(data, backup_text(one_line(data)))


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
    context.out(done, restored_text(one_line(done)))
