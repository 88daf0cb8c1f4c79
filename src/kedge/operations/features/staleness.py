"""Staleness of values computed ahead: how far a run lags, and the refusal of one that lags too far.

It imports no NumPy: a rollback asks here.
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
    """How far a run is; None when the store has nothing of it.

    Raises:
        Unavailable: the store cannot be read.
    """
    if run.namespace not in store.namespaces():
        return None
    return mark_of(store.read(run.namespace, [META])[0])


def view_of(place: Workplace, run: Run) -> View:
    """How the version of a run is declared."""
    versions = {v.number: v for v in place.features.versions(run.schema)}
    view = spec_of(place.artifacts.verify(versions[run.transformation].digest)).view
    assert view
    return view


def patience_of(view: View) -> float:
    """How far a run of a view may lag, in seconds."""
    return patience_s(seconds(view.every), seconds(view.ttl) if view.ttl else None)


def lag_of(place: Workplace, run: Run) -> tuple[float, float]:
    """How far a run is behind now, and how far it may be: seconds. Infinite: nothing of it is there.

    Raises:
        KedgeError: it cannot be looked at.
    """
    mark = mark_in(open_store(place.online), run)
    lag = place.clock.unix() - mark.watermark if mark is not None else inf
    return lag, patience_of(view_of(place, run))


def behind(run: Run, lag: float, patience: float) -> str:
    """How far it is, and may be, for people."""
    far = f"{ceil(lag / 60)} minutes behind" if lag < inf else "gone"
    return f"{run.label} is {far}, and may be {patience / 60:g}"


def refuse_stale(place: Workplace, runs: Sequence[Run], accept: str | None) -> None:
    """Refuse to go back to values that are too old to be read.

    A run that cannot be looked at says nothing: a rollback does not wait for a store.

    Raises:
        Refused: `stale_generation`: names each such run and its lag; `bad_duration`.
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
            continue  # an operator knows, and still wants the release
        if lag > max(patience, accepted_s):
            stale.append((lag, run, behind(run, lag, patience)))
    if stale:
        lag, run, _ = max(stale)
        # The age of values that are gone is unknown: any duration says that they are not missed.
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
