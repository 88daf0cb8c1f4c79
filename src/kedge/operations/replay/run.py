"""Run of a replay: the prediction log through another release, a week of shadow in minutes.

The release is loaded in its own process and asked production's requests. Its answers are folded
and judged like a shadow's. Nothing is written, and no gateway is involved.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import msgspec

from kedge.core.automation import decide
from kedge.core.errors import KedgeError, Refused, Unavailable
from kedge.core.evidence.answers import get_target
from kedge.core.evidence.records import JoinRow, Labelled
from kedge.core.evidence.rules import METHOD
from kedge.core.evidence.windows import (
    CANDIDATE,
    Agreement,
    BadUnit,
    Differing,
    DisagreeingPair,
    FirstAsk,
    Window,
)
from kedge.core.routing import key_of, unit_of
from kedge.core.time.instants import read_when
from kedge.core.values import Release, Stage, State
from kedge.engine.recording.agreement import RowAnswer, bin_of, said
from kedge.engine.recording.custom import START_S, set_fence
from kedge.engine.recording.own_loss import own_loss
from kedge.engine.submission import Say
from kedge.engine.watch import Watch
from kedge.operations.evidence.read import state_of
from kedge.operations.evidence.view import ComparisonView, describe
from kedge.operations.progress import Progress
from kedge.operations.releases import release_of
from kedge.operations.replay.model import BATCH, INCOMPLETE, answered, batches, loaded, merges
from kedge.workspace import Workplace

if TYPE_CHECKING:
    from kedge.typing import Columns

LABELS = 20_000


class ReplayedComparison(ComparisonView, frozen=True, kw_only=True):
    """The comparison of a replayed release with the log. Pairs are as in ComparisonView."""

    replayed: int
    """Predictions that were asked again and answered."""
    incomplete: int
    """Predictions left out because the log lacks rows of their request."""


def replay_of(
    place: Workplace, endpoint: str, text: str, since: str, *, say: Say
) -> ReplayedComparison:
    """Ask a release the logged requests, and judge its answers against the logged ones.

    Values by key are those of today.

    Args:
        place: the state directory.
        endpoint: its name.
        text: the release, as v2 or r2.
        since: the start: a duration back such as 7d, a date or a time.
        say: called at intervals with the progress.

    Returns:
        The evidence of a shadow, as in `kedge evidence`, and the number of asked rows.

    Raises:
        Refused: the endpoint or release is not found, there is no production, or the log is empty.
        Unavailable: the model did not start.
    """
    now = place.clock.unix()
    begin = read_when(since, now)
    state = state_of(place, endpoint)
    release = release_of(place, endpoint, text)
    if state.production is None:
        raise Refused(
            f"{endpoint} has nothing in production to compare with", code="nothing_in_production"
        )
    asked = msgspec.structs.replace(
        state, stage=Stage.SHADOW, candidate=release.number, weight=0, sample=10_000, salt="replay"
    )
    total = place.records.counted(endpoint, begin, now)
    work = Progress(say, place.clock.monotonic, "logged predictions", total)
    logged = (
        row
        for row in _reported(place.records.rows(endpoint, begin, now), work)
        if row.inputs and row.production == state.production and row.arm == "production"
    )
    watch = Watch(asked)
    answers: dict[str, RowAnswer] = {}
    incomplete = asyncio.run(_ask(place, asked, release, logged, watch, answers))
    if incomplete and not answers:
        raise Refused(
            f"none of the {incomplete:,} predictions logged (--since {since}) is of a request that"
            " was logged whole",
            code="nothing_logged",
            hint=(
                f"answers of {release.label} depend on the rows of a request: set log.sample of"
                f" {endpoint} to 100"
            ),
        )
    if not answers and not watch.totals:
        raise Refused(
            f"no prediction of r{state.production} is logged (--since {since})",
            code="nothing_logged",
            hint=(
                f"log.sample of {endpoint} is {state.policy.log.sample:g} %; kedge up writes"
                " the log"
            ),
        )
    _fold_labels(place, asked, watch, answers, now)
    watch.end()
    facts = watch.facts(now)
    return ReplayedComparison(
        **msgspec.structs.asdict(describe(asked, watch, decide(asked, facts), facts)),
        replayed=len(answers),
        incomplete=incomplete,
    )


async def _ask(
    place: Workplace,
    state: State,
    release: Release,
    logged: Iterable[JoinRow],
    watch: Watch,
    answers: dict[str, RowAnswer],
) -> int:
    """Ask and fold; return the number of predictions that could not be asked as they were sent."""
    source = batches(logged, BATCH)
    batch = next(source, None)
    incomplete = 0
    if batch is None:
        return incomplete
    as_sent = not merges(place, release)
    async with loaded(place, state, release, place.online) as model:
        number = 0
        while batch is not None:
            theirs = await answered(model, release, batch, as_sent=as_sent)
            pairs = _complete(batch, theirs)
            incomplete += len(batch) - len(pairs)
            # The judge takes many failures in one second for one event, so each second gets its own
            # window.
            for _, second in groupby(pairs, key=lambda pair: int(pair[0].at)):
                number += 1
                watch.fold(_window(state, list(second), number, answers))
            batch = next(source, None)
    return incomplete


def _reported(rows: Iterable[JoinRow], work: Progress) -> Iterator[JoinRow]:
    """Yield rows, and report them; those that are not asked again count as done too."""
    for batch in batches(rows, BATCH):
        yield from batch
        work.add(len(batch))


def _complete(
    rows: Sequence[JoinRow], theirs: Sequence[tuple[Columns, int] | KedgeError]
) -> list[tuple[JoinRow, tuple[Columns, int] | KedgeError]]:
    """Drop rows that could not be asked as sent: they are no failure of the release."""
    return [
        (row, one)
        for row, one in zip(rows, theirs, strict=True)
        if not (isinstance(one, KedgeError) and one.code == INCOMPLETE)
    ]


def _window(
    state: State,
    pairs: Sequence[tuple[JoinRow, tuple[Columns, int] | KedgeError]],
    number: int,
    answers: dict[str, RowAnswer],
) -> Window:
    """Return one second of the log as a shadow's window. Every row is its own pair."""
    output, key = get_target(state), key_of(state.salt)
    exposed: dict[str, list[int]] = {}
    named: dict[str, list[int]] = {}
    bad: dict[str, list[int]] = {}
    units: dict[int, BadUnit] = {}
    first: dict[int, FirstAsk] = {}
    cells: dict[str, list[int]] = {}
    scores: dict[int, list[float]] = {}
    examples: list[DisagreeingPair] = []
    for row, answer in pairs:
        slices = ("", *row.segments)
        failed = isinstance(answer, KedgeError)
        unit, bucket = unit_of(key, row.unit) if row.unit else (None, -1)
        for name in slices:
            for into in (exposed, named) if row.unit else (exposed,):
                cell = into.setdefault(name, [0, 0])
                cell[0] += 1
                cell[1] += 1
            cells.setdefault(name, [0] * 7)[0] += 1
            if failed and unit is None:
                bad.setdefault(name, [0, 0])[1] += 1
        if unit is not None:
            first.setdefault(unit, FirstAsk(unit, bucket, 0, int(failed), row.segments))
        if isinstance(answer, KedgeError):
            if unit is not None:
                times = units[unit].times + 1 if unit in units else 1
                units[unit] = BadUnit(unit, 0, CANDIDATE, row.segments, bucket, times)
            for name in slices:
                cells[name][6] += 1
            continue
        new = answers[row.id] = said(output, *answer)
        yes = row.decision == "1" and output.kind == "binary"
        old = RowAnswer(row.score, row.decision, yes=yes)
        same = new.same(old, output)
        table = 2 + (0 if old.yes and new.yes else 1 if old.yes else 2 if new.yes else 3)
        for name in slices:
            cells[name][1] += same
            cells[name][table] += 1
        _compare_scores(scores, old, new, same=same)
        if not same and len(examples) < 3:
            examples.append(_example(row, old, new, output.name))
    return Window(
        replica="replay",
        number=number,
        endpoint=state.endpoint,
        production=state.production or 0,
        candidate=state.candidate or 0,
        salt=state.salt,
        at=int(pairs[-1][0].at),
        weight=0,
        paired=True,
        exposed={name: (a, b) for name, (a, b) in exposed.items()},
        named={name: (a, b) for name, (a, b) in named.items()},
        units=tuple(units.values()),
        first=tuple(first.values()),
        method=METHOD,
        bad={"errors": {name: (a, b) for name, (a, b) in bad.items()}},
        agreement={name: Agreement(*cell) for name, cell in cells.items()},
        scores={b: (int(n), int(w), d, a) for b, (n, w, d, a) in scores.items()},
        examples=tuple(examples),
        mirrored=len(pairs),
        copied=sum(not isinstance(a, KedgeError) for _, a in pairs),
    )


