"""Root group of the command line: commands by task, imported when used, and one style of errors."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import click
from click.shell_completion import CompletionItem

from kedge.cli.failure import fail
from kedge.cli.pages import COMMANDS, GROUPS, PAGES
from kedge.core.errors import KedgeError, Usage
from kedge.core.names import nearest
from kedge.system.imports import quick_imports
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
"""Words of other tools, and kedge's command for each."""
COMPLETING = "_KEDGE_COMPLETE"
"""The variable with which a shell asks for completion; click reads it."""
ALIASES = {"undo": "rollback"}
"""Second names of commands; documented, but not listed separately."""


class Root(click.Group):
    """The group `kedge`: it imports a command's module when the command runs or its help is shown.

    It prints every error in one style, and lists commands by task in its help.
    """

    def list_commands(self, _: click.Context) -> list[str]:
        """Return the names of all commands, hidden ones too, without an import."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command by its name or its alias; import its module."""
        name = ALIASES.get(cmd_name, cmd_name)
        if name not in self.commands and name in COMMANDS:
            module = _import(COMMANDS[name].module)
            command = getattr(module, COMMANDS[name].attribute)
            add_examples(command, name)
            self.add_command(command, name)
        return super().get_command(ctx, name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; if it does not exist, raise with the likely one."""
        word = args[0]
        if (
            not ctx.resilient_parsing
            and not word.startswith("-")
            and self.get_command(ctx, word) is None
        ):
            raise _unknown(word, [name for name, listed in COMMANDS.items() if not listed.hidden])
        return super().resolve_command(ctx, args)

    def format_commands(self, _: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands by task, each with its whole line."""
        shown = {name: listed.line for name, listed in COMMANDS.items() if not listed.hidden}
        width = max(map(len, shown))
        for group in GROUPS:
            rows = [
                (name.ljust(width), shown[name])
                for name, page in PAGES.items()
                if name in shown and page.group == group
            ]
            if rows:
                with formatter.section(group):
                    formatter.write_dl(rows)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the commands and options that begin with the given text, without an import."""
        names = [
            CompletionItem(name, help=click.Command(name, help=listed.line).get_short_help_str())
            for name, listed in sorted(COMMANDS.items())
            if name.startswith(incomplete) and not listed.hidden
        ]
        return names + click.Command.shell_complete(self, ctx, incomplete)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        *more: Any,
        **extra: Any,
    ) -> Any:
        """Run a command line, print errors in one style, and exit with its code."""
        given = list(sys.argv[1:] if args is None else args)
        as_json = "--json" in given
        extra["standalone_mode"] = False
        if COMPLETING in os.environ:
            _import("completion").install()
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


def _import(name: str) -> ModuleType:
    """Import a module of `cli/`."""
    with quick_imports():
        return importlib.import_module(f"kedge.cli.{name}")


def walk(command: click.Command, path: str = "") -> Iterator[tuple[str, click.Command]]:
    """Yield every command below a group with its path, such as "features apply"; hidden ones too."""
    if isinstance(command, click.Group):
        ctx = click.Context(command)
        for name in command.list_commands(ctx):
            inner = command.get_command(ctx, name)
            assert inner is not None
            inside = f"{path} {name}".strip()
            yield inside, inner
            yield from walk(inner, inside)


def add_examples(command: click.Command, path: str) -> None:
    """Add examples and the topic to a command and to each command within it."""
    for inside, each in ((path, command), *walk(command, path)):
        if inside in PAGES:
            page = PAGES[inside]
            lines = "\n".join(f"  {line}" for line in page.examples)
            each.epilog = f"\b\nExamples:\n{lines}\n\nDocumentation: kedge help {page.topic}"


def _unknown(word: str, known: list[str]) -> Usage:
    """Return the error for a command that does not exist, with the likely one."""
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
    """Return click's usage error as one of kedge's."""
    near = getattr(error, "possibilities", None) or ()
    text = (error.message if near else error.format_message()).strip()
    text = text[:1].lower() + text[1:].removesuffix(".")
    if isinstance(error, click.NoSuchOption) and error.option_name[1:2].isdigit():
        text = "a number must not be negative here"  # click parses -1 as an option
    ctx = getattr(error, "ctx", None)
    if ctx is None:
        return Usage(text, hint="kedge --help lists all commands")
    line = " ".join([ctx.command_path, *ctx.command.collect_usage_pieces(ctx)])
    meant = f"did you mean {' or '.join(near)}? " if near else ""
    return Usage(text, hint=f"{meant}usage: {line}; {ctx.command_path} --help has examples")
