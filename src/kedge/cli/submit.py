"""Submission of a command from the command line: its receipt, and the fault of a silent replica."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from msgspec.structs import asdict

from kedge.cli.context import Context
from kedge.cli.screen.receipt import receipt_screen
from kedge.cli.text.receipt import finding_text, receipt_text
from kedge.core.release.commands import AnyCommand, Promote
from kedge.operations.receipts import CommandReceipt, RollbackReceipt, describe_receipt
from kedge.system.terminal import one_line

if TYPE_CHECKING:
    from kedge.engine.submission import Gate
    from kedge.workspace import Workplace

GateBefore: TypeAlias = "Callable[[Context, Workplace, Callable[[str], None]], Gate]"
"""A function that builds the gate of a promotion: `cli.gate.gate_before`. Only promotions import
it, so that other commands do not wait."""


def submit(
    context: Context,
    endpoint: str,
    make: Callable[[Workplace], AnyCommand],
    reason: str = "",
    *,
    gate: GateBefore | None = None,
    finding: bool = False,
) -> None:
    """Submit a command and print its receipt; with `finding`, the left release's newest diagnosis.

    If a replica is silent, it prints the same and then raises the fault: the row has changed.
    """
    if context.remote is not None:
        _show_remote(context)
        return
    from kedge.engine.submission import Silent
    from kedge.operations.probe import probe
    from kedge.operations.rollback import finding_beside
    from kedge.workspace import actor

    place = context.place()
    command = make(place)
    say = context.say if not context.as_json else lambda text: None
    assert gate is not None or not isinstance(command, Promote)
    passed = gate(context, place, say) if gate is not None else None
    control = place.control(say, probe(place), passed)
    silent: Silent | None = None
    try:
        receipt = control.submit(
            endpoint, command, by=actor(), reason=reason, expect=context.expect
        )
    except Silent as error:
        receipt, silent = error.receipt, error
    done = describe_receipt(receipt)
    if finding:  # only now, so that it does not delay the command
        known = finding_beside(context.state_dir, endpoint, done.left)
        done = RollbackReceipt(**asdict(done), finding=known)
    if silent is None:
        _show(context, done)
        return
    if context.as_json:  # one document on stdout: the fault's, which includes the receipt
        silent.details |= asdict(done)
    else:
        _show(context, done)
    raise silent


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
