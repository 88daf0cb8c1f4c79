"""Names for completion with KEDGE_SERVER: one request with a short time limit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar
from urllib.parse import quote

import msgspec

from kedge.adapters.sql.completion import MOST, Kind, Name
from kedge.cli.remote import connect

PATIENCE_S = 1.0
"""Time limit of each part of the exchange: a person waits for it after a keystroke."""
Found = TypeVar("Found")


class _Endpoint(msgspec.Struct):
    endpoint: str


class _Version(msgspec.Struct):
    version: str
    releases: list[str]


class _Alert(msgspec.Struct):
    number: int
    endpoint: str


class _Transformation(msgspec.Struct):
    version: str


class _Token(msgspec.Struct):
    name: str


def read_remote_names(
    environment: Mapping[str, str], kind: Kind, endpoint: str = ""
) -> list[Name] | None:
    """Return the names of a kind on the server; None without KEDGE_SERVER.

    Args:
        environment: the variables of the process.
        kind: the kind of names.
        endpoint: the endpoint of versions and releases; empty: the only one, if there is one.

    Raises:
        KedgeError: as `connect`; the server cannot be reached in time, or refuses the request.
        msgspec.DecodeError: its answer has another form.
    """
    remote = connect(environment, insecure=False, timeout_s=PATIENCE_S)
    if remote is None:
        return None

    def ask(path: str, row: type[Found]) -> list[Found]:
        rows = msgspec.json.decode(remote.send("GET", path), type=list[row])  # type: ignore[valid-type]
        return list(rows)[:MOST]

    match kind:
        case "endpoint":
            return sorted(Name(one.endpoint, "") for one in ask("/endpoints", _Endpoint))
        case "version" | "release":
            if not endpoint:
                known = ask("/endpoints", _Endpoint)
                if len(known) != 1:
                    return []
                endpoint = known[0].endpoint
            versions = ask(f"/endpoints/{quote(endpoint, safe='')}/versions", _Version)
            if kind == "version":
                found = [Name(one.version, ", ".join(one.releases)) for one in versions]
            else:
                found = [Name(name, one.version) for one in versions for name in one.releases]
            return sorted(found, key=_number, reverse=True)
        case "alert":
            return [Name(str(one.number), one.endpoint) for one in ask("/alerts", _Alert)]
        case "token":
            return sorted(Name(one.name, "") for one in ask("/tokens", _Token))
        case "transformation" | "schema":
            listed = [one.version for one in ask("/features", _Transformation)]
            if kind == "schema":
                listed = [*dict.fromkeys(text.partition("#")[0] for text in listed)]
            return [Name(text, "") for text in listed]


def _number(name: Name) -> int:
    """Return the number of a version such as v12, or of a release."""
    return int(name.text[1:])
