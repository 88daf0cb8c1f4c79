"""Training sets: the features that a release would have got for past rows, by the same code.

Each row of a spine has raw columns, a time and other columns, such as labels. Values by key are
joined as of that time, and the verified bundle that serves makes the features. The file
describes how it was made, so that a model can be registered with it.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from kedge.adapters.offline.log import OFFLINE_DIR, OfflineLog, filled, flat, instant_of
from kedge.adapters.offline.sources import check_times, reader_of
from kedge.adapters.process import FeaturesProcess
from kedge.columns import DTYPES
from kedge.core import codec
from kedge.core.errors import ModelFailure, Refused
from kedge.core.features.generations import Run, run_of, runs_of, width_of
from kedge.core.features.schema import Schema, Spec, TransformVersion
from kedge.core.time.durations import seconds
from kedge.core.values import Field, Release, TrainingSet
from kedge.inspection.independence import merges
from kedge.operations.evidence.read import state_of
from kedge.operations.progress import Progress
from kedge.operations.releases import transform_of
from kedge.system.durable import replacing
from kedge.tabular.parquet import column_as, database, kinds_of, load_duckdb, whole_types
from kedge.tabular.quotes import first_line, identifier, one_file, quoted
from kedge.transforms.authoring import spec_of
from kedge.transforms.bundle import Bare, Transform
from kedge.workspace import Workplace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kedge.typing import Columns

BATCH = 50_000
"""Rows that the transformation gets at once."""
NUMBERS = 20_000_000
"""Limit of values looked up at once: 80 MB, and each such number reads a log once."""
INDEX = re.compile(r"__index_level_\d+__")
"""The name that pandas gives to an unnamed index: it is not a column of the user."""
KEY = "kedge"
"""The key of a Parquet file's description."""
SQL = {
    "bool": "BOOLEAN",
    "uint8": "UTINYINT",
    "uint16": "USMALLINT",
    "uint32": "UINTEGER",
    "uint64": "UBIGINT",
    "int8": "TINYINT",
    "int16": "SMALLINT",
    "int32": "INTEGER",
    "int64": "BIGINT",
    "float16": "FLOAT",
    "float32": "FLOAT",
    "float64": "DOUBLE",
    "string": "VARCHAR",
}
LISTS = frozenset(f"{kind}[]" for kind in SQL.values() if kind != "VARCHAR")


class WrittenTrainingSet(TrainingSet, frozen=True, kw_only=True):
    """A training set that was written: its description, and the counts of its making."""

    out: str
    """The path of the file."""
    by_row: bool
    """Whether each row was transformed alone, because answers depend on the other rows."""
    missing: dict[str, int]
    """Rows without a value, by run."""
    violations: dict[str, int]
    """Values that break the schema, by field and rule."""
    left_out: tuple[str, ...]
    """Columns of the spine that are left out because a feature has their name."""


class Read(NamedTuple):
    """A materialised schema that a transformation reads, and the place of its values."""

    schema: Schema
    run: Run
    ttl_s: float | None


class Made(NamedTuple):
    """The counts of making the features."""

    missing: dict[str, int]
    """Rows without a value, by run."""
    violations: dict[str, int]


