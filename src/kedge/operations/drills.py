"""Drills and speed (`kedge drill`, `kedge speed`): practise a rollback; measure the real ones."""

from __future__ import annotations

import threading

import msgspec

from kedge.core.errors import Refused, Unavailable
from kedge.core.names import get_known
from kedge.core.release.commands import Drill, Return
from kedge.core.release.machine import decide
from kedge.core.release.needs import within_window
from kedge.core.routing import compile_plan
from kedge.core.speed import SLO_S, LedgerLine, Speed, speed
from kedge.core.stored.ledger import Entry, Note
from kedge.core.stored.notes import DrillResult, ReceiptParts, build_note
from kedge.core.time.durations import seconds
from kedge.core.time.instants import read_instant
from kedge.core.values import Refusal, State
from kedge.engine.control.drills import LONGEST_S
from kedge.engine.control.lead import is_led
from kedge.engine.submission import SILENT_S, Control, Say, Silent, replicas
from kedge.operations.probe import ask_release, probe
from kedge.operations.progress import Progress
from kedge.workspace import Workplace, actor

LEAST_S = 1.0
USUAL_S = 10.0
"""Usual bound of a drill: callers get the previous release for a few seconds, enough to see it."""
LOADS = 4
"""Loads that the bound allows: half is for preparing, and a busy machine doubles the load time."""
RESERVE_S = 2.0
"""Time before the bound at which the drill returns: a write may take this long under load."""
LOOK_S = 0.2
"""Interval of checks that the drill still runs: an operator may roll back meanwhile."""
TOLD_S = 1.5
"""Time within which workers have reported their counts: they report once a second."""
OPEN_ALERTS = 200
READ = 20_000
"""Limit of entries of one endpoint that `kedge speed` reads, newest first: years, some 20 MB."""


class DrillReport(DrillResult, frozen=True, kw_only=True):
    """The result of a drill, and where it is shown."""

    link: str = ""
    """Its page of the dashboard; empty without `[server] public_url`."""


def bound_of(text: str) -> float:
    """Return the bound of a drill in seconds.

    Raises:
        Refused: `bad_duration`: it is not a duration from 1 to 60 s.
    """
    try:
        found = seconds(text)
    except ValueError as error:
        raise Refused(
            str(error), code="bad_duration", hint="kedge drill ENDPOINT --for 10s"
        ) from error
    if not LEAST_S <= found <= LONGEST_S:
        raise Refused(
            f"a drill lasts {LEAST_S:g} to {LONGEST_S:g} s, and {text} is outside",
            code="bad_duration",
            hint="kedge drill ENDPOINT --for 10s",
        )
    return found


# ---------------------------------------------------------------- preconditions


def usual_bound(state: State, now: float) -> float:
    """Return the usual bound of a drill, in seconds.

    A way back that is no longer kept loaded is loaded first; half of the bound is for that.
    """
    back = state.releases.get(state.back) if state.back is not None else None
    cold = back is not None and not within_window(state, now)
    return min(USUAL_S + (LOADS * back.load_s if cold and back else 0.0), LONGEST_S)


def may_drill(place: Workplace, endpoint: str) -> State:
    """Return the row if a drill can begin on it.

    Raises:
        Refused: a rule refuses it; a page is open; a host is pinned; or no process would end the
            drill if this process died.
    """
    state = get_known(place.ledger.read().states, endpoint)
    said = decide(state, Drill(until=0.0), place.clock.now())
    if isinstance(said, Refusal):
        raise Refused(said.message, code=said.code, hint=said.hint)
    page = next(
        (
            a
            for a in place.alerts.listed(endpoint, over=False, limit=OPEN_ALERTS)
            if a.level == "page"
        ),
        None,
    )
    if page is not None:
        raise Refused(
            f"a page is open on {endpoint}: #{page.number} {page.summary}",
            code="page_open",
            hint=f"kedge alerts {endpoint} shows it; practise when it is over",
        )
    if not is_led(place.state_dir):
        raise Refused(
            f"no patrol runs on {place.state_dir}: if this process died, the endpoint would stay on"
            " the release of the drill",
            code="no_patrol",
            hint="kedge up runs one, and so does kedge control",
        )
    pinned = [m.name for m in place.roster.members() if endpoint in m.pinned]
    if pinned:
        raise Refused(
            f"{', '.join(pinned)} is pinned by hand and would not follow",
            code="host_pinned",
            hint="kedge unpin ends the pin",
        )
    return state


