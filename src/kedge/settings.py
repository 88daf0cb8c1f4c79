"""kedge.toml, checked whole: every fault is reported at once, with its place and a remedy.

What stands under [endpoints.NAME] is policy: it comes into force by `kedge apply` and is read
from the ledger by every process. What stands under [server] is this machine's own.
"""

from __future__ import annotations

import difflib
import json
import subprocess
import tomllib
from pathlib import Path
from typing import Any, get_args

import msgspec

from kedge.core.durations import seconds
from kedge.core.errors import BadConfig
from kedge.core.values import Dtype, Field, Policy, Value

CONFIG_NAME = "kedge.toml"
STATE_DIR = ".kedge"


class Server(Value, frozen=True):
    """This machine's own settings."""

    host: str = "127.0.0.1"
    port: int = 8080
    control_port: int = 8081
    workers: int = 2
    state_dir: str = STATE_DIR
    max_body_mb: float = 8.0
    """Largest request body. Eight megabytes hold 100,000 rows of 20 floats as JSON."""
    max_in_flight: int = 256
    """Requests under way in one worker before it answers "busy": at 1 ms each, a quarter second."""
    lease_s: float = 30.0
    """How long a gateway that cannot hear from the ledger gives a candidate its share."""
    drain_s: float = 1.0
    """How long a stopping worker goes on answering on open connections."""


class Settings(Value, frozen=True):
    """Everything that kedge.toml says."""

    server: Server = Server()
    endpoints: dict[str, Policy] = {}


def load(path: Path) -> Settings:
    """Read and check a configuration.

    Raises:
        BadConfig: with every fault that was found.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadConfig([f"{path} does not exist"], hint="kedge init ENDPOINT writes one") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadConfig([f"{path}: {error}"], hint="see https://toml.io") from None
    return parse(raw, where=str(path))


def parse(raw: dict[str, Any], *, where: str = CONFIG_NAME) -> Settings:
    """Check a configuration that was read already."""
    faults: list[str] = []
    _unknown(raw, ("server", "endpoints"), "", faults)
    server = _struct(raw.get("server", {}), Server, "server", faults)
    endpoints: dict[str, Policy] = {}
    for name, table in raw.get("endpoints", {}).items():
        place = f"endpoints.{name}"
        if not name.replace("-", "_").isidentifier():
            faults.append(f"{place}: a name has letters, digits, - and _ and starts with a letter")
        if not isinstance(table, dict):
            faults.append(f"{place}: expected a table, got {table!r}")
            continue
        spec = dict(table)
        if "fields" in spec:
            spec["fields"] = _fields(spec["fields"], place, faults)
        policy = _struct(spec, Policy, place, faults)
        if policy is not None:
            _judge(policy, place, faults)
            endpoints[name] = policy
    if faults:
        raise BadConfig([f"{where}: {fault}" for fault in faults])
    assert server is not None
    return Settings(server=server, endpoints=endpoints)


def _unknown(table: dict[str, Any], known: tuple[str, ...], place: str, faults: list[str]) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            at = f"{place}.{key}" if place else key
            faults.append(f"{at}: unknown setting" + (f", did you mean {near[0]}?" if near else ""))


def _struct(table: Any, kind: type[Any], place: str, faults: list[str]) -> Any:
    """Convert a table key by key, so that one fault does not hide the next."""
    if not isinstance(table, dict):
        faults.append(f"{place}: expected a table, got {table!r}")
        return None
    fields = {field.name: field.type for field in msgspec.structs.fields(kind)}
    _unknown(table, tuple(fields), place, faults)
    values, before = {}, len(faults)
    for name, wanted in fields.items():
        if name not in table:
            continue
        inner = _struct_type(wanted)
        if inner is not None and isinstance(table[name], dict):
            values[name] = _struct(table[name], inner, f"{place}.{name}", faults)
            continue
        try:
            values[name] = msgspec.convert(table[name], wanted, strict=False)
        except msgspec.ValidationError as error:
            faults.append(f"{place}.{name}: {str(error)[0].lower()}{str(error)[1:]}")
    if len(faults) > before:
        return None
    try:
        return kind(**values)
    except TypeError as error:
        faults.append(f"{place}: {error}")
        return None


def _struct_type(wanted: Any) -> type[Any] | None:
    for kind in (wanted, *get_args(wanted)):
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            return kind
    return None


def _fields(table: Any, place: str, faults: list[str]) -> list[dict[str, Any]]:
    """`fields = {name = {dtype = ...}}`, in the order in which they are written."""
    if not isinstance(table, dict):
        faults.append(f"{place}.fields: expected a table of fields, got {table!r}")
        return []
    found = []
    for name, spec in table.items():
        at = f"{place}.fields.{name}"
        if not isinstance(spec, dict):
            faults.append(f'{at}: expected a table such as {{dtype = "float32"}}, got {spec!r}')
            continue
        if spec.get("dtype") not in get_args(Dtype):
            near = difflib.get_close_matches(str(spec.get("dtype")), get_args(Dtype), n=1)
            faults.append(f"{at}.dtype: {spec.get('dtype')!r} is none of {', '.join(get_args(Dtype))}"
                          + (f"; did you mean {near[0]}?" if near else ""))  # fmt: skip
            continue
        if _struct({"name": name, **spec}, Field, at, faults) is not None:
            found.append({"name": name, **spec})
    return found


def _judge(policy: Policy, place: str, faults: list[str]) -> None:
    """What types alone do not say."""
    steps = policy.canary.steps
    if list(steps) != sorted(set(steps)) or any(not 0 < step <= 100 for step in steps):
        faults.append(
            f"{place}.canary.steps: must grow, within 0 to 100 per cent; got {list(steps)}"
        )
    if not 0 < policy.shadow.sample <= 100:
        faults.append(
            f"{place}.shadow.sample: is per cent, above 0 and at most 100; got {policy.shadow.sample}"
        )
    if not 0 <= policy.log.sample <= 100:
        faults.append(f"{place}.log.sample: is per cent, 0 to 100; got {policy.log.sample}")
    durations = {
        "shadow.window": policy.shadow.window, "log.retention": policy.log.retention,
        "back_window": policy.back_window,
        **{f"escalation[{i}].after": step.after for i, step in enumerate(policy.escalation)},
    }  # fmt: skip
    for name, text in durations.items():
        try:
            seconds(text)
        except ValueError as error:
            faults.append(f"{place}.{name}: {error}")
    if policy.output.kind != "exact" and policy.output.score is None:
        faults.append(
            f'{place}.output.score: kind "{policy.output.kind}" needs the name of an output'
        )
    names = {field.name for field in policy.fields}
    entity = () if policy.entity is None else (policy.entity,)
    for what, wanted in (("entity", entity), ("segments", policy.segments)):
        faults.extend(
            f"{place}.{what}: {field} is not a declared field"
            for field in wanted
            if names and field not in names
        )
    for name, limit in (("rows", policy.limits.rows), ("timeout_ms", policy.limits.timeout_ms),
                        ("shadow_in_flight", policy.limits.shadow_in_flight)):  # fmt: skip
        if limit < 1:
            faults.append(f"{place}.limits.{name}: must be at least 1; got {limit}")
    if policy.memory_mb < 64:
        faults.append(
            f"{place}.memory_mb: a model process needs 64 or more; got {policy.memory_mb}"
        )


TEMPLATE = """\
# kedge.toml: what this machine serves and how its releases are rolled out.
# Bring a change into force with `kedge apply`; every key is explained in docs/reference/config.md.

