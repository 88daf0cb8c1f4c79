"""Application of features files: register a file's transformations and roll them out."""

from __future__ import annotations

import ast
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from kedge.adapters.process import FeaturesProcess
from kedge.columns import columns_of
from kedge.core import codec
from kedge.core.errors import ModelFailure, Refused
from kedge.core.features.schema import (
    EQUAL,
    Difference,
    Outcome,
    Schema,
    Spec,
    TransformVersion,
)
from kedge.core.golden import blank_rows
from kedge.core.stored.notes import FeaturesApplied, build_note
from kedge.core.values import (
    Field,
    Origin,
    Release,
    RowsMark,
    Signature,
    Stage,
    State,
    Value,
)
from kedge.operations.evidence.read import state_of
from kedge.operations.features.compare import comparison_of
from kedge.operations.features.golden import GoldenRows, given_rows, golden_rows, kept_proof, tried
from kedge.operations.features.materialise import try_view
from kedge.operations.releases import release_of
from kedge.transforms.authoring import SPEC, Declared
from kedge.workspace import Workplace, actor

if TYPE_CHECKING:
    from numpy.typing import NDArray

FREE = frozenset({"numpy", "kedge"})
"""Packages that every transformation can import beside the standard library and its own files."""


# ---------------------------------------------------------------- results


class SchemaUser(Value, frozen=True):
    """An endpoint whose production uses a feature schema, or that declares it."""

    endpoint: str
    production: str | None
    """The transformation version of its production; null: none of this schema yet."""
    follows: bool
    """Whether it follows the head of the schema."""
    stage: Stage


class AppliedTransformation(Value, frozen=True, kw_only=True):
    """A transformation version of a features file, and its differences from the one before."""

    version: str
    new: bool
    """False: this version already has the same content."""
    digest: str
    """Digest of its bundle."""
    raw: tuple[str, ...]
    """Columns of a request that it takes."""
    reads: tuple[str, ...]
    """Schemas whose values it reads by key."""
    materialised: bool
    """Whether its values are computed ahead of requests."""
    against: str | None = None
    """The version that it is compared with; null: there was no comparison."""
    outcome: Outcome | None = None
    columns: tuple[Difference, ...] = ()
    rows: RowsMark | None = None
    """Whether an answer depends on the other rows of the request; null if computed ahead."""
    compared_on: dict[Origin, int] = {}
    """Rows of the comparison, by origin."""
    made: tuple[str, ...] = ()
    """Columns read by key, which the comparison filled with made numbers."""
    endpoints: tuple[SchemaUser, ...]


class AppliedFeatures(Value, frozen=True):
    """The transformations of a features file that was applied."""

    transformations: tuple[AppliedTransformation, ...]
    """The transformations; those whose values are computed ahead come first."""


class ListedTransformation(Value, frozen=True):
    """A transformation version as lists show it."""

    version: str
    digest: str
    """Digest of its bundle."""
    head: bool
    """Whether it is the head of its schema."""
    production_of: tuple[str, ...]
    """Endpoints whose production uses it."""


# ---------------------------------------------------------------- applying


def apply_file(
    place: Workplace, path: Path, *, golden: Path | None, root: Path, training: Path | None = None
) -> AppliedFeatures:
    """Register every transformation of a file; the same content is the same version.

    Args:
        place: the state directory.
        path: the file.
        golden: raw rows on which request-time transformations are tried.
        root: the directory that the sources of materialised ones are relative to.
        training: a training set with raw columns, whose rows are taken instead.

    Raises:
        Refused: `bad_features`: the file cannot be run, or declares nothing; `schema_changed`;
            `missing_requirement`; `golden_mismatch`: an answer breaks the schema.
    """
    found = _declared(place, path, read_sources(path))
    if not found:
        raise Refused(
            f"{path} declares no transformation",
            code="bad_features",
            hint="decorate a function with @kedge.transform(schema)",
        )
    given = given_rows(golden)
    # Materialised ones come first, since their readers name them.
    order = sorted(found.items(), key=lambda item: (item[1].view is None, item[0]))
    return AppliedFeatures(
        tuple(
            _apply_one(place, path.parent, root, entry, declared, given, training)
            for entry, declared in order
        )
    )


