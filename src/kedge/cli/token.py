"""The commands `kedge token` (create, list and revoke tokens of control) and `kedge login`."""

from __future__ import annotations

import click

from kedge.cli.completion import complete
from kedge.cli.context import Context, prints, verb
from kedge.cli.screen.tokens import tokens_screen
from kedge.cli.text.tokens import created_text, tokens_text
from kedge.core.access import Role, Scope
from kedge.operations.tokens import (
    DEFAULT_EXPIRY,
    CreatedToken,
    Grants,
    ListedToken,
    LoginLink,
    create_token,
    list_tokens,
    make_link,
    revoke_token,
)
from kedge.system.terminal import one_line
from kedge.workspace import actor


@click.group()
def token() -> None:
    """Create, list and revoke the tokens of control."""


@token.command("create")
@click.option("--name", required=True, help="A name for lists and for the ledger.")
@click.option("--role", type=click.Choice([role.value for role in Role]), help="What it may do.")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice([scope.value for scope in Scope]),
    multiple=True,
    help="A single permission, in place of a role; may be repeated.",
)
@click.option("--endpoint", "only", multiple=True, help="Only this endpoint; may be repeated.")
@click.option(
    "--expires",
    default=DEFAULT_EXPIRY,
    show_default=True,
    help="How long it is valid, such as 90d; or never.",
)
@verb
@prints(CreatedToken)
def token_create(
    context: Context,
    name: str,
    role: str | None,
    scopes: tuple[str, ...],
    only: tuple[str, ...],
    expires: str,
) -> None:
    """Create a token, and show it once."""
    grants = Grants(
        name=name,
        role=None if role is None else Role(role),
        scopes=tuple(Scope(scope) for scope in scopes),
        endpoints=only,
        expires=expires,
    )
    made = context.result(
        lambda: create_token(context.place(), grants, by=actor(), configured=context.configured)
    )
    context.out(made, one_line(made.token))
    context.say(created_text(one_line(made)))


@click.command()
@verb
@prints(LoginLink)
def login(context: Context) -> None:
    """Print a link that logs a browser into the dashboard once."""
    base = context.settings.control.get_url(context.settings.server.control_port)
    link = make_link(context.place(), base)
    context.out(link, one_line(link.url))


@token.command("list")
@click.option("--all", "every", is_flag=True, help="Include revoked tokens.")
@verb
@prints(list[ListedToken])
def token_list(context: Context, *, every: bool) -> None:
    """List tokens: their permissions, end and last use."""
    found = context.result(lambda: list_tokens(context.place(), every=every))
    screen = tokens_screen(found) if found else None
    context.out(found, tokens_text(one_line(found)) or "there is no token", screen)


@token.command("revoke")
@click.argument("name", shell_complete=complete("token"))
@click.option("--reason", default="", help="Why; the ledger records it.")
@verb
@prints(ListedToken)
def token_revoke(context: Context, name: str, reason: str) -> None:
    """Revoke a token; its browser sessions end with it."""
    found = context.result(lambda: revoke_token(context.place(), name, by=actor(), reason=reason))
    context.out(found, f"token {one_line(found.name)} is revoked")
