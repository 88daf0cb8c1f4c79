"""Submission of a command from the command line: its receipt, and the fault where a replica is silent."""

from __future__ import annotations

from collections.abc import Callable

from kedge.cli.context import Context
from kedge.cli.text.receipt import finding_text
from kedge.cli.text.report import receipt_data, receipt_text
from kedge.core.release.commands import AnyCommand, Promote
from kedge.engine.submission import Gate, Silent
from kedge.operations.probe import probe
from kedge.operations.rollback import finding_beside
from kedge.system.terminal import one_line
from kedge.workspace import Workplace, actor

GateBefore = Callable[[Context, Workplace, Callable[[str], None]], Gate]
"""Builds the gate of a promotion: `cli.gate.gate_before`, whose imports no other command waits for."""


def submit(
    context: Context,
    endpoint: str,
    make: Callable[[Workplace], AnyCommand],
    reason: str = "",
    *,
    gate: GateBefore | None = None,
    finding: bool = False,
) -> None:
    """Submit a command and print its receipt; with `finding`, the newest diagnosis of what was left.

    Where a replica is silent the same is printed, and then the fault: the row has moved.
    """
    place = context.place()
    command = make(place)
    say = context.say if not context.as_json else lambda text: None
    assert gate is not None or not isinstance(command, Promote)
    passed = gate(context, place, say) if gate is not None else None
    control = place.control(say, probe(place), passed)
    silent: Silent | None = None
    try:
        receipt = control.submit(endpoint, command, by=actor(), reason=reason)
    except Silent as error:
        receipt, silent = error.receipt, error
    data, text = receipt_data(receipt), receipt_text(one_line(receipt))
    if finding:  # only now: nothing delays the command
        known = finding_beside(context.state_dir, endpoint, data["left"])
        data["finding"] = known
        text += f"\n{finding_text(one_line(known))}" if known is not None else ""
    if silent is None:
        context.out(data, text)
        return
    if context.as_json:  # one document on stdout: the fault's, and it has all of this
        silent.details |= data
    else:
        context.out(data, text)
    raise silent
