"""Registration of a file as a model version: claimed, stored, tested, proven, numbered.

The order ensures that a crash at any point leaves nothing that could be released. The version is
added last, when its bytes and its golden rows are on the disk. Bytes of a refused model stay in the
store without a reference.
"""

from __future__ import annotations

import functools
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import msgspec

from kedge.columns import Offered, ProbeResult, columns_of, compare
from kedge.core import codec
from kedge.core.bounds import permitted
from kedge.core.errors import BadRequest, CorruptArtifact, Refused
from kedge.core.features.schema import Feature
from kedge.core.formats import GENERAL, HEAD_BYTES, Piece, fetching, is_pointer, recognise
from kedge.core.golden import (
    Known,
    Lists,
    blank_rows,
    count,
    made_rows,
    seen,
    taken,
)
from kedge.core.inputs import (
    SIGNATURE_FILE,
    DeclaredName,
    Described,
    pick_names,
    read_declared,
    settled,
    signature_json,
    with_names,
)
from kedge.core.names import check_name
from kedge.core.values import Field, ModelVersion, Origin, Proof, Signature, TrainingSet
from kedge.engine.bounds import with_bounds
from kedge.inspection import RULE
from kedge.ports import Artifacts, Flavour, Registry
from kedge.system.files import read_bounded, walk
from kedge.tabular.statistics import Training, read_names, read_training, read_types

STALL_S = 0.2
"""Longest load that holds the interpreter lock without an effect on callers (policy: p99)."""
DEATHS = frozenset({"probe_died", "probe_hung"})
"""Ends of a probe that a row may have caused."""
GOLDEN_BYTES = 64 << 20
"""Limit of the bytes of golden rows in a file: hundreds of rows of the widest models."""
ENTRIES = 10_000
"""Limit of entries of a directory that are read to name its format."""
NAMED = 3
"""Limit of models within a directory that a hint names."""
LOOKED_AT = 200
"""Limit of files whose first bytes are read for the same purpose."""


class Golden(msgspec.Struct, forbid_unknown_fields=True):
    """Golden rows as people write them."""

    inputs: dict[str, list[Any]]
    outputs: dict[str, list[Any]] | None = None
    rtol: float = Proof({}, {}).rtol
    atol: float = Proof({}, {}).atol


MOST_RTOL, MOST_ATOL = 1.0, 1e6
"""Largest tolerances of golden rows: twice the answer, and the error of a prediction in millions.
With larger ones, every model would pass."""


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
    features: Mapping[str, Feature] | None = None,
    raw: Sequence[Field] = (),
    inline: str = "",
    learns: bool = False,
    allowed: str = "",
) -> tuple[ModelVersion, bool]:
    """Register a file or a directory as a version of a model, and return whether it is new.

    The same bytes are the same version. Golden rows or a training set that are given replace the
    stored ones. It is then tested again, and also if its batch mark is unknown.

    Args:
        probe: loads the artifact in isolation, asks `rows(signature)` for rows and answers them
            twice and in groupings: called with digest, flavour, trusted and rows.
        features: what its schema promises of its inputs, for rows that are made.
        raw: columns of the training set before their transformation, of which some rows are stored.
        inline: the operator who lets it run inline although it may not be proven plain, and why.
        learns: whether bounds of its inputs are learned from the training set.
        allowed: who allows it to run code when it is loaded, and why.

    Raises:
        Refused: no flavour claims it, it cannot be tested, or it breaks its golden rows; or these
            bytes are already a version that was trained on something else.
        UnfitModel: the loader that claims it cannot load it.
    """
    check_name(model)
    claimed = claiming(source, flavours)
    _check_allowed(claimed, source, allowed)
    attempt = functools.partial(
        _attempt,
        source,
        claimed,
        _golden(golden, source),
        model=model,
        registry=registry,
        artifacts=artifacts,
        training=training,
        trusted=trusted,
        by=by,
        at=at,
        probe=probe,
        schema=schema,
        trained_on=trained_on,
        features=features,
        raw=raw,
        inline=inline,
        again=golden is None,
        learns=learns,
        allowed=allowed,
    )
    beside = companions(source, claimed, flavours)
    try:
        return attempt(beside)
    except InputsFound as found:
        return _with_inputs(attempt, source, beside, found.inputs)


