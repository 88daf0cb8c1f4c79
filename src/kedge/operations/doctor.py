"""Doctor: the checks of `kedge doctor`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from kedge.adapters.process import missing, reach_of
from kedge.adapters.sql.sqlite.create import sqlite_version_fault
from kedge.config.load import load
from kedge.config.locate import find_deletion, find_fault
from kedge.config.model import Settings
from kedge.core.errors import CorruptArtifact, KedgeError, Refused, Unavailable
from kedge.core.stored.head import Head, read_head
from kedge.core.stored.notes import LedgerAccepted, build_note
from kedge.core.values import State, Value
from kedge.engine import supervisor_lock
from kedge.engine.libraries import find_differences, find_missing
from kedge.engine.pins import read_pins
from kedge.engine.submission import SILENT_S
from kedge.engine.supervisor_lock import is_same
from kedge.operations.preflight import count_open_files, find_obstacles
from kedge.operations.registration import check_loaders
from kedge.operations.status.read import status_without_estimates
from kedge.system.files import find_open
from kedge.system.machine import read_machine
from kedge.workspace import Workplace, actor

ALERTS = 1_000
"""Limit of alerts whose heads are compared, the newest first."""


class DoctorFinding(Value, frozen=True):
    """A check of `kedge doctor` and its result."""

    check: str
    ok: bool
    detail: str
    """The fault and its fix; without a fault, the state that was found."""


class DoctorReport(Value, frozen=True):
    """All findings of `kedge doctor`."""

    ok: bool
    """Whether no finding has a fault."""
    findings: tuple[DoctorFinding, ...]


def examine(
    state_dir: Path, config: Path, heads: Sequence[Head] = (), accept: str | None = None
) -> list[DoctorFinding]:
    """Return all findings of `kedge doctor`.

    Args:
        state_dir: the state directory.
        config: its kedge.toml.
        heads: heads of the ledger's chain, such as those in alerts.
        accept: why a history without these heads is accepted from now on; None: it is not.
    """
    findings: list[DoctorFinding] = []

    def found(check: str, fault: str | None, fine: str = "as it should be") -> None:
        findings.append(DoctorFinding(check, not fault, fault or fine))

    found("sqlite", sqlite_version_fault())
    settings = Settings()
    try:
        settings = load(config)
        found("configuration", None, f"{len(settings.endpoints)} endpoints")
    except KedgeError as error:
        found("configuration", str(error))
    installed, missing = check_loaders()
    found(
        "loaders",
        None if installed else "none is installed",
        ", ".join([*installed, *(f"without {name}" for name in missing)]),
    )
    _look_at_fence(config, found)
    unfit = find_fault(config, state_dir)
    absent = unfit or find_deletion(state_dir)
    found("state directory", f"{absent}; {absent.hint}" if absent else None, str(state_dir))
    if unfit is not None:
        return findings
    _look_at_limits(settings, found)
    wider = find_open(state_dir)
    found(
        "permissions",
        (
            f"{len(wider)} files and directories are open to other users, such as {wider[0]}; "
            f"fix: chmod -R go= {state_dir}"
            if wider
            else None
        ),
        "for this user alone",
    )
    obstacles = find_obstacles(state_dir)
    found("directories", "; ".join(one.told() for one in obstacles) or None, "can be written")
    found("open files", *_open_files(state_dir, settings))
    place = Workplace(state_dir)
    states = _look_at_ledger(place, heads, accept, found)
    for digest in sorted({r.model_digest for s in states.values() for r in s.releases.values()}):
        try:
            place.artifacts.verify(digest)
            found(f"artifact {digest[:19]}", None, "every byte as registered")
        except CorruptArtifact as error:
            found(f"artifact {digest[:19]}", str(error))
    look_at_libraries(place, states, missing, found)
    for name in states:
        for fault in _endpoint_faults(place, name):
            found(f"endpoint {name}", fault)
    pins, unpinned = read_pins(place.disk)
    for endpoint, pin in pins.items():
        found(f"pin {endpoint}", f"pinned to r{pin.state.production} since {pin.at}")
    if unpinned:
        found("pins", unpinned)
    return findings


def look_at_libraries(
    place: Workplace,
    states: Mapping[str, State],
    unloaded: Mapping[str, str],
    found: Callable[..., None],
) -> None:
    """Check the loaders and libraries of the live releases in this environment."""
    for name, state in states.items():
        live = (state.production, state.candidate, state.back)
        for number in sorted({number for number in live if number in state.releases}):
            release = state.releases[number]
            lacking = [
                *filter(None, [unloaded.get(release.flavour)]),
                *find_missing(
                    place.artifacts,
                    release.model_digest,
                    flavour=release.flavour,
                    trusted=release.trusted,
                ),
            ]
            others = find_differences(place.artifacts, release.model_digest)
            remedy = "pip install what is missing, then kedge restart"
            found(
                f"libraries of {name} {release.label}",
                f"{'; '.join(lacking)}; {remedy}" if lacking else None,
                "; ".join(others) or "installed",
            )


def _look_at_limits(settings: Settings, found: Callable[..., None]) -> None:
    """Check the limits of this machine, and how they are divided."""
    machine, workers = read_machine(), settings.server.workers
    found(
        "limits",
        None,
        f"{machine.processors:g} processors ({machine.processors_by}), {machine.memory >> 20} MB"
        f" ({machine.memory_by}): {workers} workers of at most"
        f" {machine.for_worker(0, workers) >> 20} MB and the memory_mb of what runs inline, one"
        f" thread a model, models of at most {machine.for_model(1 << 20) >> 20} MB",
    )


def _look_at_ledger(
    place: Workplace, heads: Sequence[Head], accept: str | None, found: Callable[..., None]
) -> Mapping[str, State]:
    """Check the history and the heads that others saw; return the rows, if need be the host's."""
    try:
        faults = place.ledger.verify()
        found(
            "ledger chain", "; ".join(faults) or None, "every entry follows from the one before it"
        )
        lost = missing_heads(place, heads)
        if lost and accept is not None:
            accept_history(place, [head for head, *_ in lost], accept)
            lost = missing_heads(place, heads)
        found(
            "ledger heads",
            "; ".join(f"{where} saw entry {head.short}, and {text}" for head, where, text in lost)
            or None,
            "the history has every entry that replicas and alerts saw as its newest",
        )
        return place.ledger.read().states
    except Unavailable as error:
        found("ledger", f"{error.code}: {error}")
        return place.disk.remembered()


