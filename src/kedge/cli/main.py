"""Main command `kedge`. Commands parse, call and print: data to stdout, messages to stderr.

Exit codes: 0 done, 1 refused, 2 usage or configuration, 3 written but not acknowledged,
4 a required system is unreachable. A failure ends with a `hint:`.

A command's module is imported when the command runs: `kedge --help` does not wait for SQLAlchemy.
"""

from __future__ import annotations

from pathlib import Path

import click

from kedge.cli.root import Root
from kedge.system.files import set_umask


@click.group(
    cls=Root, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.option(
    "--config",
    "-c",
    type=click.Path(path_type=Path),
    envvar="KEDGE_CONFIG",
    help="The configuration file; default: the nearest kedge.toml, here or above.",
)
@click.option(
    "--acting-as",
    type=click.Choice(["person", "control"]),
    default="person",
    hidden=True,
    help="Which component runs the command; control names itself.",
)
@click.option("--insecure", is_flag=True, help="Accept plain http to the server of KEDGE_SERVER.")
@click.option(
    "--expect",
    type=click.IntRange(min=0),
    hidden=True,
    help="The epoch that the caller saw; the command is refused if it has changed.",
)
@click.option(
    "--allowed-by", default="", hidden=True, help="The token that allowed it; control names it."
)
@click.version_option(package_name="kedge")
def main(**_: object) -> None:
    """Ship model versions safely, and roll them back in seconds.

    kedge COMMAND --help has examples; kedge help lists the documentation.
    """
    set_umask()  # `cli.context.get_context` reads the options when a command runs
