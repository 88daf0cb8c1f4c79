"""The root group of the command line: commands by task, and one style of errors."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from kedge.cli.context import fail
from kedge.cli.pages import GROUPS, PAGES
from kedge.core.errors import KedgeError, Usage
from kedge.system.terminal import show

MEANT = {
    "backups": "backup",
    "cancel": "abort",
    "config-check": "config",
    "delete": "log",
    "deploy": "promote",
    "describe": "status",
    "endpoints": "list",
    "explain": "diagnose",
    "forget": "log",
    "get": "status",
    "info": "status",
    "labels": "outcomes",
    "launch": "up",
    "log-export": "log",
    "logs": "doctor",
    "ls": "list",
    "metrics": "evidence",
    "models": "versions",
    "new": "init",
    "publish": "promote",
    "push": "register",
    "reload": "restart",
    "release": "promote",
    "remove": "log",
    "resume-rollout": "resume",
    "retry": "resume",
    "revert": "rollback",
    "rollout": "canary",
    "run": "up",
    "serve": "up",
    "ship": "promote",
    "show": "status",
    "start": "up",
    "stats": "evidence",
    "step": "promote",
    "test": "shadow",
    "upload": "register",
    "validate": "config",
    "verify": "check",
    "weight": "set-weight",
    "why": "diagnose",
}
"""Words of other tools, and the command that does it here."""
ALIASES = {"undo": "rollback"}
"""Second names of commands; documented, and not listed apart."""


class Root(click.Group):
    """The group `kedge`: it prints every error in one style, and its help by task."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command by its name or its alias."""
        return super().get_command(ctx, ALIASES.get(cmd_name, cmd_name))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; one that does not exist is refused with the one that was meant."""
        word = args[0]
        if (
            not ctx.resilient_parsing
            and not word.startswith("-")
            and self.get_command(ctx, word) is None
        ):
            raise _unknown(word, [name for name in self.commands if not self.commands[name].hidden])
        return super().resolve_command(ctx, args)

    def format_commands(self, _: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands by task, each with its line whole."""
        listed = {name: command for name, command in self.commands.items() if not command.hidden}
        width = max(map(len, listed))
        for group in GROUPS:
            rows = [
                (name.ljust(width), first_line(listed[name]))
                for name, page in PAGES.items()
                if name in listed and page.group == group
            ]
            if rows:
                with formatter.section(group):
                    formatter.write_dl(rows)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        *more: Any,
        **extra: Any,
    ) -> Any:
        """Run a command line and exit with its code; errors are printed in one style."""
        given = list(sys.argv[1:] if args is None else args)
        as_json = "--json" in given
        extra["standalone_mode"] = False
        try:
            code = super().main(given, prog_name, *more, **extra)
        except KedgeError as error:
            code = fail(error, as_json=as_json)
        except click.exceptions.NoArgsIsHelpError as error:
            show(error.format_message(), err=True)
            code = error.exit_code
        except click.ClickException as error:
            code = fail(_usage(error), as_json=as_json)
        except (click.Abort, EOFError, KeyboardInterrupt):
            show("aborted", err=True)
            code = 1
        sys.exit(code if isinstance(code, int) else 0)


def first_line(command: click.Command) -> str:
    """Return what a command does, in the line that lists it."""
    return (command.help or "").strip().partition("\n")[0]


def _unknown(word: str, known: list[str]) -> Usage:
    """Return the error of a command that does not exist, with the one that was meant."""
    from kedge.core.names import nearest

    meant = MEANT.get(word.lower(), "")
    near = nearest(word, known) or (meant if meant in known else "")
    if meant in known:
        near = meant
    hint = f"did you mean kedge {near}? " if near else ""
    return Usage(
        f"kedge has no command {word[:80]}",
        code="unknown_command",
        hint=f"{hint}kedge --help lists all commands",
    )


def _usage(error: click.ClickException) -> Usage:
    """Return a usage error of click's as one of kedge's."""
    near = getattr(error, "possibilities", None) or ()
    text = (error.message if near else error.format_message()).strip()
    text = text[:1].lower() + text[1:].removesuffix(".")
    if isinstance(error, click.NoSuchOption) and error.option_name[1:2].isdigit():
        text = "a number must not be negative here"  # click takes -1 for an option
    ctx = getattr(error, "ctx", None)
    if ctx is None:
        return Usage(text, hint="kedge --help lists all commands")
    line = " ".join([ctx.command_path, *ctx.command.collect_usage_pieces(ctx)])
    meant = f"did you mean {' or '.join(near)}? " if near else ""
    return Usage(text, hint=f"{meant}usage: {line}; {ctx.command_path} --help has examples")