def _apply_one(
    place: Workplace,
    folder: Path,
    root: Path,
    entry: str,
    declared: Declared,
    given: dict[str, list[Any]] | None,
    training: Path | None,
) -> AppliedTransformation:
    """Register one function; its bundle is its own file and the file's local imports."""
    schema = declared.schema
    module, _, name = entry.partition(":")
    sources = read_sources(folder / f"{module}.py")
    before = place.features.versions(schema.name)
    spec = Spec(
        schema=schema,
        entry=entry,
        requires=_requirements(sources),
        raw=() if declared.view is not None else _raw(place, module, sources, name, declared),
        reads=declared.reads or msgspec.UNSET,
        view=declared.view or msgspec.UNSET,
    )
    with tempfile.TemporaryDirectory(prefix="kedge-") as scratch:
        for file, source in sources.items():
            (Path(scratch) / file).write_bytes(source)
        # In the order of their declaration, in which a row by key is packed.
        (Path(scratch) / SPEC).write_bytes(codec.encode(spec))
        digest, _ = place.artifacts.put(Path(scratch))
    known = next((one for one in before if one.digest == digest), None)
    retried = False
    if spec.view is msgspec.UNSET:
        retried = _prove(place, digest, spec, given, training, known=known is not None)
    elif known is None:
        try_view(place, root, TransformVersion(schema.name, len(before) + 1, digest))
    version, new = place.features.add(schema, digest)
    head = next((one for one in reversed(before) if one.number < version.number), None)
    applied = AppliedTransformation(
        version=version.label,
        new=new,
        digest=digest,
        raw=tuple(f.name for f in spec.raw),
        reads=tuple(one.name for one in spec.read),
        materialised=declared.view is not None,
        rows=place.artifacts.proof(digest).rows if declared.view is None else None,
        endpoints=on_schema(place, schema.name),
    )
    if not (new or retried) or head is None or declared.view is not None:
        return applied
    found = comparison_of(place, head, version)
    return msgspec.structs.replace(
        applied,
        against=head.label,
        outcome=found.outcome,
        columns=found.columns,
        compared_on=found.on,
        made=found.made,
    )


def _prove(
    place: Workplace,
    digest: str,
    spec: Spec,
    given: dict[str, list[Any]] | None,
    training: Path | None,
    *,
    known: bool,
) -> bool:
    """Try a bundle on golden rows and store its answers; return whether the rows changed.

    A known bundle keeps its golden rows, unless others are given. It is tried again if its
    batch mark is unknown.
    """
    kept = kept_proof(place, digest) if known else None
    named = given is not None or training is not None
    if kept is not None and not named and kept.rows != "unknown":
        return False
    if kept is not None and not named:
        golden = GoldenRows(kept.inputs, kept.origin)
    else:
        golden = golden_rows(place, spec, given=given, training=training)
    place.artifacts.write_proof(digest, tried(place, digest, spec, golden))
    return named


def read_sources(path: Path) -> dict[str, bytes]:
    """Return the file and every local module that it imports, by file name.

    Raises:
        Refused: `bad_features`: a file cannot be read or parsed, or is a package.
    """
    found: dict[str, bytes] = {}
    waiting = [path]
    while waiting:
        file = waiting.pop()
        if file.name in found:
            continue
        try:
            found[file.name] = file.read_bytes()
            tree = ast.parse(found[file.name], str(file))
        except (OSError, SyntaxError, ValueError) as error:
            raise Refused(f"{file}: {error}", code="bad_features") from None
        for name in _imported(tree):
            if (path.parent / name / "__init__.py").exists():
                raise Refused(
                    f"{file.name} imports the package {name}",
                    code="bad_features",
                    hint="a bundle is flat: put what it needs into files beside it",
                )
            beside = path.parent / f"{name}.py"
            if beside.exists():
                waiting.append(beside)
    return found


