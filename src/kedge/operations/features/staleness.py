"""Staleness of values computed ahead: a run's lag, and the refusal of a lag above the limit.

This module imports no NumPy, since a rollback uses it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, inf

from kedge.core.errors import KedgeError, Refused
from kedge.core.features.generations import META, Mark, Run, mark_of, patience_s
from kedge.core.features.schema import View
from kedge.core.time.durations import seconds
from kedge.ports import OnlineStore
from kedge.transforms.authoring import spec_of
from kedge.transforms.store import open_store
from kedge.workspace import Workplace


def mark_in(store: OnlineStore, run: Run) -> Mark | None:
    """Return the mark of a run; None if the store has no value of it.

    Raises:
        Unavailable: the store cannot be read.
    """
    if run.namespace not in store.namespaces():
        return None
    return mark_of(store.read(run.namespace, [META])[0])


def view_of(place: Workplace, run: Run) -> View:
    """Return the declaration of a run's version."""
    versions = {v.number: v for v in place.features.versions(run.schema)}
    view = spec_of(place.artifacts.verify(versions[run.transformation].digest)).view
    assert view
    return view


def patience_of(view: View) -> float:
    """Return the lag that a run of a view is allowed, in seconds."""
    return patience_s(seconds(view.every), seconds(view.ttl) if view.ttl else None)


def lag_of(place: Workplace, run: Run) -> tuple[float, float]:
    """Return a run's lag and its limit in seconds. Infinite: the store has no value of it.

    Raises:
        KedgeError: the lag cannot be determined.
    """
    mark = mark_in(open_store(place.online), run)
    lag = place.clock.unix() - mark.watermark if mark is not None else inf
    return lag, patience_of(view_of(place, run))


def behind(run: Run, lag: float, patience: float) -> str:
    """Return a run's lag and its limit in words."""
    far = f"{ceil(lag / 60)} min behind" if lag < inf else "gone"
    return f"{run.label} is {far} (limit {patience / 60:g} min)"


def refuse_stale(place: Workplace, runs: Sequence[Run], accept: str | None) -> None:
    """Refuse a return to values that are too old to be read.

    A run whose lag is unknown passes: a rollback does not wait for a store.

    Raises:
        Refused: `stale_generation`: names each stale run and its lag; `bad_duration`.
    """
    try:
        accepted_s = seconds(accept) if accept is not None else 0.0
    except ValueError as error:
        raise Refused(str(error), code="bad_duration") from None
    stale = []
    for run in runs:
        try:
            lag, patience = lag_of(place, run)
        except KedgeError:
            continue
        if lag == inf and accept is not None:
            continue  # an operator who knows still wants the release
        if lag > max(patience, accepted_s):
            stale.append((lag, run, behind(run, lag, patience)))
    if stale:
        lag, run, _ = max(stale)
        # The age of lost values is unknown: any duration accepts them as missing.
        minutes = ceil(lag / 60) + 1 if lag < inf else 1
        raise Refused(
            f"what it would read is stale: {'; '.join(told for *_, told in stale)}",
            code="stale_generation",
            details={"lag_s": None if lag == inf else lag},
            hint=(
                f"kedge features materialise {run.schema} brings it up to date; "
                f"--accept-stale {minutes}m goes back anyway"
            ),
        )