def _compare_scores(
    scores: dict[int, list[float]], old: RowAnswer, new: RowAnswer, *, same: bool
) -> None:
    """Count a pair in the bin of the old score: pairs, equal ones, differences, absolute ones."""
    if old.score is None or new.score is None:
        return
    apart = new.score - old.score
    bin_ = scores.setdefault(bin_of(old.score), [0, 0, 0.0, 0.0])
    for place, more in enumerate((1, same, apart, abs(apart))):
        bin_[place] += more


def _example(row: JoinRow, old: RowAnswer, new: RowAnswer, output: str | None) -> DisagreeingPair:
    """Return a pair that differs, in the form of `kedge evidence`."""
    texts = old.text(), new.text()
    differs = (Differing(output, *texts),) if output is not None else ()
    return DisagreeingPair(row.id, row.segments, *texts, differs)


def _fold_labels(
    place: Workplace, state: State, watch: Watch, answers: dict[str, RowAnswer], now: float
) -> None:
    """Judge by the known outcomes, as pairs of old and new answers."""
    cursor = 0
    while True:
        cursor, found = place.records.labels(state.endpoint, cursor, LABELS)
        if not found:
            return
        rows, own = list(_paired(state, found, answers)), None
        if watch.own is not None:
            set_fence(place.state_dir, place.fence)
            own, fault = own_loss(watch.own).measure(rows, START_S)
            if own is None:
                raise Unavailable(
                    f"{watch.own} gives no losses: {fault}",
                    code="metric_function",
                    hint="kedge apply checks the function of guardrails.quality.metric",
                )
        watch.fold_labels(rows, cursor, now, own)


def _paired(
    state: State, found: Iterable[Labelled], answers: dict[str, RowAnswer]
) -> Iterator[Labelled]:
    for one in found:
        new = answers.get(one.row.id)
        if new is not None:
            row = msgspec.structs.replace(
                one.row,
                candidate=state.candidate,
                production=state.production or 0,
                salt=state.salt,
                shadow_score=new.score,
                shadow_decision=new.decision,
                paired=True,
            )
            yield msgspec.structs.replace(one, row=row)
