"""Defaults (`[defaults]` of kedge.toml): the settings of every endpoint that has none of its own.

Tables are merged key by key, at any depth. Any other value, also a list, is taken from the
endpoint if it has one, else from the defaults.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from kedge.config.places import Toml, enclosing, find_in, join

DEFAULTS = "defaults"
"""The name of the table."""


def merge(
    own: Mapping[str, object], defaults: Mapping[str, object], place: str = ""
) -> tuple[Toml, set[str]]:
    """Return an endpoint's table merged with the defaults, and the places that the defaults gave.

    Args:
        own: the endpoint's table.
        defaults: the table `[defaults]`.
        place: the place of both, within their tables.
    """
    merged, inherited = dict(own), set[str]()
    for name, value in defaults.items():
        at = join(place, name)
        mine = own.get(name)
        if name not in own:
            merged[name] = value
            inherited |= {at, *find_in(value, at)}
        elif isinstance(mine, dict) and isinstance(value, dict):
            merged[name], deeper = merge(mine, value, at)
            inherited |= deeper
    return merged, inherited


class Tracing:
    """The faults of merged tables, each with its place in the file: an endpoint or `[defaults]`."""

    def __init__(self) -> None:
        self._by: dict[str, list[str]] = {}
        """By fault: the endpoints that have it from the defaults; empty if it is the endpoint's."""

    def add(
        self, faults: list[str], table: str, own: Mapping[str, Any], inherited: Collection[str]
    ) -> None:
        """Add the faults of one endpoint.

        Args:
            faults: each begins with its place.
            table: the place of the endpoint.
            own: its table.
            inherited: the places in it that the defaults gave.
        """
        mine = set(find_in(own))
        for line in faults:
            place, _, said = line.partition(": ")
            within = place.removeprefix(f"{table}.") if place.startswith(f"{table}.") else ""
            of = next((one for one in enclosing(within) if one in inherited or one in mine), "")
            if of in inherited:
                self._by.setdefault(f"{join(DEFAULTS, within)}: {said}", []).append(table)
            else:
                self._by.setdefault(line, [])

    def told(self) -> list[str]:
        """Return every fault once; a fault of the defaults names the endpoints that have it."""
        return [f"{line} (in {', '.join(of)})" if of else line for line, of in self._by.items()]
