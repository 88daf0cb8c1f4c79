"""Model of kedge.toml: its settings as values."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from kedge.core.access import Group
from kedge.core.errors import BadConfig
from kedge.core.evidence.records import KEEP_GB
from kedge.core.features.generations import URL_VARIABLE, LookupRules, Online, Rule
from kedge.core.features.schema import FeatureLimits
from kedge.core.hosts import bare_host, is_loopback
from kedge.core.links import PageLinks, read_public_url
from kedge.core.time.durations import seconds
from kedge.core.values import Policy, Value
from kedge.system.machine import read_machine

CONFIG_NAME = "kedge.toml"
STATE_DIR = ".kedge"
ANYONE = "anyone"
"""The value of `entity_from` that sets no restriction."""


ONLINE_DIR = "online"
"""Directory within the state directory for values that are looked up by key."""


class ServerSettings(Value, frozen=True):
    """The settings of this machine."""

    host: str = "127.0.0.1"
    port: int = 8080
    control_port: int = 8081
    workers: int = msgspec.field(default_factory=lambda: read_machine().workers)
    """Gateway processes: one per processor of this process, from 2 to 8."""
    state_dir: str = STATE_DIR
    max_body_mb: float = 8.0
    """Largest request body. Eight megabytes hold 100,000 rows of 20 floats as JSON."""
    max_in_flight: int = 256
    """Limit of concurrent requests in one worker, then it answers "busy": at 1 ms each, 0.25 s."""
    lease_s: float = 30.0
    """How long a gateway that cannot reach the ledger continues to give a candidate its share."""
    fence: Literal["require", "warn"] = "warn"
    """What happens to a model if the kernel lacks a part of the fence around its process."""
    drain_s: float = 1.0
    """How long a stopping worker still answers on open connections. Accepted requests are answered
    after that."""
    trusted_peers: tuple[str, ...] = ()
    """The operator's proxies, as addresses or CIDR ranges. The address that they forward counts as
    the caller."""
    entity_from: str | tuple[str, ...] = "anyone"
    """Addresses that may send `kedge-entity`; a list of addresses or CIDR ranges restricts it."""
    records_gb: float = KEEP_GB
    """Limit of stored predictions that wait for labels, in GB: thirty days at fifty a second."""
    tester_token_file: str | None = None
    """The file of testers' tokens, one a line, relative to kedge.toml; its mode must be 0600."""
    plain: bool = False
    """Whether the callers' port may listen without TLS where other machines reach it."""
    caller_token_file: str | None = None
    """The file of callers' tokens, as that of testers. None: callers need no token."""

    public_url: str | None = None
    """The address at which browsers reach the dashboard, for links in alerts, receipts and runbooks.
    None: nothing links to it."""
    traces: str | None = None
    """The URL of an OpenTelemetry collector (OTLP over HTTP). None: nothing is traced."""
    trace_sample: float = 1.0
    """Per cent of the requests that are traced, of those whose callers do not decide it."""

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the gateway."""
        return is_loopback(self.host)

    @property
    def links(self) -> PageLinks:
        """The addresses of the dashboard's pages."""
        return PageLinks(read_public_url(self.public_url) if self.public_url is not None else "")


class OnlineSettings(Value, frozen=True):
    """The store of values that were computed ahead, on this machine."""

    store: Literal["sqlite", "lmdb", "redis"] = "sqlite"
    path: str | None = None
    """The path of SQLite's file or LMDB's directory. None: within the state directory."""
    url: str | None = None
    """The URL of Redis or Valkey. None: the environment variable KEDGE_ONLINE_URL."""
    missing: Rule = "default"
    """The rule for a key without a value. With "default" serving continues; kedge counts it."""
    expired: Rule = "default"
    outage: Rule = "default"

    def opened(
        self, root: Path, state_dir: Path, environ: Mapping[str, str] = os.environ
    ) -> Online:
        """Return the settings for processes, with a path relative to kedge.toml made absolute.

        A URL from the environment is not included.

        Raises:
            BadConfig: Redis has no URL.
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
    """The limits of the process in which features files run, on this machine."""

    timeout: str = "60s"
    """Limit for loading the file, and for each call: a slice of a view, or 50,000 rows."""
    memory_mb: int = 4096

    @property
    def limits(self) -> FeatureLimits:
        """The limits, as the process takes them."""
        return FeatureLimits(seconds(self.timeout), self.memory_mb)


class Alerts(Value, frozen=True):
    """The settings for mail, and the time limit of a channel."""

    smtp: str | None = None
    """smtp://USER:PASSWORD@HOST:PORT, or smtps://. The variable KEDGE_SMTP_URL takes precedence."""
    sender: str = "kedge@localhost"
    timeout: str = "10s"
    """Limit for one whole attempt: a busy mail server takes seconds, and the next level waits."""


class ProxySettings(Value, frozen=True):
    """The proxy before control, which proves itself and names the user of each request."""

    secret_file: str | None = None
    """A file of mode 0600 with the secret that the proxy sends in `kedge-proxy-secret`."""
    user_header: str = "x-forwarded-user"
    groups_header: str = "x-forwarded-groups"
    groups: dict[str, Group] = {}
    """What the members of each group may do. A user without a mapped group has no access."""


class ControlBind(Value, frozen=True):
    """How callers and browsers reach control."""

    host: str = "127.0.0.1"
    """The address of the dashboard and the API."""
    hosts: tuple[str, ...] = ()
    """Further names that a request may be addressed to, such as that of the proxy."""
    certificate: str | None = None
    """The certificate chain for TLS, as PEM; it is read again when it changes."""
    key: str | None = None
    client_ca: str | None = None
    """The authority of the proxy's client certificate."""
    socket: str | None = None
    """A Unix socket for the proxy, beside the port."""
    proxy: ProxySettings = ProxySettings()

    def get_url(self, port: int) -> str:
        """Return the address of control for a browser; on this machine if it listens there."""
        name = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host  # noqa: S104
        shown = f"[{bare_host(name)}]" if ":" in name else name
        return f"{'http' if self.certificate is None else 'https'}://{shown}:{port}"

    @property
    def is_proved(self) -> bool:
        """Whether a proxy proves itself at the port."""
        return self.proxy.secret_file is not None or self.client_ca is not None


class MetricsSettings(Value, frozen=True):
    """What monitoring systems may read at /metrics."""

    segments: bool = True
    """Whether segments are named. False: only figures of all requests, since the values of segments
    are data of customers."""


class Settings(Value, frozen=True):
    """All settings of kedge.toml."""

    server: ServerSettings = ServerSettings()
    online: OnlineSettings = OnlineSettings()
    features: Features = Features()
    alerts: Alerts = Alerts()
    metrics: MetricsSettings = MetricsSettings()
    control: ControlBind = ControlBind()
    endpoints: dict[str, Policy] = {}
