"""Cells of a diagnosis: the answers of each model with each transformation to logged requests.

Answers that callers or a shadow got are taken from the log. Missing answers are asked again, up to
a limit of requests. A release that cannot be asked leaves a gap and a reason, never a guess.
An unreadable value by key is treated alike: a server would use a default, but the logged answer
was not made from one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from kedge.adapters.process import FeaturesProcess, ProcessModel
from kedge.core.diagnosis.contrast import LEAST, Cell, Swap
from kedge.core.diagnosis.defects import SHARE
from kedge.core.errors import BadRequest, KedgeError, ModelFailure, Unavailable
from kedge.core.evidence.answers import get_target
from kedge.core.features.generations import Online
from kedge.core.features.schema import Spec
from kedge.core.values import ColumnStatistics, Release, Signature, State
from kedge.engine.recording.agreement import said
from kedge.engine.submission import Say
from kedge.inspection.independence import mark_of
from kedge.operations.diagnosis.window import AnswerReading, Floats, Logged, asked
from kedge.operations.progress import Progress
from kedge.operations.replay.model import (
    INCOMPLETE,
    answered,
    answers,
    loaded,
    logged_columns,
    merges,
    requests,
)
from kedge.transforms.authoring import spec_of
from kedge.transforms.bundle import Transform
from kedge.transforms.lookup import EXCUSED, Lookup, lookups_of
from kedge.workspace import Workplace

REPLAYED = 20_000
"""Limit of requests with an outcome that are asked again, newest first. 20,000 pairs find a
fiftieth of a loss."""
UNLABELLED = 2_000
"""Limit of requests asked again when few have outcomes: enough to see which columns moved."""
SWAPPED = 2_000
"""Limit of requests on which single features are exchanged."""
SWAPS = 30
"""Limit of exchanged features, those that differ in most requests first."""
BATCH = 2_048
"""Number of rows asked at once."""
BROKEN = 1_000
"""Failed requests after which a transformation's features are given up."""
UNREAD = frozenset({"features_expired", "features_outage", EXCUSED, INCOMPLETE})
"""Failures that do not count against the release: it would have answered at the time."""

Columns = Mapping[str, NDArray[Any]]


