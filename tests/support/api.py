"""The API of control for tests, over a state directory of the test."""

import os
import sys
from pathlib import Path

from kedge.adapters.artifacts.quarantine import Quarantine
from kedge.adapters.clock import SystemClock
from kedge.web.bodies import Bodies
from kedge.web.children import Children, RemoteCaller
from kedge.web.events import Streams
from kedge.web.labels import Join
from kedge.web.readers import Readers
from kedge.web.repeats import AnswerStore
from kedge.web.routes import Api
from kedge.web.uploads import Uploads
from kedge.web.writes import Writes
from kedge.workspace import Workplace


async def _refuse(*_: object) -> object:
    raise AssertionError("this test joins no outcomes")


def api_of(
    readers: Readers,
    streams: Streams,
    state_dir: Path,
    join: Join | None = None,
    bodies: Bodies | None = None,
) -> Api:
    """The API over a state directory, as control builds it."""

    def line(caller: RemoteCaller, expect: int | None) -> list[str]:
        config = str(state_dir.parent / "kedge.toml")
        seen = [] if expect is None else [f"--expect={expect}"]
        who = f"--allowed-by={caller.holder}"
        return [sys.executable, "-m", "kedge", "--config", config, who, *seen]

    def environment(caller: RemoteCaller) -> dict[str, str]:
        here = {name: value for name, value in os.environ.items() if name != "KEDGE_SERVER"}
        return {**here, "KEDGE_ACTOR": caller.name}

    uploads = Uploads(Quarantine(state_dir, SystemClock().unix))
    writes = Writes(
        lambda token: Workplace(state_dir, token=token),
        Children(line, environment),
        AnswerStore(state_dir, SystemClock().unix),
        uploads,
        join or _refuse,
    )
    return Api(readers, streams, writes, uploads, bodies)
