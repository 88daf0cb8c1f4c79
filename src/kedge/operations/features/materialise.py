"""Materialisation of values: slices of a source, into the offline log and the online store.

A slice is computed, written to the offline log, and then to the online store together with the
run's mark. After a kill the next call continues from the mark. A slice in the log is not computed
again, and writing a slice again changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from itertools import chain
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from kedge.adapters.offline.log import OFFLINE_DIR, OfflineLog, Times
from kedge.adapters.offline.sources import source_rows, source_slices, source_times
from kedge.adapters.process import FeaturesProcess
from kedge.core.errors import ModelFailure, Refused
from kedge.core.features.generations import (
    META,
    Mark,
    Run,
    Standing,
    due,
    last_end,
    pack_mark,
    runs_of,
    slices,
    unneeded,
)
from kedge.core.features.schema import Schema, Spec, TransformVersion, View
from kedge.core.keys import spell
from kedge.core.release.needs import needs
from kedge.core.time.durations import seconds
from kedge.core.time.instants import iso
from kedge.core.values import State, Value
from kedge.operations.features.staleness import mark_in, patience_of, view_of
from kedge.operations.progress import Progress
from kedge.system.locks import lock_file
from kedge.transforms.authoring import spec_of
from kedge.transforms.lookup import keys_of, pack
from kedge.workspace import Workplace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kedge.ports import OnlineStore
    from kedge.typing import Columns


class FedRun(Value, frozen=True, kw_only=True):
    """A run of a view after its due slices were computed and written."""

    run: str
    slices: int
    """Slices with rows that this call added."""
    empty: int
    """Slices that ended and have no rows."""
    computed: int
    """Of `slices`, those that were not in the offline log."""
    rows: int
    """Rows written since the call began."""
    watermark: float | None
    """End of the newest slice in the store, Unix time; null: no slice has ended."""
    standing: Standing
    violations: dict[str, int]
    """Values outside the range that the schema declares, by field."""
    ahead_s: float
    """How far the run is beyond the requested time; above 0 a clock may be wrong."""


class RunStatus(Value, frozen=True, kw_only=True):
    """The watermark and lag of a run, and its readers."""

    run: str
    standing: Standing
    watermark: float | None
    """End of the newest slice in the store, Unix time; null: the store has none."""
    lag_s: float | None
    """Its current lag; below 0: ahead. Null: the store has none."""
    stale: bool
    """Whether its lag exceeds the age that its values are allowed."""
    ahead: bool
    keys: int
    """Number of keys with a value."""
    every: str
    """The length of a slice."""
    ttl: str | None
    """Allowed age of a value that is read."""
    read_by: tuple[str, ...]
    """Its readers, as endpoint and release, that are live or a way back: `flights r3`."""


class Materialised(NamedTuple):
    """A version that is computed ahead: its code and its declaration."""

    version: TransformVersion
    spec: Spec
    view: View
    function: Callable[[Columns, float], Mapping[str, Any]]
    """The function, called in a process of its own."""


class Feeder:
    """The feeder of the runs of one state directory; one process at a time feeds them."""

    def __init__(
        self, place: Workplace, store: OnlineStore, root: Path, say: Callable[[str], None]
    ) -> None:
        """Store the state directory, the online store, and the sources' directory (`root`)."""
        self._place = place
        self._store = store
        self._root = root
        self._say = say
        self.log = OfflineLog(place.state_dir / OFFLINE_DIR)

    def materialise(self, name: str, at: float | None) -> list[FedRun]:
        """Update every run of a view; begin a run if the newest version has none.

        Args:
            name: VIEW, VIEW/VERSION or VIEW/VERSION#TRANSFORMATION.
            at: Unix time up to which slices are computed. None: now.

        Raises:
            Refused: `unknown_view`; `in_the_future`; `materialise_busy`; `bad_source`; `bad_view`:
                the function broke its schema.
            Unavailable: the online store or the source cannot be reached.
        """
        until = self._until(at)
        with self._alone():
            known = versions_of(self._place, name)
            runs = self._place.generations.runs()
            newest = {version.schema: version for version in known}
            told: list[FedRun] = []
            faults: list[Refused] = []
            for version in known:
                mine = [
                    run
                    for run, standing in runs.items()
                    if code_of(run) == code_of(version) and standing != "dropped"
                ]
                if not mine and version == newest[version.schema]:
                    mine = [self._place.generations.begin(version.schema, version.number)]
                for run in mine:
                    try:
                        with loaded(self._place, version) as made:
                            told.append(self._feed(run, made, until))
                    except Refused as fault:  # the other runs are still fed
                        faults.append(fault)
            if faults:
                raise Refused(
                    "; ".join(map(str, faults)),
                    code=faults[0].code,
                    hint=faults[0].hint,
                    details={"fed": told},
                )
            self._drop()
        return told

    def backfill(self, name: str, since: float | None, at: float | None) -> FedRun:
        """Compute a version's values again from the current source, into a new run.

        An unfinished run is continued.

        Raises:
            Refused: as in `materialise`.
        """
        until = self._until(at)
        with self._alone():
            version = versions_of(self._place, name)[-1]
            runs = self._place.generations.runs()
            begun = [
                r
                for r, standing in runs.items()
                if standing == "building" and code_of(r) == code_of(version)
            ]
            run = begun[-1] if begun else self._place.generations.begin(*code_of(version))
            with loaded(self._place, version) as made:
                return self._feed(run, made, until, since)

    def _until(self, at: float | None) -> float:
        now = self._place.clock.unix()
        if at is not None and at > now:
            raise Refused(
                f"{iso(at)} is in the future",
                code="in_the_future",
                hint="values are computed from what is known; check this host's clock",
            )
        return now if at is None else at

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the feeder's lock: two processes could write an older slice over a newer one."""
        folder = self._place.state_dir / OFFLINE_DIR
        folder.mkdir(parents=True, exist_ok=True)
        with lock_file(folder / "lock") as taken:
            if not taken:
                raise Refused(
                    "another process is materialising here already",
                    code="materialise_busy",
                    hint="wait for it, or end it: it continues where it stopped",
                )
            yield

    def _feed(
        self, run: Run, made: Materialised, until: float, since: float | None = None
    ) -> FedRun:
        """Write every ended slice of a run that is missing."""
        view, fresh = made.view, mark_in(self._store, run)
        every_s, ttl_s = seconds(view.every), seconds(view.ttl) if view.ttl else None
        logged = self.log.ends(run)
        known = frozenset(logged)
        source = self._root / view.source
        keys_named = made.spec.schema.keys
        times = source_times(source, view.time, self._place.clock.unix(), view.form, keys_named)
        if times is not None and times.without:
            self._say(f"{run.label}: {times.without:,} rows have no time and are left out")
        if times is not None and times.keyless:
            self._say(
                f"{run.label}: {times.keyless:,} rows have no {' or '.join(keys_named)} and are"
                " left out"
            )
        if fresh is not None:
            after, rows = fresh.watermark, fresh.rows
        elif logged:
            after, rows = last_end(logged[0] - 1e-6, every_s), 0
        elif times is None:
            raise Refused(f"{source} has no rows", code="bad_source")
        else:
            after, rows = last_end(max(times.first, since or -inf) - 1e-6, every_s), 0
        over = slices(after, until, every_s)
        full = self._due(source, view, known, after, until) if over else []
        work = SliceProgress(
            self._say, run.label, view.every, full, self._place.clock.monotonic, over=over
        )
        fed = anew = keyless = 0
        violations: Counter[str] = Counter()
        for end in (number * every_s for numbers in full for number in numbers):
            columns, keys, dropped = self._slice(run, made, source, end, logged=end in known)
            anew += end not in known
            keyless += dropped
            violations.update(outside(columns, made.spec))
            rows, fed = rows + len(keys), fed + 1
            mark = Mark(watermark=end, rows=rows, ttl_s=ttl_s)
            values = pack(made.spec.schema, keys, end, columns) if columns else iter(())
            self._store.write(run.namespace, chain(values, [(META, pack_mark(mark))]))
            after = end
            work.done(len(keys), end)
        if over and after < last_end(until, every_s):
            after = last_end(until, every_s)
            mark = Mark(watermark=after, rows=rows, ttl_s=ttl_s)
            self._store.write(run.namespace, iter([(META, pack_mark(mark))]))
        if keyless:
            self._say(f"{run.label}: {keyless:,} rows without a key are left out")
        standing = self._place.generations.runs()[run]
        if standing == "building" and (over or fresh is not None):
            self._place.generations.stand(run, "ready")
            standing = "ready"
        return FedRun(
            run=run.label,
            slices=fed,
            empty=over - fed,
            computed=anew,
            rows=rows,
            watermark=after if over or fresh else None,
            standing=standing,
            violations=dict(violations),
            ahead_s=max(after - until, 0.0),
        )

    def _due(
        self, source: Path, view: View, known: AbstractSet[float], after: float, until: float
    ) -> list[range]:
        """Return the missing slices that ended and have rows or are in the log, as numbers."""
        every_s = seconds(view.every)
        times = source_slices(source, view.time, every_s, view.form)
        back_s = seconds(view.lookback) if view.lookback else inf
        return due(times, known, after, until, every_s, back_s)

    def _slice(
        self, run: Run, made: Materialised, source: Path, end: float, *, logged: bool
    ) -> tuple[Columns, list[str], int]:
        """Return a slice's rows with a key, as `keyed`: logged, or computed and then logged.

        Only rows with a key are logged, as they are spelled: the log and the store have the same.
        """
        schema = made.spec.schema
        if logged:
            found = self.log.read(run, end)
            return keyed({name: found[name] for name in (*schema.keys, *schema.fields)}, schema)
        columns, keys, dropped = keyed(computed(made, source, end), schema)
        if columns:
            self.log.write(run, end, schema.keys, columns)
        return columns, keys, dropped

    def _drop(self) -> None:
        """Drop the values of unreferenced runs. Their offline log stays: training sets name it."""
        for run in unneeded(self._place.generations.runs(), held(self._place)):
            self._place.generations.stand(run, "dropped")
            self._store.drop(run.namespace)
            self._say(f"{run.label}: dropped, nothing reads it")


