"""Model of a replay: a release in its own process that answers logged rows again.

It ends with this process. Nothing is written, and no gateway is involved.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from numpy.typing import NDArray

from kedge.adapters import process
from kedge.columns import columns_of
from kedge.core.errors import BadRequest, KedgeError, ModelFailure, Unavailable
from kedge.core.evidence.records import JoinRow
from kedge.core.features.generations import Online
from kedge.core.values import Release, Signature, State
from kedge.engine.serving.pool import host_status
from kedge.inspection.independence import release_mark
from kedge.system.door import ModelDoor
from kedge.workspace import Workplace

if TYPE_CHECKING:
    from kedge.typing import Columns

BATCH = 256
"""Rows per batch: enough to make the socket's cost negligible, and small enough for any model."""
LOAD_S = 120.0
ANSWER_S = 60.0

decoded = msgspec.msgpack.Decoder(dict[str, object]).decode
"""The logged inputs of a row, by name."""


@asynccontextmanager
async def loaded(
    place: Workplace,
    state: State,
    release: Release,
    online: Online | None,
    *,
    bare: Signature | None = None,
) -> AsyncIterator[process.ProcessModel]:
    """Yield a release in its own process, which ends with this process.

    Args:
        place: the state directory.
        state: the row, for its limits.
        release: the release.
        online: the store of its transformation's lookups.
        bare: the model's own signature, to ask it without its transformation.

    Raises:
        Unavailable: `model_down`: it did not start.
    """
    with tempfile.TemporaryDirectory(prefix="kedge-") as directory:
        path = Path(directory) / "m.sock"
        whole = bare is None
        command = process.command(
            socket=path,
            artifacts=place.state_dir / "artifacts",
            digest=release.model_digest,
            flavour=release.flavour,
            trusted=release.trusted,
            memory_mb=state.policy.memory_mb,
            code=release.code if whole else None,
            generation=release.generation if whole else None,
            online=online if whole else None,
            fence=place.fence,
        )
        words = process.first_words(release.generation if whole else None, online)
        with closing(ModelDoor(path)) as door, _started(door, words, command) as child:
            model = process.ProcessModel(path, bare or release.signature)
            try:
                fault = await _fault(model, child, path)
                if fault:
                    raise Unavailable(
                        f"r{release.number} did not load: {fault}",
                        code="model_down",
                        hint="kedge doctor checks its files",
                    )
                yield model
            finally:
                model.hang_up()
                child.kill()


def _started(door: ModelDoor, words: bytes, command: Sequence[str]) -> subprocess.Popen[bytes]:
    with door.handed(words) as line:
        return subprocess.Popen(  # noqa: S603 - our own interpreter
            command, env=process.fenced_environment(), stdin=line
        )


async def _fault(model: process.ProcessModel, child: subprocess.Popen[bytes], socket: Path) -> str:
    """Return why the process did not start; empty if it did. An ended process is not waited for.

    A process that cannot load writes the reason to the file beside its socket.
    """
    for _ in range(int(LOAD_S * 4)):
        if await model.wait_ready(0.25):
            return ""
        if child.poll() is not None:
            return host_status(socket).detail or f"its process ended with code {child.returncode}"
    return f"it took longer than {LOAD_S:g} s"


INCOMPLETE = "request_incomplete"
"""Code of a failure that is not the release's: some rows of the request are not in the log."""


async def answered(
    model: process.ProcessModel, release: Release, rows: Sequence[JoinRow], *, as_sent: bool = False
) -> list[tuple[Columns, int] | KedgeError]:
    """Return the answer to each logged row as (columns, row number), or the failure.

    A failed batch is asked again row by row, so that one bad row costs only itself. With `as_sent`
    whole requests are asked, and each fails as a whole, as for its caller.
    """
    if not as_sent:
        return await _answered(model, release, rows, whole=False)
    lost = ModelFailure("some rows of its request were not logged", code=INCOMPLETE)
    found: list[tuple[Columns, int] | KedgeError] = [lost] * len(rows)
    for part in requests(rows):
        got = await _answered(model, release, [rows[n] for n in part], whole=True)
        for n, one in zip(part, got, strict=True):
            found[n] = one
    return found


async def _answered(
    model: process.ProcessModel, release: Release, rows: Sequence[JoinRow], *, whole: bool
) -> list[tuple[Columns, int] | KedgeError]:
    try:
        columns = logged_columns(release, rows)
        answer, *_ = await model.predict(columns, ANSWER_S)
    except (ModelFailure, BadRequest) as fault:
        if len(rows) == 1 or whole:
            return [fault] * len(rows)
        return [(await _answered(model, release, [row], whole=True))[0] for row in rows]
    return [(answer, number) for number in range(len(rows))]


def requests(rows: Sequence[JoinRow]) -> list[list[int]]:
    """Return the rows of each request in order, for requests that the log has completely."""
    found: dict[str, list[tuple[int, int]]] = {}
    for n, row in enumerate(rows):
        name, _, number = row.id.rpartition("/")
        found.setdefault(name, []).append((int(number), n))
    parts = [sorted(part) for part in found.values()]
    return [
        [n for _, n in part] for part in parts if [m for m, _ in part] == list(range(len(part)))
    ]


def batches(rows: Iterable[JoinRow], size: int) -> Iterator[list[JoinRow]]:
    """Yield batches of about `size` rows; none ends within a request."""
    batch: list[JoinRow] = []
    for row in rows:
        if len(batch) >= size and row.id.rpartition("/")[0] != batch[-1].id.rpartition("/")[0]:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def merges(place: Workplace, release: Release) -> bool:
    """Return whether a release's proofs allow rows of several requests in one batch."""
    return release_mark(place.artifacts, release) == "independent"


async def answers(
    model: process.ProcessModel, columns: Mapping[str, NDArray[Any]], rows: int
) -> list[tuple[Columns, int] | KedgeError]:
    """Return the same for rows that are columns already."""
    try:
        answer, *_ = await model.predict(columns, ANSWER_S)
    except (ModelFailure, BadRequest) as fault:
        if rows == 1:
            return [fault]
        parts = [{name: c[n : n + 1] for name, c in columns.items()} for n in range(rows)]
        return [(await answers(model, part, 1))[0] for part in parts]
    return [(answer, number) for number in range(rows)]


def logged_columns(release: Release, rows: Sequence[JoinRow]) -> Columns:
    """Return the logged inputs of these rows as the columns that a release takes.

    Raises:
        BadRequest: a value does not fit its field, or is not logged (`log.redact`).
    """
    inputs = [decoded(row.inputs) for row in rows]
    lists = {
        field.name: [given.get(field.name) for given in inputs]
        for field in release.signature.inputs
    }
    return columns_of(lists, release.signature)
