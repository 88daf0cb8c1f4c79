"""Loading of kedge.toml: all faults are reported at once, each with its place and a fix.

A table [endpoints.NAME] is a policy: it comes into force by `kedge apply`, and every process reads
it from the ledger. The table [server] holds settings of this machine.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from importlib.util import find_spec
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import msgspec

from kedge.config.contacts import judge_alerts, judge_people
from kedge.config.defaults import DEFAULTS, Tracing, merge
from kedge.config.model import (
    ANYONE,
    CONFIG_NAME,
    Alerts,
    ControlBind,
    Features,
    MetricsSettings,
    OnlineSettings,
    ServerSettings,
    Settings,
)
from kedge.config.places import ConfigFault, Toml, find_places, locate
from kedge.core.bounds import misdeclared
from kedge.core.errors import BadConfig
from kedge.core.evidence.labels import is_own
from kedge.core.evidence.quality import ranked_places
from kedge.core.hosts import is_loopback, spell_host
from kedge.core.links import read_public_url
from kedge.core.names import RULE, is_name
from kedge.core.phrases import tell_fault
from kedge.core.time.durations import seconds
from kedge.core.values import BUCKETS, Field, Output, Policy


def load(path: Path) -> Settings:
    """Read and check a configuration.

    Raises:
        BadConfig: with every fault that was found.
    """
    return read(read_text(path), where=str(path))


def read_text(path: Path) -> str:
    """Return the text of a configuration.

    Raises:
        BadConfig: it is missing or not valid UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise BadConfig([f"{path} does not exist"], hint="kedge init ENDPOINT writes one") from None
    except OSError as error:
        raise BadConfig([f"{path}: {error.strerror}"], hint="kedge --config FILE") from None
    except UnicodeDecodeError as error:
        raise BadConfig([f"{path}: {tell_fault(error)}"], hint="write the file as UTF-8") from None


def read(text: str, *, where: str = CONFIG_NAME) -> Settings:
    """Check a configuration's text.

    Raises:
        BadConfig: with every fault that was found.
    """
    raw = _toml(text, where)
    settings, faults = _parse(raw)
    if faults:
        raise _refusal([fault.told(where) for fault in _located(faults, text)])
    return settings


def find_faults(text: str) -> list[ConfigFault]:
    """Return every fault of a configuration's text, in the order of its lines.

    Raises:
        BadConfig: it is not valid TOML.
    """
    _, faults = _parse(_toml(text, CONFIG_NAME))
    return _located(faults, text)


def _located(faults: list[str], text: str) -> list[ConfigFault]:
    places = find_places(text) if faults else {}
    return sorted((locate(fault, places) for fault in faults), key=lambda each: each.line or 0)


def parse(raw: Toml, *, where: str = CONFIG_NAME) -> Settings:
    """Check a configuration that was parsed already.

    Raises:
        BadConfig: with every fault that was found.
    """
    settings, faults = _parse(raw)
    if faults:
        raise _refusal([f"{where}: {fault}" for fault in faults])
    return settings


def _toml(text: str, where: str) -> Toml:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadConfig([f"{where}: {error}"], hint="see https://toml.io") from None


def _refusal(faults: list[str]) -> BadConfig:
    return BadConfig(
        faults, hint="nothing was changed; kedge help reference/config explains every key"
    )