def _deaf(place: Workplace) -> str:
    """Return which replicas would not acknowledge a rollback now; empty if all would."""
    serving = replicas(place.roster.members())
    silent = [m.name for m in serving if place.clock.unix() - m.beat_at > SILENT_S]
    if not serving:
        return "no replica is known"
    return f"silent: {', '.join(silent)}" if silent else ""


# ---------------------------------------------------------------- the drill


def drill_of(
    place: Workplace, endpoint: str, *, for_s: float | None, ended: threading.Event, say: Say
) -> DrillReport:
    """Roll back for a short time under the current traffic, then restore.

    Args:
        place: the state directory.
        endpoint: its name.
        for_s: the bound of the whole drill, in seconds. None: the usual bound.
        ended: an event that is set to return at once.
        say: called with progress messages.

    Raises:
        Refused: it cannot begin; nothing was changed.
        Unavailable: the ledger was lost; the patrol returns when it is available again.
    """
    state = may_drill(place, endpoint)
    for_s = for_s or usual_bound(state, place.clock.unix())
    began, until = place.clock.monotonic(), place.clock.unix() + for_s
    assert state.back is not None
    assert state.production is not None
    plain = DrillResult(
        ok=False, total_s=0.0, release=state.back, left=state.production, for_s=for_s
    )
    control = place.control(say, probe(place), prepare_s=for_s / 2)
    if why := _deaf(place):
        return _file(place, endpoint, msgspec.structs.replace(plain, why=why))
    before = _counted(place, state)
    try:
        back, why = _submitted(control, endpoint, Drill(until=until), expect=state.epoch)
    except Refused as error:
        if error.code == "not_prepared":
            _file(place, endpoint, msgspec.structs.replace(plain, why=str(error)))
        raise
    flipped = place.clock.monotonic()
    say(
        f"r{state.back} answers, and r{state.production} is restored after the drill: Ctrl-C"
        " restores it at once"
    )
    try:
        if not why:
            deadline = began + for_s - min(RESERVE_S, for_s / 4)
            _hold(place, endpoint, until, deadline, ended, say)
    finally:
        forward, because = _return(place, control, endpoint, until, began + for_s)
    lasted = place.clock.monotonic() - flipped
    why = why or because or _slow(back)
    after = _counted(place, state, beyond=before)
    return _file(
        place,
        endpoint,
        msgspec.structs.replace(
            plain,
            ok=not why,
            why=why or _unseen(back, forward),
            total_s=back.total_ms / 1e3,
            lasted_s=round(lasted, 3),
            back=back,
            forward=forward,
            answered=after[0] - before[0],
            failed=after[1] - before[1],
        ),
    )


def _submitted(
    control: Control, endpoint: str, command: Drill | Return, *, expect: int | None = None
) -> tuple[ReceiptParts, str]:
    """Return the receipt's parts, and the replica that did not acknowledge; empty if all did."""
    try:
        receipt = control.submit(endpoint, command, by=actor(), reason="a drill", expect=expect)
    except Silent as error:
        return error.receipt.parts(), str(error)
    return receipt.parts(), ""


def _hold(
    place: Workplace,
    endpoint: str,
    until: float,
    deadline: float,
    ended: threading.Event,
    say: Say,
) -> None:
    """Hold the way back in production until the time is over or an operator ends the drill."""
    clock = place.clock.monotonic
    began, shown = clock(), 0
    work = Progress(say, clock, "s of the drill", round(deadline - began))
    while (left := deadline - clock()) > 0 and not ended.wait(min(LOOK_S, left)):
        whole = int(clock() - began)
        work.add(whole - shown)
        shown = whole
        try:
            drill = place.ledger.read().states[endpoint].drill
        except Unavailable:
            continue  # the return will report it
        if drill is None or drill.until != until:
            return


def _return(
    place: Workplace, control: Control, endpoint: str, until: float, deadline: float
) -> tuple[ReceiptParts | None, str]:
    """Return the parts of the return's receipt, and why it failed.

    Raises:
        Unavailable: the ledger could not be reached before the bound.
    """
    while True:
        try:
            return _submitted(control, endpoint, Return(until=until))
        except Unavailable:
            if place.clock.monotonic() >= deadline:
                raise
            place.clock.sleep(LOOK_S)
        except Refused as error:
            return None, f"another process ended it: {error}"