@dataclass
class Cells:
    """The cells that were obtained; `faults` names why others are missing."""

    answers: dict[Cell, Floats] = field(default_factory=dict)
    swaps: dict[str, Swap] = field(default_factory=dict)
    inputs: dict[str, Columns] = field(default_factory=dict)
    training: dict[str, Mapping[str, ColumnStatistics]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    replayed: dict[str, int] = field(default_factory=dict)


class Contrasting:
    """The cells of one diagnosis while they are collected."""

    def __init__(
        self,
        place: Workplace,
        state: State,
        today: Logged,
        reading: AnswerReading,
        say: Say,
    ) -> None:
        """Store the parts of the diagnosis.

        Args:
            place: the state directory.
            state: the row.
            today: the requests of today's window.
            reading: how an answer is read.
            say: called with progress messages.
        """
        self._place = place
        self._state = state
        self._target = get_target(state)
        self._today = today
        self._reading = reading
        self._say = say
        self._sent: list[list[int]] | None = None
        self._step = BATCH
        self._request_of: dict[int, list[int]] | None = None
        self._computed: tuple[Transform, list[int], Mapping[str, NDArray[Any]]] | None = None
        """The request whose features were computed last, and those features."""
        self.found = Cells()

    def gather(self, new: Release, old: Release | None) -> Cells:
        """Return all that can be known of one release, or of two.

        Args:
            new: the release that answers now.
            old: the way back.
        """
        found, n = self.found, len(self._today.rows)
        found.answers["new", "new"] = self._logged(new)
        for which, release in (("new", new), ("old", old)):
            if release is not None:
                self._trained(which, release)
        if old is None or not n:
            return found
        found.answers["old", "old"] = self._logged(old)
        for which, release in (("old", old), ("new", new)):
            self._again(which, release, found.answers[which, which])
            if np.isnan(found.answers[which, which]).all():
                del found.answers[which, which]
        if changed(new, old) == {"features"}:
            self._one_model()
        if new.code and old.code and new.schema == old.schema and "features" in changed(new, old):
            self._divide(new, old)
        return found

    # ------------------------------------------------------------ logged answers

    def _logged(self, release: Release) -> Floats:
        """Return the answers that it gave, as production or shadow; NaN where it was not asked."""
        read, number = self._reading.answer, release.number
        found = np.full(len(self._today.rows), np.nan)
        for n, row in enumerate(self._today.rows):
            if asked(row) == number:
                found[n] = read(row.score, row.decision)
            elif row.candidate == number and row.failed:
                found[n] = np.inf
            elif row.candidate == number and row.paired:
                found[n] = read(row.shadow_score, row.shadow_decision)
        return found

    def _trained(self, which: str, release: Release) -> None:
        """Record the training set of its model, and the inputs that it gets today."""
        try:
            known = self._place.artifacts.proof(release.model_digest).statistics
            if not known:
                return
            if release.code is not None:
                every = np.arange(len(self._today.rows))
                made, spoilt = self._features(release, every)
                unread = int(np.isnan(spoilt).sum())
                if unread > SHARE * len(spoilt):  # kedge's own nulls would be blamed
                    raise Unavailable(
                        f"the values by key of {unread:,} requests cannot be read",
                        code="online_unavailable",
                    )
                self.found.inputs[which] = made
        except KedgeError as error:
            self._fault(f"what {release.label} was trained on is not compared", error)
            return
        self.found.training[which] = {
            name: one for name, one in known.items() if name not in self._today.left_out
        }

    # ------------------------------------------------------------ asking again

    def _again(self, which: str, release: Release, into: Floats) -> None:
        """Ask for missing answers: of the requests with an outcome, or of some without."""
        rows = self._today.rows
        open_ = [n for n in np.flatnonzero(np.isnan(into)).tolist() if rows[n].inputs]
        known = [n for n in open_ if self._today.outcomes[n] is not None][:REPLAYED]
        already = int(np.isfinite(into).sum())
        some = known if self._today.labelled >= LEAST else open_[: max(UNLABELLED - already, 0)]
        if not some:
            return
        self._say(f"{release.label} is asked {len(some):,} logged requests again")
        try:
            into[some] = asyncio.run(self._replay(release, some))
        except KedgeError as error:
            self._fault(f"{release.label} could not be replayed", error)
        else:
            self.found.replayed[which] = int((~np.isnan(into[some])).sum())

    async def _replay(self, release: Release, some: list[int]) -> Floats:
        """Return a release's answers to these requests; NaN if a value by key is unreadable now.

        Raises:
            KedgeError: it did not start, or can read nothing.
        """
        online = None
        if release.code is not None and release.generation is not None:
            # Called here for its refusal: the model's process would only report its end.
            self._lookups(spec_of(self._place.artifacts.verify(release.code)), release)
            online = self._strict()
        found = dict.fromkeys(some, np.nan)
        unread: list[KedgeError] = []
        unasked = set(some)
        as_sent = not merges(self._place, release)
        clock = self._place.clock.monotonic
        work = Progress(self._say, clock, "requests asked again", len(some))
        async with loaded(self._place, self._state, release, online) as model:
            for part in self._parts(some, as_sent=as_sent):
                rows = [self._today.rows[n] for n in part]
                got = await answered(model, release, rows, as_sent=as_sent)
                work.add(len(unasked.intersection(part)))
                unasked.difference_update(part)
                unread += [
                    one
                    for n, one in zip(part, got, strict=True)
                    if n in found and isinstance(one, KedgeError) and one.code in UNREAD
                ]
                if unread and (len(unread) == len(some) or unread[-1].code == "features_outage"):
                    raise unread[-1]
                found |= {
                    n: self._read(one) for n, one in zip(part, got, strict=True) if n in found
                }
        whole = ModelFailure("some rows of its request were not logged", code=INCOMPLETE)
        unread += [whole] * len(unasked)
        if unread:
            self._fault(
                f"{release.label} could not be replayed on {len(unread):,} of {len(some):,}"
                " requests",
                unread[-1],
            )
        self._as_today(release)
        return np.array([found[n] for n in some])

    def _parts(self, some: Sequence[int], *, as_sent: bool) -> Iterator[list[int]]:
        """Yield requests to ask at once; `as_sent`: whole requests with all their rows."""
        if not as_sent:
            yield from (list(some[start : start + BATCH]) for start in range(0, len(some), BATCH))
            return
        wanted, part = set(some), list[int]()
        for one in self._requests():
            if wanted.intersection(one):
                part += one
            if len(part) >= BATCH:
                yield part
                part = []
        if part:
            yield part

    def _requests(self) -> list[list[int]]:
        """Return the rows of each request that the log has completely; cached."""
        if self._sent is None:
            self._sent = requests(self._today.rows)
        return self._sent

    def _read(self, answer: tuple[Columns, int] | KedgeError) -> float:
        if isinstance(answer, KedgeError):
            return np.nan if answer.code in UNREAD else np.inf
        one = said(self._target, *answer)
        return self._reading.answer(one.score, one.decision)

    # ------------------------------------------------------------ values by key

    def _strict(self) -> Online:
        """Return the store that raises on an unreadable value instead of using a default."""
        online = self._place.online
        return replace(online, rules=replace(online.rules, expired="refuse", outage="refuse"))

    def _lookups(self, spec: Spec, release: Release) -> tuple[Lookup, ...]:
        """Return the lookups of a release, as they are now.

        Raises:
            KedgeError: the store has none of its values, or cannot be opened.
        """
        if not spec.read:
            return ()
        return lookups_of(spec, release.generation, self._strict(), alone=True)

    def _as_today(self, release: Release) -> None:
        """Record that the replay reads other values by key than at the time."""
        told = (
            f"the values of then: {release.label} reads {release.generation} by key, as it is now"
        )
        if release.generation is not None and told not in self.found.faults:
            self.found.faults.append(told)

    # ------------------------------------------------------------ model x features

    def _one_model(self) -> None:
        """Copy the mixed cells if only the features differ: they equal the releases' own."""
        cells = self.found.answers
        if len(cells) == 2:
            cells["new", "old"] = cells["old", "old"]
            cells["old", "new"] = cells["new", "new"]

    def _divide(self, new: Release, old: Release) -> None:
        """Fill the cells that were never served, and exchange single features, if both answered."""
        cells = self.found.answers
        if len(cells) < 2:
            return
        both = ~np.isnan(cells["new", "new"]) & ~np.isnan(cells["old", "old"])
        labelled = np.array([value is not None for value in self._today.outcomes])
        some = both & labelled if (both & labelled).sum() >= LEAST else both
        fit = [n for n in np.flatnonzero(some).tolist() if self._today.rows[n].inputs]
        if not (merges(self._place, new) and merges(self._place, old)):
            fit = self._lone(fit, new, old)
        picked = np.array(fit[:REPLAYED], int)
        if not len(picked):
            return
        self._say(f"{new.label} and {old.label} are divided on {len(picked):,} requests")
        try:
            features = {
                "new": self._features(new, picked),
                "old": self._features(old, picked),
            }
            asyncio.run(self._mixed(new, old, picked, features))
        except KedgeError as error:
            self._fault(f"{new.label} and {old.label} could not be divided", error)

    def _lone(self, some: list[int], new: Release, old: Release) -> list[int]:
        """Return the requests of a single row: others would be asked with a part of their rows."""
        lone = {part[0] for part in self._requests() if len(part) == 1}
        found = [n for n in some if n in lone]
        if len(found) < len(some):
            self.found.faults.append(
                f"{new.label} and {old.label} are divided on {len(found):,} of {len(some):,}"
                " requests: an answer may depend on the rows that are asked together, and these"
                " were sent alone"
            )
        return found

    async def _mixed(
        self,
        new: Release,
        old: Release,
        picked: NDArray[Any],
        features: Mapping[str, tuple[dict[str, NDArray[Any]], Floats]],
    ) -> None:
        """Ask both models, without their transformations, with features of either."""
        given = {which: columns for which, (columns, _) in features.items()}
        self._step = BATCH if merges(self._place, new) and merges(self._place, old) else 1
        fine = features["new"][1] + features["old"][1] == 0
        async with AsyncExitStack() as stack:
            models: dict[str, ProcessModel] = {}
            for which, release in (("new", new), ("old", old)):
                if which == "old" and new.model_digest == old.model_digest:
                    models["old"] = models["new"]
                    break
                bare = self._bare(release)
                models[which] = await stack.enter_async_context(
                    loaded(self._place, self._state, release, None, bare=bare)
                )
            if new.model_digest != old.model_digest:
                for cell in (("new", "old"), ("old", "new")):
                    found = np.full(len(self._today.rows), np.nan)
                    got = await self._ask(models[cell[0]], given[cell[1]], len(picked))
                    found[picked] = got + features[cell[1]][1]
                    self.found.answers[cell] = found
            few = np.flatnonzero(fine)[:SWAPPED]
            small = {
                w: {name: c[few] for name, c in columns.items()} for w, columns in given.items()
            }
            for name in self._differing(small):
                self.found.swaps[name] = await self._swap(models, small, name, picked[few])

    async def _swap(
        self,
        models: Mapping[str, ProcessModel],
        given: Mapping[str, Mapping[str, NDArray[Any]]],
        name: str,
        rows: NDArray[Any],
    ) -> Swap:
        """Ask the old model with this feature new, and the new model with this feature old."""
        found = []
        for which, other in (("old", "new"), ("new", "old")):
            mixed = {**given[which], name: given[other][name]}
            whole = np.full(len(self._today.rows), np.nan)
            whole[rows] = await self._ask(models[which], mixed, len(rows))
            found.append(whole)
        return found[0], found[1]

    async def _ask(self, model: ProcessModel, columns: Columns, rows: int) -> Floats:
        found: list[float] = []
        for start in range(0, rows, self._step):
            part = {name: column[start : start + self._step] for name, column in columns.items()}
            size = min(self._step, rows - start)
            found += [self._read(answer) for answer in await answers(model, part, size)]
        return np.array(found)

    def _differing(self, given: Mapping[str, Mapping[str, NDArray[Any]]]) -> list[str]:
        """Return the features in which the transformations differ, the most frequent first."""
        shares = []
        for name, column in given["new"].items():
            other = given["old"][name]
            same = column == other
            if column.dtype.kind == "f":
                same = same | (np.isnan(column) & np.isnan(other))
            apart = (
                float(np.mean(~np.asarray(same).reshape(len(column), -1).all(axis=1)))
                if len(column)
                else 0.0
            )
            if apart:
                shares.append((-apart, name))
        if len(shares) > SWAPS:
            self.found.faults.append(
                f"{len(shares) - SWAPS} features that differ less were not exchanged"
            )
        return [name for _, name in sorted(shares)[:SWAPS]]

    def _bare(self, release: Release) -> Signature:
        """Return the signature of the model itself."""
        version = next(
            v for v in self._place.registry.versions(release.model) if v.number == release.version
        )
        return version.signature

    def _features(
        self, release: Release, rows: NDArray[Any]
    ) -> tuple[dict[str, NDArray[Any]], Floats]:
        """Return the features that its transformation makes of these requests, and where it fails.

        The second part is added to an answer: 0, infinite where it fails, and NaN where a value by
        key is unreadable now.

        Raises:
            KedgeError: it cannot be loaded, or fails too often.
        """
        assert release.code is not None
        root = self._place.artifacts.verify(release.code)
        place = self._place
        with FeaturesProcess(root, place.limits, hidden=place.state_dir, fence=place.fence) as work:
            transform = Transform(
                root, lambda spec: self._lookups(spec, release), work.transformation()
            )
            return self._features_by(transform, release, rows)

    def _features_by(
        self, transform: Transform, release: Release, rows: NDArray[Any]
    ) -> tuple[dict[str, NDArray[Any]], Floats]:
        """Return the same as `_features`, with a loaded transformation."""
        spoilt = np.zeros(len(rows))
        parts: list[Mapping[str, NDArray[Any]]] = []
        for start in range(0, len(rows), BATCH):
            parts.append(self._made(transform, release, rows, start, spoilt))
            if np.isinf(spoilt).sum() > BROKEN:
                raise ModelFailure(
                    f"{transform.spec.schema.name} fails for more than {BROKEN:,} requests",
                    code="transform_raised",
                )
        self._as_today(release)
        names = parts[0] if parts else {}
        return {name: np.concatenate([part[name] for part in parts]) for name in names}, spoilt

    def _made(
        self,
        transform: Transform,
        release: Release,
        rows: NDArray[Any],
        start: int,
        spoilt: Floats,
    ) -> Mapping[str, NDArray[Any]]:
        """Return one batch of features: row by row if the batch fails, and null where a row fails.

        If a feature may depend on the other rows of a request, each request is computed separately.

        Raises:
            ModelFailure: the store cannot be asked, or no row has features.
        """
        logged = [self._today.rows[n] for n in rows[start : start + BATCH]]
        assert release.code is not None
        together = mark_of(self._place.artifacts, release.code) == "independent"
        last: KedgeError = ModelFailure("no request has all its rows in the log", code=INCOMPLETE)
        if together:
            try:
                return transform.predict(logged_columns(release, logged))
            except (ModelFailure, BadRequest) as fault:
                last = fault
        single: list[Mapping[str, NDArray[Any]] | None] = []
        for n, row in enumerate(logged):
            try:
                single.append(
                    transform.predict(logged_columns(release, [row]))
                    if together
                    else self._as_sent(transform, release, int(rows[start + n]))
                )
            except (ModelFailure, BadRequest) as fault:
                if fault.code == "features_outage":
                    raise  # every row would fail alike
                spoilt[start + n] = np.nan if fault.code in UNREAD else np.inf
                single.append(None)
        known = next((one for one in single if one is not None), None)
        if known is None:
            if np.isnan(spoilt[start : start + len(logged)]).all():
                raise last
            raise ModelFailure(
                f"{transform.spec.schema.name} fails for every request of a batch",
                code="transform_raised",
            )
        parts = [
            one if one is not None else {k: _null(c) for k, c in known.items()} for one in single
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in known}

    def _as_sent(
        self, transform: Transform, release: Release, n: int
    ) -> Mapping[str, NDArray[Any]]:
        """Return the features of one row, made with the other rows of its request.

        Raises:
            ModelFailure: `request_incomplete`, or it fails.
        """
        if self._request_of is None:
            self._request_of = {n: part for part in self._requests() for n in part}
        part = self._request_of.get(n)
        if part is None:
            raise ModelFailure("some rows of its request were not logged", code=INCOMPLETE)
        # Rows of a request are adjacent, so that each request is computed once, not once a row.
        last = self._computed
        if last is None or last[0] is not transform or last[1] is not part:
            rows = [self._today.rows[m] for m in part]
            last = self._computed = (
                transform,
                part,
                transform.predict(logged_columns(release, rows)),
            )
        made, at = last[2], part.index(n)
        return {name: column[at : at + 1] for name, column in made.items()}

    def _fault(self, what: str, error: KedgeError) -> None:
        self.found.faults.append(f"{what}: {error}")


def changed(new: Release, old: Release) -> set[str]:
    """Return the parts that differ between two releases."""
    found = {"model"} if new.model_digest != old.model_digest else set()
    if (new.code, new.generation) != (old.code, old.generation):
        found.add("features")
    return found


def _null(column: NDArray[Any]) -> NDArray[Any]:
    """Return one row without a value, like the rows of a column."""
    if column.dtype == object:
        return np.array([None], dtype=object)
    return np.full((1, *column.shape[1:]), np.nan if column.dtype.kind == "f" else 0, column.dtype)
