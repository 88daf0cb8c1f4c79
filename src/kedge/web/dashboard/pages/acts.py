"""Acts: the commands on an endpoint's page, why one is not possible, and its receipt."""

from __future__ import annotations

from typing import Literal, NamedTuple

from kedge.core.values import Value
from kedge.operations.status.view import EndpointStatus
from kedge.web.dashboard.pages.page import DashboardPage, PagePart, Viewer
from kedge.web.dashboard.pages.quantities import milliseconds, percent
from kedge.web.dashboard.pages.way_back import Landing, landing, undo

ActName = Literal[
    "rollback",
    "promote",
    "pause",
    "resume",
    "weight",
    "abort",
    "freeze",
    "thaw",
    "roll-features",
]


class ActKind(NamedTuple):
    """One command of the page."""

    label: str
    effect: str
    """What it does, as the start of a sentence."""
    tone: str
    """danger, go or plain."""


ACTS: dict[str, ActKind] = {
    "rollback": ActKind("Roll back", "Goes back to the previous good release", "danger"),
    "promote": ActKind("Promote", "Moves the rollout to its next step, or into production", "go"),
    "pause": ActKind("Pause", "Holds the rollout where it is", "plain"),
    "resume": ActKind("Resume", "Continues a held rollout", "plain"),
    "weight": ActKind("Set weight", "Changes the candidate's share of the callers", "plain"),
    "abort": ActKind("Abort", "Ends the rollout; the candidate stays eligible", "plain"),
    "freeze": ActKind("Freeze", "Stops automation; operators' commands still work", "plain"),
    "thaw": ActKind("Thaw", "Lets automation act again", "plain"),
    "roll-features": ActKind(
        "Roll features", "Puts another version of the features into production", "plain"
    ),
}
OPPOSITES = {"pause": "resume", "resume": "pause", "freeze": "thaw", "thaw": "freeze"}
"""Of two opposite commands, the page shows the one that is possible."""
NOT_OPERATOR = "your role is {role}; an operator can do this"


class ActButton(Value, frozen=True, kw_only=True):
    """A button. It names the epoch that its page showed."""

    act: str
    label: str
    tone: str
    epoch: int
    refusal: str
    """Why it is not possible; empty: it is."""


class ActForm(Value, frozen=True, kw_only=True):
    """The question before a command is carried out."""

    endpoint: str
    act: str
    label: str
    tone: str
    effect: str
    epoch: int
    refusal: str
    hint: str
    landing: Landing | None
    """Where a rollback lands; None for other commands."""
    finding: str
    """The newest diagnosis in a sentence; empty: there is none."""
    advice: str
    against: bool
    """Whether the diagnosis advises against a rollback."""
    needs_reason: bool
    weight: float | None
    """The proposed share; None: the command takes none."""
    versions: tuple[int, ...] = ()
    """Versions of the features to choose from."""
    choices: tuple[tuple[str, str], ...] = ()
    """For a rollback: the targets, each with what it means."""


class AckLine(Value, frozen=True):
    """One replica's part in a command."""

    replica: str
    tone: str
    text: str


class ActReceipt(Value, frozen=True, kw_only=True):
    """The result of a command, or its present state while it runs."""

    endpoint: str
    label: str
    state: Literal["running", "done", "refused", "stale", "silent", "failed"]
    heading: str
    text: str
    hint: str
    acks: tuple[AckLine, ...] = ()
    parts: tuple[tuple[str, str], ...] = ()
    """The duration of each part of it."""
    finding: str = ""
    epoch: int = 0


def buttons_of(
    status: EndpointStatus, refusals: dict[str, tuple[str, str]], viewer: Viewer
) -> tuple[ActButton, ...]:
    """Return the buttons of an endpoint; of opposite ones, that which is possible."""
    found = []
    for act, kind in ACTS.items():
        refusal = refusals.get(act, ("", ""))[0]
        other = OPPOSITES.get(act)
        if refusal and other and (other not in refusals or act in ("resume", "thaw")):
            continue
        if not viewer.can_operate:
            refusal = NOT_OPERATOR.format(role=viewer.role)
        found.append(
            ActButton(
                act=act, label=kind.label, tone=kind.tone, epoch=status.epoch, refusal=refusal
            )
        )
    return tuple(found)


def form_of(
    status: EndpointStatus,
    act: str,
    refusals: dict[str, tuple[str, str]],
    viewer: Viewer,
    *,
    finding: tuple[str, str, bool] = ("", "", False),
    versions: tuple[int, ...] = (),
) -> ActForm:
    """Return the question of one act."""
    kind = ACTS[act]
    refusal, hint = refusals.get(act, ("", ""))
    if not viewer.can_operate:
        refusal, hint = NOT_OPERATOR.format(role=viewer.role), ""
    back = act == "rollback"
    return ActForm(
        endpoint=status.endpoint,
        act=act,
        label=kind.label,
        tone=kind.tone,
        effect=f"It {undo(status)}" if back else kind.effect,
        epoch=status.epoch,
        refusal=refusal,
        hint=hint,
        landing=landing(status.back) if back and status.candidate is None else None,
        finding=finding[0] if back else "",
        advice=finding[1] if back else "",
        against=finding[2] and back,
        needs_reason=back,
        weight=(status.next_weight or status.weight) if act == "weight" else None,
        versions=versions if act == "roll-features" else (),
        choices=_choices(status) if back else (),
    )


def _choices(status: EndpointStatus) -> tuple[tuple[str, str], ...]:
    """Return the kinds of rollback that differ now."""
    found = [("", "the newest change that callers see")]
    if status.candidate is not None and status.back is not None:
        found.append(("production", f"production, to {landing(status.back).release}"))
    both = status.back.release if status.back is not None else None
    for axis, back in (("model", status.back_model), ("features", status.back_features)):
        if back is not None and back.release != both:
            found.append((axis, f"only the {axis}, to {landing(back).release}"))
    return tuple(found) if len(found) > 1 else ()


def form_page(form: ActForm, at: float) -> DashboardPage:
    """Return the page that asks before a command."""
    return DashboardPage(
        title=f"{form.label} · {form.endpoint}",
        template="act.html",
        parts=(PagePart("act", "act_form.html", form),),
        endpoint=form.endpoint,
        tab="endpoint",
        at=at,
    )


def receipt_page(receipt: ActReceipt, at: float) -> DashboardPage:
    """Return the page of a command under way, or of its result."""
    return DashboardPage(
        title=f"{receipt.label} · {receipt.endpoint}",
        template="act.html",
        parts=(PagePart("receipt", "act_receipt.html", receipt),),
        endpoint=receipt.endpoint,
        tab="endpoint",
        at=at,
    )


def ack_lines(
    acks: dict[str, float], silent: tuple[str, ...], cold: dict[str, str]
) -> tuple[AckLine, ...]:
    """Return a line for each replica, the fastest first."""
    found = [
        AckLine(name, "ok", f"acknowledged after {milliseconds(took)}")
        for name, took in sorted(acks.items(), key=lambda item: item[1])
    ]
    found += [AckLine(name, "bad", "did not acknowledge") for name in silent]
    return tuple(
        AckLine(line.replica, line.tone, f"{line.text}; it was cold: {cold[line.replica]}")
        if line.replica in cold
        else line
        for line in found
    )


def weight_text(weight: float) -> str:
    """Return a share of callers as a form field takes it."""
    return percent(weight).removesuffix(" %")
