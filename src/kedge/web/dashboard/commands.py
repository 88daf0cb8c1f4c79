"""Commands of pages: each is carried out as the command line does, and described as a receipt."""

from __future__ import annotations

from collections.abc import Callable

from kedge.core.errors import KedgeError, Overloaded, Refused, Stale, Unavailable
from kedge.core.names import read_number
from kedge.core.release.commands import (
    Abort,
    AnyCommand,
    Freeze,
    Pause,
    Promote,
    Resume,
    Rollback,
    SetWeight,
    Thaw,
)
from kedge.core.release.guards import buckets
from kedge.core.stored.ledger import Note
from kedge.core.stored.notes import ReceiptNote
from kedge.core.values import Value
from kedge.engine.submission import Receipt, Silent
from kedge.operations.features.apply import may_roll
from kedge.operations.features.staleness import refuse_stale
from kedge.operations.probe import probe
from kedge.operations.readiness.check import gate_of
from kedge.operations.receipts import describe_receipt
from kedge.operations.rollback import finding_beside, landing_reads
from kedge.operations.stories import story
from kedge.web.dashboard.pages.acts import ACTS
from kedge.web.dashboard.pages.marks import EventLine, changes_of
from kedge.web.dashboard.pages.receipts import ActReceipt, ReceiptState, ack_lines, part_lines
from kedge.workspace import Workplace

PLAIN: dict[str, Callable[[], AnyCommand]] = {
    "pause": Pause,
    "abort": Abort,
    "freeze": Freeze,
    "thaw": Thaw,
}
"""Commands without parameters."""
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


def make_command(place: Workplace, ask: ActAsk) -> AnyCommand:
    """Return the command of a form.

    Raises:
        Refused: a parameter is missing or wrong, or the way back reads values that are too old.
    """
    override = ask.override or None
    match ask.act:
        case "rollback":
            return _rollback(place, ask)
        case "promote":
            return Promote(override=override)
        case "resume":
            return Resume(override=override)
        case "weight":
            if ask.weight is None or not 0 < ask.weight <= 100:
                raise Refused(
                    "the weight must be a number of per cent from 0.01 to 100", code="bad_weight"
                )
            return SetWeight(weight=buckets(ask.weight), override=override)
        case "roll-features":
            if ask.version is None:
                raise Refused("choose a version of the features", code="unknown_transformation")
            release, why = may_roll(place, ask.endpoint, ask.version, override, None)
            return Promote(release=release.number, override=override, equivalence=why)
    return PLAIN[ask.act]()


def _rollback(place: Workplace, ask: ActAsk) -> Rollback:
    axis = ask.kind if ask.kind in ("model", "features") else None
    target = read_number(ask.kind.removeprefix("r")) if ask.kind.startswith("r") else None
    known = ask.kind in ("", "production") or axis is not None or target is not None
    if not known:
        raise Refused(f"{ask.kind[:40]!r} is not a target of a rollback", code="bad_parameters")
    command = Rollback(production=ask.kind == "production", axis=axis, to=target)  # type: ignore[arg-type]
    runs = landing_reads(place, ask.endpoint, command)
    if runs:
        refuse_stale(place, runs, ask.accept_stale or None)
    return command


def carry_out(place: Workplace, ask: ActAsk, *, loopback: bool) -> ActReceipt:
    """Carry out a command if its endpoint is still as the page showed it; return the receipt."""
    said: list[str] = []
    try:
        place.ledger.read()
    except Unavailable as error:
        return _unread(ask, error)
    try:
        command = make_command(place, ask)
        gate = gate_of(place, loopback=loopback, say=said.append)
        passed = gate if isinstance(command, Promote) else None
        control = place.control(said.append, probe(place), passed)
        reason = ask.reason or ask.override
        receipt = control.submit(ask.endpoint, command, by=ask.by, reason=reason, expect=ask.epoch)
    except Silent as error:
        return _receipt(place, ask, error.receipt, tuple(said), silent=error)
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
    return _receipt(place, ask, receipt, tuple(said))


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
    place: Workplace,
    ask: ActAsk,
    receipt: Receipt,
    said: tuple[str, ...],
    *,
    silent: Silent | None = None,
) -> ActReceipt:
    done, parts = describe_receipt(receipt), receipt.parts()
    finding = ""
    if ask.act == "rollback":
        known = finding_beside(place.state_dir, ask.endpoint, done.left)
        if known is not None and isinstance(known.headline, str):
            finding = known.headline
    return ActReceipt(
        endpoint=ask.endpoint,
        act=ask.act,
        label=ACTS[ask.act].label,
        state="silent" if silent is not None else "done",
        heading="; ".join(story(event) for event in receipt.events),
        text=str(silent) if silent is not None else "; ".join(said),
        hint=silent.hint if silent is not None else "",
        by=ask.by,
        reason=ask.reason or ask.override,
        acks=ack_lines(parts),
        parts=part_lines(parts),
        finding=finding,
        epoch=receipt.epoch,
        seq=_seq(place, ask.endpoint, receipt.epoch),
        began=ask.at,
    )


def _seq(place: Workplace, endpoint: str, epoch: int) -> int | None:
    """Return the number of the first entry of a command, if the ledger can be read again."""
    try:
        note = place.ledger.entries(endpoint, "receipt", RECENT, within=RECENT)
    except KedgeError:
        return None
    return next(
        (
            entry.event.body.of
            for entry in note
            if entry.epoch == epoch
            and isinstance(entry.event, Note)
            and isinstance(entry.event.body, ReceiptNote)
        ),
        None,
    )
