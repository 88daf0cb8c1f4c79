"""Proof that a release is deployable: from nothing, in a process of its own, bounded in time.

The artifact is copied out of the store into an empty directory, verified there, loaded, and asked
its golden rows; a transformation goes the same way. Rows that kedge made at registration say little,
so that some out of the prediction log are asked as well. One proof at a time on a state directory.

The process that makes a proof may be killed. The model's process dies with it, and the directory is removed
by a shell that waits for nothing but its end. If that is killed too, the next proof removes it.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from uuid import uuid4

import msgspec

from kedge.adapters import process
from kedge.columns import columns_of
from kedge.core.errors import BadRequest, KedgeError, Refused, Unavailable
from kedge.core.readiness import DAY_S, PROOF_S
from kedge.core.stored.ledger import Note
from kedge.core.stored.notes import Proven, build_note
from kedge.core.time.instants import read_instant
from kedge.core.values import ModelVersion, Release, State
from kedge.system.locks import lock_file
from kedge.workspace import Workplace

FOLDER = "proving"
"""Within the state directory: what proofs are made in, and `lock`."""
STEP_S = 120.0
"""For each step: as long as a forward move waits for a load, since this is one, with less priority."""
BUSY_S = 300.0
"""How long to wait for another proof: two of its steps hang, and somewhat more."""
ROWS = 8
"""Logged rows that are asked: enough to meet a null or a rare word, and no load."""
SCANNED = 20_000
"""Predictions looked through for such rows: a tenth has its inputs by default."""
ROOM = 64 << 20
"""Bytes that a copy leaves free: a disk that is full for the ledger costs more than a proof."""
_JANITOR = 'read -r _ || sleep 1; rm -rf -- "$1"'
"""A line, and then the end: it is over. The end alone: the prover died, and what it started is
just about to."""


def proven_of(place: Workplace, state: State, number: int) -> tuple[Proven, float] | None:
    """The newest proof of a release, and its Unix time."""
    for entry in place.ledger.entries(state.endpoint, "proven", limit=20):
        assert isinstance(entry.event, Note)
        found = entry.event.body  # of another struct where another version of kedge wrote it
        if isinstance(found, Proven) and found.release == number:
            return found, read_instant(entry.at)
    return None


def prove(
    place: Workplace,
    state: State,
    number: int,
    *,
    by: str,
    again: bool,
    step_s: float = STEP_S,
) -> tuple[Proven, float]:
    """Prove a release, and file what came of it as a note.

    Args:
        place: the state directory.
        state: the row of its endpoint.
        number: the release.
        by: who asks.
        again: although there is a proof of the last day.
        step_s: for each step.

    Raises:
        Refused: `proof_busy`.
        Unavailable: the ledger cannot be reached.
    """
    folder = place.state_dir / FOLDER
    began = place.clock.unix()
    with _alone(folder):
        # Another process may have made one while this one waited.
        filed = proven_of(place, state, number)
        oldest = began if again else place.clock.unix() - PROOF_S
        if filed is not None and filed[1] >= oldest:
            return filed
        found = _tried(place, state, state.releases[number], folder, step_s)
        at = place.clock.now()
        place.ledger.note(
            state.endpoint,
            build_note(found),
            by=by,
            reason=found.why,
            at=at,
        )
        return found, read_instant(at)


def _tried(place: Workplace, state: State, release: Release, folder: Path, step_s: float) -> Proven:
    version = next(
        (v for v in place.registry.versions(release.model) if v.number == release.version), None
    )
    golden = version.golden if version is not None else "made"
    done: list[process.ProofStep] = []
    why = ""
    try:
        _room(folder, version)
        with scratch(folder) as into:
            process.prove(
                artifacts=place.state_dir / "artifacts",
                into=into,
                digest=release.model_digest,
                flavour=release.flavour,
                trusted=release.trusted,
                memory_mb=state.policy.memory_mb,
                code=release.code,
                generation=release.generation,
                online=place.online if release.generation is not None else None,
                rows=lambda: logged(place, release) if golden == "made" else {},
                told=done.append,
                timeout_s=step_s,
                fence=place.fence,
            )
    except (KedgeError, OSError) as error:
        why = f"{process.STEPS[min(len(done), len(process.STEPS) - 1)]}: {error}"
    took = {step.step: step for step in done}
    return Proven(
        release=release.number,
        ok=not why,
        why=why[:2_000],
        golden=golden,
        rows=took["answer"].rows if "answer" in took else 0,
        sampled=took["sample"].rows if "sample" in took else 0,
        **{f"{step}_s": round(took[step].seconds, 3) for step in process.STEPS[:4] if step in took},
    )


def _room(folder: Path, version: ModelVersion | None) -> None:
    """Refuse a copy that would leave the disk without room.

    Raises:
        Unavailable: `disk_full`.
    """
    free = shutil.disk_usage(folder).free
    size = version.size if version is not None else 0
    if free < size + ROOM:
        raise Unavailable(
            f"a copy of {size:,} bytes leaves too little of {free:,} that are free",
            code="artifacts_unavailable",
            hint="free some disk space",
        )


def logged(place: Workplace, release: Release) -> dict[str, list[object]]:
    """A few rows that callers asked lately and that this release can be asked; {} without any."""
    now = place.clock.unix()
    found: list[dict[str, object]] = []
    try:
        rows = islice(place.records.rows(release.endpoint, now - DAY_S, now), SCANNED)
        for row in rows:
            if row.inputs:
                found += _fitting(release, row.inputs)
            if len(found) >= ROWS:
                break
    except KedgeError:
        return {}  # the log may be lost, and with it this part of a proof
    return (
        {f.name: [row[f.name] for row in found] for f in release.signature.inputs} if found else {}
    )


def _fitting(release: Release, inputs: bytes) -> Sequence[dict[str, object]]:
    """The row, if it has all that this release needs: the contract changes, and the log is redacted."""
    given = msgspec.msgpack.decode(inputs, type=dict[str, object])
    row = {field.name: given.get(field.name) for field in release.signature.inputs}
    try:
        columns_of({name: [value] for name, value in row.items()}, release.signature)
    except BadRequest:
        return ()
    return (row,)


# ---------------------------------------------------------------- a directory that goes


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the lock of the folder, and take away what killed provers left in it.

    Raises:
        Refused: `proof_busy`: another process has held it for too long.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with lock_file(folder / "lock", within_s=BUSY_S) as taken:
        if not taken:
            raise Refused(
                f"another proof has been under way for {BUSY_S:.0f} s",
                code="proof_busy",
                hint="try again; kedge history shows what came of it",
            )
        for left in folder.iterdir():
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
        yield


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """An empty directory that is removed however this process ends."""
    path = folder / uuid4().hex
    with subprocess.Popen(  # noqa: S603 - a fixed command, and a path of ours
        ["/bin/sh", "-c", _JANITOR, "sh", str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
    ) as janitor:
        try:
            path.mkdir()
            yield path
        finally:
            assert janitor.stdin is not None
            with suppress(BrokenPipeError):
                janitor.stdin.write(b"over\n")
                janitor.stdin.close()
            janitor.wait()
    shutil.rmtree(path, ignore_errors=True)  # should the janitor itself have been killed