def _imported(tree: ast.AST) -> set[str]:
    """Return the top-level names that a module imports, also inside its functions."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0:
                found.add((node.module or "").partition(".")[0])
            else:
                found |= {node.module} if node.module else {alias.name for alias in node.names}
    return found


def _requirements(sources: dict[str, bytes]) -> dict[str, str]:
    """Return the other imports, by distribution and version: they are part of the content.

    Raises:
        Refused: `missing_requirement`: one is not installed where models run.
    """
    local = {Path(name).stem for name in sources}
    names = {name for source in sources.values() for name in _imported(ast.parse(source))}
    found: dict[str, str] = {}
    owners = metadata.packages_distributions()
    for name in sorted(names - local - FREE - sys.stdlib_module_names):
        if name not in owners:
            raise Refused(
                f"the transformation imports {name}, which is not installed",
                code="missing_requirement",
                hint=f"install it where kedge and its models run, or put {name}.py beside the file",
            )
        found[owners[name][0]] = metadata.version(owners[name][0])
    return found


def _declared(place: Workplace, path: Path, sources: dict[str, bytes]) -> dict[str, Declared]:
    """Return the decorated functions of a file and its local imports, by MODULE:NAME.

    Raises:
        Refused: `bad_features`: the file raises, or two functions implement one schema; or the
            error that ended its process.
    """
    with _at_work(place, sources) as work:
        try:
            found = work.declared(path.stem)
        except ModelFailure as error:
            raise Refused(f"{path}: running it raised {error}", code="bad_features") from error
    schemas = [declared.schema.name for declared in found.values()]
    for schema in schemas:
        if schemas.count(schema) > 1:
            both = ", ".join(n for n, d in found.items() if d.schema.name == schema)
            raise Refused(
                f"{path}: {both} implement {schema} both",
                code="bad_features",
                hint="one file, one implementation of a schema",
            )
    return found


@contextmanager
def _at_work(place: Workplace, sources: dict[str, bytes]) -> Iterator[FeaturesProcess]:
    """Yield a process that runs these sources."""
    with tempfile.TemporaryDirectory(prefix="kedge-") as folder:
        for file, source in sources.items():
            (Path(folder) / file).write_bytes(source)
        with FeaturesProcess(
            Path(folder), place.limits, hidden=place.state_dir, fence=place.fence
        ) as work:
            yield work


def _raw(
    place: Workplace, module: str, sources: dict[str, bytes], name: str, declared: Declared
) -> tuple[Field, ...]:
    """Return the function's inputs: as declared, else those that it reads of a contract.

    Raises:
        Refused: `raw_unknown`: nothing is declared, and no endpoint on the schema has them; or
            the inputs lack a key of a schema that is read.
    """
    keys = {key for read in declared.reads for key in read.keys}
    if declared.raw is not None:
        taken = tuple(
            Field(column, feature.dtype, feature.shape, feature.null)
            for column, feature in declared.raw.items()
        )
    else:
        fields = _contract(place, declared.schema.name, name)
        blank = columns_of(blank_rows(fields), Signature(fields, ()))
        with _at_work(place, sources) as work:
            try:
                read = work.read(f"{module}:{name}", blank, [*map(_blank, declared.reads)])
            except ModelFailure as error:
                raise Refused(
                    f"{name} raised {error} on rows of the contract",
                    code="raw_unknown",
                    hint="declare raw={...} in the decorator",
                ) from error
        taken = tuple(field for field in fields if field.name in read | keys)
    missing = keys - {field.name for field in taken}
    if missing:
        raise Refused(
            f"{name} is given values by {', '.join(sorted(missing))}, which it does not take",
            code="raw_unknown",
            hint="a key of what it reads is a field of the request: name it in raw={...}",
        )
    return taken


def _blank(schema: Schema) -> dict[str, NDArray[Any]]:
    """Return columns of a materialised schema without any value, for as many rows as are made."""
    fields = schema.columns()
    return dict(columns_of(blank_rows(fields), Signature(fields, ())))


def _contract(place: Workplace, schema: str, name: str) -> tuple[Field, ...]:
    """Return the request contract of an endpoint on a schema of this view.

    Raises:
        Refused: `raw_unknown`: no such endpoint is found.
    """
    view = schema.partition("/")[0]
    states = [
        state
        for state in place.ledger.read().states.values()
        if (state.policy.features.schema or "").partition("/")[0] == view
    ]
    fields = next((s.policy.fields or s.fields for s in states if s.policy.fields or s.fields), ())
    if not fields:
        raise Refused(
            f"the request fields of {name} are not declared",
            code="raw_unknown",
            hint=(
                "declare raw={...} in the decorator, or an endpoint with features = {schema ="
                f' "{schema}"}} and its fields'
            ),
        )
    return fields


# ---------------------------------------------------------------- versions in use


def list_transformations(place: Workplace, schema: str | None) -> list[ListedTransformation]:
    """Return the transformation versions of a schema, or of all of them.

    Raises:
        Refused: `unknown_schema`.
    """
    known = place.features.schemas() if schema is None else (place.features.schema(schema),)
    heads = place.features.heads()
    found = []
    for one in known:
        users = on_schema(place, one.name)
        found += [
            ListedTransformation(
                version.label,
                version.digest,
                heads.get(version.schema) == version.number,
                tuple(user.endpoint for user in users if user.production == version.label),
            )
            for version in place.features.versions(one.name)
        ]
    return found


def on_schema(place: Workplace, schema: str) -> tuple[SchemaUser, ...]:
    """Return every endpoint whose production uses a schema, or that declares it."""
    found = []
    for state in place.ledger.read().states.values():
        live = state.releases.get(state.production) if state.production is not None else None
        if schema in (live.schema if live else None, state.policy.features.schema):
            number = live.transformation if live else None
            label = f"{schema}#{number}" if number is not None else None
            found.append(SchemaUser(state.endpoint, label, state.follow, state.stage))
    return tuple(found)


def version_of(place: Workplace, text: str) -> TransformVersion:
    """Return the version that `flight/1#5` names.

    Raises:
        Refused: `unknown_transformation`.
    """
    schema, _, number = text.partition("#")
    known = place.features.versions(schema)
    found = next((one for one in known if str(one.number) == number), None)
    if found is None:
        raise Refused(
            f"there is no {text}",
            code="unknown_transformation",
            hint=f"known are: {', '.join(one.label for one in known) or 'none'}",
        )
    return found


def target_of(
    place: Workplace, endpoint: str, number: int, generation: str | None = None
) -> tuple[State, Release, TransformVersion | None]:
    """Return the row, the release with production's model and other features, and today's version.

    Raises:
        Refused: `no_features`: there is no production, or it has no schema.
    """
    state = state_of(place, endpoint)
    live = state.releases.get(state.production) if state.production is not None else None
    if live is None or live.schema is None:
        raise Refused(
            f"{endpoint} serves nothing that has a feature schema",
            code="no_features",
            hint=f"kedge register {endpoint} PATH --schema VIEW/VERSION, then promote it",
        )
    release = release_of(
        place, endpoint, f"v{live.version}", transformation=number, generation=generation
    )
    today = next(
        (one for one in place.features.versions(live.schema) if one.number == live.transformation),
        None,
    )
    return state, release, today


def may_roll(
    place: Workplace,
    endpoint: str,
    number: int,
    override: str | None,
    generation: str | None = None,
) -> tuple[Release, str | None]:
    """Return the release with a transformation, and its evidence to reach production at once.

    With an `override` there is no evidence.

    Raises:
        Refused: `transformation_changed`: its answers differ from today's, and no reason was given;
            `transformation_untested`: no real rows are available for a comparison.
    """
    state, release, today = target_of(place, endpoint, number, generation)
    if override is not None:
        return release, None
    wanted = version_of(place, f"{release.schema}#{number}")
    found = comparison_of(place, today, wanted) if today is not None else None
    assert state.production is not None
    read = state.releases[state.production].generation
    if read != release.generation:
        raise Refused(
            f"{wanted.label} would read {release.generation or 'nothing'}, and not"
            f" {read or 'nothing'}",
            code="generation_changed",
            hint=(
                f"kedge features shadow {endpoint} {number} --generation ..., then canary and"
                ' promote; or use --override "reason"'
            ),
        )
    if found is not None and found.outcome == "untested":
        raise Refused(
            f"{wanted.label} is untested against {today.label if today else ''}: {found.why}",
            code="transformation_untested",
            hint=(
                "kedge features apply FILE --golden ROWS, or roll it when the prediction log has"
                f" rows; else kedge features shadow {endpoint} {number}, then canary and promote;"
                " or --override REASON"
            ),
        )
    if found is None or found.outcome not in EQUAL:
        named = (
            ", ".join(one.column for one in found.columns if one.outcome == "changed")
            if found
            else ""
        )
        raise Refused(
            f"{wanted.label} differs from {today.label if today else 'no transformation'}"
            + (f": {named}" if named else ""),
            code="transformation_changed",
            hint=(
                f"kedge features shadow {endpoint} {number}, then canary and promote; or use"
                ' --override "reason"'
            ),
        )
    return (
        release,
        f"{wanted.label} is {found.outcome} to {today.label if today else ''} on golden rows",
    )


def note_applied(place: Workplace, told: AppliedTransformation) -> None:
    """Record a note on every endpoint that could move."""
    for user in told.endpoints:
        body = FeaturesApplied(version=told.version, outcome=told.outcome, digest=told.digest)
        place.ledger.note(
            user.endpoint,
            build_note(body),
            by=actor(),
            reason="",
            at=place.clock.now(),
        )
