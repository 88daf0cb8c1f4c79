"""Routes of commands: the form of a command, its sending, and its receipt."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from msgspec.structs import replace
from starlette.requests import Request

from kedge.core.access import Access
from kedge.core.errors import BadRequest, KedgeError, Unavailable
from kedge.core.links import receipt_path
from kedge.core.names import read_number
from kedge.web.dashboard.acts import ActName, Acts, make_key, receipt_now
from kedge.web.dashboard.commands import ActAsk
from kedge.web.dashboard.live import SharedReads
from kedge.web.dashboard.pages.acts import (
    ACTS,
    NOTICE,
    ActNotice,
    form_of,
    form_page,
    notice_of,
    notice_page,
)
from kedge.web.dashboard.pages.page import STALE, DashboardPage, Viewer
from kedge.web.dashboard.pages.readings import PageReading
from kedge.web.dashboard.pages.receipts import (
    ActReceipt,
    WrittenCommand,
    interrupted,
    receipt_page,
)
from kedge.web.dashboard.reads import dated, forget_page, read_page
from kedge.web.dashboard.sources import read_written

LONGEST_REASON = 500
"""Characters of a reason; the ledger keeps it forever."""
FORM_PARTS = {STALE: "", NOTICE: ""}
"""What the stream of a form may replace: the form itself stays as it was read."""


class ActRoutes:
    """The pages of commands."""

    def __init__(self, source: SharedReads, acts: Acts, unix: Callable[[], float]) -> None:
        """Read from `source`, and carry commands out by `acts`."""
        self._source = source
        self._acts = acts
        self._unix = unix

    async def form(self, request: Request, viewer: Viewer) -> DashboardPage:
        """Return the question before a command."""
        act = _known_act(request)
        reading, found = await read_page(self._source, request.path_params["endpoint"])
        since = read_number(request.query_params.get("epoch", ""))
        form = form_of(reading, act, viewer, make_key(), since)
        page = form_page(form, notice_of(reading, act, form.epoch, ""), found.at)
        return dated(page, found)

    async def notice(self, request: Request, _viewer: Viewer) -> DashboardPage:
        """Return what happened since a form was made at an epoch; its stream sends this alone."""
        act, endpoint = _known_act(request), request.path_params["endpoint"]
        since = read_number(request.query_params.get("epoch", "")) or 0
        try:
            reading, found = await read_page(self._source, endpoint)
        except KedgeError as error:
            notice = ActNotice(endpoint=endpoint, act=act, changes=(), fault=str(error))
            return notice_page(notice, self._unix())
        return notice_page(notice_of(reading, act, since, found.fault), found.at)

    async def send(self, request: Request, form: dict[str, str], access: Access) -> str:
        """Start a command, and return the path of its receipt.

        Raises:
            BadRequest: a field is missing, wrong or too long.
        """
        endpoint, act = request.path_params["endpoint"], _known_act(request)
        reason = _read_text(form, "reason")
        if act == "rollback" and not reason:
            raise BadRequest("a rollback needs a reason for the ledger", code="bad_parameters")
        ask = ActAsk(
            endpoint=endpoint,
            act=act,
            epoch=int(_read_figure(form, "epoch") or 0),
            reason=reason,
            override=_read_text(form, "override"),
            kind=form.get("kind", ""),
            accept_stale=form.get("accept_stale", "").strip(),
            weight=_read_figure(form, "weight"),
            version=int(_read_figure(form, "version") or 0) or None,
            by=access.name,
            holder=access.holder,
            at=self._unix(),
        )
        name = await self._acts.start(ask, form.get("key", ""))
        forget_page(self._source, endpoint)
        return receipt_path(endpoint, name)

    async def receipt(self, request: Request, viewer: Viewer) -> DashboardPage:
        """Return what a command did, or what it does now.

        Raises:
            BadRequest: `unknown_path`: the address names no command.
        """
        name = request.path_params["number"]
        reading, found = await read_page(self._source, request.path_params["endpoint"])
        act = self._acts.find(name, reading.status.endpoint)
        if act is None:
            receipt = await self._find_written(name, reading, viewer)
        else:
            receipt = receipt_now(act, reading)
        return dated(receipt_page(receipt, reading.status, found.at), found)

    async def _find_written(self, name: str, reading: PageReading, viewer: Viewer) -> ActReceipt:
        """Return the receipt of a command that this control does not know, from the ledger."""
        known = ActName.read(name)
        if known is None:
            raise BadRequest("the address names no command", code="unknown_path")
        endpoint = reading.status.endpoint
        work = partial(read_written, endpoint=endpoint, above=known.epoch)
        try:
            found = await self._source.read(("written", endpoint, known.epoch), work)
        except Unavailable as error:
            receipt = interrupted(reading.status, None, viewer.name)
            return replace(
                receipt,
                state="unknown",
                heading="Control was restarted; what became of the command is not known yet",
                text=f"{error} ({error.code})",
                hint=error.hint,
            )
        assert isinstance(found.value, WrittenCommand | None)
        return interrupted(reading.status, found.value, viewer.name)


def _known_act(request: Request) -> str:
    act: str = request.path_params["act"]
    if act not in ACTS:
        raise BadRequest(f"no such command: {act[:40]}", code="unknown_path")
    return act


def _read_text(form: dict[str, str], name: str) -> str:
    text = form.get(name, "").strip()
    if len(text) > LONGEST_REASON:
        raise BadRequest(
            f"the {name} must have at most {LONGEST_REASON} characters, got {len(text):,}",
            code="bad_parameters",
        )
    return text


def _read_figure(form: dict[str, str], name: str) -> float | None:
    text = form.get(name, "").strip()
    if not text:
        return None
    try:
        found = float(text)
    except ValueError:
        found = float("nan")
    if not -1e15 < found < 1e15:
        raise BadRequest(f"{name} must be a number, got {text[:40]!r}", code="bad_parameters")
    return found
