"""Golden rows of transformations: their origins, and a transformation's answers to them."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from kedge.adapters import process
from kedge.columns import Offered, columns_of, compare
from kedge.core import codec
from kedge.core.errors import BadRequest, CorruptArtifact, KedgeError, Refused
from kedge.core.features.schema import Spec
from kedge.core.golden import Known, Lists, count, made_rows, seen, taken, whole
from kedge.core.values import Field, Origin, Proof, Signature
from kedge.engine.registration import GOLDEN_BYTES, Golden, promised
from kedge.system.files import read_bounded
from kedge.tabular.statistics import read_training
from kedge.workspace import Workplace

LOGGED = 200
"""Limit of golden rows from the prediction log: enough for every category that is not rare."""
DAY_S = 86_400.0


class GoldenRows(NamedTuple):
    """Rows that a transformation is asked, and their origin."""

    rows: dict[str, list[Any]]
    """The rows; {} if there are none of this origin."""
    origin: Origin


def given_rows(golden: Path | None) -> dict[str, list[Any]] | None:
    """Read the rows of a file.

    Raises:
        Refused: `bad_golden`.
    """
    if golden is None:
        return None
    try:
        return codec.read_written(read_bounded(golden, GOLDEN_BYTES), Golden).inputs
    except (OSError, msgspec.DecodeError) as error:
        raise Refused(
            f"{golden}: {error}", code="bad_golden", hint='{"inputs": {"sched_hour": [8, 17]}}'
        ) from error


def golden_rows(
    place: Workplace, spec: Spec, *, given: dict[str, list[Any]] | None, training: Path | None
) -> GoldenRows:
    """Return the rows for a trial: given ones, else of a training set, else logged, else none.

    Raises:
        Refused: `bad_training`: the file cannot be read, or lacks a raw column.
    """
    if given is not None:
        return GoldenRows(given, "given")
    if training is not None:
        rows = read_training(training, Signature(spec.raw, ())).rows
        if not count(rows):
            raise Refused(
                f"{training} has no row that {spec.schema.name} could be asked",
                code="bad_training",
                hint="leave rows with nulls out, or give --golden",
            )
        return GoldenRows(_with_values(rows, spec.bare), "training")
    real = real_rows(place, spec.schema.name, spec.bare)
    return real[0] if real else GoldenRows({}, "made")


def real_rows(place: Workplace, schema: str, signature: Signature) -> list[GoldenRows]:
    """Return the rows of the prediction log, then of training sets, that fit a signature.

    Neither has values by key: such columns are filled with made numbers.
    """
    found = [
        GoldenRows(_logged(place, schema, signature), "log"),
        GoldenRows(_trained_on(place, schema, signature), "training"),
    ]
    return [one for one in found if count(one.rows)]


def by_key(signature: Signature) -> tuple[str, ...]:
    """Return the columns that are read by key."""
    return tuple(field.name for field in signature.inputs if "." in field.name)


def _logged(place: Workplace, schema: str, signature: Signature) -> dict[str, list[Any]]:
    """Return rows of the last day that callers of endpoints on this schema sent, the newest first."""
    names = [field.name for field in signature.inputs if "." not in field.name]
    now = place.clock.unix()
    for endpoint in _on(place, schema):
        rows: list[dict[str, object]] = []
        try:
            for row in place.records.rows(endpoint, now - DAY_S, now + 1, newest=True):
                inputs = (
                    msgspec.msgpack.decode(row.inputs, type=dict[str, object]) if row.inputs else {}
                )
                if all(name in inputs for name in names):
                    rows.append(inputs)
                if len(rows) >= LOGGED:
                    break
        except KedgeError:
            continue  # the log may be lost, and its rows with it
        columns = {name: [row[name] for row in rows] for name in names}
        found = _fitting(_with_values(columns, signature), signature)
        if count(found):
            return found
    return {}


def _trained_on(place: Workplace, schema: str, signature: Signature) -> dict[str, list[Any]]:
    """Return raw rows of the newest training set of a model on this schema that has them."""
    for endpoint in _on(place, schema):
        for version in reversed(place.registry.versions(endpoint)):
            proof = kept_proof(place, version.digest) if version.schema == schema else None
            names = [field.name for field in signature.inputs if "." not in field.name]
            if proof is not None and all(name in proof.raw for name in names):
                rows = {name: proof.raw[name] for name in names}
                found = _fitting(_with_values(rows, signature), signature)
                if count(found):
                    return found
    return {}


def _on(place: Workplace, schema: str) -> list[str]:
    """Return the endpoints whose production, or any version, uses a schema."""
    found = []
    for state in place.ledger.read().states.values():
        live = state.releases.get(state.production) if state.production is not None else None
        known = {live.schema if live else None, state.policy.features.schema}
        if schema in known or any(
            one.schema == schema for one in place.registry.versions(state.endpoint)
        ):
            found.append(state.endpoint)
    return found


def _with_values(rows: Lists, signature: Signature) -> dict[str, list[Any]]:
    """Return the rows with made numbers in the columns that are read by key."""
    looked: list[Field] = [field for field in signature.inputs if "." in field.name]
    made = whole(made_rows(looked, {})) if looked else {}
    filled = {
        name: [values[n % len(values)] for n in range(count(rows))] for name, values in made.items()
    }
    return {**{name: list(values) for name, values in rows.items()}, **filled}


def _fitting(rows: dict[str, list[Any]], signature: Signature) -> dict[str, list[Any]]:
    """Return the rows that fit: contracts change, and the log has the columns of its time."""
    kept = []
    for row in range(count(rows)):
        try:
            columns_of(taken(rows, [row]), signature)
        except BadRequest:
            continue
        kept.append(row)
    return taken(rows, kept)


def kept_proof(place: Workplace, digest: str) -> Proof | None:
    """Return the golden rows of an artifact; None if they cannot be read."""
    try:
        return place.artifacts.proof(digest)
    except CorruptArtifact:
        return None


# ---------------------------------------------------------------- answers


def tried(place: Workplace, digest: str, spec: Spec, golden: GoldenRows) -> Proof:
    """Ask a transformation the rows twice and in groupings, in a process of its own.

    Raises:
        Refused: `golden_mismatch`, `not_deterministic`, or the error that ended the process.
    """
    fields = spec.bare.inputs
    made = made_rows(fields, {**seen(golden.rows), **_promised_by_key(spec)}, golden.rows)
    probe = functools.partial(
        process.probe,
        artifacts=place.state_dir / "artifacts",
        digest=digest,
        timeout_s=place.limits.timeout_s,
        memory_mb=place.limits.memory_mb,
        fence=place.fence,
    )
    found = probe(rows=lambda *_: Offered(golden=golden.rows, made=made))
    if found.fault is not None:
        raise Refused(
            found.fault, code="golden_mismatch", hint="the answer must be what the schema promises"
        )
    differs = compare(found.again, found.outputs, rtol=0.0, atol=0.0)
    if differs is None and found.grouped.random:
        differs = found.grouped.why
    if differs is not None:
        raise Refused(
            f"asked the same rows twice, it gave two answers: {differs}",
            code="not_deterministic",
            hint="no clock, no random numbers",
        )
    return Proof(
        inputs=found.inputs,
        outputs=found.outputs,
        origin=golden.origin,
        rows=found.grouped.rows,
        tested=found.grouped.tested,
        why=found.grouped.why,
    )


def _promised_by_key(spec: Spec) -> dict[str, Known]:
    return {
        f"{schema.name}.{name}": known
        for schema in spec.read
        for name, known in promised(schema.fields).items()
    }


def answers(
    place: Workplace, digest: str, label: str, rows: dict[str, list[Any]], *, single: bool
) -> dict[str, list[Any]]:
    """Return a version's answers to the rows: to all at once, or to each alone.

    Raises:
        Refused: `golden_mismatch`, or the error that ended its process.
    """
    found = process.probe(
        artifacts=place.state_dir / "artifacts",
        digest=digest,
        timeout_s=place.limits.timeout_s,
        memory_mb=place.limits.memory_mb,
        fence=place.fence,
        rows=lambda *_: Offered(golden=rows, grouped=False, single=single),
    )
    if found.fault is not None:
        raise Refused(f"{label}: {found.fault}", code="golden_mismatch")
    return found.outputs