def _with_inputs(
    attempt: Callable[[Sequence[Path]], tuple[ModelVersion, bool]],
    source: Path,
    beside: Sequence[Path],
    inputs: Sequence[Field],
) -> tuple[ModelVersion, bool]:
    """Register a model with a signature.json of these inputs beside it."""
    with tempfile.TemporaryDirectory() as scratch:
        stated = Path(scratch) / SIGNATURE_FILE
        text = signature_json(inputs, _output_names(source, beside))
        stated.write_text(text + "\n", encoding="utf-8")
        return attempt([*(each for each in beside if each.name != SIGNATURE_FILE), stated])


class InputsFound(Exception):
    """A training set states facts of the inputs that the model does not; carries them."""

    def __init__(self, inputs: Sequence[Field]) -> None:
        super().__init__(inputs)
        self.inputs = inputs


def _output_names(source: Path, beside: Sequence[Path]) -> list[DeclaredName] | None:
    """Return the names of outputs from a signature.json that states no inputs."""
    for file in (*beside, source / SIGNATURE_FILE):
        if file.name == SIGNATURE_FILE and file.is_file():
            return read_declared(file.read_bytes()).outputs
    return None


def _attempt(
    source: Path,
    claimed: Flavour,
    given: Golden | None,
    beside: Sequence[Path],
    *,
    model: str,
    registry: Registry,
    artifacts: Artifacts,
    training: Path | None,
    trusted: Sequence[str],
    by: str,
    at: str,
    probe: Callable[..., ProbeResult],
    schema: str | None,
    trained_on: TrainingSet | None,
    features: Mapping[str, Feature] | None,
    raw: Sequence[Field],
    inline: str,
    again: bool,
    learns: bool,
    allowed: str,
) -> tuple[ModelVersion, bool]:
    """Register these bytes. See `register`.

    Raises:
        InputsFound: the training set states more of the inputs than the model does.
    """
    digest, files = artifacts.put(source, beside)
    known = next((v for v in registry.versions(model) if v.digest == digest), None)
    kept = _kept(artifacts, digest) if known is not None else None
    again = again and training is None
    if known is not None and again and kept is not None and _is_judged(kept):
        if inline:
            artifacts.write_proof(digest, msgspec.structs.replace(kept, inline=inline))
        return known, False
    _check_trained(known, trained_on)
    path = artifacts.path(digest)
    bounded = lambda signature: with_bounds(signature, path)  # noqa: E731 - as the desk takes it
    desk = _Desk(given, training, features or {}, raw, kept if again else None, bounded)
    inline = inline or (kept.inline if kept is not None else "")
    ask = functools.partial(probe, digest=digest, flavour=claimed.flavour, trusted=tuple(trusted))
    result = desk.tried(ask)
    proof = msgspec.structs.replace(desk.proof(result), plain=result.plain, inline=inline)
    artifacts.write_proof(digest, proof)
    origin = told(proof.origin)
    if known is not None:
        return msgspec.structs.replace(known, golden=origin), False
    new = ModelVersion(
        model=model,
        number=0,  # the registry numbers versions
        digest=digest,
        flavour=claimed.flavour,
        signature=with_bounds(result.signature, path, proof.statistics if learns else None),
        schema=schema,
        size=sum(entry.size for entry in files),
        files=files,
        source=str(source),
        trusted=tuple(trusted),
        load_s=result.load_s,
        stalls=claimed.stalls and result.load_s > STALL_S,
        golden=origin,
        registered_at=at,
        registered_by=by,
        trained_on=trained_on,
        allowed=allowed if runs_code(claimed) else "",
    )
    return registry.add(new), True


def told(origin: Origin) -> Literal["given", "training", "made"]:
    """Return the name of an origin in a version: no model has golden rows from the log."""
    return origin if origin in ("given", "training") else "made"


def _is_judged(proof: Proof) -> bool:
    """Return whether it has a batch mark, and was inspected by the current rules."""
    return proof.rows != "unknown" and proof.plain is not None and proof.plain.rule == RULE


def _kept(artifacts: Artifacts, digest: str) -> Proof | None:
    try:
        return artifacts.proof(digest)
    except CorruptArtifact:
        return None


