"""How a file becomes a model version: claimed, stored, tried out, proven, numbered.

The order is such that a crash at any point leaves nothing that could be released: the version
is added last, when its bytes and its golden rows are on the disk. Bytes of a refused model stay
in the store, where nothing names them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from kedge.core.errors import BadRequest, Refused
from kedge.core.values import Field, ModelVersion, Signature, TrainingSet
from kedge.engine.training import read_statistics
from kedge.ports import Artifacts, ColumnStatistics, Flavour, Proof, Registry
from kedge.tensors import ProbeResult, columns_of, compare

STALL_S = 0.2
"""A load that holds the interpreter lock for longer would be felt by callers (policy: p99)."""
_PICKLES = (".pkl", ".pickle", ".joblib")


class Golden(msgspec.Struct, forbid_unknown_fields=True):
    """Golden rows as people write them."""

    inputs: dict[str, list[Any]]
    outputs: dict[str, list[Any]] | None = None
    rtol: float = Proof({}, {}).rtol
    atol: float = Proof({}, {}).atol


def register(
    source: Path,
    *,
    model: str,
    flavours: Mapping[str, Flavour],
    registry: Registry,
    artifacts: Artifacts,
    golden: Path | None,
    training: Path | None,
    trusted: Sequence[str],
    by: str,
    at: str,
    probe: Callable[..., ProbeResult],
    schema: str | None = None,
    trained_on: TrainingSet | None = None,
) -> tuple[ModelVersion, bool]:
    """Register a file or a directory as a version of a model; says whether it is new.

    The same bytes are the same version. Registered again, they are tried out again only when
    golden rows or a training set are given, which then replace those that were kept.

    Args:
        probe: loads the artifact where it can do no harm, asks `rows(signature)` for rows and
            answers them twice: called with digest, flavour, trusted and rows.

    Raises:
        Refused: nothing claims it, it cannot be tried out, or it breaks its golden rows; or these
            bytes are a version already that was trained on something else.
        UnfitModel: the loader that claims it cannot load it.
    """
    claimed = claiming(source, flavours)
    given = _golden(golden, source)
    digest, files = artifacts.put(source)
    known = next((v for v in registry.versions(model) if v.digest == digest), None)
    if known is not None and golden is None and training is None:
        return known, False
    if known is not None and trained_on is not None:
        _check_trained(known, trained_on)
    statistics: dict[str, ColumnStatistics] = {}
    result = probe(digest=digest, flavour=claimed.flavour, trusted=tuple(trusted),
                   rows=lambda signature: _rows(signature, given, training, statistics))  # fmt: skip
    artifacts.write_proof(digest, _proof(result, given, statistics))
    if known is not None:
        given_now = "made" if given is None else "given"
        return msgspec.structs.replace(known, golden=given_now), False
    version = ModelVersion(
        model=model,
        number=0,  # the registry numbers versions
        digest=digest,
        flavour=claimed.flavour,
        signature=result.signature,
        schema=schema,
        size=sum(entry.size for entry in files),
        files=files,
        source=str(source),
        trusted=tuple(trusted),
        load_s=result.load_s,
        stalls=claimed.stalls and result.load_s > STALL_S,
        golden="made" if given is None else "given",
        registered_at=at,
        registered_by=by,
        trained_on=trained_on,
    )
    return registry.add(version), True


def _rows(
    signature: Signature, given: Golden | None, training: Path | None,
    statistics: dict[str, ColumnStatistics],
) -> dict[str, list[Any]]:  # fmt: skip
    """The rows that a probe asks; what the training set says of its columns goes into `statistics`."""
    if training is not None:
        statistics.update(read_statistics(training, signature))
    if given is None:
        return made_rows(signature, statistics)
    _check_given(given, signature)
    return given.inputs


def _check_trained(known: ModelVersion, now: TrainingSet) -> None:
    before = known.trained_on
    if before is None or before.data != now.data:
        was = (
            f"on {before.label} ({before.data})"
            if before is not None
            else "and nothing says on what"
        )
        raise Refused(
            f"these bytes are {known.label} already, trained {was}; not on {now.label} ({now.data})",
            code="bad_training_set", hint="the same bytes have one training set: the one they came with first",
        )  # fmt: skip


# ---------------------------------------------------------------- who claims it


def claiming(source: Path, flavours: Mapping[str, Flavour]) -> Flavour:
    """The one flavour that claims a file or a directory.

    Raises:
        Refused: none does, and what each looks for; or more than one does.
    """
    if not source.exists():
        raise Refused(f"{source} does not exist", code="no_files")
    if source.is_dir():
        claims = [one for one in flavours.values() if one.claims(source)]
    else:
        with tempfile.TemporaryDirectory() as directory:
            # A directory is what is judged; this is the one that the store will make of the file.
            (Path(directory) / source.name).symlink_to(source.resolve())
            claims = [one for one in flavours.values() if one.claims(Path(directory))]
    if len(claims) == 1:
        return claims[0]
    if claims:
        raise Refused(
            f"{source} could be {' or '.join(one.flavour for one in claims)}",
            code="ambiguous_model",
            hint="put each model into a directory of its own",
        )
    raise _unclaimed(source, flavours)


def _unclaimed(source: Path, flavours: Mapping[str, Flavour]) -> Refused:
    wanted = "; ".join(f"{one.looks_for} ({flavour})" for flavour, one in sorted(flavours.items()))
    message = f"{source} is no model that kedge can load. It looks for: {wanted or 'nothing'}"
    inside = [path.name for path in sorted(source.rglob("*"))] if source.is_dir() else [source.name]
    pickles = [name for name in inside if name.endswith(_PICKLES)]
    if not pickles:
        hint = "" if wanted else "pip install 'kedge[onnx]' or 'kedge[sklearn]'"
        return Refused(message, code="unknown_model", hint=hint)
    return Refused(
        f"{message}. {pickles[0]} looks like a pickle: it can run any code when it is loaded, so "
        "pickles never load by surprise",
        code="pickle",
        hint="load it where you trust it, then write it with skops.io.dump(model, 'model.skops') "
        "or as ONNX with skl2onnx.to_onnx(model, X)",
    )


# ---------------------------------------------------------------- golden rows


def _golden(file: Path | None, source: Path) -> Golden | None:
    if file is None:
        inside = source / "golden.json"
        if not inside.is_file():
            return None
        file = inside
    try:
        return msgspec.json.decode(file.read_bytes(), type=Golden)
    except (OSError, msgspec.DecodeError) as error:
        raise Refused(
            f"{file}: {error}",
            code="bad_golden",
            hint='{"inputs": {"age": [31, 62]}, "outputs": {"score": [0.2, 0.7]}}',
        ) from error


def _check_given(given: Golden, signature: Signature) -> None:
    try:
        columns = columns_of(given.inputs, signature)
    except BadRequest as error:
        raise Refused(f"golden rows: {error}", code="bad_golden", hint=error.hint) from error
    rows = len(next(iter(columns.values())))
    if not rows:
        raise Refused("there are no golden rows in it", code="bad_golden")
    outputs = {field.name for field in signature.outputs}
    for name, values in (given.outputs or {}).items():
        if name not in outputs:
            raise Refused(
                f"golden rows: {name} is not an output of this model",
                code="bad_golden",
                hint=f"outputs: {', '.join(sorted(outputs))}",
            )
        if len(values) != rows:
            raise Refused(
                f"golden rows: {name} has {len(values)} answers for {rows} rows", code="bad_golden"
            )


def _proof(
    result: ProbeResult, given: Golden | None, statistics: dict[str, ColumnStatistics]
) -> Proof:
    """Judge the two answers; what is kept is what the model said, not what was expected."""
    proof = Proof(inputs=result.inputs, outputs=result.outputs, statistics=statistics)
    if given is not None:
        proof = msgspec.structs.replace(proof, rtol=given.rtol, atol=given.atol)
    if result.fault is not None:
        raise Refused(f"golden rows: {result.fault}", code="bad_answer")
    rtol, atol = proof.rtol, proof.atol
    differs = compare(result.again, result.outputs, rtol=rtol, atol=atol)
    if differs is not None:
        raise Refused(
            f"asked the same rows twice, the model gave two answers: {differs}",
            code="not_deterministic",
            hint="fix its random state, or widen rtol and atol in the golden rows",
        )
    if given is not None and given.outputs is not None:
        fault = compare(result.outputs, given.outputs, rtol=rtol, atol=atol)
        if fault is not None:
            raise Refused(
                fault,
                code="golden_mismatch",
                hint="it is not the model you think it is, or its libraries changed; "
                f"tolerance: rtol {rtol:g}, atol {atol:g}",
            )
    return proof


def made_rows(
    signature: Signature, statistics: Mapping[str, ColumnStatistics]
) -> dict[str, list[Any]]:
    """Rows for a model that came without: typical and extreme values, else zeros and blanks."""
    return {
        field.name: [filled(field.shape, value) for value in _values(field, statistics)]
        for field in signature.inputs
    }


def _values(field: Field, statistics: Mapping[str, ColumnStatistics]) -> list[Any]:
    """Three values of a field. The same number for each, so that they make rows."""
    known = statistics.get(field.name)
    if field.dtype in ("string", "bool"):
        blank: Any = "" if field.dtype == "string" else False
        top: list[Any] = list(known.values) if known is not None else []
        if field.dtype == "bool":
            top = [value == "true" for value in top]
        return [top[i % len(top)] if top else blank for i in range(3)]
    numbers: list[float] = [0.0, 0.0, 0.0]
    if known is not None and known.mean is not None:
        assert known.minimum is not None
        assert known.maximum is not None
        numbers = [known.mean, known.minimum, known.maximum]
    return numbers if field.dtype.startswith("float") else [round(value) for value in numbers]


def filled(shape: tuple[int, ...], value: Any) -> Any:
    """One row of this shape, the value in every place."""
    if not shape:
        return value
    return [filled(shape[1:], value) for _ in range(abs(shape[0]))]