def _parse(raw: Toml) -> tuple[Settings, list[str]]:
    """Return the settings of a configuration and its faults, each beginning with its place."""
    faults: list[str] = []
    known = ("server", "online", "features", "alerts", "metrics", "control", DEFAULTS, "endpoints")
    _unknown(raw, known, "", faults)
    server = _struct(raw.get("server", {}), ServerSettings, "server", faults)
    if server is not None:
        _judge_server(server, faults)
    online = _struct(raw.get("online", {}), OnlineSettings, "online", faults)
    if online is not None:
        _judge_online(online, faults)
    features = _struct(raw.get("features", {}), Features, "features", faults)
    if features is not None:
        _judge_features(features, faults)
    alerts = _struct(raw.get("alerts", {}), Alerts, "alerts", faults)
    if alerts is not None:
        judge_alerts(alerts, faults)
    metrics = _struct(raw.get("metrics", {}), MetricsSettings, "metrics", faults)
    control = _struct(raw.get("control", {}), ControlBind, "control", faults)
    if control is not None:
        _judge_control(control, faults)
    tables, defaults = (_table(raw, name, faults) for name in ("endpoints", DEFAULTS))
    endpoints: dict[str, Policy] = {}
    tracing = Tracing()
    if not tables:
        _policy(defaults, DEFAULTS, faults)
    for name, table in tables.items():
        place = f"endpoints.{name}"
        if not is_name(name):
            faults.append(f"{place}: {RULE}")
        if not isinstance(table, dict):
            faults.append(f"{place}: expected a table, got {table!r}")
            continue
        merged, inherited = merge(table, defaults)
        found: list[str] = []
        endpoints[name] = _policy(merged, place, found)
        tracing.add(found, place, table, inherited)
    faults += tracing.told()
    settings = Settings(
        server=server,
        online=online,
        features=features,
        alerts=alerts,
        metrics=metrics,
        control=control,
        endpoints=endpoints,
    )
    return settings, faults


def _table(raw: Toml, name: str, faults: list[str]) -> Toml:
    table = raw.get(name, {})
    if isinstance(table, dict):
        return table
    faults.append(f"{name}: expected a table, got {table!r}")
    return {}


def _policy(table: Toml, place: str, faults: list[str]) -> Policy:
    """Convert an endpoint's table and check it."""
    spec = dict(table)
    for contract in ("fields", "answers"):
        if contract in spec:
            spec[contract] = _fields(spec[contract], f"{place}.{contract}", faults)
    policy: Policy = _struct(spec, Policy, place, faults)
    _judge(policy, table, place, faults)
    return policy


def _judge_features(features: Features, faults: list[str]) -> None:
    try:
        if not 1 <= seconds(features.timeout) <= 86_400:
            faults.append(f"features.timeout: must be 1s to 1d; got {features.timeout}")
    except ValueError as error:
        faults.append(f"features.timeout: {error}")
    if features.memory_mb < 256:
        faults.append(f"features.memory_mb: must be 256 or more; got {features.memory_mb}")


SMALLEST_SHARE = 100 / BUCKETS
"""Smallest share in per cent: one of the buckets into which callers are divided."""
_LARGEST = 2**53
"""Largest integer: above it JSON readers disagree."""


def _unknown(table: Toml, known: tuple[str, ...], place: str, faults: list[str]) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            at = f"{place}.{key}" if place else key
            faults.append(f"{at}: unknown setting" + (f", did you mean {near[0]}?" if near else ""))


def _struct(table: Any, kind: type[Any], place: str, faults: list[str]) -> Any:
    """Convert a table key by key, so that one fault does not hide the next.

    A default replaces a faulty value, so that the rest can be checked. None if there is no default.
    """
    if not isinstance(table, dict):
        faults.append(f"{place}: expected a table, got {table!r}")
        return None
    fields = msgspec.structs.fields(kind)
    _unknown(table, tuple(field.name for field in fields), place, faults)
    values, whole = {}, True
    for field in fields:
        at = f"{place}.{field.name}"
        if field.name in table:
            found = _value(table[field.name], field.type, at, faults)
            if found is not None:
                values[field.name] = found
        elif field.required:
            faults.append(f"{at}: is missing")
        whole = whole and (field.name in values or not field.required)
    return kind(**values) if whole else None


