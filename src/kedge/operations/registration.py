"""Registration of a model: which loaders there are, and trying an artifact out."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import invalidate_caches
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kedge.adapters import process
from kedge.columns import ProbeResult
from kedge.core.bounds import toml_lines
from kedge.core.errors import KedgeError, Refused, UnfitModel
from kedge.core.evidence.answers import line, proposed, spare_outputs, target
from kedge.core.features.schema import Schema, misfit
from kedge.core.stored.notes import InlineTrusted, VersionRegistered, build_note
from kedge.core.values import Field, ModelVersion, Proof, State, TrainingSet
from kedge.engine.bounds import with_bounds
from kedge.engine.registration import register
from kedge.ports import Flavour, Loader
from kedge.system.interpreter import HiddenModules
from kedge.transforms.authoring import spec_of
from kedge.workspace import Workplace, actor


class Loaders(Mapping[str, Loader]):
    """The installed loaders by flavour, each imported when it is first asked for.

    scikit-learn alone takes a second and 100 MB to import: a worker that serves ONNX must not
    pay for it.
    """

    def __init__(self) -> None:
        self._points = _find_loaders()
        self._loaded: dict[str, Loader] = {}

    def __getitem__(self, flavour: str) -> Loader:
        """Load one.

        Raises:
            KeyError: there is none of this flavour.
            UnfitModel: what it needs is not installed.
        """
        if flavour not in self._points:
            # It was installed since; or a directory could not be listed, which passes for empty.
            invalidate_caches()
            self._points = _find_loaders()
        if flavour not in self._loaded:
            try:
                self._loaded[flavour] = self._points[flavour].load()()
            except ImportError as error:
                raise _missing_library(flavour, error) from error
        return self._loaded[flavour]

    def __iter__(self) -> Iterator[str]:
        """The flavours."""
        return iter(self._points)

    def __len__(self) -> int:
        """How many."""
        return len(self._points)


def _find_loaders() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group="kedge.loaders")}


def check_loaders() -> tuple[list[str], dict[str, str]]:
    """Return the flavours that can be loaded here; and those that cannot, with why.

    Nothing is imported of a flavour that announces its libraries: scikit-learn takes seconds.
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
    """Import a loader to see whether that can be done: without pandas, unless it needs it.

    scikit-learn imports pandas wherever it is installed, and no command answers a frame.

    Raises:
        KeyError, UnfitModel: as `Loaders`.
    """
    try:
        with HiddenModules("pandas"):
            return points[flavour]
    except UnfitModel:
        return points[flavour]


def flavours() -> tuple[dict[str, Flavour], dict[str, str]]:
    """What tells each flavour on the disk; and of those that cannot be asked, why.

    Its announced half, which imports no library (`kedge.flavours`); else its loader, which may.
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
) -> tuple[ModelVersion, bool]:
    """Register what stands in `path`; True when it is new.

    With `trained_on`, what its training set says of itself, it is for that set's schema. With `inline`, a reason,
    it may run inline although it is not proven plain. With `learns` its inputs get bounds of the training set.

    Raises:
        Refused: also `schema_misfit`: the model needs what its feature schema does not give.
    """
    if trained_on is not None and schema not in (None, trained_on.schema):
        raise Refused(
            f"the training set has {trained_on.schema}, not {schema}",
            code="schema_misfit",
            hint="leave --schema out: the training set says it",
        )
    schema = trained_on.schema if trained_on is not None else schema
    fits = place.features.schema(schema) if schema is not None else None
    found, missing = flavours()
    try:
        version, new = register(
            path,
            model=endpoint,
            flavours=found,
            registry=place.registry,
            artifacts=place.artifacts,
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
    if inline:
        _note_inline(place, endpoint, version, inline)
    if new:
        body = VersionRegistered(
            version=version.label, digest=version.digest, flavour=version.flavour
        )
        note = build_note(body)
        place.ledger.note(endpoint, note, by=actor(), reason="", at=place.clock.now())
    return version, new


def _fitting(
    place: Workplace, schema: str | None, fits: Schema | None
) -> Callable[..., ProbeResult]:
    """Return the probe of artifacts; it refuses a model that a schema does not give what it needs."""
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
    """Record who lets a version run inline unproven, and let its releases do so on this host."""
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
    """Return the request contract for kedge.toml that a version's training set proposes, as lines."""
    statistics = place.artifacts.proof(version.digest).statistics
    signature = with_bounds(version.signature, source, statistics)
    return toml_lines(endpoint, signature.inputs)