class SliceProgress:
    """Reports the progress of slices: each while they are few, else at intervals."""

    FEW = 100

    def __init__(
        self,
        say: Callable[[str], None],
        label: str,
        every: str,
        full: Sequence[range],
        clock: Callable[[], float],
        *,
        over: int,
    ) -> None:
        """Report the planned work: the number of slices, and their time range.

        Args:
            say: called with each message.
            label: the label of the run.
            every: the length of a slice.
            full: the slices to compute, as their numbers.
            clock: monotonic seconds.
            over: number of missing slices that ended, also those without rows.
        """
        self._say, self._label = say, label
        count = sum(map(len, full))
        self._few = count <= self.FEW
        self._work = Progress(say, clock, "slices", count)
        every_s = seconds(every)
        if not self._few:
            first, last = full[0].start * every_s, full[-1][-1] * every_s
            say(f"{label}: {count:,} slices of {every}, that end from {iso(first)} to {iso(last)}")
        if over > count:
            say(f"{label}: {over - count:,} further slices of {every} have no rows")

    def done(self, keys: int, end: float) -> None:
        """Report a written slice, and when the others will be written."""
        if self._few:
            self._say(f"{self._label}: {keys:,} rows as of {iso(end)}")
        else:
            self._work.add(note=f" of {self._label} are in, as of {iso(end)}")


