"""Submission of a command from the command line: its receipt, also if a replica is silent."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from kedge.cli.context import Context
from kedge.cli.screen.receipt import receipt_screen
from kedge.cli.text.receipt import finding_text, receipt_text
from kedge.operations.receipts import CommandReceipt, RollbackReceipt
from kedge.system.terminal import one_line

if TYPE_CHECKING:
    from kedge.operations.commands import Order

Run: TypeAlias = "Callable[[Order], CommandReceipt]"
"""An operation of `operations.commands` or `operations.rollouts`, with its parameters."""


def submit(context: Context, endpoint: str, run: Run, reason: str = "") -> None:
    """Carry a command out, here or on the server, and print its receipt.

    If a replica is silent, it prints the same and then raises the fault: the row has changed. With
    --json there is one document: the fault's, which includes the receipt.
    """
    if context.remote is not None:
        _show_remote(context)
        return
    from kedge.operations.commands import Order, SilentReplicas
    from kedge.workspace import actor

    say = context.say if not context.as_json else lambda text: None
    order = Order(context.place(), endpoint, actor(), reason, context.expect, say)
    try:
        _show(context, run(order))
    except SilentReplicas as error:
        if not context.as_json:
            _show(context, error.done)
        raise


def _show_remote(context: Context) -> None:
    """Run the command on the server, and print its receipt."""
    _show(context, context.result(_nothing))


def _show(context: Context, done: CommandReceipt) -> None:
    """Print a receipt, with the finding beside a rollback."""
    known = done.finding if isinstance(done, RollbackReceipt) else None
    beside = f"\n{finding_text(one_line(known))}" if known is not None else ""
    context.out(done, receipt_text(one_line(done)) + beside, receipt_screen(done, known))


def _nothing() -> CommandReceipt:
    raise AssertionError("a remote command has no local result")
