"""Commands of pages: each is carried out as the command line does, and described as a receipt."""

from __future__ import annotations

from collections.abc import Callable

from kedge.core.errors import KedgeError, Refused, Stale
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
from kedge.core.values import Value
from kedge.engine.submission import Receipt, Silent
from kedge.operations.features.apply import may_roll
from kedge.operations.features.staleness import refuse_stale
from kedge.operations.probe import probe
from kedge.operations.readiness.check import gate_of
from kedge.operations.receipts import describe_receipt
from kedge.operations.rollback import finding_beside, landing_reads
from kedge.operations.stories import story
from kedge.web.dashboard.pages.acts import ACTS, ActReceipt, ack_lines
from kedge.web.dashboard.pages.quantities import milliseconds
from kedge.workspace import Workplace

PLAIN: dict[str, Callable[[], AnyCommand]] = {
    "pause": Pause,
    "abort": Abort,
    "freeze": Freeze,
    "thaw": Thaw,
}
"""Commands without parameters."""


class ActAsk(Value, frozen=True, kw_only=True):
    """A command as the form of a page sends it."""

    endpoint: str
    act: str
    epoch: int
    """The epoch that the page showed."""
    reason: str = ""
    override: str = ""
    kind: str = ""
    """For a rollback: production, model or features; empty: the newest change."""
    weight: float | None = None
    version: int | None = None
    by: str
    holder: str = ""
    """The token or session that the ledger records with the command."""


def make_command(place: Workplace, ask: ActAsk) -> AnyCommand:
    """Return the command of a form.

    Raises:
        Refused: a parameter is missing or wrong, or the way back reads values that are too old.
    """
    override = ask.override or None
    match ask.act:
        case "rollback":
            axis = ask.kind if ask.kind in ("model", "features") else None
            command = Rollback(production=ask.kind == "production", axis=axis)  # type: ignore[arg-type]
            runs = landing_reads(place, ask.endpoint, command)
            if runs:
                refuse_stale(place, runs, None)
            return command
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


def carry_out(place: Workplace, ask: ActAsk, *, loopback: bool) -> ActReceipt:
    """Carry out a command if its endpoint is still as the page showed it; return the receipt."""
    said: list[str] = []
    label = ACTS[ask.act].label
    try:
        command = make_command(place, ask)
        gate = gate_of(place, loopback=loopback, say=said.append)
        passed = gate if isinstance(command, Promote) else None
        control = place.control(said.append, probe(place), passed)
        reason = ask.reason or ask.override
        receipt = control.submit(ask.endpoint, command, by=ask.by, reason=reason, expect=ask.epoch)
    except Silent as error:
        return _receipt(place, ask, error.receipt, tuple(said), silent=str(error))
    except Stale as error:
        return ActReceipt(
            endpoint=ask.endpoint,
            label=label,
            state="stale",
            heading="Nothing happened: the endpoint changed meanwhile",
            text=str(error),
            hint="look at it again, then decide again",
        )
    except Refused as error:
        return _failure(ask, error, "refused", "Nothing happened: it was refused")
    except KedgeError as error:
        return _failure(ask, error, "failed", "It could not be carried out")
    return _receipt(place, ask, receipt, tuple(said))


def _failure(ask: ActAsk, error: KedgeError, state: str, heading: str) -> ActReceipt:
    return ActReceipt(
        endpoint=ask.endpoint,
        label=ACTS[ask.act].label,
        state="refused" if state == "refused" else "failed",
        heading=heading,
        text=str(error),
        hint=error.hint,
    )


def _receipt(
    place: Workplace, ask: ActAsk, receipt: Receipt, said: tuple[str, ...], *, silent: str = ""
) -> ActReceipt:
    done = describe_receipt(receipt)
    parts = receipt.parts()
    finding = ""
    if ask.act == "rollback":
        known = finding_beside(place.state_dir, ask.endpoint, done.left)
        if known is not None and isinstance(known.headline, str):
            finding = known.headline
    measured = (
        ("decided", parts.decide_ms),
        ("prepared", parts.prepare_ms),
        ("written", parts.write_ms),
        ("last ack", parts.last_ack_ms),
        ("first answer of the old release", parts.first_old_answer_ms),
    )
    return ActReceipt(
        endpoint=ask.endpoint,
        label=ACTS[ask.act].label,
        state="silent" if silent else "done",
        heading="; ".join(story(event) for event in receipt.events),
        text=silent or "; ".join(said),
        hint="",
        acks=ack_lines(receipt.acks, receipt.silent, receipt.cold),
        parts=tuple((name, milliseconds(took)) for name, took in measured if took is not None),
        finding=finding,
        epoch=receipt.epoch,
    )
