"""The commands `kedge config check` and `kedge config schema`."""

from __future__ import annotations

import sys

import click
import msgspec

from kedge.cli.context import Context, prints, verb
from kedge.cli.failure import USAGE
from kedge.config.load import GUARDRAILS, find_faults, read_text
from kedge.config.model import Settings
from kedge.config.places import ConfigFault
from kedge.config.schema import build_schema
from kedge.core.errors import BadConfig
from kedge.core.values import Field, Policy, Value
from kedge.system.terminal import one_line, show


class ConfigCheck(Value, frozen=True):
    """The faults of a kedge.toml."""

    config: str
    """Path of kedge.toml."""
    ok: bool
    faults: tuple[ConfigFault, ...]
    endpoints: tuple[str, ...]
    """The declared endpoints, in alphabetical order; empty if there are faults."""


@click.group()
def config() -> None:
    """Check kedge.toml, and describe it to editors."""


@config.command("check")
@verb
@prints(ConfigCheck)
def check_config(context: Context) -> None:
    """List every fault of kedge.toml with its line."""
    text = read_text(context.config)
    faults: list[ConfigFault]
    try:
        faults, names = find_faults(text), []
        if not faults:
            names = sorted(context.settings.endpoints)
    except BadConfig as error:
        faults, names = [ConfigFault("", None, fault) for fault in error.faults], []
    data = ConfigCheck(str(context.config), not faults, tuple(faults), tuple(names))
    where = context.config.name
    good = f"{where}: no fault; endpoints: {', '.join(names) or 'none'}"
    lines = [one_line(fault.told(where)) for fault in faults]
    context.out(data, "\n".join(lines) if faults else one_line(good))
    if faults:
        context.say("hint: kedge help reference/config explains every key; nothing was changed")
        sys.exit(USAGE)


@config.command("schema")
def print_schema() -> None:
    """Print the JSON schema of kedge.toml."""
    show(schema_text())


def schema_text() -> str:
    """Return the JSON schema of kedge.toml."""
    made = msgspec.json.encode(build_schema(Settings, Policy, Field, GUARDRAILS))
    return msgspec.json.format(made, indent=2).decode()
