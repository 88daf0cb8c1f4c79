"""Commands of pages: each is carried out as the command line does, and described as a receipt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from kedge.core.errors import KedgeError, Overloaded, Refused, Stale, Unavailable
from kedge.core.names import read_number
from kedge.core.stored.stories import story
from kedge.core.values import Value
from kedge.operations import commands
from kedge.operations.commands import Order, SilentReplicas
from kedge.operations.feature_rollouts import roll_features
from kedge.operations.receipts import CommandReceipt, RollbackReceipt
from kedge.operations.rollouts import promote
from kedge.web.dashboard.pages.acts import ACTS
from kedge.web.dashboard.pages.marks import EventLine, changes_of
from kedge.web.dashboard.pages.receipts import ActReceipt, ReceiptState, ack_lines, part_lines
from kedge.workspace import Workplace

PLAIN: dict[str, Callable[[Order], CommandReceipt]] = {
    "pause": commands.pause,
    "abort": commands.abort,
    "freeze": commands.freeze,
    "thaw": commands.thaw,
}
"""Commands without parameters."""
AXES: Mapping[str, Literal["model", "features"]] = {"model": "model", "features": "features"}
"""The halves that can be rolled back alone, by the word of the form."""
RECENT = 20
"""Entries in which a command looks for its own, and for what others did meanwhile."""


class ActAsk(Value, frozen=True, kw_only=True):
    """A command as the form of a page sends it."""

    endpoint: str
    act: str
    epoch: int
    """The epoch that the page showed."""
    reason: str = ""
    override: str = ""
    kind: str = ""
    """For a rollback: production, model, features, or a release as r3; empty: the newest change."""
    accept_stale: str = ""
    """For a rollback: the age up to which values that were computed ahead are accepted."""
    weight: float | None = None
    version: int | None = None
    by: str
    holder: str = ""
    """The token or session that the ledger records with the command."""
    at: float = 0.0
    """Unix time at which it was sent."""


def _run(order: Order, ask: ActAsk, *, loopback: bool) -> CommandReceipt:
    """Carry out the command of a form.

    Raises:
        Refused: a parameter is missing or wrong, or as the command.
    """
    override = ask.override or None
    match ask.act:
        case "rollback":
            return _roll_back(order, ask)
        case "promote":
            return promote(order, None, full=False, override=override, loopback=loopback)
        case "resume":
            return commands.resume(order, override)
        case "weight":
            if ask.weight is None or not 0 < ask.weight <= 100:
                raise Refused(
                    "the weight must be a number of per cent from 0.01 to 100", code="bad_weight"
                )
            return commands.set_weight(order, ask.weight, override)
        case "roll-features":
            if ask.version is None:
                raise Refused("choose a version of the features", code="unknown_transformation")
            return roll_features(
                order, ask.version, generation=None, override=override, loopback=loopback
            )
    return PLAIN[ask.act](order)


def _roll_back(order: Order, ask: ActAsk) -> CommandReceipt:
    axis = AXES.get(ask.kind)
    target = ask.kind if read_number(ask.kind.removeprefix("r")) is not None else None
    known = ask.kind in ("", "production") or axis is not None
    if not known and (target is None or not target.startswith("r")):
        raise Refused(f"{ask.kind[:40]!r} is not a target of a rollback", code="bad_parameters")
    return commands.roll_back(
        order,
        production=ask.kind == "production",
        to=target,
        axis=axis,
        accept_stale=ask.accept_stale or None,
    )


def carry_out(place: Workplace, ask: ActAsk, *, loopback: bool) -> ActReceipt:
    """Carry out a command if its endpoint is still as the page showed it; return the receipt."""
    said: list[str] = []
    try:
        place.ledger.read()
    except Unavailable as error:
        return _unread(ask, error)
    order = Order(place, ask.endpoint, ask.by, ask.reason, ask.epoch, said.append)
    try:
        done = _run(order, ask, loopback=loopback)
    except SilentReplicas as error:
        return _receipt(ask, error.done, tuple(said), silent=error)
    except Stale:
        entries = place.ledger.history(ask.endpoint, RECENT)
        return begun(
            ask,
            state="stale",
            heading="Nothing happened: the endpoint changed meanwhile",
            changes=changes_of(entries, ask.epoch),
        )
    except Refused as error:
        return refused(ask, error)
    except Overloaded as error:
        return refused(ask, error, heading="Nothing happened: control has too much to do")
    except Unavailable as error:
        return _interrupted(place, ask, error)
    except KedgeError as error:
        return refused(ask, error, state="failed", heading="It could not be carried out")
    return _receipt(ask, done, tuple(said))


def _unread(ask: ActAsk, error: Unavailable) -> ActReceipt:
    return begun(
        ask,
        state="failed",
        heading="Nothing was changed: the ledger could not be used",
        text=f"{error} ({error.code})",
        hint=error.hint or "send it again: it is carried out once",
    )


def _interrupted(place: Workplace, ask: ActAsk, error: Unavailable) -> ActReceipt:
    """Return the receipt of a command that could not use the ledger or the roster at some point."""
    try:
        changes = changes_of(place.ledger.history(ask.endpoint, RECENT), ask.epoch)
    except KedgeError:
        return begun(
            ask,
            state="unknown",
            heading="Whether it was carried out is not known: the ledger cannot be read",
            text=f"{error} ({error.code})",
            hint="kedge status shows the endpoint once the ledger can be read",
        )
    if not changes:
        return _unread(ask, error)
    return begun(
        ask,
        state="unknown",
        heading="The endpoint changed, but control could not follow the command to its end",
        text=f"{error} ({error.code})",
        hint=error.hint,
        changes=changes,
    )


def begun(
    ask: ActAsk,
    *,
    state: ReceiptState,
    heading: str,
    text: str = "",
    hint: str = "",
    changes: tuple[EventLine, ...] = (),
) -> ActReceipt:
    """Return a receipt without a result of the ledger."""
    return ActReceipt(
        endpoint=ask.endpoint,
        act=ask.act,
        label=ACTS[ask.act].label,
        state=state,
        heading=heading,
        text=text,
        hint=hint,
        by=ask.by,
        reason=ask.reason,
        changes=changes,
        began=ask.at,
    )


def refused(
    ask: ActAsk,
    error: KedgeError,
    *,
    state: ReceiptState = "refused",
    heading: str = "Nothing happened: it was refused",
) -> ActReceipt:
    """Return the receipt of a command that changed nothing."""
    return begun(ask, state=state, heading=heading, text=str(error), hint=error.hint)


def _receipt(
    ask: ActAsk,
    done: CommandReceipt,
    said: tuple[str, ...],
    *,
    silent: SilentReplicas | None = None,
) -> ActReceipt:
    known = done.finding if isinstance(done, RollbackReceipt) else None
    finding = known.headline if known is not None and isinstance(known.headline, str) else ""
    return ActReceipt(
        endpoint=ask.endpoint,
        act=ask.act,
        label=ACTS[ask.act].label,
        state="silent" if silent is not None else "done",
        heading="; ".join(story(event) for event in done.events),
        text=str(silent) if silent is not None else "; ".join(said),
        hint=silent.hint if silent is not None else "",
        by=ask.by,
        reason=ask.reason or ask.override,
        acks=ack_lines(done.receipt),
        parts=part_lines(done.receipt),
        finding=finding,
        epoch=done.epoch,
        seq=done.seq,
        began=ask.at,
    )
