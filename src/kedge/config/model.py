"""The settings of kedge.toml as values."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from kedge.core.errors import BadConfig
from kedge.core.evidence.records import KEEP_GB
from kedge.core.features.generations import URL_VARIABLE, LookupRules, Online, Rule
from kedge.core.features.schema import FeatureLimits
from kedge.core.time.durations import seconds
from kedge.core.values import Policy, Value
from kedge.system.machine import read_machine

CONFIG_NAME = "kedge.toml"
STATE_DIR = ".kedge"
ANYONE = "anyone"
"""`entity_from` without a restriction."""


ONLINE_DIR = "online"
"""Within the state directory: what is looked up by key."""


class ServerSettings(Value, frozen=True):
    """This machine's own settings."""

    host: str = "127.0.0.1"
    port: int = 8080
    control_port: int = 8081
    workers: int = msgspec.field(default_factory=lambda: read_machine().workers)
    """Gateway processes: as many as there are processors for this process, 2 to 8."""
    state_dir: str = STATE_DIR
    max_body_mb: float = 8.0
    """Largest request body. Eight megabytes hold 100,000 rows of 20 floats as JSON."""
    max_in_flight: int = 256
    """Requests under way in one worker before it answers "busy": at 1 ms each, a quarter second."""
    lease_s: float = 30.0
    """How long a gateway that cannot hear from the ledger gives a candidate its share."""
    fence: Literal["require", "warn"] = "warn"
    """What becomes of a model where the kernel lacks a part of the fence around its process."""
    drain_s: float = 1.0
    """How long a stopping worker goes on answering on open connections; what it accepted is answered after that."""
    trusted_peers: tuple[str, ...] = ()
    """Proxies of ours, as addresses or CIDR ranges: what they forward for counts as the caller."""
    entity_from: str | tuple[str, ...] = "anyone"
    """Which addresses may send `kedge-entity`; a list of addresses or CIDR ranges restricts it."""
    records_gb: float = KEEP_GB
    """Most gigabytes of predictions that wait for their labels: thirty days of fifty a second."""
    tester_token_file: str | None = None
    """Tokens of testers, one a line, beside kedge.toml unless absolute; its mode must be 0600."""

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(bare_host(host)).is_loopback
    except ValueError:
        return False


def bare_host(host: str) -> str:
    """Return a host without the brackets that an IPv6 address has in a URL."""
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


class OnlineSettings(Value, frozen=True):
    """Where values that were computed ahead are looked up by key; this machine's own."""

    store: Literal["sqlite", "lmdb", "redis"] = "sqlite"
    path: str | None = None
    """Of SQLite's file or LMDB's directory. None: within the state directory."""
    url: str | None = None
    """Of Redis or Valkey. None: the environment variable KEDGE_ONLINE_URL."""
    missing: Rule = "default"
    """A key that has no value. The default goes on answering, and is counted."""
    expired: Rule = "default"
    outage: Rule = "default"

    def opened(
        self, root: Path, state_dir: Path, environ: Mapping[str, str] = os.environ
    ) -> Online:
        """As processes are told: with an absolute place, relative to where kedge.toml is.

        A URL of the environment is not among it.

        Raises:
            BadConfig: Redis without a URL.
        """
        if self.store == "redis" and not self.url and not environ.get(URL_VARIABLE):
            raise BadConfig(
                ["online.url: redis needs one"],
                hint=f'url = "redis://HOST:6379", or the environment variable {URL_VARIABLE}',
            )
        inside = {"sqlite": "online.db", "lmdb": "lmdb"}.get(self.store, "")
        path = state_dir / ONLINE_DIR / inside if self.path is None else root / self.path
        where = (self.url or "") if self.store == "redis" else str(path.absolute())
        return Online(self.store, where, LookupRules(self.missing, self.expired, self.outage))


class Features(Value, frozen=True):
    """Bounds of the process in which features files run; this machine's own."""

    timeout: str = "60s"
    """For loading the file, and for each call: a slice of a view, or 50,000 rows of a training set."""
    memory_mb: int = 4096

    @property
    def limits(self) -> FeatureLimits:
        """As the process is told."""
        return FeatureLimits(seconds(self.timeout), self.memory_mb)


class Alerts(Value, frozen=True):
    """How this house sends mail, and how long it waits for a channel."""

    smtp: str | None = None
    """smtp://USER:PASSWORD@HOST:PORT, or smtps://. The variable KEDGE_SMTP_URL goes before it."""
    sender: str = "kedge@localhost"
    timeout: str = "10s"
    """For one attempt as a whole: a busy mail server takes seconds, and the next level waits."""


class Settings(Value, frozen=True):
    """Everything that kedge.toml says."""

    server: ServerSettings = ServerSettings()
    online: OnlineSettings = OnlineSettings()
    features: Features = Features()
    alerts: Alerts = Alerts()
    endpoints: dict[str, Policy] = {}
