"""Workspace: the adapters of a state directory, opened as they are needed.

Every command pays for what is imported here. `runtime` adds what serves (uvicorn, NumPy, the
loaders); `operations.registration` adds what registers a model. Loaders come by entry point, so
that this module names no vendor.
"""

from __future__ import annotations

import functools
import os
import pwd
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from kedge.adapters.artifacts.directory import DirectoryArtifacts
from kedge.adapters.clock import SystemClock
from kedge.adapters.records import RECORDS_DIR
from kedge.core.features.generations import Online
from kedge.core.features.schema import FeatureLimits
from kedge.core.links import PageLinks
from kedge.core.runbook import Site
from kedge.core.stored.ledger import Author
from kedge.core.stored.roster import Member
from kedge.core.values import ActorKind, State
from kedge.engine.pins import HostDisk
from kedge.engine.submission import PREPARE_S, Control, Gate, Hooks, Probe, Say
from kedge.system.files import list_aside

if TYPE_CHECKING:
    from kedge.adapters.records.store import Records
    from kedge.adapters.sql.alerts import SqlAlerts
    from kedge.adapters.sql.features import SqlFeatures
    from kedge.adapters.sql.generations import SqlGenerations
    from kedge.adapters.sql.registry import SqlRegistry
    from kedge.adapters.sql.sessions import SqlSessions
    from kedge.adapters.sql.sqlite.signal import DirectorySignal
    from kedge.adapters.sql.tokens import SqlTokens

DEFAULT_LIMITS = FeatureLimits()


def host_name() -> str:
    """Return this host's name, as the roster has it."""
    return socket.gethostname().split(".")[0]


def site_of(config: Path, links: PageLinks) -> Site:
    """Return this host with its kedge.toml and the addresses of its dashboard."""
    return Site(host_name(), str(config), links.public_url)


def new_member(kind: str, slot: str, started_at: str, *, address: str = "") -> Member:
    """Return this process's row of the roster, before its first heartbeat."""
    host = host_name()
    return Member(
        name=f"{host}/{slot}.{os.getpid()}",
        host=host,
        pid=os.getpid(),
        kind=kind,
        address=address,
        started_at=started_at,
        beat_at=0.0,
        ledger_at=0.0,
    )


def user_name() -> str:
    """Return the user of this process: from the environment, the system, or the user number."""
    name = os.environ.get("USER") or os.environ.get("LOGNAME")
    if name:
        return name
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container may run under a number without a name
        return f"uid{os.getuid()}"


def actor() -> str:
    """Return the actor of a command: KEDGE_ACTOR, else the user of this process on this host."""
    return os.environ.get("KEDGE_ACTOR") or f"{user_name()}@{host_name()}"


