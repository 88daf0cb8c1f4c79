"""Submission of a command from the command line: its receipt, and the fault of a silent replica."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from msgspec.structs import asdict

from kedge.cli.context import Context
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
    done, text = describe_receipt(receipt), receipt_text(one_line(describe_receipt(receipt)))
    if finding:  # only now, so that it does not delay the command
        known = finding_beside(context.state_dir, endpoint, done.left)
        done = RollbackReceipt(**asdict(done), finding=known)
        text += f"\n{finding_text(one_line(known))}" if known is not None else ""
    if silent is None:
        context.out(done, text)
        return
    if context.as_json:  # one document on stdout: the fault's, which includes the receipt
        silent.details |= asdict(done)
    else:
        context.out(done, text)
    raise silent


def _show_remote(context: Context) -> None:
    """Run the command on the server, and print its receipt."""
    done: CommandReceipt = context.result(_nothing)
    text = receipt_text(one_line(done))
    if isinstance(done, RollbackReceipt) and done.finding is not None:
        text += f"\n{finding_text(one_line(done.finding))}"
    context.out(done, text)


def _nothing() -> CommandReceipt:
    raise AssertionError("a remote command has no local result")