# ---------------------------------------------------------------- one slice


def times_of(source: Path, view: View, now: float) -> Times:
    """Return when the rows of a source became known.

    Raises:
        Refused: `bad_source`: also if no row has a time; `untrue_time`.
    """
    found = source_times(source, view.time, now, view.form)
    if found is None:
        raise Refused(f"{source} has no rows", code="bad_source")
    return found


def computed(made: Materialised, source: Path, end: float) -> Columns:
    """Return the function's answer to the rows known at a slice's end; {} without rows.

    Raises:
        Refused: `bad_view`: it raised or broke its schema; `bad_source`; or the error that
            ended its process.
    """
    back_s = seconds(made.view.lookback) if made.view.lookback else float("inf")
    rows = source_rows(
        source, made.view.time, end - back_s, end, made.view.form, made.spec.schema.keys
    )
    if not len(next(iter(rows.values()), ())):
        return {}
    name = made.version.label
    try:
        found = made.function(rows, end)
    except ModelFailure as error:
        said = f"raised {error}" if error.code == "transform_raised" else f"failed: {error}"
        raise Refused(
            f"{name} {said} on the slice that ends {iso(end)}", code="bad_view"
        ) from error
    except Refused as error:
        raise Refused(
            f"{name}, on the slice that ends {iso(end)}: {error}", code=error.code, hint=error.hint
        ) from error
    fault = misfit(found, made.spec)
    if fault is not None:
        raise Refused(
            f"{name}, on the slice that ends {iso(end)}: {fault}",
            code="bad_view",
            hint="it gives the keys and the fields of its schema, a row a key",
        )
    schema = made.spec.schema
    kept = {key: np.asarray(found[key]) for key in schema.keys}
    return {**kept, **{n: np.asarray(found[n], np.float32) for n in schema.fields}}