class _Desk:
    """The rows of one registration, and what the model's answers prove."""

    def __init__(
        self,
        given: Golden | None,
        training: Path | None,
        features: Mapping[str, Feature],
        raw: Sequence[Field],
        kept: Proof | None,
        bounded: Callable[[Signature], Signature],
    ) -> None:
        self._bounded = bounded
        self._given = given
        self._file = training
        self._features = features
        self._raw = raw
        self._kept = kept
        self._training = Training({}, {}, {})
        self._nulls = kept is None
        self._known: Mapping[str, Known] = {}
        self._plain = False
        self._asked = False

    def tried(self, probe: Callable[..., ProbeResult]) -> ProbeResult:
        """Test the model. Made rows that kill it are dropped: no caller sent them."""
        try:
            return probe(rows=self._rows)
        except Refused as error:
            if not self._asked or self._plain or error.code not in DEATHS:
                raise
            self._plain = True
            return probe(rows=self._rows)

    def _rows(self, signature: Signature, described: Described) -> Offered:
        """Return the rows that a probe asks."""
        self._asked = True
        fields = self._bounded(signature).inputs
        self._known = described.known
        if self._file is not None:
            check_stated(self._file, signature, described)
            self._training = read_training(self._file, signature, self._raw)
        source = self._kept or self._given
        if self._given is not None:
            _check_given(self._given, signature)
        if source is not None:
            rows = source.inputs
            made = {} if self._plain else self._made(fields, rows)
            return Offered(
                golden=rows, made=made, rtol=source.rtol, atol=source.atol, nulls=self._nulls
            )
        if self._plain:
            return Offered(golden=blank_rows(fields), nulls=True)
        sample = permitted(fields, self._training.rows)
        return Offered(sample=sample, made=self._made(fields, sample), nulls=True)

    def _made(self, fields: Sequence[Field], rows: Lists) -> dict[str, list[Any]]:
        """Return made rows within the limits of the training set, the schema and other rows."""
        known = {**seen(rows), **self._known, **promised(self._features)}
        statistics = self._kept.statistics if self._kept is not None else self._training.statistics
        for name, one in statistics.items():
            if one.values or one.minimum is not None:
                known[name] = Known(one.minimum, one.maximum, tuple(sorted(one.values)))
        return made_rows(fields, known, rows)

    def proof(self, result: ProbeResult) -> Proof:
        """Judge the two answers; the model's answers are stored, not the expected ones.

        Raises:
            Refused: `bad_answer`, `not_deterministic`, `golden_mismatch`.
        """
        proof = Proof(
            inputs=result.inputs,
            outputs=result.outputs,
            statistics=self._training.statistics,
            origin=self._origin(result),
            rows=result.grouped.rows,
            tested=result.grouped.tested,
            why=result.grouped.why,
            raw=self._training.raw,
            written_with=result.described.written_with,
            needs=result.described.needs,
            assumed=result.described.assumed,
            tolerant=result.described.tolerant,
        )
        source = self._given or self._kept
        if source is not None:
            proof = msgspec.structs.replace(proof, rtol=source.rtol, atol=source.atol)
        if self._kept is not None:
            proof = msgspec.structs.replace(
                proof, statistics=self._kept.statistics, raw=self._kept.raw
            )
        _judge(result, proof, self._given)
        return proof

    def _origin(self, result: ProbeResult) -> Origin:
        if self._kept is not None:
            return self._kept.origin
        if self._given is not None:
            return "given"
        return "training" if result.used == "sample" else "made"


def check_stated(file: Path, signature: Signature, described: Described) -> None:
    """Raise if a training set states more of a model's inputs than the model itself.

    Raises:
        InputsFound: names, dtypes or nulls that the model does not state.
        Refused: `bad_training`: the model has no names, and the file has additional columns.
    """
    inputs = signature.inputs
    names = read_names(file) if described.unnamed else []
    if described.unnamed and not {field.name for field in inputs} <= set(names):
        stated = (
            signature_json(with_names(inputs, pick_names(names, described.unnamed)))
            if len(names) >= described.unnamed
            else ""
        )
        if len(names) == described.unnamed:
            raise InputsFound(with_names(inputs, names))
        raise Refused(
            f"{file.name} has {len(names)} columns, and the model was fitted on {described.unnamed}"
            " without names",
            code="bad_training",
            hint=(
                f"write {SIGNATURE_FILE} beside the model, with its columns in the order in which"
                " it was fitted"
            )
            + (f": {stated}" if stated else ""),
        )
    unsaid = {*described.assumed, *described.tolerant, *described.computed}
    if unsaid:
        found = settled(inputs, described, read_types(file, unsaid))
        if found != inputs:
            raise InputsFound(found)


