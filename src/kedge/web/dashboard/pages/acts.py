"""Acts: the commands on an endpoint's page, why one is not possible, and the form of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from kedge.core.links import act_path
from kedge.core.values import Release, Value
from kedge.operations.status.view import EndpointStatus
from kedge.web.dashboard.pages.marks import EventLine, changes_of
from kedge.web.dashboard.pages.page import DashboardPage, PagePart, Viewer
from kedge.web.dashboard.pages.readings import PageReading
from kedge.web.dashboard.pages.refusals import ActRefusal, RollbackChoice
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
OVERRIDABLE = ("promote", "resume", "weight", "roll-features")
"""Commands that take a reason to override a check."""
CHANGES = 5
"""Changes since a form was made that its page lists, the newest."""
NOTICE = "notice"
"""The id of the part that lists them."""
NOT_OPERATOR = "your role is {role}; an operator can do this"


class ActButton(Value, frozen=True, kw_only=True):
    """A button. It names the epoch that its page showed."""

    act: str
    label: str
    tone: str
    epoch: int
    refusal: str
    """Why it is not possible; empty: it is."""


class FormChoice(Value, frozen=True, kw_only=True):
    """One target of a rollback."""

    value: str
    text: str
    landing: Landing | None
    """Where callers land, and whether it is warm; None: it answers them now."""


class ActForm(Value, frozen=True, kw_only=True):
    """The question before a command is carried out."""

    endpoint: str
    act: str
    label: str
    tone: str
    effect: str
    outcome: str
    """The entry that the ledger would get; empty: it depends on the form, or is not known."""
    epoch: int
    key: str
    """Names this form, so that a form that is sent twice is carried out once."""
    refusal: str
    """Why it cannot be sent; empty: it can."""
    hint: str
    override: str
    """The failing check that needs a reason to override it; empty: none is known."""
    can_override: bool
    """Whether the command takes a reason to override a check."""
    choices: tuple[FormChoice, ...]
    """For a rollback: the targets."""
    reads_values: bool
    """Whether a landing of a rollback could read values that were computed ahead."""
    finding: str
    """The newest diagnosis in a sentence; empty: there is none."""
    advice: str
    finding_at: float
    against: bool
    """Whether the diagnosis advises against a rollback."""
    needs_reason: bool
    weight: float | None
    """The proposed share; None: the command takes none."""
    versions: tuple[int, ...]
    """Versions of the features to choose from."""
    live_version: int | None
    """That of production now."""
    last: EventLine | None
    """The newest change of the endpoint; None: it is not known."""
    since: tuple[EventLine, ...]
    """The changes since the page whose button opened the form."""
    owner: str
    on_call: str


class ActNotice(Value, frozen=True, kw_only=True):
    """What happened to the endpoint since the form was made."""

    endpoint: str
    act: str
    changes: tuple[EventLine, ...]
    fault: str
    """Why this is not known; empty: it is."""


def buttons_of(
    status: EndpointStatus, refusals: Mapping[str, ActRefusal], viewer: Viewer
) -> tuple[ActButton, ...]:
    """Return the buttons of an endpoint; of opposite ones, that which is possible."""
    found = []
    for act, kind in ACTS.items():
        refused = refusals.get(act)
        refusal = refused.text if refused is not None and refused.is_final else ""
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
    reading: PageReading, act: str, viewer: Viewer, key: str, since: int | None = None
) -> ActForm:
    """Return the question of one act.

    Args:
        reading: the endpoint.
        act: the command.
        viewer: the person who is asked.
        key: names the form.
        since: the epoch of the page whose button opened it; None: no page did.
    """
    status, kind = reading.status, ACTS[act]
    refused = reading.refusals.get(act, ActRefusal(""))
    refusal, hint = (refused.text, refused.hint) if refused.is_final else ("", "")
    if not viewer.can_operate:
        refusal, hint = NOT_OPERATOR.format(role=viewer.role), ""
    back = act == "rollback"
    choices = _choices(reading) if back else ()
    effect = kind.effect
    if back:
        effect = refused.text or f"It {undo(status)}"
    finding = reading.finding if back and status.production is not None else None
    changes = changes_of(reading.entries)
    return ActForm(
        endpoint=status.endpoint,
        act=act,
        label=kind.label,
        tone=kind.tone,
        effect=effect,
        outcome=reading.outcomes.get(act, ""),
        epoch=status.epoch,
        key=key,
        refusal=refusal,
        hint=hint,
        override=refused.text if refused.text and not refused.is_final and not back else "",
        can_override=act in OVERRIDABLE,
        choices=choices,
        reads_values=back and any(release.generation for release in reading.releases),
        finding=finding.headline if finding is not None else "",
        advice=finding.advice if finding is not None else "",
        finding_at=finding.at if finding is not None else 0.0,
        against=finding is not None and finding.against,
        needs_reason=back,
        weight=(status.next_weight or status.weight) if act == "weight" else None,
        versions=reading.transformations if act == "roll-features" else (),
        live_version=_live_version(reading),
        last=changes[0] if changes else None,
        since=changes_of(reading.entries, since)[:CHANGES] if since is not None else (),
        owner=status.owner or "",
        on_call=status.on_call or "",
    )


def _live_version(reading: PageReading) -> int | None:
    live = reading.status.production
    of = {release.label: release.transformation for release in reading.releases}
    return of.get(live.release) if live is not None else None


def _choices(reading: PageReading) -> tuple[FormChoice, ...]:
    """Return the targets of a rollback, each with where callers land."""
    status = reading.status
    releases = {release.number: release for release in reading.releases}
    warmth = {
        int(back.release.removeprefix("r")): landing(back)
        for back in (status.back, status.back_model, status.back_features)
        if back is not None
    }
    return tuple(
        FormChoice(
            value=one.kind,
            text=_describe(one, reading, releases),
            landing=None
            if status.production is not None and f"r{one.lands}" == status.production.release
            else warmth.get(one.lands) or _unknown(releases.get(one.lands)),
        )
        for one in reading.rollbacks
    )


def _describe(choice: RollbackChoice, reading: PageReading, releases: Mapping[int, Release]) -> str:
    """Return what a rollback does, as a sentence without a full stop."""
    status = reading.status
    lands, left = named(releases, choice.lands), named(releases, choice.left)
    stays = status.production is not None and f"r{choice.lands}" == status.production.release
    if stays and status.drill is not None:
        return f"{lands} stays in production, and the drill ends; {left} is condemned"
    if stays:
        return f"{left} goes from {status.weight:g} % to zero and is condemned; {lands} stays"
    what = {"model": "only the model", "features": "only the features"}.get(choice.kind)
    told = f"{what or 'production'} goes back from {left} to {lands}; {left} is condemned"
    if choice.ends is not None:
        told += f"; the rollout of {named(releases, choice.ends)} ends"
    return told + (f"; {lands} was condemned before" if choice.was_condemned else "")


def named(releases: Mapping[int, Release], number: int | None) -> str:
    """Return a release with its version: r3 · v2."""
    release = releases.get(number) if number is not None else None
    return f"{release.label} · v{release.version}" if release is not None else f"r{number}"


def _unknown(release: Release | None) -> Landing:
    """Return a landing that no replica has to keep loaded."""
    return Landing(
        release=f"{release.label} · v{release.version}" if release is not None else "",
        warmth="unkept",
        word="loaded first if it is not warm",
    )


def notice_of(reading: PageReading, act: str, since: int, fault: str) -> ActNotice:
    """Return what happened to an endpoint since its form was made at an epoch."""
    return ActNotice(
        endpoint=reading.status.endpoint,
        act=act,
        changes=changes_of(reading.entries, since)[:CHANGES],
        fault=fault,
    )


def form_page(form: ActForm, notice: ActNotice, at: float) -> DashboardPage:
    """Return the page that asks before a command."""
    return DashboardPage(
        title=f"{form.label} · {form.endpoint}",
        template="act.html",
        parts=(
            PagePart(NOTICE, "act_notice.html", notice),
            PagePart("act", "act_form.html", form),
        ),
        endpoint=form.endpoint,
        tab="endpoint",
        at=at,
        live=f"{act_path(form.endpoint, form.act)}/live?epoch={form.epoch}",
    )


def notice_page(notice: ActNotice, at: float) -> DashboardPage:
    """Return the part of a form's page that changes: the form itself stays as it was read."""
    return DashboardPage(
        title="",
        template="act.html",
        parts=(PagePart(NOTICE, "act_notice.html", notice),),
        endpoint=notice.endpoint,
        at=at,
    )