def missing_heads(place: Workplace, given: Sequence[Head] = ()) -> list[tuple[Head, str, str]]:
    """Return the heads that the ledger's history is missing: who saw each, and its replacement.

    The heads come from live replicas, files of this host, alerts, and the caller.
    """
    seen: dict[Head, str] = {}
    with suppress(KedgeError):
        for member in place.roster.members():
            if member.head is not None:
                seen.setdefault(member.head, member.name)
    for name, head in place.disk.heads().items():
        seen.setdefault(head, f"replicas/{name}")
    for alert in place.alerts.listed(None, over=True, limit=ALERTS):
        if alert.head:
            seen.setdefault(read_head(alert.head), f"alert {alert.number}")
    for head in given:
        seen.setdefault(head, "--head")
    lacking = place.ledger.missing(seen)
    return [(head, seen[head], text) for head, text in lacking.items()]


def accept_history(place: Workplace, heads: Sequence[Head], reason: str) -> None:
    """Record in the ledger of every endpoint that these heads are lost; replicas then follow it."""
    body = LedgerAccepted(heads=tuple((head.seq, head.hash) for head in heads))
    for endpoint in place.ledger.read().states or ("",):
        place.ledger.note(
            endpoint,
            build_note(body),
            by=actor(),
            reason=reason,
            at=place.clock.now(),
        )


def _open_files(state_dir: Path, settings: Settings) -> tuple[str | None, str]:
    """Return what the limit of open files costs, and the supervisor's or this shell's limit."""
    record = supervisor_lock.read(state_dir)
    pid = record.pid if record is not None and is_same(record) else 0
    needs = count_open_files(settings.server.max_in_flight, len(settings.endpoints), pid)
    whose = f"of process {pid}" if pid else "of this shell; kedge up is not running"
    return needs.fault(), f"at most {needs.limit} {whose}; a worker needs {needs.full}"


def _endpoint_faults(place: Workplace, name: str) -> list[str]:
    try:
        return [*status_without_estimates(place, name)[0].faults]
    except KedgeError as error:
        return [str(error)]


def _look_at_fence(config: Path, found: Callable[..., None]) -> None:
    """Check which parts of the fence are missing, and what else a model can reach."""
    try:
        settings = load(config)
        online = settings.online.opened(config.parent, config.parent / settings.server.state_dir)
    except KedgeError:
        return  # another finding reports the configuration's fault
    lacking = ", ".join(missing())
    required = settings.server.fence == "require"
    told = f"NOT FENCED: this machine is missing {lacking}"
    hint = 'a newer kernel, a container that allows it, or fence = "warn" in [server]'
    found(
        "fence",
        f"{told}; {hint}" if lacking and required else None,
        told if lacking else "every part is there",
    )
    found("fence exception", None, reach_of(online))


def forget_replica(place: Workplace, name: str) -> None:
    """Remove a replica from the roster by hand.

    Raises:
        Refused: it is not known, or it still reports.
    """
    member = next((m for m in place.roster.members() if m.name == name), None)
    if member is None:
        raise Refused(f"no replica {name}", code="unknown_replica", hint="kedge status lists them")
    if place.clock.unix() - member.beat_at < SILENT_S:
        raise Refused(f"{name} is still active", code="replica_alive", hint="stop it first")
    place.roster.leave(name)