class Workplace:
    """A state directory and its adapters, opened as they are needed."""

    def __init__(
        self,
        state_dir: Path,
        *,
        patience_s: float = 5.0,
        actor: ActorKind = ActorKind.PERSON,
        token: str = "",
        limits: FeatureLimits = DEFAULT_LIMITS,
        fence: str = "warn",
        site: Site | None = None,
        online: Callable[[], Online] = Online,
    ) -> None:
        """Open the adapters that every command needs; the others open on first use.

        Args:
            state_dir: the state directory.
            patience_s: how long a write waits for another one.
            actor: the kind of actor that writes entries from here.
            token: what allowed the request that is carried out here; empty for a local command.
            limits: the limits of the process in which features files run.
            fence: `[server] fence`, for the model processes that are started from here.
            site: kedge.toml and the public URL, for runbooks and links. None: only this host.
            online: returns where values by key are looked up; called only when that is needed, since
                a damaged kedge.toml must not hinder a rollback.
        """
        # A command that runs on another host's control needs no database library.
        from kedge.adapters.sql.ledger import SqlLedger
        from kedge.adapters.sql.rolls import SqlRolls
        from kedge.adapters.sql.roster import SqlEvidence, SqlRoster
        from kedge.adapters.sql.sqlite.create import open_evidence, open_ledger, open_roster
        from kedge.adapters.sql.windows import SqlWindows

        self.state_dir = state_dir
        self.limits = limits
        self.fence = fence
        self.site = site if site is not None else Site(host_name())
        self._author = Author(actor, token)
        self._online = online
        self.clock = SystemClock()
        self.database = open_ledger(state_dir, patience_s=patience_s)
        self.ledger = SqlLedger(self.database, unix=self.clock.unix, author=self._author)
        self.roster = SqlRoster(open_roster(state_dir), self.clock)
        self.evidence = SqlEvidence(open_evidence(state_dir))
        self.windows = SqlWindows(open_evidence(state_dir))
        self.rolls = SqlRolls(open_evidence(state_dir))
        self.artifacts = DirectoryArtifacts(state_dir / "artifacts")
        self.disk = HostDisk(state_dir)

    @property
    def online(self) -> Online:
        """The store in which values are looked up by key, and the rules for missing values.

        Raises:
            BadConfig: kedge.toml is damaged or incomplete.
        """
        return self._online()

    @functools.cached_property
    def records(self) -> Records:
        """Return the prediction log. It imports NumPy, which a rollback does not need."""
        from kedge.adapters.records.store import Records

        return Records(self.state_dir / RECORDS_DIR)

    @property
    def registry(self) -> SqlRegistry:
        """The versions and releases."""
        from kedge.adapters.sql.registry import SqlRegistry

        return SqlRegistry(self.database)

    @property
    def features(self) -> SqlFeatures:
        """The schemas and transformations."""
        from kedge.adapters.sql.features import SqlFeatures

        return SqlFeatures(self.database)

    @property
    def alerts(self) -> SqlAlerts:
        """The alerts of all endpoints."""
        from kedge.adapters.sql.alerts import SqlAlerts

        return SqlAlerts(self.database, author=self._author)

    @property
    def tokens(self) -> SqlTokens:
        """The tokens of control."""
        from kedge.adapters.sql.tokens import SqlTokens

        return SqlTokens(self.database, author=self._author)

    @functools.cached_property
    def sessions(self) -> SqlSessions:
        """The sessions of browsers, and the last uses of tokens."""
        from kedge.adapters.sql.sessions import SqlSessions
        from kedge.adapters.sql.sqlite.create import open_access

        return SqlSessions(open_access(self.state_dir))

    @property
    def generations(self) -> SqlGenerations:
        """The runs of values that were computed ahead."""
        from kedge.adapters.sql.generations import SqlGenerations

        return SqlGenerations(self.database)

    def list_aside(self, state: State) -> list[str]:
        """Return the names under which an endpoint's (or all) unreadable state is stored."""
        from kedge.adapters.sql.sqlite.create import EVIDENCE_DIR, ROSTER_DIR

        files = [
            *list_aside(self.state_dir / EVIDENCE_DIR / "evidence.db"),
            *list_aside(self.state_dir / ROSTER_DIR / "roster.db"),
            *self.disk.list_aside(state.endpoint),
        ]
        comparison = f"{state.production}/{state.compared}/{state.salt}/{state.stage}"
        rows = [*self.roster.list_aside()]
        if state.compared is not None:
            rows += self.windows.list_aside(state.endpoint, comparison)
        return [*(str(f.relative_to(self.state_dir)) for f in files), *rows]

    def ledger_signal(self) -> DirectorySignal:
        """Return the signal of a change of the ledger or of a pin."""
        from kedge.adapters.sql.sqlite.signal import DirectorySignal

        return DirectorySignal(self.state_dir / "ledger", self.disk.pins_dir)

    def control(
        self,
        say: Say,
        probe: Probe | None,
        gate: Gate | None = None,
        *,
        prepare_s: float = PREPARE_S,
    ) -> Control:
        """Return a control that submits an operator's commands; promotions pass the gate.

        `prepare_s` is the time limit for loads of a forward move.
        """
        from kedge.adapters.sql.sqlite.signal import DirectorySignal

        return Control(
            ledger=self.ledger,
            roster=self.roster,
            signal=DirectorySignal(self.state_dir / "roster"),
            clock=self.clock,
            say=say,
            hooks=Hooks(probe, gate),
            prepare_s=prepare_s,
            site=self.site,
        )