def misfit(found: Any, spec: Spec) -> str | None:
    """Return the fault of a materialised function's answer; None if there is none."""
    schema = spec.schema
    if not isinstance(found, Mapping):
        return f"it gave a {type(found).__name__}, not columns by name"
    missing = [name for name in (*schema.keys, *schema.fields) if name not in found]
    if missing:
        return f"it gave no {', '.join(missing)}"
    rows = len(np.atleast_1d(np.asarray(found[schema.keys[0]])))
    for name in schema.keys:
        if np.asarray(found[name]).shape != (rows,):
            return f"{name} has the shape {np.asarray(found[name]).shape}, not ({rows},)"
    for name, feature in schema.fields.items():
        try:
            column = np.asarray(found[name], np.float32)
        except (TypeError, ValueError) as error:
            return f"{name}: {error}"
        if column.shape != (rows, *feature.shape):
            return f"{name} has the shape {column.shape}, not {(rows, *feature.shape)}"
        if not feature.null and np.isnan(column).any():
            return f"{name} is null, and may not be: leave the key out instead"
    keys = [key for key in keys_of(found, schema.keys) if key is not None]
    if len(set(keys)) != len(keys):
        return f"{len(keys) - len(set(keys))} keys are there twice"
    return None


def keyed(columns: Columns, schema: Schema) -> tuple[Columns, list[str], int]:
    """Drop the rows without a key.

    Returns:
        The others, their key columns as whole numbers or text; their keys; how many were dropped.
    """
    if not columns:
        return columns, [], 0
    found = keys_of(columns, schema.keys)
    keys = [key for key in found if key is not None]
    lost = len(found) - len(keys)
    kept = columns
    if lost:
        has = np.array([key is not None for key in found], np.bool_)
        kept = {name: np.asarray(column)[has] for name, column in columns.items()}
    parts = {name: _as_keys(np.asarray(kept[name])) for name in schema.keys}
    return {**kept, **parts}, keys, lost


def _as_keys(column: NDArray[Any]) -> NDArray[Any]:
    """Return a key column without missing values: int64 if all are such numbers, else text."""
    if column.dtype.kind in "iuf" and column.dtype != np.uint64:
        return column.astype(np.int64)
    words = np.empty(len(column), object)
    words[:] = [spell(value) for value in column.tolist()]
    return words


def outside(columns: Columns, spec: Spec) -> dict[str, int]:
    """Return how many values of each field are out of range, counted as at serving."""
    found = {}
    for name, feature in spec.schema.fields.items():
        if feature.range is not None and columns:
            low, high = feature.range
            column = np.asarray(columns[name], np.float32)
            found[name] = int(((column < low) | (column > high)).sum())
    return {name: count for name, count in found.items() if count}


# ---------------------------------------------------------------- versions and runs


def code_of(one: Run | TransformVersion) -> tuple[str, int]:
    """Return the version of the code: its schema and number."""
    return one.schema, one.transformation if isinstance(one, Run) else one.number


