"""Endpoints: the first one with its kedge.toml, and further ones added to it."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Literal

import msgspec

from kedge.config.defaults import DEFAULTS
from kedge.config.document import (
    OUTPUT_LINE,
    SCHEMA_NAME,
    TEMPLATE,
    append,
    owner_from_git,
    write,
    write_block,
)
from kedge.config.load import read
from kedge.config.model import Settings
from kedge.core.errors import Refused, Unavailable
from kedge.core.names import check_name
from kedge.core.values import ShadowPolicy, Value
from kedge.operations.registration import proposed_line
from kedge.operations.setup import apply_policies, create_workplace
from kedge.workspace import Workplace


class DeclaredEndpoint(Value, frozen=True, kw_only=True):
    """An endpoint that kedge.toml declares, with the next steps for a new user."""

    config: str
    """The path of kedge.toml."""
    state_dir: str
    created: bool
    """Whether the ledger was created."""
    audience: Literal["customer", "internal"]
    shadow: ShadowPolicy
    example: str
    """A call to copy, as a shell command."""


def begin_endpoint(config: Path, state_dir: Path, name: str, port: int) -> bool:
    """Write a kedge.toml for an endpoint; create the ledger if it is missing, and return whether.

    Raises:
        BadConfig: the name or the port is invalid.
        Unavailable: `not_writable`.
    """
    owner, contact = owner_from_git()
    schema = os.path.relpath(state_dir / SCHEMA_NAME, config.parent)
    text = TEMPLATE.format(schema=schema, name=name, port=port, owner=owner, contact=contact)
    text = text.replace(OUTPUT_LINE, proposed_line(state_dir, name) or OUTPUT_LINE)
    read(text, where=config.name)
    _write(config, text)
    return create_workplace(state_dir)


def add_endpoint(config: Path, settings: Settings, state_dir: Path, name: str) -> bool:
    """Add an endpoint to an existing kedge.toml, and bring its policy alone into force.

    An endpoint that the file declares already stays unchanged. If the ledger is missing, as after a
    checkout, it is created, and True is returned.

    Raises:
        Refused: `bad_name`, `endpoint_exists`, `config_closed`.
        BadConfig: the file would have faults.
        Unavailable: the file or the ledger cannot be written.
    """
    check_name(name)
    there = (state_dir / "ledger").exists()
    if name in settings.endpoints:
        return create_workplace(state_dir)
    place = Workplace(state_dir)
    if there and (known := place.ledger.read().states.get(name)) is not None and known.epoch:
        raise Refused(
            f"{name} is in the ledger already, and not in {config.name}",
            code="endpoint_exists",
            hint=f"add [endpoints.{name}] to it as it was, then kedge apply",
            details={"endpoint": name},
        )
    text = config.read_bytes().decode()
    defaults = tomllib.loads(text.removeprefix("\ufeff")).get(DEFAULTS, {})
    block = write_block(name, defaults, proposed_line(state_dir, name) or OUTPUT_LINE)
    grown = append(text, name, block)
    policy = read(grown.removeprefix("\ufeff"), where=config.name).endpoints[name]
    _write(config, grown)
    made = create_workplace(state_dir)
    if there:
        apply_policies(place, msgspec.structs.replace(settings, endpoints={name: policy}))
    return made


def write_schema(state_dir: Path, text: str) -> None:
    """Write the JSON schema to the path that kedge.toml's first line names, for editors only.

    Raises:
        OSError: it cannot be written.
    """
    path = state_dir / SCHEMA_NAME
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    path.write_text(text, encoding="utf-8")


def _write(config: Path, text: str) -> None:
    try:
        write(config, text)
    except OSError as error:
        raise Unavailable(
            f"{config} cannot be written: {error.strerror or error}",
            code="not_writable",
            hint="nothing was changed",
        ) from error