[server]
host = "127.0.0.1"
port = {port}
workers = 2

[endpoints.{name}]
# "internal": a canary may come first. "customer": a candidate needs a passed shadow window
# before any caller sees it, unless somebody says why not (--override "reason").
audience = "internal"
owner = {{name = {owner}, contact = {contact}}}

# The request contract. Left out, it is taken from the first production release; write it here
# to let callers send more than today's model needs.
# fields = {{dep_delay = {{dtype = "float32", nullable = true}}, origin = {{dtype = "string"}}}}

# Who is routed as one unit: a field, or the header kedge-entity.
# entity = "customer_id"

# How two answers are compared. "exact" works for any model; a classifier says more with
# output = {{kind = "binary", score = "score", threshold = 0.5}}
output = {{kind = "exact", tolerance = 1e-6}}

[endpoints.{name}.canary]
steps = [1, 5, 25, 50]   # per cent; `kedge promote` walks them
"""
"""What `kedge init` writes."""


def owner_from_git() -> tuple[str, str]:
    """The owner that `init` writes: git's user, as TOML strings; a placeholder without git."""
    found = []
    for key, otherwise in (("user.name", "Nobody Yet"), ("user.email", "nobody@localhost")):
        try:
            asked = subprocess.run(  # noqa: S603 - a fixed command
                ["git", "config", "--get", key],  # noqa: S607
                capture_output=True,
                text=True,
                timeout=5,
                check=False,
            )
            found.append(asked.stdout.strip() or otherwise)
        except (OSError, subprocess.TimeoutExpired):
            found.append(otherwise)
    return json.dumps(found[0]), json.dumps(f"mailto:{found[1]}")
