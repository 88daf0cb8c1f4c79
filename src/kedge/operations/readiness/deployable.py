"""Proof that a release is deployable: from nothing, in its own process, with a time limit.

The proof copies the artifact to an empty directory, verifies it, loads it and asks its golden
rows; a transformation is treated alike. Rows that kedge made at registration prove little,
so the proof also asks some rows of the prediction log. A state directory has one proof at a time.

The process that makes a proof may be killed. The model's process ends with it, and a shell that
waits for its end removes the directory. If the shell is killed too, the next proof removes it.
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
"""Directory within the state directory for proofs and their `lock`."""
STEP_S = 120.0
"""Limit of each step: that of a forward move's load, since a step is a load at low priority."""
BUSY_S = 300.0
"""How long to wait for another proof: enough for two steps that hang."""
ROWS = 8
"""Limit of logged rows that are asked: enough to meet a null or a rare word, without load."""
SCANNED = 20_000
"""Limit of predictions searched for such rows: by default a tenth has inputs."""
ROOM = 64 << 20
"""Bytes that a copy leaves free: a full disk harms the ledger, which matters more than a proof."""
_JANITOR = 'read -r _ || sleep 1; rm -rf -- "$1"'
"""A line means that the proof is over. The end without a line means that the prover died, and its
children are about to end."""


def proven_of(place: Workplace, state: State, number: int) -> tuple[Proven, float] | None:
    """Return the newest proof of a release, and its Unix time."""
    for entry in place.ledger.entries(state.endpoint, "proven", limit=20):
        assert isinstance(entry.event, Note)
        found = entry.event.body  # another version of kedge may have written another struct
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
    """Prove a release, and record the result as a note.

    Args:
        place: the state directory.
        state: the row of its endpoint.
        number: the release.
        by: the actor.
        again: prove even if there is a proof of the last day.
        step_s: limit of each step.

    Raises:
        Refused: `proof_busy`.
        Unavailable: the ledger cannot be reached.
    """
    folder = place.state_dir / FOLDER
    began = place.clock.unix()
    with _alone(folder):
        # Another process may have made a proof meanwhile.
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
    """Return a few rows that callers sent lately and this release can answer; {} without any."""
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
        return {}  # without a log a proof lacks this part
    return (
        {f.name: [row[f.name] for row in found] for f in release.signature.inputs} if found else {}
    )


def _fitting(release: Release, inputs: bytes) -> Sequence[dict[str, object]]:
    """Return the row if it has all inputs of this release; contracts change, logs are redacted."""
    given = msgspec.msgpack.decode(inputs, type=dict[str, object])
    row = {field.name: given.get(field.name) for field in release.signature.inputs}
    try:
        columns_of({name: [value] for name, value in row.items()}, release.signature)
    except BadRequest:
        return ()
    return (row,)


# ---------------------------------------------------------------- temporary directory


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the lock of the folder, and remove the remains of killed provers.

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
    """Yield an empty directory that is removed however this process ends."""
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
    shutil.rmtree(path, ignore_errors=True)  # in case the janitor itself was killed