def _value(given: Any, wanted: Any, place: str, faults: list[str]) -> Any:
    """Convert one value; add a fault and return None if it is faulty."""
    kinds = (wanted, *get_args(wanted))
    struct = next((k for k in kinds if isinstance(k, type) and issubclass(k, msgspec.Struct)), None)
    if struct is not None:
        if get_origin(wanted) is dict and isinstance(given, dict):
            named = {k: _struct(v, struct, f"{place}.{k}", faults) for k, v in given.items()}
            return {k: v for k, v in named.items() if v is not None}
        if get_origin(wanted) is tuple and isinstance(given, list):
            listed = [
                v if isinstance(v, struct) else _struct(v, struct, f"{place}[{i}]", faults)
                for i, v in enumerate(given)
            ]
            return tuple(v for v in listed if v is not None)
        if get_origin(wanted) is not tuple:
            return _struct(given, struct, place, faults)
    words = [word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
    several = get_origin(wanted) is tuple and isinstance(given, list)
    strays = [one for one in (given if several else [given]) if words and one not in words]
    for stray in strays:
        near = difflib.get_close_matches(str(stray), words, n=1)
        faults.append(
            f"{place}: {stray!r} is none of {', '.join(words)}"
            + (f"; did you mean {near[0]}?" if near else "")
        )
    if strays:
        return None
    try:
        found = msgspec.convert(given, wanted)
    except msgspec.ValidationError as error:
        faults.append(f"{place}: {str(error)[0].lower()}{str(error)[1:]}")
        return None
    for number in found if isinstance(found, tuple) else (found,):
        if isinstance(number, int | float) and not abs(number) < _LARGEST:
            faults.append(f"{place}: must be a number below 2**53; got {number}")
            return None
    return found


def _fields(table: Any, place: str, faults: list[str]) -> list[Field]:
    """Return the fields of a table `{name = {dtype = ...}}` (`fields`, `answers`), in order."""
    if not isinstance(table, dict):
        faults.append(f"{place}: expected a table of fields, got {table!r}")
        return []
    found = []
    for name, spec in table.items():
        at = f"{place}.{name}"
        if not isinstance(spec, dict):
            faults.append(f'{at}: expected a table such as {{dtype = "float32"}}, got {spec!r}')
            continue
        if "name" in spec:
            faults.append(f"{at}.name: unknown setting: the name is {name}")
        field = _struct({**spec, "name": name}, Field, at, faults)
        if field is not None:
            if any(size < 1 and size != -1 for size in field.shape):
                faults.append(
                    f"{at}.shape: a length is 1 or more, or -1 for any; got {list(field.shape)}"
                )
            faults.extend(f"{at}.{bound}: {fault}" for bound, fault in misdeclared(field).items())
            if field.is_bounded and place.endswith(".answers"):
                faults.append(f"{at}: range, max_length and categories bound what callers send")
            found.append(field)
    return found


def check_server(server: ServerSettings) -> None:
    """Check settings that came from the command line by the same rules.

    Raises:
        BadConfig: with every fault that was found.
    """
    faults: list[str] = []
    _judge_server(server, faults)
    if faults:
        raise BadConfig(faults, hint="kedge up --help")


GUARDRAILS: dict[str, dict[str, tuple[str, ...]]] = {
    "errors": {},
    "latency": {},
    "cost": {},
    "violations": {},
    "quality": {
        "binary": ("error_rate", "log_loss", "brier"),
        "score": ("error_rate", "absolute_error", "rmse", "mape"),
        "class": ("error_rate",),
        "ranking": ("error_rate", "ndcg@10"),
        "exact": ("error_rate", "absolute_error", "rmse", "mape"),
        "custom": ("error_rate", "absolute_error", "rmse", "mape"),
    },
}
"""The guardrails and the losses that judge quality, by kind of output."""


ESTIMATED = frozenset({"auc", "calibration_error"})
"""Figures that are shown for every binary output, but give no verdict."""
METRICS_PAGE = "kedge help metrics"


def _judge_server(server: ServerSettings, faults: list[str]) -> None:
    for name, port in (("port", server.port), ("control_port", server.control_port)):
        if not 0 <= port <= 65535:
            faults.append(f"server.{name}: is 0 to 65535; got {port}")
    least = {
        "workers": 1,
        "max_in_flight": 1,
        "max_body_mb": 0.001,
        "lease_s": 0.001,
        "drain_s": 0,
        "records_gb": 0.001,
    }
    faults.extend(
        f"server.{name}: must be at least {bound}; got {getattr(server, name)}"
        for name, bound in least.items()
        if getattr(server, name) < bound
    )
    if server.public_url is not None:
        try:
            read_public_url(server.public_url)
        except ValueError as error:
            faults.append(f"server.public_url: {error}")
    if not 0 <= server.trace_sample <= 100:
        faults.append(f"server.trace_sample: must be 0 to 100; got {server.trace_sample:g}")
    if server.traces is not None and not server.traces.startswith(("http://", "https://")):
        faults.append("server.traces: must be a URL such as http://127.0.0.1:4318")
    if server.traces is not None and find_spec("opentelemetry") is None:
        faults.append("server.traces: needs the extra otel: pip install 'kedge[otel]'")
    _judge_peers(server, faults)


def _judge_control(control: ControlBind, faults: list[str]) -> None:
    """Check that other machines reach control over TLS or by a proxy that proves itself."""
    if (control.certificate is None) != (control.key is None):
        faults.append("control.certificate: needs key beside it, and key needs certificate")
    if control.client_ca is not None and control.certificate is None:
        faults.append("control.client_ca: a client certificate needs TLS: certificate and key")
    if control.socket is not None and control.certificate is not None:
        faults.append("control.socket: a proxy on a socket needs no TLS; remove certificate")
    if not is_loopback(control.host) and control.certificate is None and not control.is_proved:
        faults.append(
            f"control.host: {control.host} is reachable from outside: set certificate and key, or"
            " proxy.secret_file for a proxy that proves itself"
        )
    for name in control.hosts:
        try:
            spell_host(name)
        except ValueError as error:
            faults.append(f"control.hosts: {error}")
    if control.proxy.groups and not control.is_proved and control.socket is None:
        faults.append(
            "control.proxy.groups: the proxy must prove itself: socket, client_ca or secret_file"
        )


def _judge_peers(server: ServerSettings, faults: list[str]) -> None:
    """Check that addresses and ranges are valid before a worker needs them."""
    entity_from = server.entity_from
    if isinstance(entity_from, str):
        entity_from = () if entity_from == ANYONE else (entity_from,)
    for name, listed in (("trusted_peers", server.trusted_peers), ("entity_from", entity_from)):
        for text in listed:
            try:
                ip_network(text, strict=False)
            except ValueError:
                faults.append(f"server.{name}: must be addresses such as 10.0.0.0/8; got {text!r}")


def _judge_online(online: OnlineSettings, faults: list[str]) -> None:
    if online.store == "redis" and online.path is not None:
        faults.append("online.path: redis has a url instead")
    if online.store != "redis" and online.url is not None:
        faults.append(f"online.url: is for redis; {online.store} has a path")
    if online.url is not None and not online.url.startswith(("redis://", "rediss://", "unix://")):
        faults.append("online.url: begins with redis://, rediss:// or unix://")


def _judge(policy: Policy, table: Toml, place: str, faults: list[str]) -> None:
    """Check the rules of a policy that types cannot express."""
    steps = policy.canary.steps
    if not steps or list(steps) != sorted(set(steps)) or not 0 < min(steps) <= max(steps) <= 100:
        faults.append(
            f"{place}.canary.steps: must grow, within 0 to 100 per cent; got {list(steps)}"
        )
    elif len({round(step * BUCKETS / 100) for step in steps}) < len(steps):
        faults.append(
            f"{place}.canary.steps: two steps differ by less than 0.01 %; got {list(steps)}"
        )
    _judge_shares(policy, place, faults)
    if not 0 <= policy.canary.holdback <= 50:
        faults.append(
            f"{place}.canary.holdback: is per cent, 0 to 50, since more than half of the callers"
            f" are promoted to the new release; got {policy.canary.holdback}"
        )
    if not 0 < policy.shadow.sample <= 100:
        faults.append(
            f"{place}.shadow.sample: is per cent, above 0 and at most 100; got"
            f" {policy.shadow.sample}"
        )
    if not 0 <= policy.shadow.noise <= 100:
        faults.append(f"{place}.shadow.noise: is per cent, 0 to 100; got {policy.shadow.noise}")
    _judge_cost(policy, place, faults)
    if not 0 <= policy.after.sample <= 100:
        faults.append(f"{place}.after.sample: is per cent, 0 to 100; got {policy.after.sample}")
    if not 0 <= policy.log.sample <= 100:
        faults.append(f"{place}.log.sample: is per cent, 0 to 100; got {policy.log.sample}")
    durations = {
        "shadow.window": policy.shadow.window,
        "canary.dwell": policy.canary.dwell,
        "log.retention": policy.log.retention,
        "back_window": policy.back_window,
        **({} if policy.drill.every is None else {"drill.every": policy.drill.every}),
    }
    for name, text in durations.items():
        try:
            seconds(text)
        except ValueError as error:
            faults.append(f"{place}.{name}: {error}")
    judge_people(policy, place, faults)
    _judge_output(policy.output, table.get("output"), f"{place}.output", faults)
    _judge_guardrails(policy, f"{place}.guardrails", faults)
    _judge_routing(policy, table.get("fields"), place, faults)
    limits = policy.limits
    for name, limit in (
        ("rows", limits.rows),
        ("timeout_ms", limits.timeout_ms),
        ("shadow_in_flight", limits.shadow_in_flight),
        ("candidate_deadline_ms", limits.candidate_deadline_ms),
    ):
        if limit is not None and limit < 1:
            faults.append(f"{place}.limits.{name}: must be at least 1; got {limit}")
    if policy.memory_mb < 64:
        faults.append(
            f"{place}.memory_mb: a model process needs 64 or more; got {policy.memory_mb}"
        )


def _judge_shares(policy: Policy, place: str, faults: list[str]) -> None:
    """Check that no share is positive and smaller than one bucket: it would be zero."""
    shares = {
        "canary.steps": policy.canary.steps,
        "canary.holdback": (policy.canary.holdback,),
        "shadow.sample": (policy.shadow.sample,),
        "shadow.noise": (policy.shadow.noise,),
        "after.sample": (policy.after.sample,),
        "log.sample": (policy.log.sample,),
    }
    faults.extend(
        f"{place}.{name}: the smallest share is {SMALLEST_SHARE:g} per cent; got {share}"
        for name, found in shares.items()
        for share in found
        if 0 < share < SMALLEST_SHARE
    )


def _judge_cost(policy: Policy, place: str, faults: list[str]) -> None:
    cost = policy.cost
    if cost is None:
        if "cost" in policy.guardrails:
            faults.append(f"{place}.guardrails.cost: there is no price; declare {place}.cost")
        return
    for name, prices in (("", cost), *((f".versions.{v}", p) for v, p in cost.versions.items())):
        for part in ("per_call", "per_second", "per_token"):
            price = getattr(prices, part)
            if not 0 <= price < _LARGEST:
                faults.append(f"{place}.cost{name}.{part}: a price is 0 or more; got {price}")
        if prices.per_token and cost.tokens is None:
            faults.append(
                f"{place}.cost{name}.per_token: needs cost.tokens, the output that counts them"
            )
    if cost.max is not None and not 0 < cost.max < _LARGEST:
        faults.append(f"{place}.cost.max: must be a number above 0; got {cost.max}")
    faults.extend(
        f"{place}.cost.versions.{name}: a version is written v3"
        for name in cost.versions
        if re.fullmatch(r"v[1-9]\d*", name) is None
    )


def _judge_guardrails(policy: Policy, place: str, faults: list[str]) -> None:
    for name, rail in policy.guardrails.items():
        if name not in GUARDRAILS:
            known = ", ".join(GUARDRAILS)
            faults.append(f"{place}.{name}: there is no such guardrail; known are {known}")
            continue
        if not 0 < rail.worse_by <= 100:
            faults.append(
                f"{place}.{name}.worse_by: must be above 0 and at most 100 (0.5 is half as much"
                f" again); got {rail.worse_by}"
            )
        metrics = GUARDRAILS[name].get(policy.output.kind, ())
        if policy.output.label is not None and policy.output.kind != "ranking":
            # a class has neither a distance nor a probability
            metrics = tuple(metric for metric in metrics if metric == "error_rate")
        own = name == "quality" and is_own(rail.metric or "")
        if own and re.fullmatch(r"[\w.]+:\w+", rail.metric or "") is None:
            faults.append(f"{place}.{name}.metric: a function is MODULE:NAME; got {rail.metric}")
        ranked = (
            name == "quality"
            and policy.output.kind == "ranking"
            and ranked_places(rail.metric or "")
        )
        if rail.metric is not None and not own and not ranked and rail.metric not in metrics:
            faults.append(
                f"{place}.{name}.metric: {_unfit_metric(rail.metric, metrics, policy.output)}"
            )
        if rail.metric == "rmse" and policy.output.tolerance <= 0:
            faults.append(
                f"{place}.{name}.metric: rmse counts each error up to ten times output.tolerance;"
                " set a tolerance"
            )


def _unfit_metric(metric: str, fitting: tuple[str, ...], output: Output) -> str:
    """Return why a metric cannot judge an output, and which metrics can."""
    fit = f"one of {', '.join([*fitting, 'MODULE:NAME'])}" if fitting else "not given"
    if metric in ESTIMATED and output.kind == "binary" and fitting:
        return (
            f"{metric} is an estimate, shown by kedge evidence without a verdict: judge by {fit}; "
            f"{METRICS_PAGE} says why"
        )
    return (
        f"is {fit} for an output of kind {output.kind}; got {metric}; {METRICS_PAGE} has the table"
    )


def _judge_output(output: Output, given: object, place: str, faults: list[str]) -> None:
    # The fault of an unfit score was added already.
    noted = isinstance(given, dict) and "score" in given
    named_value = output.kind == "score" and output.value is not None
    if output.kind in ("binary", "score") and output.score is None and not (noted or named_value):
        faults.append(f'{place}.score: kind "{output.kind}" needs the name of an output')
    if output.kind == "ranking" and output.label is None:
        faults.append(
            f'{place}.label: kind "ranking" needs the name of an output, a vector of items'
        )
    _judge_labels(output, place, faults)
    named = re.fullmatch(r"[\w.]+:\w+", output.function or "")
    if (output.kind == "custom") != (output.function is not None) or (
        output.function and not named
    ):
        faults.append(
            f'{place}.function: MODULE:NAME, for kind "custom" and no other; got'
            f" {output.function!r}"
        )
    if output.tolerance < 0:
        faults.append(f"{place}.tolerance: cannot be negative; got {output.tolerance}")


NAMES = {
    "binary": ("score",),
    "score": ("score", "value"),
    "class": ("label",),
    "ranking": ("label",),
    "exact": ("score", "label", "value"),
    "custom": ("score", "label", "value"),
}
"""The keys that name the output that labels are compared with, by kind of output."""


def _judge_labels(output: Output, place: str, faults: list[str]) -> None:
    """Check the output that labels are compared with: one, named by a key of its kind."""
    keys = NAMES[output.kind]
    given = [name for name in ("score", "label", "value") if getattr(output, name) is not None]
    faults.extend(
        f'{place}.{name}: kind "{output.kind}" reads {" or ".join(keys)}'
        for name in given
        if name not in keys
    )
    if len(given) > 1 and all(name in keys for name in given):
        faults.append(
            f"{place}: name one of {', '.join(given)}: labels are compared with one output"
        )
    classes = output.classes
    if not classes:
        return
    if output.kind in ("score", "ranking") or output.value is not None:
        faults.append(f"{place}.classes: a number or a ranking has none")
    elif output.kind == "binary" and len(classes) != 2:
        faults.append(f'{place}.classes: are [NO, YES] for kind "binary"; got {list(classes)}')
    elif len(classes) < 2 or len({str(each) for each in classes}) < len(classes):
        faults.append(f"{place}.classes: must be two or more, each once; got {list(classes)}")
    elif len({type(each) for each in classes}) > 1:
        faults.append(
            f"{place}.classes: must be all words or all whole numbers; got {list(classes)}"
        )


def _judge_routing(policy: Policy, declared: Any, place: str, faults: list[str]) -> None:
    """Check that the entity and the segments are declared fields, if fields are declared."""
    names = set(declared) if isinstance(declared, dict) else set()
    entity = () if policy.entity is None else (policy.entity,)
    for what, wanted in (("entity", entity), ("segments", policy.segments)):
        faults.extend(
            f"{place}.{what}: {field} is not a declared field"
            for field in wanted
            if names and field not in names
        )
    faults.extend(
        f"{place}.entity: {field.name} holds {list(field.shape)} values a row, and not one"
        for field in policy.fields
        if field.name == policy.entity and field.shape
    )
