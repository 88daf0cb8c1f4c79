"""Commands of pages: rollbacks have threads of their own."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

from contract.sql_world import world
from kedge.web.dashboard.acts import Acts
from kedge.web.dashboard.commands import ActAsk
from kedge.web.dashboard.pages.receipts import ActReceipt
from kedge.web.readers import Readers
from kedge.workspace import Workplace


def test_a_rollback_waits_for_no_other_command(tmp_path: Path) -> None:
    state_dir = world(tmp_path).state_dir
    ended = threading.Event()

    def open_place(*_: Any) -> Workplace:
        return Workplace(state_dir)

    def carry_out(_: Workplace, ask: ActAsk) -> ActReceipt:
        if ask.act != "rollback":
            assert ended.wait(30)
        return ActReceipt(
            endpoint=ask.endpoint, act=ask.act, label="", state="done", heading=ask.act
        )

    async def walk() -> tuple[bool, bool]:
        acts = Acts(Readers(open_place, threads=1), Readers(open_place), open_place, carry_out)
        held = await acts.start(ActAsk(endpoint="flights", act="promote", epoch=1, by="ada"), "")
        name = await acts.start(ActAsk(endpoint="flights", act="rollback", epoch=1, by="ada"), "")
        first, second = acts.find(held, "flights"), acts.find(name, "flights")
        assert first is not None
        assert second is not None
        rollback = second.task
        await asyncio.wait({rollback}, timeout=20)
        found = rollback.done(), first.task.done()
        ended.set()
        await first.task
        return found

    assert asyncio.run(walk()) == (True, False)
