"""Completion in a shell: commands, endpoints, versions, releases, alerts and tokens.

It is silent whatever fails, creates nothing, and reads the ledger without the workspace. Where a
name follows the words of a command, not even the command's module is imported. Every command
imports this module for its parameters, so what reads names is imported when names are read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
)

from kedge.config.locate import LEDGER, STATE, find_config

if TYPE_CHECKING:
    from kedge.adapters.sql.completion import Kind, Name

ARGUMENTS: dict[str, tuple[Kind, ...]] = {
    "abort": ("endpoint",),
    "accept": ("endpoint",),
    "ack": ("alert",),
    "alerts test": ("endpoint",),
    "canary": ("endpoint", "version"),
    "check": ("endpoint",),
    "diagnose": ("endpoint",),
    "drill": ("endpoint",),
    "evidence": ("endpoint",),
    "features canary": ("endpoint",),
    "features diff": ("transformation", "transformation"),
    "features follow": ("endpoint",),
    "features head": ("transformation",),
    "features hold": ("endpoint",),
    "features impact": ("transformation",),
    "features list": ("schema",),
    "features roll": ("endpoint",),
    "features shadow": ("endpoint",),
    "features training-set": ("endpoint",),
    "freeze": ("endpoint",),
    "history": ("endpoint",),
    "log export": ("endpoint",),
    "outcomes": ("endpoint",),
    "pause": ("endpoint",),
    "plan": ("endpoint",),
    "promote": ("endpoint", "version"),
    "register": ("endpoint",),
    "replay": ("endpoint", "version"),
    "resume": ("endpoint",),
    "rollback": ("endpoint",),
    "runbook": ("endpoint",),
    "set-weight": ("endpoint",),
    "shadow": ("endpoint", "version"),
    "speed": ("endpoint",),
    "status": ("endpoint",),
    "thaw": ("endpoint",),
    "token revoke": ("token",),
    "unpin": ("endpoint",),
    "versions": ("endpoint",),
    "wait": ("endpoint",),
}
"""The names that follow the words of a command; a test compares them with its arguments."""
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/#@-]*")
"""Names that mean nothing else to a shell. A shell inserts them as they are."""

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem[Any]]]


def complete(kind: Kind) -> Completer:
    """Return the function with which a parameter completes names of a kind."""

    def complete_names(
        ctx: click.Context, _: click.Parameter, begins: str
    ) -> list[CompletionItem[Any]]:
        named = ctx.find_root().params.get("config")
        # Behind an option that still has no value, click has parsed no argument.
        endpoint = ctx.params.get("endpoint") or next(iter(ctx.args), "")
        return find_names(kind, begins, named, endpoint)

    complete_names.kind = kind  # type: ignore[attr-defined]
    return complete_names


def find_names(
    kind: Kind, begins: str, config: Path | None = None, endpoint: str = ""
) -> list[CompletionItem[Any]]:
    """Return the names of a kind that begin with the given text.

    Args:
        kind: the kind of names.
        begins: the text.
        config: kedge.toml as the operator named it; None: the nearest one.
        endpoint: the typed endpoint; empty: the only one.
    """
    found = _find_remote(kind, endpoint)
    if found is None:
        found = _find_local(kind, config, endpoint)
    return [
        CompletionItem(name.text, help=name.help or None)
        for name in found
        if name.text.startswith(begins) and _SAFE.fullmatch(name.text)
    ]


def _find_remote(kind: Kind, endpoint: str) -> list[Name] | None:
    """Return the names on the server of KEDGE_SERVER; None: this machine has them."""
    if not os.environ.get("KEDGE_SERVER"):
        return None
    from kedge.cli.remote_names import read_remote_names

    return read_remote_names(os.environ, kind, endpoint)


def _find_local(kind: Kind, config: Path | None, endpoint: str) -> list[Name]:
    """Return the names in kedge.toml and in the ledger."""
    from kedge.adapters.sql.completion import Name

    config = (config or find_config()).absolute()
    settings = _read_settings(config)
    server = settings.get("server", {})
    ledger = config.parent / server.get("state_dir", STATE) / LEDGER / "ledger.db"
    if kind == "endpoint":
        configured = [Name(name, "") for name in settings.get("endpoints", {})]
        return sorted({*configured, *_read(ledger, "endpoint")})
    if kind in ("version", "release") and not endpoint:
        names = _read(ledger, "endpoint")
        return _read(ledger, kind, names[0].text) if len(names) == 1 else []
    return _read(ledger, kind, endpoint)


def _read(ledger: Path, kind: Kind, endpoint: str = "") -> list[Name]:
    """Return the names in the ledger; none if there is no ledger."""
    from kedge.adapters.sql.completion import read_names

    return read_names(ledger, kind, endpoint) if ledger.exists() else []


def _read_settings(config: Path) -> dict[str, Any]:
    """Return the tables of kedge.toml; none if it is missing or damaged."""
    import tomllib

    try:
        return tomllib.loads(config.read_text("utf-8-sig"))
    except (OSError, ValueError):
        return {}


def find_quickly(words: list[str], begins: str) -> list[CompletionItem[Any]] | None:
    """Return the names that can follow the words of a command; None: only its module knows."""
    if any(word.startswith("-") for word in (*words, begins)):
        return None
    for length in (2, 1):
        kinds = ARGUMENTS.get(" ".join(words[:length]))
        given = words[length:]
        if kinds is not None and len(words) >= length and len(given) < len(kinds):
            endpoint = given[0] if given and kinds[0] == "endpoint" else ""
            named = os.environ.get("KEDGE_CONFIG")
            return find_names(kinds[len(given)], begins, Path(named) if named else None, endpoint)
    return None


class _Quiet(ShellComplete):
    """A shell whose completion says nothing when it fails."""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[Any]]:
        """Return what can follow, from the table if that is enough."""
        found = find_quickly(args, incomplete)
        return super().get_completions(args, incomplete) if found is None else found

    def complete(self) -> str:
        """Return the lines for the shell; none if anything fails."""
        try:
            return super().complete()
        except Exception:  # noqa: BLE001 - a message would be written into the typed line
            return ""

    def source(self) -> str:
        """Return the script, in which messages of kedge's start are dropped too."""
        asks = re.compile(rf"(?<=_complete )(\$1|{re.escape(self.prog_name)})(?=\))")
        asks_fish = re.compile(rf"(?<=\(commandline -t\) )({re.escape(self.prog_name)})(?=\))")
        script = super().source()
        return asks_fish.sub(r"\1 2>/dev/null", asks.sub(r"\1 2>/dev/null", script))


class _Bash(_Quiet, BashComplete):
    """Bash from 4.4 on."""


class _Zsh(_Quiet, ZshComplete):
    """The Z shell."""


class _Fish(_Quiet, FishComplete):
    """The friendly interactive shell."""


SHELLS: dict[Literal["bash", "zsh", "fish"], type[ShellComplete]] = {
    "bash": _Bash,
    "zsh": _Zsh,
    "fish": _Fish,
}


def install() -> None:
    """Make click complete with these shells."""
    for name, kind in SHELLS.items():
        add_completion_class(kind, name)