def versions_of(place: Workplace, name: str) -> list[TransformVersion]:
    """Return the computed-ahead versions that a name means, in order.

    Raises:
        Refused: `unknown_view`.
    """
    found, views = [], []
    for schema in place.features.schemas():
        for version in place.features.versions(schema.name):
            if spec_of(place.artifacts.verify(version.digest)).view:
                views.append(version.label)
                if name in (schema.name.partition("/")[0], schema.name, version.label):
                    found.append(version)
    if not found:
        raise Refused(
            f"nothing that is materialised is called {name}",
            code="unknown_view",
            hint=f"known are: {', '.join(views) or 'none; kedge features apply FILE'}",
        )
    return found


@contextmanager
def loaded(place: Workplace, version: TransformVersion) -> Iterator[Materialised]:
    """Yield a version's code, from its verified bundle, in a process of its own.

    Raises:
        Refused: `bad_view`: it cannot be run; or the error that ended its process.
    """
    root = place.artifacts.verify(version.digest)
    spec = spec_of(root)
    assert spec.view
    with FeaturesProcess(root, place.limits, hidden=place.state_dir, fence=place.fence) as work:
        try:
            function = work.view(spec.entry)
        except ModelFailure as error:
            raise Refused(f"{version.label} cannot be loaded: {error}", code="bad_view") from error
        yield Materialised(version, spec, spec.view, function)


def try_view(place: Workplace, root: Path, version: TransformVersion) -> None:
    """Compute the newest slice twice, to check it against the schema.

    Raises:
        Refused: `bad_view`; `bad_source`; `not_deterministic`.
    """
    with loaded(place, version) as made:
        _try(made, root / made.view.source, place.clock.unix())


def _try(made: Materialised, source: Path, now: float) -> None:
    last = times_of(source, made.view, now).last
    every_s = seconds(made.view.every)
    end = last_end(last, every_s) + (every_s if last % every_s else 0.0)
    once, again = (computed(made, source, end) for _ in range(2))
    for name, column in once.items():
        if (
            column.tobytes() != again[name].tobytes()
            if column.dtype != object
            else (column.tolist() != again[name].tolist())
        ):
            raise Refused(
                f"asked the same slice twice, it gave two answers in {name}",
                code="not_deterministic",
                hint="no clock, no random numbers",
            )


def held(place: Workplace) -> set[Run]:
    """Return the runs of releases that are live, a way back, wanted, or loaded anywhere."""
    book = place.ledger.read()
    states, now = book.states, place.clock.unix()
    live = (
        {(wish.endpoint, wish.release) for wish in book.wanted}
        | {
            (state.endpoint, number)
            for state in states.values()
            for number in (
                *(need.release for need in needs(state, now=now)),
                state.previous,
                state.candidate,
            )
        }
        | {
            (hold.endpoint, hold.release)
            for member in place.roster.members()
            for hold in member.holds
        }
    )
    return {
        run
        for state in states.values()
        for number, release in state.releases.items()
        if (state.endpoint, number) in live
        for run in runs_of(release.generation)
    }


def status_of(place: Workplace, store: OnlineStore, name: str | None) -> list[RunStatus]:
    """Return every run that was not dropped: its watermark, lag and readers.

    Raises:
        Refused: `unknown_view`.
        Unavailable: the store cannot be read.
    """
    wanted = {code_of(v) for v in versions_of(place, name)} if name is not None else None
    now, found = place.clock.unix(), []
    states = place.ledger.read().states.values()
    for run, standing in place.generations.runs().items():
        if standing == "dropped" or (wanted is not None and code_of(run) not in wanted):
            continue
        view = view_of(place, run)
        mark = mark_in(store, run)
        lag = now - mark.watermark if mark is not None else None
        found.append(
            RunStatus(
                run=run.label,
                standing=standing,
                watermark=mark.watermark if mark is not None else None,
                lag_s=lag,
                stale=lag is None or lag > patience_of(view),
                ahead=lag is not None and lag < 0,
                keys=max(store.count(run.namespace) - 1, 0),
                every=view.every,
                ttl=view.ttl,
                read_by=tuple(sorted(_readers(states, run))),
            )
        )
    return found


def _readers(states: Iterable[State], run: Run) -> Iterator[str]:
    """Yield each release that reads a run and is live or a way back."""
    for state in states:
        for number, release in state.releases.items():
            known = number in (state.production, state.candidate, state.back)
            if known and run in runs_of(release.generation):
                yield f"{state.endpoint} {release.label}"