def make(
    place: Workplace,
    endpoint: str,
    *,
    spine: Path,
    time: str,
    out: Path,
    schema: str | None = None,
    transformation: int | None = None,
    generation: str | None = None,
    form: str | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> WrittenTrainingSet:
    """Write a training set; see the module.

    Args:
        place: the state directory.
        endpoint: its production gives the defaults.
        spine: Parquet or CSV with the raw columns, and others, which are retained.
        time: its column with the time of each row's request: a timestamp, a date or Unix seconds.
        out: the Parquet file to write; it is written completely or not at all.
        schema: the schema of the features. None: production's, else the endpoint's declared schema.
        transformation: the version of their code. None: production's, else the newest.
        generation: runs, such as `a/1#2@1+b/1#1@3`. None: production's, else the newest.
        form: the format of a textual `time`, as for strptime. None: ISO 8601.
        say: called at intervals with the progress.

    Raises:
        Refused: `bad_source`, `untrue_time`: of the spine; `no_features`, `unknown_schema`,
            `unknown_transformation`, `no_generation`; `transform_raised`; `export_failed`: `out`
            cannot be written; `needs_analytics`; or the error that ended its process.
        ModelFailure: `transform_nonsense`: the features break their schema.
    """
    live, code = _code(place, endpoint, schema, transformation)
    bundle = place.artifacts.verify(code.digest)
    spec = spec_of(bundle)
    log = OfflineLog(place.state_dir / OFFLINE_DIR)
    reads = _reads(place, log, spec, generation, live)
    if out.absolute() == spine.absolute():
        raise Refused(f"{out} is the spine itself", code="bad_source", hint="name another --out")
    features = spec.schema
    with (
        FeaturesProcess(bundle, place.limits, hidden=place.state_dir, fence=place.fence) as work,
        database() as db,
        _reading(spine),
    ):
        function = work.transformation()
        # A separate one, since its counts are not those of the training set.
        apart = Bare(Transform(bundle, function=function))
        together = merges(apart, place.artifacts.proof(code.digest), place.clock.monotonic)
        names, rows = _load(db, spine, time, form, spec, place.clock.unix())
        transform = Transform(bundle, function=function)
        asked = Spine(spine, time, rows, form)
        progress = Progress(say, place.clock.monotonic, "rows made", rows)
        made = _features(
            db, transform, features, names, asked, log, reads, progress, together=together
        )
        kept = _kept(list(features.fields), list(names))
        told = _described(code, reads, asked, place.clock.now())
        told = _write(db, out, told, _picked(features, names, kept))
    return WrittenTrainingSet(
        **msgspec.structs.asdict(told),
        out=str(out),
        by_row=not together,
        missing=made.missing,
        violations=made.violations,
        left_out=tuple(name for name in names if name not in kept),
    )


def _described(
    code: TransformVersion, reads: Sequence[Read], spine: Spine, made_at: str
) -> TrainingSet:
    """Return the description of a training set, without its digest."""
    return TrainingSet(
        schema=code.schema,
        transformation=code.number,
        code=code.digest,
        generations=tuple(one.run.label for one in reads),
        data="",
        rows=spine.rows,
        spine=spine.path.name,
        time=spine.time,
        made_at=made_at,
    )


class Spine(NamedTuple):
    """The past rows of a training set."""

    path: Path
    time: str
    rows: int
    form: str | None = None


# ---------------------------------------------------------------- code and values


def _code(
    place: Workplace, endpoint: str, schema: str | None, number: int | None
) -> tuple[Release | None, TransformVersion]:
    """Return production, if it uses the schema, and the transformation."""
    state = state_of(place, endpoint)
    live = state.releases.get(state.production) if state.production is not None else None
    schema = schema or (live.schema if live else None) or state.policy.features.schema
    if schema is None:
        raise Refused(
            f"{endpoint} serves nothing that has a feature schema",
            code="no_features",
            hint="say which: --schema VIEW/VERSION",
        )
    declared = place.features.schema(schema)
    code = transform_of(place, state, schema, number)
    if code is None:
        raise Refused(
            f"nothing implements {declared.name}",
            code="unknown_transformation",
            hint="kedge features apply FILE",
        )
    return live if live is not None and live.schema == schema else None, code


def _reads(
    place: Workplace, log: OfflineLog, spec: Spec, generation: str | None, live: Release | None
) -> list[Read]:
    """Return the runs from which the transformation's values are taken.

    Raises:
        Refused: `no_generation`: a schema has no run, or a named run is not read.
    """
    asked = generation.split("+") if generation else []
    known = {schema.name for schema in spec.read}
    for label in asked:
        run = run_of(label)
        if run is None or run.schema not in known:
            raise Refused(
                f"{label} is not a run of what {spec.schema.name} reads",
                code="no_generation",
                hint=(
                    f"it reads {', '.join(sorted(known)) or 'nothing'}; a run is written"
                    " VIEW/N#TRANSFORMATION@GENERATION"
                ),
            )
    named = {run.schema: run for run in runs_of(live.generation if live else None)}
    named |= {run.schema: run for run in runs_of(generation)}
    ready = {run for run, standing in place.generations.runs().items() if standing == "ready"}
    found = []
    for schema in spec.read:
        there = log.runs(schema.name)
        newest = next((run for run in reversed(there) if run in ready), None)
        run = named.get(schema.name, newest)
        if run not in there or run is None:
            wanted = schema.name if run is None else run.label
            raise Refused(
                f"nothing of {wanted} is in the offline log",
                code="no_generation",
                hint=(
                    "there are:"
                    f" {', '.join(one.label for one in there) or 'no runs; materialise it first'}"
                ),
            )
        found.append(Read(schema, run, _ttl_s(place, run)))
    return found


def _ttl_s(place: Workplace, run: Run) -> float | None:
    """Return the allowed age of a run's values, as the version that made them declares."""
    code = next(
        (one for one in place.features.versions(run.schema) if one.number == run.transformation),
        None,
    )
    if code is None:
        raise Refused(
            f"{run.schema} has no transformation {run.transformation}",
            code="unknown_transformation",
            hint="kedge features list",
        )
    view = spec_of(place.artifacts.verify(code.digest)).view
    return seconds(view.ttl) if view is not msgspec.UNSET and view.ttl is not None else None


# ---------------------------------------------------------------- the spine


@contextmanager
def _reading(spine: Path) -> Iterator[None]:
    """Turn faults of DuckDB into a refusal of the spine."""
    try:
        yield
    except load_duckdb().Error as error:
        raise Refused(f"{spine}: {first_line(error)}", code="bad_source") from None


def _load(
    db: Any, spine: Path, time: str, form: str | None, spec: Spec, now: float
) -> tuple[dict[str, str], int]:
    """Load the spine into the table `spine` with columns c0, c1, ..., in the file's order.

    Returns:
        The columns of `spine` by name, and its number of rows.
    """
    there = kinds_of(db, reader_of(spine, [time]))
    missing = [field.name for field in spec.raw if field.name not in there]
    if missing:
        raise Refused(
            f"{spine} has no column {', '.join(missing)}, which {spec.schema.name} takes",
            code="bad_source",
            hint=f"it has {', '.join(there)}",
        )
    words = [field.name for field in spec.raw if field.dtype == "string"]
    names = {
        name: f"c{number}"
        for number, name in enumerate(there)
        if name == time or not INDEX.fullmatch(name)
    }
    picked = ", ".join(f"{identifier(name)} AS {column}" for name, column in names.items())
    instant = instant_of(time, there, spine, form)
    source = reader_of(spine, [*words, time])
    check_times(db, source, identifier(time), instant, now, f"{spine}: {time}")
    db.execute(f"CREATE TABLE spine AS SELECT {picked} FROM {source}")  # noqa: S608 - quoted
    (rows,) = db.execute("SELECT count(*) FROM spine").fetchone()
    if not rows:
        raise Refused(f"{spine} has no rows", code="bad_source")
    return names, rows


def _taken(
    db: Any, fields: list[Field], names: Mapping[str, str], spine: Spine, start: int, end: int
) -> tuple[dict[str, NDArray[Any]], NDArray[np.float64]]:
    """Return raw columns of some rows in a gateway's form, and the rows' times."""
    kinds = kinds_of(db, "spine")
    whole = whole_types(db, "spine", kinds)
    columns = [names[field.name] for field in fields]
    picked = [column_as(name, kinds[name], whole=whole.get(name, "DOUBLE")) for name in columns]
    when = instant_of(names[spine.time], kinds, spine.path, spine.form)
    found = db.execute(
        f"SELECT {', '.join([*picked, f'{when} AS kedge_time'])} FROM spine "  # noqa: S608 - quoted
        f"WHERE rowid >= {start} AND rowid < {end}"
    ).fetchnumpy()
    at = filled(found["kedge_time"]).astype(np.float64)
    if np.isnan(at).any():
        row = start + int(np.isnan(at).argmax())
        raise Refused(
            f"{spine.path}: {spine.time} is missing in row {row}",
            code="bad_source",
            hint="without its time it is unknown what was known",
        )
    return {
        field.name: _column(field, found[names[field.name]], spine.path, start) for field in fields
    }, at


def _column(field: Field, column: Any, path: Path, start: int) -> NDArray[Any]:
    """Return a column of the spine in the field's dtype.

    Raises:
        Refused: `bad_source`: a value is missing or does not fit; names the row.
    """
    missing, data = np.ma.getmaskarray(column), np.ma.getdata(column)
    if field.shape:
        data = _stacked(field, data, path)
    wanted = DTYPES[field.dtype]
    if data.dtype.kind == "f" and not field.shape:
        missing = missing | np.isnan(data)
    if missing.any() and not (field.nullable and wanted.kind in "fO"):
        raise Refused(
            f"{path}: {field.name} is missing in row {start + int(missing.argmax())}",
            code="bad_source",
            hint="leave such rows out: callers may not send them either",
        )
    if (wanted.kind == "O") != (data.dtype.kind == "O") or (wanted.kind == "b") != (
        data.dtype.kind == "b"
    ):
        raise Refused(f"{path}: {field.name} is {data.dtype}, not {field.dtype}", code="bad_source")
    if wanted.kind == "O":
        words = data.copy()
        words[missing] = None
        return words
    with np.errstate(over="ignore", invalid="ignore"):
        cast = data.astype(wanted)
    if wanted.kind == "f":
        cast[missing] = np.nan
        return cast
    if not np.array_equal(cast, data):
        row = start + int((cast != data).reshape(len(data), -1).any(axis=1).argmax())
        raise Refused(
            f"{path}: {field.name} in row {row} does not fit {field.dtype}", code="bad_source"
        )
    return cast


def _stacked(field: Field, rows: NDArray[Any], path: Path) -> NDArray[Any]:
    """Return lists as an array with the field's shape."""
    try:
        found = np.stack(
            [np.ma.filled(np.ma.asarray(row, dtype=np.float64), np.nan) for row in rows]
        )
        return found.reshape(len(rows), *field.shape)
    except (TypeError, ValueError) as error:
        raise Refused(
            f"{path}: {field.name} has not the shape {list(field.shape)}: {error}",
            code="bad_source",
        ) from None


# ---------------------------------------------------------------- features


def _features(
    db: Any,
    transform: Transform,
    schema: Schema,
    names: Mapping[str, str],
    spine: Spine,
    log: OfflineLog,
    reads: list[Read],
    work: Progress,
    *,
    together: bool,
) -> Made:
    """Fill the table `features` with columns f0, f1, ..., a row for each row of the spine.

    Without `together` each row is asked alone, because an answer depends on the other rows.
    """
    spec = transform.spec
    answer = _answer if together else _by_row
    fields = list(schema.fields.values())
    kinds = ", ".join(
        f"f{n} {SQL[feature.dtype]}{'[]' if feature.shape else ''}"
        for n, feature in enumerate(fields)
    )
    db.execute(f"CREATE TABLE features ({kinds})")
    missing = {one.run.label: 0 for one in reads}
    keys = {key for one in reads for key in one.schema.keys}
    wide = sum(width_of(one.schema) for one in reads)
    span = max(BATCH, NUMBERS // wide) if wide else BATCH
    for start in range(0, spine.rows, span):
        end = min(start + span, spine.rows)
        looked = []
        if reads:
            by = [field for field in spec.raw if field.name in keys]
            known, at = _taken(db, by, names, spine, start, end)
            for one in reads:
                values, gone = log.asof(known, at, one.run, one.schema, one.ttl_s)
                missing[one.run.label] += int(gone.sum())
                looked.append(_defaulted(one.schema, values, gone))
        for first in range(start, end, BATCH):
            last = min(first + BATCH, end)
            raw, _ = _taken(db, list(spec.raw), names, spine, first, last)
            part = [
                {name: column[first - start : last - start] for name, column in columns.items()}
                for columns in looked
            ]
            _insert(db, schema, answer(transform, raw, part, first))
            work.add(last - first)
    return Made(missing, dict(transform.checks.violations))


def _defaulted(schema: Schema, values: Columns, gone: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
    """Return the substitutes of missing values: the field's default, else NaN."""
    found: dict[str, NDArray[Any]] = dict(values)
    for name, feature in schema.fields.items():
        if feature.default is not msgspec.UNSET:
            found[name][gone] = feature.default
    return found


def _by_row(transform: Transform, raw: Columns, looked: Sequence[Columns], first: int) -> Columns:
    """Return the features of some rows, each made alone, as for a caller who sends one row."""
    rows = len(next(iter(raw.values()), ()))
    if not rows:
        return _answer(transform, raw, looked, first)
    parts = [
        _answer(transform, _row(raw, n), [_row(columns, n) for columns in looked], first + n)
        for n in range(rows)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _row(columns: Columns, n: int) -> Columns:
    return {name: column[n : n + 1] for name, column in columns.items()}


def _answer(transform: Transform, raw: Columns, looked: Sequence[Columns], first: int) -> Columns:
    """Return the features of some rows.

    Raises:
        Refused: `transform_raised`.
        ModelFailure: `transform_nonsense`.
    """
    where = f"{transform.spec.schema.name}, from row {first} on"
    try:
        return transform.applied(raw, looked)
    except ModelFailure as error:
        if error.code == "transform_raised":
            raise Refused(f"{where}: it raised {error}", code=error.code) from error
        raise ModelFailure(f"{where}: {error}", code=error.code, hint=error.hint) from error
    except Refused as error:
        raise Refused(f"{where}: {error}", code=error.code, hint=error.hint) from error


def _insert(db: Any, schema: Schema, found: Columns) -> None:
    given: dict[str, NDArray[Any]] = {}
    picked = []
    for number, (name, feature) in enumerate(schema.fields.items()):
        column: NDArray[Any] = np.asarray(found[name])
        if feature.dtype == "string":
            column = column.astype(object)
        elif column.dtype != DTYPES[feature.dtype] or feature.dtype == "float16":
            column = column.astype("float32" if feature.dtype == "float16" else feature.dtype)
        parts = flat(column) if feature.shape else [np.ascontiguousarray(column)]
        columns = [f"f{number}_{part}" for part in range(len(parts))]
        given |= dict(zip(columns, parts, strict=True))
        picked.append(f"list_value({', '.join(columns)})" if feature.shape else columns[0])
    db.register("given", given)
    db.execute(f"INSERT INTO features SELECT {', '.join(picked)} FROM given")  # noqa: S608 - ours
    db.unregister("given")


# ---------------------------------------------------------------- the file


def _kept(features: list[str], others: list[str]) -> list[str]:
    """Return the spine's columns beside the features: names are unique regardless of case."""
    taken = {name.lower() for name in features}
    return [name for name in others if name.lower() not in taken]


def _picked(schema: Schema, names: Mapping[str, str], kept: list[str]) -> str:
    columns = chain(
        (f"features.f{n} AS {identifier(name)}" for n, name in enumerate(schema.fields)),
        (f"spine.{names[name]} AS {identifier(name)}" for name in kept),
    )
    return ", ".join(columns)


def _write(db: Any, out: Path, told: TrainingSet, picked: str) -> TrainingSet:
    """Write the whole file; its description has the digest of its content."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with replacing(out) as partial, tempfile.TemporaryDirectory(prefix="kedge-") as scratch:
            # Written twice: the digest is of the content that readers get, and is part of the file.
            first = Path(scratch) / "data.parquet"
            db.execute(
                # Every name and value in it is quoted.
                f"COPY (SELECT {picked} FROM features POSITIONAL JOIN spine) "  # noqa: S608
                f"TO {quoted(first)} (FORMAT parquet)"
            )
            told = msgspec.structs.replace(told, data=_digest(db, first))
            said = codec.canonical(told).decode()
            db.execute(
                # Every name and value in it is quoted.
                f"COPY (SELECT * FROM read_parquet({quoted(first)})) TO {quoted(partial)} "  # noqa: S608
                f"(FORMAT parquet, COMPRESSION zstd, KV_METADATA {{{KEY}: {quoted(said)}}})"
            )
    except (OSError, load_duckdb().Error) as error:
        raise Refused(
            f"{out} cannot be written: {first_line(error)}",
            code="export_failed",
            hint="name a place with room, with --out",
        ) from None
    return told


def read_training_set(path: Path) -> TrainingSet:
    """Return the description of a training set, after checking it against the content.

    Raises:
        Refused: `bad_training_set`: kedge did not make it, or its content changed;
            `needs_analytics`.
    """
    with database() as db:
        try:
            raw = db.execute(
                f"SELECT value FROM parquet_kv_metadata({one_file(path)}) "  # noqa: S608
                f"WHERE decode(key) = {quoted(KEY)}"
            ).fetchone()
            told = msgspec.json.decode(raw[0], type=TrainingSet) if raw is not None else None
            found = _digest(db, path) if told is not None else ""
        except (load_duckdb().Error, OSError, msgspec.DecodeError) as error:
            raise Refused(f"{path}: {first_line(error)}", code="bad_training_set") from None
    if told is None:
        raise Refused(
            f"{path} does not state how it was made",
            code="bad_training_set",
            hint="kedge features training-set makes one; any file: --training FILE --schema VIEW/N",
        )
    if told.data != found:
        raise Refused(
            f"{path} says that it holds {told.data}, and holds {found}",
            code="bad_training_set",
            hint="it was changed since it was made: make it again",
        )
    return told


def _digest(db: Any, path: Path) -> str:
    """Return the digest of a Parquet file's content: names, types and values in order.

    Each column has its own hash, fed in the order of the rows. So the digest does not depend on row
    groups, compression or the sizes of reads.
    """
    source = f"read_parquet({one_file(path)}, hive_partitioning = false)"
    kinds = kinds_of(db, source)
    picked = ", ".join(
        f"{_spelt(name, kind)} AS c{n}" for n, (name, kind) in enumerate(kinds.items())
    )
    # Every name and value in it is quoted.
    db.execute(f"CREATE OR REPLACE TEMP TABLE content AS SELECT {picked} FROM {source}")  # noqa: S608
    (rows,) = db.execute("SELECT count(*) FROM content").fetchone()
    hashes = [(hashlib.sha256(), hashlib.sha256()) for _ in kinds]
    for start in range(0, rows, BATCH):
        some = f"FROM content WHERE rowid >= {start} AND rowid < {start + BATCH}"
        found = db.execute(f"SELECT * {some}").fetchnumpy()
        for n, (kind, (values, nulls)) in enumerate(zip(kinds.values(), hashes, strict=True)):
            nulls.update(np.ma.getmaskarray(found[f"c{n}"]).tobytes())
            if kind in LISTS:
                numbers = db.execute(f"SELECT unnest(c{n}) AS part {some}").fetchnumpy()
                lengths = db.execute(f"SELECT len(c{n}) AS part {some}").fetchnumpy()
                nulls.update(_bytes(lengths["part"]))
                nulls.update(np.ma.getmaskarray(numbers["part"]).tobytes())
                values.update(_bytes(numbers["part"]))
            else:
                values.update(_bytes(found[f"c{n}"]))
    db.execute("DROP TABLE content")
    return codec.fingerprint(
        (
            rows,
            [
                (name, kind, values.hexdigest(), nulls.hexdigest())
                for (name, kind), (values, nulls) in zip(kinds.items(), hashes, strict=True)
            ],
        )
    )


def _spelt(name: str, kind: str) -> str:
    """Return a column in a form with one spelling: a number, or text."""
    column = identifier(name)
    if (
        kind.startswith("TIMESTAMP")
        and not kind.startswith("TIMESTAMPTZ")
        and not kind.endswith("]")
    ):
        return f"epoch_{'ns' if kind == 'TIMESTAMP_NS' else 'us'}({column})"
    if kind in SQL.values() or kind in LISTS:
        return column
    return f"CAST({column} AS VARCHAR)"


def _bytes(column: Any) -> bytes:
    missing, data = np.ma.getmaskarray(column), np.ma.getdata(column)
    if data.dtype.kind == "O":
        words = [
            b"" if gone else str(value).encode()
            for value, gone in zip(data.tolist(), missing.tolist(), strict=True)
        ]
        return b"".join(len(word).to_bytes(8, "little") + word for word in words)
    plain = np.where(missing, np.zeros((), data.dtype), data)
    if plain.dtype.kind == "f":
        plain[np.isnan(plain)] = np.nan  # the payload of NaN is not defined
    return plain.astype(plain.dtype.newbyteorder("<")).tobytes()
