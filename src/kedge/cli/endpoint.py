"""Endpoint of a command: the argument ENDPOINT, its check, and its completion."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import click

from kedge.cli.completion import complete
from kedge.cli.context import get_context
from kedge.core.errors import Usage


class _Checked(click.Parameter):
    """A parameter that names an endpoint, checked before anything else: a typo creates nothing."""

    every = False
    """Whether no endpoint means all of them; else it means the only one."""
    needs_row = True
    """Whether an endpoint that only kedge.toml names is refused."""

    def handle_parse_result(
        self, ctx: click.Context, opts: Mapping[str, Any], args: list[str]
    ) -> tuple[Any, list[str]]:
        """Parse the value, and replace it by an existing endpoint.

        Raises:
            Refused: `unknown_endpoint`.
            Usage: `endpoint_needed`.
            BadConfig: no endpoint is in force, and kedge.toml, which could name one, is damaged.
        """
        value, args = super().handle_parse_result(ctx, opts, args)
        if not ctx.resilient_parsing and not opts.get("help"):
            given = value if isinstance(value, str) else None
            if not given and isinstance(ctx.command, click.Group):
                given = None  # a command of the group was typed in its place
            ctx.params[self.name] = value = self._find(ctx, given)
        return value, args

    def _find(self, ctx: click.Context, given: str | None) -> str | None:
        if given is None and self.every:
            return None
        context = get_context(ctx)
        if context.remote is not None:  # the server checks the name
            return given if given is not None else context.remote.only_endpoint(typed(ctx))
        from kedge.operations.known_endpoints import find_endpoint, only_endpoint

        if given is None:
            try:
                return only_endpoint(
                    context.place(), context.configured, typed(ctx), needs_row=self.needs_row
                )
            except Usage as error:
                if context.damage is not None and not error.details["endpoints"]:
                    raise context.damage from None  # it could name one
                raise

        def configured() -> Collection[str]:
            return context.configured() if self.needs_row else context.settings.endpoints.keys()

        return find_endpoint(context.place(), given, configured, needs_row=self.needs_row)


class EndpointArgument(_Checked, click.Argument):
    """The argument ENDPOINT."""


class EndpointOption(_Checked, click.Option):
    """The option --endpoint ENDPOINT of a command that applies to all of them without it."""

    every = True


def endpoint(
    *, required: bool = False, every: bool = False, needs_row: bool = True
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add the argument ENDPOINT to a command.

    Args:
        required: whether it must be typed, because another argument follows it. Else the default is
            the only endpoint.
        every: whether no endpoint means all of them.
        needs_row: whether an endpoint that only kedge.toml names is refused.
    """

    class Argument(EndpointArgument):
        pass

    Argument.every, Argument.needs_row = every, needs_row
    return click.argument(
        "endpoint",
        cls=Argument,
        required=required,
        is_eager=True,
        shell_complete=complete("endpoint"),
    )


def endpoint_option(help_text: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add the option --endpoint to a command."""
    return click.option(
        "--endpoint",
        cls=EndpointOption,
        is_eager=True,
        shell_complete=complete("endpoint"),
        help=help_text,
    )


def typed(ctx: click.Context) -> str:
    """Return the command as typed, such as "kedge features hold"."""
    names = [ctx.info_name or ""]
    while ctx.parent is not None:
        ctx = ctx.parent
        names.append(ctx.info_name or "")
    return " ".join(reversed(names))
