"""The `kedge` command. Commands parse, call and print; data to stdout, talk to stderr.

Exit codes: 0 done, 1 refused, 2 usage or configuration, 3 written but not acknowledged,
4 something that is needed cannot be reached. A failure ends with a `hint:`.

Imports of the house stand inside the commands: `kedge --help` must not pay for SQLAlchemy.
"""

from __future__ import annotations

from pathlib import Path

import click

from kedge.cli.alerts import ack, alerts, runbook
from kedge.cli.backup import backup, restore
from kedge.cli.check import check
from kedge.cli.config import config
from kedge.cli.context import Context
from kedge.cli.demo import demo
from kedge.cli.diagnose import accept, diagnose
from kedge.cli.drill import drill, speed
from kedge.cli.evidence import evidence
from kedge.cli.features import features
from kedge.cli.help import add_examples, completion, show_help
from kedge.cli.log import log
from kedge.cli.models import register, versions
from kedge.cli.outcomes import outcomes
from kedge.cli.replay import replay
from kedge.cli.rollback import rollback, unpin
from kedge.cli.rollout import (
    abort,
    canary,
    freeze,
    pause,
    plan,
    promote,
    resume,
    set_weight,
    shadow,
    thaw,
)
from kedge.cli.root import Root
from kedge.cli.serve import control, gateway, gateway_worker, restart, up
from kedge.cli.setup import apply, doctor, init
from kedge.cli.status import history, list_endpoints, status


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
@click.version_option(package_name="kedge")
@click.pass_context
def main(context: click.Context, config: Path | None, acting_as: str) -> None:
    """Ship model versions safely, and take them back in seconds.

    kedge COMMAND --help has examples; kedge help lists the documentation.
    """
    from kedge.system.files import set_umask

    set_umask()
    context.obj = Context(config, acting_as)


for _command in (
    abort,
    accept,
    ack,
    alerts,
    apply,
    backup,
    canary,
    check,
    completion,
    config,
    control,
    demo,
    diagnose,
    doctor,
    drill,
    evidence,
    features,
    freeze,
    gateway,
    gateway_worker,
    history,
    init,
    list_endpoints,
    log,
    outcomes,
    pause,
    plan,
    promote,
    register,
    replay,
    restart,
    restore,
    resume,
    rollback,
    runbook,
    set_weight,
    shadow,
    show_help,
    speed,
    status,
    thaw,
    unpin,
    up,
    versions,
):
    main.add_command(_command)
add_examples(main)