def promised(features: Mapping[str, Feature]) -> dict[str, Known]:
    """Return the ranges and categories that a schema promises of its columns."""
    found = {}
    for name, feature in features.items():
        if feature.range is not None or feature.categories:
            low, high = feature.range or (None, None)
            found[name] = Known(low, high, tuple(feature.categories))
    return found


def _check_trained(known: ModelVersion | None, now: TrainingSet | None) -> None:
    if known is None or now is None:
        return
    before = known.trained_on
    if before is None or before.data != now.data:
        was = (
            f"on {before.label} ({before.data})"
            if before is not None
            else "and nothing says on what"
        )
        raise Refused(
            f"these bytes are {known.label} already, trained {was}; not on {now.label}"
            f" ({now.data})",
            code="bad_training_set",
            hint="the same bytes have one training set: the one they came with first",
        )


# ---------------------------------------------------------------- who claims it


def find_source(text: str) -> Path:
    """Return the path of a model that a command names.

    Raises:
        Refused: `no_files`: it does not exist, or is remote; then the hint is the command that
            fetches it.
    """
    if not Path(text).exists():
        command = fetching(text)
        raise Refused(
            f"{text} is not on this machine" if command else f"{text} does not exist",
            code="no_files",
            hint=f"fetch it, and register what you fetched: {command}" if command else "",
        )
    return Path(text)


def claiming(source: Path, flavours: Mapping[str, Flavour]) -> Flavour:
    """Return the one flavour that claims a file or a directory.

    Raises:
        Refused: none does, with what each looks for; or more than one does; or a file is missing.
    """
    if not source.exists():
        raise Refused(f"{source} does not exist", code="no_files")
    _check_fetched(source)
    claims = _claims(source, flavours)
    if len(claims) == 1:
        return claims[0]
    if claims:
        raise Refused(
            f"{source} could be {' or '.join(one.flavour for one in claims)}",
            code="ambiguous_model",
            hint="put each model into a directory of its own",
        )
    raise _unclaimed(source, flavours)


def _claims(source: Path, flavours: Mapping[str, Flavour]) -> list[Flavour]:
    if source.is_dir():
        return [one for one in flavours.values() if one.claims(source)]
    with tempfile.TemporaryDirectory() as directory:
        # Flavours judge a directory: the store will make this one of the file.
        (Path(directory) / source.name).symlink_to(source.resolve())
        return [one for one in flavours.values() if one.claims(Path(directory))]


def companions(source: Path, claimed: Flavour, flavours: Mapping[str, Flavour]) -> list[Path]:
    """Return the files beside a single file that state its inputs, in a directory of one model.

    A directory contains them anyway.
    """
    names: Sequence[str] = getattr(claimed, "companions", ())
    if not names or source.is_dir():
        return []
    if [one for one in flavours.values() if one.claims(source.parent)] != [claimed]:
        return []
    return [file for name in names if (file := source.parent / name).is_file()]


def runs_code(flavour: Flavour) -> bool:
    """Return whether loading a model of this flavour runs code from it."""
    return bool(getattr(flavour, "runs_code", False))


def _check_allowed(claimed: Flavour, source: Path, allowed: str) -> None:
    """Raise if a model would run code without permission; the hint has both ways in."""
    if allowed or not runs_code(claimed):
        return
    found = recognise(list(_pieces(source)))
    what = found.what if found is not None else "a model that runs code when it is loaded"
    safe = f"{found.hint}; or, " if found is not None else ""
    raise Refused(
        f"{source} is {what}",
        code="pickle",
        hint=f'{safe}if you trust who wrote it: --allow-code "REASON"',
    )


