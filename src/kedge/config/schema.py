"""JSON schema of kedge.toml, for editors: built from the structs that read the file.

It accepts everything that kedge accepts. A required key may be set in `[defaults]`, so tables
require none; the elements of an array do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from kedge.config.defaults import DEFAULTS
from kedge.core.names import NAME
from kedge.core.time.durations import WRITTEN

DRAFT = "https://json-schema.org/draft/2020-12/schema"
TITLE = "kedge.toml"
DURATIONS = frozenset(
    {"after", "back_window", "dwell", "each", "every", "retention", "timeout", "window"}
)
"""Keys whose strings are durations."""
JsonSchema = dict[str, Any]
"""A schema, or a part of one, as msgspec builds it."""
_REF = "#/$defs/{name}"


def build_schema(
    root: type[msgspec.Struct],
    endpoint: type[msgspec.Struct],
    field: type[msgspec.Struct],
    guardrails: Mapping[str, object],
) -> JsonSchema:
    """Return the schema of a file.

    Args:
        root: the struct of the file, whose `endpoints` is a dict of `endpoint`.
        endpoint: the struct of one endpoint, and of the defaults.
        field: the struct of a contract's field, which is named by its key.
        guardrails: the known guardrails, by name.
    """
    (top, policy, named), found = msgspec.json.schema_components(
        (root, endpoint, field), ref_template=_REF
    )
    components = {name: _cleaned(spec) for name, spec in found.items()}
    items: JsonSchema = {}
    for spec in components.values():
        _refer_to_items(spec, components, items)
    for spec in components.values():
        spec.pop("required", None)
    defs = {**components, **items}
    one, whole = defs[_name(policy)], defs.pop(_name(top))
    table = defs[_name(named)]
    table["properties"].pop("name")
    for contract in ("fields", "answers"):
        one["properties"][contract] = {"type": "object", "additionalProperties": named}
    one["properties"]["guardrails"]["propertyNames"] = {"enum": sorted(guardrails)}
    properties = {
        **whole["properties"],
        DEFAULTS: policy,
        "endpoints": {
            "type": "object",
            "patternProperties": {f"^{NAME.pattern}$": policy},
            "additionalProperties": False,
        },
    }
    return {
        "$schema": DRAFT,
        "title": TITLE,
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "$defs": dict(sorted(defs.items())),
    }


def _name(reference: JsonSchema) -> str:
    return str(reference["$ref"]).rpartition("/")[2]


def _cleaned(spec: Any, name: str = "") -> Any:
    """Return a part of a schema in TOML's terms: without null, and with durations marked."""
    if isinstance(spec, list):
        return [_cleaned(one) for one in spec]
    if not isinstance(spec, dict):
        return spec
    cleaned = {key: value for key, value in spec.items() if key != "title"}
    if isinstance(cleaned.get("properties"), dict):
        cleaned["properties"] = {key: _cleaned(one, key) for key, one in spec["properties"].items()}
    for key in ("additionalProperties", "items", "prefixItems"):
        if key in cleaned:
            cleaned[key] = _cleaned(cleaned[key])
    if "anyOf" in cleaned:
        kinds = [_cleaned(one, name) for one in cleaned.pop("anyOf") if one != {"type": "null"}]
        cleaned |= kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
    if cleaned.get("default", ...) is None:
        del cleaned["default"]
    if cleaned.get("type") == "string" and name in DURATIONS:
        cleaned["pattern"] = f"^{WRITTEN.pattern}$"
    return cleaned


def _refer_to_items(spec: Any, components: JsonSchema, items: JsonSchema) -> None:
    """Make array elements refer to a definition of their own, which has the required keys."""
    if isinstance(spec, list):
        for one in spec:
            _refer_to_items(one, components, items)
    if not isinstance(spec, dict):
        return
    of = spec.get("items")
    if isinstance(of, dict) and "$ref" in of and "required" in components[_name(of)]:
        name = f"{_name(of)}Item"
        items.setdefault(name, dict(components[_name(of)]))
        spec["items"] = {"$ref": _REF.format(name=name)}
    for key, one in spec.items():
        if key != "default":
            _refer_to_items(one, components, items)
