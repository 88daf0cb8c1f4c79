"""Gateway worker: the parts of one process that answers callers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import structlog

from kedge.adapters.process import Allowance, ProcessModel
from kedge.adapters.records import RECORDS_DIR
from kedge.adapters.records.spool import Spool
from kedge.adapters.records.store import SPOOL
from kedge.config.locate import is_worker
from kedge.config.model import ANYONE, ServerSettings
from kedge.core.errors import KedgeError
from kedge.core.evidence.records import JoinRow
from kedge.core.stored.roster import Member
from kedge.core.values import Release, State
from kedge.engine.loop import Duty
from kedge.engine.pins import Apart
from kedge.engine.process_faults import ProcessFaults
from kedge.engine.recording.custom import set_fence
from kedge.engine.replica.follower import Replica
from kedge.engine.replica.writer import Recording
from kedge.engine.serving.copies import Copies
from kedge.engine.serving.last_asked import LastAsked, path_of
from kedge.engine.serving.pool import Pool
from kedge.engine.serving.serving import Serving
from kedge.gateway.auth import CALLERS, SECRET, Tokens
from kedge.gateway.contract import Contract
from kedge.gateway.http.app import Gateway
from kedge.gateway.http.connections import Connections, http_limits, raise_open_files
from kedge.gateway.http.infer import WorkerBounds
from kedge.gateway.http.peers import Peers
from kedge.gateway.traces import RequestTraces
from kedge.gateway.worker import Handoff, serve
from kedge.operations.registration import Loaders
from kedge.ports import Roster
from kedge.runtime.logs import count_faults
from kedge.runtime.presence import station_of
from kedge.runtime.state_guard import guard_state
from kedge.runtime.traces import open_sink
from kedge.system.interpreter import forbid
from kedge.system.reserve import is_short
from kedge.workspace import Workplace, new_member

log = structlog.get_logger("kedge.worker")


def run_worker(
    server: ServerSettings, *, slot: str, fd: int, run_dir: Path, state_dir: Path
) -> None:
    """Run one gateway worker; return after a signal to stop."""
    raise_open_files()
    set_fence(state_dir, server.fence)
    forbid("pandas")  # scikit-learn's imputers import it where it is installed
    listener = socket.socket(fileno=fd)
    place = Workplace(state_dir, patience_s=0.2)
    host, port = listener.getsockname()[:2]
    member = new_member("gateway", slot, place.clock.now(), address=f"{host}:{port}")
    serving = Serving(place.clock.monotonic, LastAsked(path_of(run_dir, slot)), Copies())
    signal_ = place.ledger_signal()
    faults = ProcessFaults(place.clock, signal_.wake)
    count_faults(faults.passed)
    duty = Duty(place.clock, faults)
    spool = Spool(state_dir / RECORDS_DIR / SPOOL, member.name.replace("/", "."))

    def spooled(rows: Sequence[JoinRow]) -> int:
        spool.roll(place.clock.unix())
        if rows and is_short(state_dir):
            faults.limit("disk_reserve", len(rows))
            return len(rows)
        return spool.append(rows)

    links = Links(Allowance())
    pool = new_pool(place, duty, links, run_dir, signal_.wake)
    replica = Replica(
        station_of(place, duty, member, signal_),
        slot=slot,
        pool=pool,
        serving=serving,
        contract=contract_of,
        lease_s=server.lease_s,
        recording=Recording(
            duty,
            member.name,
            windows=place.windows,
            evidence=place.evidence,
            spool=spooled,
            lives=serving.lives,
        ),
    )
    bounds, sink = bounds_of(server, state_dir), None
    if server.traces:
        sink = open_sink(server.traces, "kedge-gateway", faults.limit)
        bounds.traces = RequestTraces(sink, server.trace_sample / 100, faults.limit)
    guard_state(duty, state_dir)
    connections = Connections(http_limits(bounds.body), peers=bounds.peers, limit=faults.limit)
    gateway = Gateway(serving, bounds, ready=lambda: bool(serving.lives()), limit=faults.limit)
    try:
        serve(
            gateway,
            connections,
            replica,
            listener,
            drain_s=server.drain_s,
            handoff=Handoff(listener, run_dir / f"{slot}.handoff", faults),
            on_loop=links.bind,
            served=lambda: served_beside(place.roster, member),
        )
    finally:
        pool.close()
        if sink is not None:
            sink.close()


def new_pool(
    place: Workplace, duty: Duty, links: Links, run_dir: Path, changed: Callable[[], None]
) -> Pool:
    """Build the pool of one worker; it calls `changed` when a release is ready."""
    return Pool(
        duty,
        loaders=Loaders(),
        artifacts=place.artifacts,
        connect=links.connect,
        run_dir=run_dir,
        changed=changed,
        apart=place.disk.apart,
        set_apart=partial(set_apart, place),
    )


def bounds_of(server: ServerSettings, state_dir: Path) -> WorkerBounds:
    """Build one worker's bounds for its callers, with its trusted peers and tokens."""
    anyone = server.entity_from == ANYONE
    testers = [state_dir / SECRET]
    testers += [Path(server.tester_token_file)] if server.tester_token_file else []
    callers = server.caller_token_file
    return WorkerBounds(
        body=int(server.max_body_mb * 2**20),
        requests=server.max_in_flight,
        testers=Tokens(*testers),
        callers=Tokens(*testers, Path(callers), setting=CALLERS) if callers else None,
        peers=Peers(server.trusted_peers, None if anyone else tuple(server.entity_from)),
    )


def served_beside(roster: Roster, own: Member) -> set[str]:
    """Return the endpoints that the other living workers of this host serve."""
    try:
        members = roster.members()
    except KedgeError:
        return set()
    return {
        endpoint
        for member in members
        if (member.kind, member.host) == ("gateway", own.host)
        and member.pid != own.pid
        and is_worker(member.pid)
        for endpoint in (*member.epochs, *member.pinned)
    }


def set_apart(place: Workplace, release: Release, why: str) -> None:
    """Make a release that is not proven plain run in a process on this host."""
    log.warning("replica.not_plain", endpoint=release.endpoint, release=release.label, why=why)
    place.disk.set_apart(
        Apart(
            endpoint=release.endpoint,
            release=release.number,
            code="not_plain",
            why=why,
            at=place.clock.now(),
        )
    )


class Links:
    """Connections to model processes: the replica's thread makes them for the serving loop."""

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance
        self._loop: asyncio.AbstractEventLoop | None = None

    def bind(self) -> None:
        """Store the running loop."""
        self._loop = asyncio.get_running_loop()

    def connect(self, path: Path, release: Release, in_flight: int) -> ProcessModel:
        """Connect to a model process; the connection belongs to the serving loop."""
        assert self._loop is not None
        return ProcessModel(
            path,
            release.signature,
            loop=self._loop,
            in_flight=in_flight,
            allowance=self._allowance,
        )


def contract_of(state: State) -> Contract:
    """Compile an endpoint's contract."""
    return Contract(state.fields, rows=state.policy.limits.rows, entity=state.policy.entity)