def _unclaimed(source: Path, flavours: Mapping[str, Flavour]) -> Refused:
    wanted = "; ".join(f"{one.looks_for} ({flavour})" for flavour, one in sorted(flavours.items()))
    message = f"{source} is not a model that kedge can load. It looks for: {wanted or 'nothing'}"
    inside = _claimed_below(source, flavours)
    if inside:
        hint = f"register one model: {', '.join(map(str, inside[:NAMED]))}"
        return Refused(message, code="unknown_model", hint=hint)
    found = recognise(list(_pieces(source)))
    if found is None:
        hint = GENERAL if wanted else "pip install 'kedge[onnx]' or 'kedge[sklearn]'"
        return Refused(message, code="unknown_model", hint=hint)
    message = f"{source} is {found.what}. kedge loads: {wanted or 'nothing'}"
    if found.is_pickle:
        return Refused(message, code="pickle", hint=found.hint)
    return Refused(message, code="other_format", hint=found.hint)


def _check_fetched(source: Path) -> None:
    """Raise if a file of the source is only a pointer of Git LFS."""
    for name, path in _files(source)[:LOOKED_AT]:
        try:
            with path.open("rb") as file:
                head = file.read(64)
        except OSError:
            continue
        if is_pointer(head):
            raise Refused(
                f"{name} is a pointer of Git LFS: the file itself was not fetched",
                code="no_files",
                hint="git lfs pull (in GitHub Actions: actions/checkout with lfs: true)",
            )


def _claimed_below(source: Path, flavours: Mapping[str, Flavour]) -> list[Path]:
    """Return the directories below a directory, else the files in it, that a flavour claims."""
    if not source.is_dir():
        return []
    files = [path for _, path in _files(source)[:LOOKED_AT]]
    below = {path.parent for path in files} - {source}
    for choice in (below, files):
        found = [one for one in choice if _claims(one, flavours)]
        if found:
            return sorted(found, key=lambda one: (len(one.parts), one))
    return []


def _pieces(source: Path) -> Iterator[Piece]:
    """Return the first files of a source, with what identifies their format."""
    for name, path in _files(source)[:LOOKED_AT]:
        try:
            with path.open("rb") as file:
                head = file.read(HEAD_BYTES)
            names: tuple[str, ...] = ()
            if head.startswith(b"PK"):
                with zipfile.ZipFile(path) as archive:
                    names = tuple(archive.namelist()[:LOOKED_AT])
        except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
            continue
        yield Piece(name, head, names)


def _files(source: Path) -> list[tuple[str, Path]]:
    """Return the names and paths of some files in a directory, or of the file itself."""
    if source.is_file():
        return [(source.name, source)]
    try:
        some = islice(walk(source), ENTRIES) if source.is_dir() else ()
        return sorted((name, Path(each.path)) for name, each in some if each.is_file())
    except OSError:
        return []  # it only improves the hint


# ---------------------------------------------------------------- golden rows


def _golden(file: Path | None, source: Path) -> Golden | None:
    if file is None:
        inside = source / "golden.json"
        if not inside.is_file():
            return None
        file = inside
    try:
        return codec.read_written(read_bounded(file, GOLDEN_BYTES), Golden)
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
    for name, told, most in (("rtol", given.rtol, MOST_RTOL), ("atol", given.atol, MOST_ATOL)):
        if not 0 <= told <= most:
            raise Refused(
                f"golden rows: {name} must be 0 to {most:g}, got {told:g}",
                code="bad_golden",
                hint="with more, the rows would be answered whatever the model says",
            )
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


def _judge(result: ProbeResult, proof: Proof, given: Golden | None) -> None:
    if result.fault is not None:
        raise Refused(f"golden rows: {result.fault}", code="bad_answer")
    rtol, atol = proof.rtol, proof.atol
    differs = compare(result.again, result.outputs, rtol=rtol, atol=atol)
    if differs is None and result.grouped.random:
        differs = result.grouped.why
    if differs is not None:
        raise Refused(
            f"asked the same rows twice, the model gave two answers: {differs}",
            code="not_deterministic",
            hint="fix its random state, or widen rtol and atol in the golden rows",
        )
    if given is not None and given.outputs is not None:
        rows = range(count(given.inputs))  # rows with nulls may follow them
        fault = compare(taken(result.outputs, rows), given.outputs, rtol=rtol, atol=atol)
        if fault is not None:
            batch = (
                "; its answers depend on the rows that are asked together, and golden rows are"
                " asked all at once"
            )
            raise Refused(
                fault,
                code="golden_mismatch",
                hint=(
                    "it is not the model you think it is, or its libraries changed; "
                    f"tolerance: rtol {rtol:g}, atol {atol:g}"
                )
                + (batch if result.grouped.rows == "dependent" else ""),
            )
