"""Acts under way: each command of a page runs in a thread, and its page shows its progress."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import NamedTuple

from kedge.core.errors import BadRequest, KedgeError
from kedge.operations.status.view import EndpointStatus
from kedge.web.dashboard.commands import ActAsk
from kedge.web.dashboard.pages.acts import ACTS, AckLine, ActReceipt
from kedge.web.readers import Readers
from kedge.workspace import Workplace

KEPT = 200
"""Acts whose results are kept; then the oldest is dropped."""
AT_ONCE_S = 0.5
"""How long a request waits for its command, so that most of them answer with the receipt."""


class UnderWay(NamedTuple):
    """One command: what was asked, and its result when it is there."""

    ask: ActAsk
    task: asyncio.Task[ActReceipt]


class Acts:
    """The commands that pages started."""

    def __init__(
        self,
        threads: Readers,
        rollbacks: Readers,
        open_place: Callable[[str], Workplace],
        carry_out: Callable[[Workplace, ActAsk], ActReceipt],
    ) -> None:
        """Carry commands out, rollbacks in threads of their own.

        `open_place` opens the place of a token.
        """
        self._open = open_place
        self._threads = threads
        self._rollbacks = rollbacks
        self._carry_out = carry_out
        self._acts: dict[str, UnderWay] = {}

    async def start(self, ask: ActAsk) -> str:
        """Start a command; return its id once it is done, or after half a second."""
        task = asyncio.create_task(self._run(ask))
        name = secrets.token_urlsafe(12)
        self._acts[name] = UnderWay(ask, task)
        while len(self._acts) > KEPT:
            self._acts.pop(next(iter(self._acts)))
        await asyncio.wait({task}, timeout=AT_ONCE_S)
        return name

    async def _run(self, ask: ActAsk) -> ActReceipt:
        try:
            threads = self._rollbacks if ask.act == "rollback" else self._threads
            return await threads.run(lambda _: self._in_own_place(ask))
        except KedgeError as error:
            return ActReceipt(
                endpoint=ask.endpoint,
                label=ACTS[ask.act].label,
                state="failed",
                heading="It could not be carried out",
                text=str(error),
                hint=error.hint,
            )

    def _in_own_place(self, ask: ActAsk) -> ActReceipt:
        place = self._open(ask.holder)
        try:
            return self._carry_out(place, ask)
        finally:
            place.database.close()

    def find(self, name: str, endpoint: str) -> UnderWay:
        """Return a command of an endpoint.

        Raises:
            BadRequest: `unknown_path`: it is not known, or control was restarted since.
        """
        found = self._acts.get(name)
        if found is None or found.ask.endpoint != endpoint:
            raise BadRequest(
                "this command is not known any more: its result is in the history",
                code="unknown_path",
                hint="the page Decisions shows what happened",
            )
        return found


def receipt_now(act: UnderWay, status: EndpointStatus) -> ActReceipt:
    """Return the receipt of a command, or what its replicas do while it runs."""
    if act.task.done():
        return act.task.result()
    moved = status.epoch > act.ask.epoch
    return ActReceipt(
        endpoint=act.ask.endpoint,
        label=ACTS[act.ask.act].label,
        state="running",
        heading=(
            f"Written as epoch {status.epoch}; replicas follow"
            if moved
            else "Replicas prepare; nothing has changed yet"
        ),
        text="",
        hint="",
        acks=tuple(
            AckLine(
                replica.name,
                "ok" if replica.epoch == status.epoch and moved else "busy",
                f"serves epoch {replica.epoch}" if moved else "prepares",
            )
            for replica in status.replicas
        ),
        epoch=status.epoch,
    )