def label_reading(place: Workplace, endpoint: str, version: ModelVersion) -> dict[str, Any]:
    """Return which output of a version labels are compared with, and what to declare where none is.

    Returns:
        The output, how it is read, whether the policy declares it, why it cannot be read, and lines
        for kedge.toml, the likeliest first.
    """
    state = place.ledger.read().states.get(endpoint, State(endpoint=endpoint))
    gives, spare = version.signature.outputs, spare_outputs(state)
    found = target(state.policy.output, gives, spare)
    undecided = found.chosen or bool(found.unread)
    return {
        "output": found.name,
        "dtype": found.dtype,
        "reads": found.reads,
        "declared": not found.chosen,
        "code": found.unread,
        "tolerance": found.tolerance,
        "threshold": found.threshold,
        "among": [name for name in found.among if name not in spare],
        "proposed": [line(each) for each in proposed(gives, spare)] if undecided else [],
    }


def proposed_line(state_dir: Path, endpoint: str) -> str:
    """Return the line for kedge.toml that the newest registered version leaves one choice for.

    Empty where there is no ledger, no version, or more than one choice.
    """
    if not (state_dir / "ledger").exists():
        return ""
    try:
        versions = Workplace(state_dir).registry.versions(endpoint)
    except KedgeError:  # init writes the configuration anyway; the next command names the fault
        return ""
    lines = [line(each) for each in proposed(versions[-1].signature.outputs)] if versions else []
    return lines[0] if len(lines) == 1 else ""


def label_reading_text(found: dict[str, Any]) -> str:
    """Which output labels are compared with, and what to declare, for people."""
    if found["code"] == "ambiguous" and len(found["among"]) == 1:
        head = f"cannot be compared: output {found['among'][0]} holds several numbers a row"
    elif found["code"] == "ambiguous":
        head = "cannot be compared: several outputs could be meant"
    elif found["code"] == "missing":
        head = (
            f"cannot be compared: the version gives no output {found['output']}, which kedge.toml"
            " declares"
        )
    elif found["code"] == "unreadable":
        head = (
            f"cannot be compared: output {found['output']} holds more than one class or number"
            " a row"
        )
    else:
        head = f"are compared with output {found['output']}:{found['dtype']}"
        if found["reads"] == "number":
            head += f", right within {found['tolerance']:g}"
        elif found["reads"] == "yes":
            head += f", yes from {found['threshold']:g} on"
    choose = "; declare one in kedge.toml:" if len(found["proposed"]) > 1 else "; to declare it:"
    lines = [f"  labels    {head}{choose if found['proposed'] else ''}"]
    return "\n".join([*lines, *(f"            {line}" for line in found["proposed"])])


def unsaid_lines(proof: Proof) -> list[str]:
    """What a model does not say of its inputs, and what was taken instead, for people."""
    lines = []
    if proof.assumed:
        lines.append(
            f"  assumed   {', '.join(proof.assumed)}: float64, since nothing in the model says what"
            " they are; --training FILE decides"
        )
    if proof.tolerant:
        lines.append(
            f"  null      is refused in {', '.join(proof.tolerant)}, which the model would answer; "
            "--training FILE shows whether it was fitted on missing values"
        )
    return lines


def _raw(place: Workplace, schema: str | None) -> tuple[Field, ...]:
    """What the newest transformation of a schema takes: columns of a training set before it."""
    known = place.features.versions(schema) if schema is not None else ()
    return spec_of(place.artifacts.verify(known[-1].digest)).raw if known else ()
