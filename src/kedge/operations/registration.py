"""Registration of a model: the installed loaders, and the trial of an artifact."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import invalidate_caches
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from kedge.adapters import process
from kedge.adapters.artifacts.directory import DirectoryArtifacts
from kedge.columns import ProbeResult
from kedge.core.bounds import toml_lines
from kedge.core.errors import KedgeError, Refused, UnfitModel
from kedge.core.evidence.answers import Reads, Unread, line, proposed, spare_outputs, target
from kedge.core.features.schema import Schema, misfit
from kedge.core.stored.notes import InlineTrusted, VersionRegistered, build_note
from kedge.core.values import (
    Dtype,
    Field,
    ModelVersion,
    Plainness,
    RowsMark,
    Signature,
    State,
    TrainingSet,
    Value,
)
from kedge.engine.bounds import with_bounds
from kedge.engine.libraries import find_differences
from kedge.engine.registration import claiming, companions, register
from kedge.inspection.independence import mark_of
from kedge.operations.example import example_call
from kedge.operations.progress import Progress
from kedge.ports import Flavour, Loader
from kedge.system.interpreter import HiddenModules
from kedge.transforms.authoring import spec_of
from kedge.workspace import Workplace, actor


class LabelReading(Value, frozen=True, kw_only=True):
    """The output of a version that labels are compared with, and the settings that select one."""

    output: str | None
    """The output's name; null: no output is read."""
    dtype: Dtype | None
    reads: Reads
    """How the output is read."""
    declared: bool
    """Whether the policy names it."""
    code: Unread
    """Why no output is read; empty: one is."""
    tolerance: float
    """Allowed distance of a number from its label."""
    threshold: float
    """The score from which on the decision is yes."""
    among: tuple[str, ...]
    """The outputs that qualify."""
    proposed: tuple[str, ...]
    """Lines for kedge.toml, the likeliest first."""


class RegisteredVersion(Value, frozen=True, kw_only=True):
    """A registered version of a model, and its properties."""

    endpoint: str
    version: str
    flavour: str
    digest: str
    size: int
    """Size in bytes."""
    load_s: float
    golden: Literal["given", "training", "made"]
    """Origin of its golden rows."""
    signature: Signature
    schema: str | None
    """The feature schema that it was trained on; null: callers send its inputs."""
    trained_on: TrainingSet | None
    """Its training set, if kedge made it."""
    rows: RowsMark
    """Whether an answer depends on the other rows of the request."""
    rows_tested: int
    rows_why: str
    """The first answer that differed, or why nothing was tested."""
    plain: Plainness | None
    inline: str
    """Who allowed it to run inline although it is not proven plain, and why."""
    allowed: str
    """Who allowed it to run code when it is loaded, and why; empty: it runs none."""
    labels: LabelReading
    example: str
    """A call to copy; empty if callers send other columns than its inputs, or rows are too wide."""
    libraries: tuple[str, ...]
    """Libraries whose version differs from that which wrote the model."""
    assumed: tuple[str, ...]
    """Inputs whose type the model does not state."""
    tolerant: tuple[str, ...]
    """Inputs in which null is refused, though the model would answer."""
    new: bool
    """False: the same bytes were registered already."""
    contract: tuple[str, ...]
    """The request contract that its training set proposes, as lines for kedge.toml."""


class ListedVersion(Value, frozen=True, kw_only=True):
    """A registered version as lists show it."""

    version: str
    flavour: str
    size: int
    """Size in bytes."""
    digest: str
    registered_at: str
    schema: str | None
    """The feature schema that it was trained on."""
    trained_on: TrainingSet | None
    """Its training set, if kedge made it."""
    rows: RowsMark
    """Whether an answer depends on the other rows of the request."""
    releases: tuple[str, ...]
    """The releases that contain it."""
    roles: tuple[str, ...]
    """Roles of those releases: production, candidate, back, condemned."""
    allowed: str = ""
    """Who allowed it to run code when it is loaded, and why; empty: it runs none."""