def _slow(back: ReceiptParts) -> str:
    took = back.total_ms / 1e3
    return f"going back took {took:.0f} s, more than {SLO_S:g}" if took > SLO_S else ""


def _unseen(*flips: ReceiptParts | None) -> str:
    """Return what a successful drill could not show."""
    blind = [flip for flip in flips if flip is not None and flip.first_old_answer_ms is None]
    return "no answer was seen after a flip: there was no traffic" if blind else ""


def _counted(
    place: Workplace, state: State, *, beyond: tuple[int, int] | None = None
) -> tuple[int, int]:
    """Return the total answers and failures of the way back as production.

    With `beyond` wait until every worker had time to report newer counts.
    """
    if beyond is not None:
        place.clock.sleep(TOLD_S)
    mine = [
        tally.counts
        for tally in place.evidence.tallies(state.endpoint)
        if (tally.production, tally.candidate, tally.salt) == (state.back, None, state.salt)
    ]
    answered = sum(counts.get("requests.production", 0) for counts in mine)
    failed = sum(n for counts in mine for name, n in counts.items() if name.startswith("errors."))
    return answered, failed


def _file(place: Workplace, endpoint: str, filed: DrillResult) -> DrillReport:
    entry = place.ledger.note(
        endpoint,
        build_note(filed),
        by=actor(),
        reason=filed.why,
        at=place.clock.now(),
    )
    link = place.site.links.decision(endpoint, entry.seq)
    return DrillReport(**msgspec.structs.asdict(filed), link=link)


def rehearse(place: Workplace, endpoint: str, *, for_s: float | None, say: Say) -> DrillReport:
    """Run a drill without its flip: decide, prepare, compile the routing, ask the release.

    Raises:
        Refused: it cannot begin, or a replica could not prepare.
    """
    state = may_drill(place, endpoint)
    for_s = for_s or usual_bound(state, place.clock.unix())
    assert state.back is not None
    assert state.production is not None
    plain = DrillResult(
        ok=False, total_s=0.0, release=state.back, left=state.production, dry=True, for_s=for_s
    )
    if why := _deaf(place):
        return _file(place, endpoint, msgspec.structs.replace(plain, why=why))
    began = place.clock.monotonic()
    control = place.control(say, None, prepare_s=for_s)
    try:
        receipt = control.rehearse(endpoint, Drill(until=place.clock.unix() + for_s), by=actor())
    except Refused as error:
        if error.code == "not_prepared":
            _file(place, endpoint, msgspec.structs.replace(plain, why=str(error)))
        raise
    planned = compile_plan(receipt.state).outside.release
    answers = ask_release(place, endpoint, planned)
    took = round((place.clock.monotonic() - began) * 1e3, 3)
    parts = msgspec.structs.replace(
        receipt.parts(), first_old_answer_ms=took if answers else None, total_ms=took
    )
    return _file(
        place,
        endpoint,
        msgspec.structs.replace(
            plain,
            ok=True,
            why="" if answers else f"r{planned} is loaded; no answer of it was seen",
            total_s=parts.total_ms / 1e3,
            back=parts,
        ),
    )


# ---------------------------------------------------------------- speed


def speed_of(place: Workplace, endpoint: str | None) -> list[Speed]:
    """Return the speed-to-rollback of one endpoint, or of all.

    Raises:
        Refused: the endpoint is not found.
    """
    states = place.ledger.read().states
    if endpoint is not None:
        get_known(states, endpoint)
    found = []
    for name in sorted(states) if endpoint is None else (endpoint,):
        entries = place.ledger.history(name, READ)
        cut = len(entries) if len(entries) == READ else None
        found.append(speed(name, map(line_of, reversed(entries)), place.clock.unix(), cut))
    return found


def line_of(entry: Entry) -> LedgerLine:
    """Return an entry of the ledger as the core reads it."""
    at = read_instant(entry.at)
    if isinstance(entry.event, Note):
        return LedgerLine(entry.seq, at, entry.by, note=entry.event.body, actor=entry.actor)
    return LedgerLine(entry.seq, at, entry.by, event=entry.event, actor=entry.actor)
