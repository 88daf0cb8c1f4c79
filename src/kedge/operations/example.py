"""Example of a call: a command that asks an endpoint with one of a version's golden rows."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from kedge.core.errors import CorruptArtifact
from kedge.core.values import Field
from kedge.workspace import Workplace

MOST_CHARACTERS = 1000
"""Limit of an example's length: users do not read or type a command of several screens."""


def first_call(place: Workplace, url: str, endpoint: str) -> str:
    """Return a command to copy: a call with a row of the newest version, else its description.

    With a transformation callers send other columns than the model's inputs.
    """
    versions = place.registry.versions(endpoint)
    if not versions or versions[-1].schema:
        return _about(url, endpoint)
    newest = versions[-1]
    try:
        rows = place.artifacts.proof(newest.digest).inputs
    except CorruptArtifact:  # kedge doctor reports it
        return _about(url, endpoint)
    return example_call(url, endpoint, newest.signature.inputs, rows) or _about(url, endpoint)


def _about(url: str, endpoint: str) -> str:
    return f"curl {url}/v2/models/{endpoint}"


def example_call(
    url: str, endpoint: str, inputs: Sequence[Field], rows: Mapping[str, Sequence[Any]]
) -> str:
    """Return a command to copy that asks an endpoint; "" if a row is too wide to be shown.

    Args:
        url: where the gateway listens.
        endpoint: its name.
        inputs: the inputs of the version.
        rows: its golden rows, by column; the first one without a null is shown.
    """
    names = [field.name for field in inputs if rows.get(field.name)]
    if not names:
        return ""
    some = [
        dict(zip(names, map(_as_json, row), strict=True))
        for row in zip(*(rows[name] for name in names), strict=True)
    ]
    row = next((row for row in some if None not in row.values()), some[0])
    body = json.dumps({"rows": [row]}, ensure_ascii=False)
    if len(body) > MOST_CHARACTERS:
        return ""
    return f"curl {url}/v2/models/{endpoint}/infer -d {shlex.quote(body)}"


def _as_json(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_as_json(each) for each in value]
    return None if isinstance(value, float) and not isfinite(value) else value