class Loaders(Mapping[str, Loader]):
    """The installed loaders by flavour, each imported on first use.

    scikit-learn alone takes a second and 100 MB to import: a worker that serves ONNX must not
    load it.
    """

    def __init__(self) -> None:
        self._points = _find_loaders()
        self._loaded: dict[str, Loader] = {}

    def __getitem__(self, flavour: str) -> Loader:
        """Import the loader of a flavour.

        Raises:
            KeyError: no loader of this flavour is installed.
            UnfitModel: a library that it needs is not installed.
        """
        if flavour not in self._points:
            # It may be installed by now; an unreadable directory also appears empty.
            invalidate_caches()
            self._points = _find_loaders()
        if flavour not in self._loaded:
            try:
                self._loaded[flavour] = self._points[flavour].load()()
            except ImportError as error:
                raise _missing_library(flavour, error) from error
        return self._loaded[flavour]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the flavours."""
        return iter(self._points)

    def __len__(self) -> int:
        """Return the number of flavours."""
        return len(self._points)


def _find_loaders() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group="kedge.loaders")}


def check_loaders() -> tuple[list[str], dict[str, str]]:
    """Return the flavours that can be loaded here, and why the others cannot.

    A flavour that declares its libraries is not imported: scikit-learn takes seconds.
    """
    announced = {point.name: point for point in entry_points(group="kedge.flavours")}
    points, found, missing = Loaders(), list[str](), dict[str, str]()
    for flavour in points:
        try:
            libraries = (
                getattr(announced[flavour].load(), "libraries", None)
                if flavour in announced
                else None
            )
            if libraries is None:
                import_loader(points, flavour)
            else:
                _find_libraries(flavour, libraries)
            found.append(flavour)
        except (ImportError, UnfitModel) as error:
            missing[flavour] = (
                f"{error}; {error.hint}" if isinstance(error, UnfitModel) else str(error)
            )
    return found, missing


def _find_libraries(flavour: str, libraries: Sequence[str]) -> None:
    """Raise if a library is not installed."""
    lacking = [name for name in libraries if find_spec(name) is None]
    if lacking:
        raise _missing_library(flavour, f"No module named {lacking[0]!r}")


def _missing_library(flavour: str, error: object) -> UnfitModel:
    return UnfitModel(
        f"{flavour} models need what is not installed: {error}",
        code="loader_missing",
        hint=f"pip install 'kedge[{flavour}]'",
    )


def import_loader(points: Loaders, flavour: str) -> Loader:
    """Import a loader to check that it can be imported, without pandas unless it needs it.

    scikit-learn imports pandas if it is installed, and no command returns a frame.

    Raises:
        KeyError, UnfitModel: as in `Loaders`.
    """
    try:
        with HiddenModules("pandas"):
            return points[flavour]
    except UnfitModel:
        return points[flavour]


def flavours() -> tuple[dict[str, Flavour], dict[str, str]]:
    """Return the recognition of each flavour's files, and why some flavours are unavailable.

    It comes from `kedge.flavours`, which imports no library; else from the loader, which may.
    """
    announced = {point.name: point for point in entry_points(group="kedge.flavours")}
    points, found, missing = Loaders(), dict[str, Flavour](), dict[str, str]()
    for name in points:
        try:
            found[name] = announced[name].load()() if name in announced else points[name]
        except UnfitModel as error:
            missing[name] = f"{error}; {error.hint}"
        except ImportError as error:
            missing[name] = str(error)
    return found, missing


def find_companions(source: Path) -> list[Path]:
    """Return the files beside a model that belong to it; none if no flavour here claims it."""
    found, _ = flavours()
    try:
        return companions(source, claiming(source, found), found)
    except Refused:  # the server may have a loader that is missing here, or refuses it
        return []


def register_version(
    place: Workplace,
    endpoint: str,
    path: Path,
    *,
    golden: Path | None,
    training: Path | None,
    trusted: Sequence[str],
    schema: str | None = None,
    trained_on: TrainingSet | None = None,
    inline: str = "",
    learns: bool = False,
    allow_code: str = "",
    say: Callable[[str], None] = lambda _: None,
) -> tuple[ModelVersion, bool]:
    """Register the artifact at `path`; return True if it is new.

    `trained_on`, the description of its training set, names its schema. `inline` is the reason to
    run it inline unproven. `learns` takes bounds of its inputs from the training set. `allow_code`
    is the reason to let it run code when it is loaded. `say` is called with progress messages.

    Raises:
        Refused: also `code_never`: the policy of the endpoint allows no code.
        Refused: also `schema_misfit`: the model needs columns that its feature schema lacks.
    """
    if trained_on is not None and schema not in (None, trained_on.schema):
        raise Refused(
            f"the training set has {trained_on.schema}, not {schema}",
            code="schema_misfit",
            hint="leave --schema out: the training set states it",
        )
    _check_code(place, endpoint, allow_code)
    schema = trained_on.schema if trained_on is not None else schema
    fits = place.features.schema(schema) if schema is not None else None
    found, missing = flavours()
    try:
        version, new = register(
            path,
            model=endpoint,
            flavours=found,
            registry=place.registry,
            artifacts=_told_store(place, say),
            golden=golden,
            training=training,
            trusted=trusted,
            by=actor(),
            at=place.clock.now(),
            probe=_fitting(place, schema, fits),
            schema=schema,
            trained_on=trained_on,
            features=fits.fields if fits is not None else None,
            raw=_raw(place, schema),
            inline=f"{actor()}: {inline}" if inline else "",
            learns=learns,
            allowed=f"{actor()}: {allow_code}" if allow_code else "",
        )
    except Refused as error:
        if missing:
            error.hint += "; not installed: " + ", ".join(f"{k} ({v})" for k, v in missing.items())
        raise
    if schema is not None and version.schema != schema:
        raise Refused(
            f"these bytes are {version.label} already, for {version.schema or 'no schema'}, not for"
            f" {schema}",
            code="schema_misfit",
            hint="a version is made for one schema; train and register another",
        )
    _note(place, endpoint, version, inline, allow_code, new=new)
    return version, new


def _note(
    place: Workplace,
    endpoint: str,
    version: ModelVersion,
    inline: str,
    allow_code: str,
    *,
    new: bool,
) -> None:
    """Record a registration: why it may run inline, and a new version."""
    if inline:
        _note_inline(place, endpoint, version, inline)
    if new:
        _note_version(place, endpoint, version, allow_code if version.allowed else "")


def _check_code(place: Workplace, endpoint: str, reason: str) -> None:
    """Raise if code is allowed for a reason that the policy of an endpoint does not accept."""
    if not reason:
        return
    state = place.ledger.read().states.get(endpoint, State(endpoint=endpoint))
    if state.policy.code == "never":
        raise Refused(
            f"the policy of {endpoint} allows no version that runs code when it is loaded",
            code="code_never",
            hint=f'code = "ask" under [endpoints.{endpoint}], then kedge apply',
        )


def _note_version(place: Workplace, endpoint: str, version: ModelVersion, reason: str) -> None:
    """Record a new version in the history; `reason`: why it may run code."""
    body = VersionRegistered(
        version=version.label,
        digest=version.digest,
        flavour=version.flavour,
        runs_code=bool(version.allowed),
    )
    note = build_note(body)
    place.ledger.note(endpoint, note, by=actor(), reason=reason, at=place.clock.now())


def _told_store(place: Workplace, say: Callable[[str], None]) -> DirectoryArtifacts:
    """Return the store of artifacts; it reports how much of a copy is done."""
    work, left = Progress(say, place.clock.monotonic, "bytes copied"), 0

    def copied(count: int, total: int) -> None:
        nonlocal work, left
        if left <= 0:  # another copy begins: of a model whose inputs a training set states
            work, left = Progress(say, place.clock.monotonic, "bytes copied", total), total
        left -= count
        work.add(count)

    return DirectoryArtifacts(place.state_dir / "artifacts", copied)


def _fitting(
    place: Workplace, schema: str | None, fits: Schema | None
) -> Callable[..., ProbeResult]:
    """Return the probe of artifacts; it refuses a model whose inputs a schema does not give."""
    probe = functools.partial(
        process.probe, artifacts=place.state_dir / "artifacts", fence=place.fence
    )

    def tried(**given: Any) -> ProbeResult:
        answered = probe(**given)
        lacking = misfit(answered.signature, fits) if fits is not None else ()
        if lacking:
            raise Refused(
                f"the model does not fit {schema}: {', '.join(lacking)}",
                code="schema_misfit",
                hint="a model is made for the schema it was trained on",
            )
        return answered

    return tried


def _note_inline(place: Workplace, endpoint: str, version: ModelVersion, why: str) -> None:
    """Record who allowed a version to run inline unproven, and allow it on this host."""
    place.ledger.note(
        endpoint,
        build_note(InlineTrusted(version=version.label, digest=version.digest)),
        by=actor(),
        reason=why,
        at=place.clock.now(),
    )
    for state in place.ledger.read().states.values():
        for number, release in state.releases.items():
            if release.model_digest == version.digest:
                place.disk.forgive(state.endpoint, number, "not_plain")


def learned_contract(
    place: Workplace, endpoint: str, version: ModelVersion, source: Path
) -> list[str]:
    """Return the request contract that a version's training set proposes, as kedge.toml's lines."""
    statistics = place.artifacts.proof(version.digest).statistics
    signature = with_bounds(version.signature, source, statistics)
    return toml_lines(endpoint, signature.inputs)


def describe_version(
    place: Workplace,
    endpoint: str,
    version: ModelVersion,
    *,
    gateway_url: str,
    new: bool,
    contract: Sequence[str],
) -> RegisteredVersion:
    """Return the properties of a registered version.

    Args:
        place: the state directory.
        endpoint: its name.
        version: the version.
        gateway_url: where the gateway listens, for the example of a call.
        new: whether these bytes were not registered already.
        contract: lines for kedge.toml that its training set proposes.
    """
    proof = place.artifacts.proof(version.digest)
    # With a transformation callers send other columns than the model's inputs.
    example = (
        ""
        if version.schema
        else example_call(gateway_url, endpoint, version.signature.inputs, proof.inputs)
    )
    return RegisteredVersion(
        endpoint=endpoint,
        version=version.label,
        flavour=version.flavour,
        digest=version.digest,
        size=version.size,
        load_s=version.load_s,
        golden=version.golden,
        signature=version.signature,
        schema=version.schema,
        trained_on=version.trained_on,
        rows=proof.rows,
        rows_tested=proof.tested,
        rows_why=proof.why,
        plain=proof.plain,
        inline=proof.inline,
        allowed=version.allowed,
        labels=read_labels(place, endpoint, version),
        example=example,
        libraries=find_differences(place.artifacts, version.digest),
        assumed=proof.assumed,
        tolerant=proof.tolerant,
        new=new,
        contract=tuple(contract),
    )


def list_versions(place: Workplace, endpoint: str) -> list[ListedVersion]:
    """Return the registered versions of an endpoint, and the releases that contain each."""
    state = place.ledger.read().states.get(endpoint, State(endpoint=endpoint))
    found = []
    for version in place.registry.versions(endpoint):
        mine = [one for one in state.releases.values() if one.version == version.number]
        found.append(
            ListedVersion(
                version=version.label,
                flavour=version.flavour,
                size=version.size,
                digest=version.digest,
                registered_at=version.registered_at,
                schema=version.schema,
                trained_on=version.trained_on,
                rows=mark_of(place.artifacts, version.digest),
                releases=tuple(one.label for one in mine),
                roles=tuple(filter(None, (_role(state, one.number) for one in mine))),
                allowed=version.allowed,
            )
        )
    return found


def _role(state: State, number: int) -> str:
    """Return the roles of a release; empty if it has none."""
    roles = {"production": state.production, "candidate": state.candidate, "back": state.back}
    found = [name for name, held in roles.items() if held == number]
    return ", ".join(found + (["condemned"] if number in state.condemned else []))


def read_labels(place: Workplace, endpoint: str, version: ModelVersion) -> LabelReading:
    """Return the output of a version that labels are compared with, and the settings to declare."""
    state = place.ledger.read().states.get(endpoint, State(endpoint=endpoint))
    gives, spare = version.signature.outputs, spare_outputs(state)
    found = target(state.policy.output, gives, spare)
    undecided = found.chosen or bool(found.unread)
    return LabelReading(
        output=found.name,
        dtype=found.dtype,
        reads=found.reads,
        declared=not found.chosen,
        code=found.unread,
        tolerance=found.tolerance,
        threshold=found.threshold,
        among=tuple(name for name in found.among if name not in spare),
        proposed=tuple(line(each) for each in proposed(gives, spare)) if undecided else (),
    )


def proposed_line(state_dir: Path, endpoint: str) -> str:
    """Return the only line for kedge.toml that the newest registered version allows.

    Empty if there is no ledger, no version, or more than one choice.
    """
    if not (state_dir / "ledger").exists():
        return ""
    try:
        versions = Workplace(state_dir).registry.versions(endpoint)
    except KedgeError:  # init writes the configuration anyway; the next command reports the fault
        return ""
    lines = [line(each) for each in proposed(versions[-1].signature.outputs)] if versions else []
    return lines[0] if len(lines) == 1 else ""


def _raw(place: Workplace, schema: str | None) -> tuple[Field, ...]:
    """Return the inputs of a schema's newest transformation: the raw columns of a training set."""
    known = place.features.versions(schema) if schema is not None else ()
    return spec_of(place.artifacts.verify(known[-1].digest)).raw if known else ()
