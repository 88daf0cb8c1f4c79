"""Commands that serve: up, gateway, control, restart, and the gateway worker that `up` starts."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import click
from msgspec.structs import replace

from kedge.cli.context import Context, end_in_order, prints, verb
from kedge.cli.quantities import Count, Duration, Port
from kedge.core.errors import Refused, Unavailable
from kedge.core.values import Value
from kedge.system.imports import quick_imports

if TYPE_CHECKING:
    from kedge.config.model import ServerSettings
    from kedge.runtime.restart import Handover


class RestartedSupervisor(Value, frozen=True):
    """A running supervisor that took over new code and settings."""

    pid: int
    version: str
    """Version of kedge that runs now."""
    workers: int
    """Number of new gateway workers that serve."""
    seconds: float
    """Seconds until they served."""


@click.command()
@click.option("--port", type=Port(), help="Override [server] port.")
@click.option("--workers", type=Count("workers", most=1_000), help="Override [server] workers.")
@click.option(
    "--run-for", type=float, hidden=True, help="Stop automatically after this many seconds."
)
@click.option(
    "--trial", hidden=True, help="Only check that it could take over from the running one."
)
@verb
@prints(None)
def up(
    context: Context,
    port: int | None,
    workers: int | None,
    run_for: float | None,
    trial: str | None,
) -> None:
    """Run everything on this machine; Ctrl-C stops it."""
    _supervise(context, port, workers, with_control=True, run_for=run_for, trial=trial)


@click.command()
@click.option("--port", type=Port(), help="Override [server] port.")
@click.option("--workers", type=Count("workers", most=1_000), help="Override [server] workers.")
@click.option(
    "--trial", hidden=True, help="Only check that it could take over from the running one."
)
@verb
@prints(None)
def gateway(context: Context, port: int | None, workers: int | None, trial: str | None) -> None:
    """Run only the gateway workers and their model processes."""
    _supervise(context, port, workers, with_control=False, trial=trial)


def _supervise(
    context: Context,
    port: int | None,
    workers: int | None,
    *,
    with_control: bool,
    trial: str | None,
    run_for: float | None = None,
) -> None:
    """Run a supervisor; if it was executed again and cannot start, keep the running processes."""
    end_in_order()
    with quick_imports():
        from kedge.runtime.restart import hold, take_handover

    handed = take_handover()
    try:
        _start(context, port, workers, with_control, trial, run_for, handed)
    except Exception as error:
        if handed is None or handed.taken:
            raise
        sys.exit(hold(handed, error))


def _start(
    context: Context,
    port: int | None,
    workers: int | None,
    with_control: bool,
    trial: str | None,
    run_for: float | None,
    handed: Handover | None,
) -> None:
    with quick_imports():
        import msgspec

        from kedge.config.load import check_server
        from kedge.operations.preflight import (
            check_control_port,
            check_machine,
            check_open_files,
        )
        from kedge.operations.setup import apply_policies, ensure_ledger
        from kedge.runtime.supervisor import HostSettings, run_supervisor, try_out

    server = _merge_options(context, port, workers)
    check_server(server)
    if trial is not None:
        from kedge.runtime.restart import Standing

        _import_control()
        assert context.online is not None
        try_out(server, context.state_dir, msgspec.json.decode(trial, type=Standing))
        check_open_files(server.max_in_flight, len(context.settings.endpoints))
        return
    check_machine(
        context.state_dir, server.max_in_flight, len(context.settings.endpoints), context.say
    )
    taken = check_control_port(server.control_port) if with_control and handed is None else None
    if taken is not None:
        context.say(f"warning: {taken}")

    def ready() -> None:
        try:
            if ensure_ledger(context.state_dir):
                context.say(
                    f"made a new ledger in {context.state_dir}: nothing is served yet\nnext: kedge"
                    " register ENDPOINT PATH and kedge promote ENDPOINT v1; if there was a state"
                    " directory, stop and restore it"
                )
            apply_policies(context.place(), context.settings)
        except Unavailable as error:
            context.say(
                f"warning: {error}\nwarning: serving the last known state from this host's own"
                " disk; commands are refused until the ledger is back"
            )
        except Refused as error:
            context.say(
                f"warning: {error}\nwarning: serving under the policy that is in force;"
                f" {error.hint}"
            )

    settings = HostSettings(
        server=server,
        online=context.online,
        alerts=context.settings.alerts,
        config=context.config,
        state_dir=context.state_dir,
        with_control=with_control,
        control_url=context.settings.control.get_url(server.control_port),
        run_for=run_for,
    )
    run_supervisor(settings, say=context.say, ready=ready, handed=handed)


def _merge_options(context: Context, port: int | None, workers: int | None) -> ServerSettings:
    """Return the settings of kedge.toml with the options of the command line."""
    server = context.settings.server
    changes: dict[str, object] = {"port": port, "workers": workers}
    for name in ("tester_token_file", "caller_token_file"):
        path = getattr(server, name)
        changes[name] = path and str((context.config.parent / path).absolute())
    given = {name: value for name, value in changes.items() if value is not None}
    return replace(server, **given)


@click.command()
@click.option(
    "--within",
    type=Duration(least="1s", most="1h"),
    default="120s",
    show_default=True,
    help="How long to wait until the new workers serve.",
)
@verb
@prints(RestartedSupervisor)
def restart(context: Context, within: str) -> None:
    """Load new code and settings into kedge up, without outage."""
    import time

    from kedge.core.time.durations import seconds
    from kedge.runtime.restart import restart as replace

    context.check_here()
    began, within_s = time.monotonic(), seconds(within)
    done = replace(context.state_dir, within_s)
    took = time.monotonic() - began
    context.out(
        RestartedSupervisor(done.pid, done.version, done.workers, took),
        f"restarted in {took:.1f} s: process {done.pid} runs kedge {done.version}, and"
        f" {done.workers} new workers serve; those before them answer what they have, and end",
    )


@click.command("gateway-worker", hidden=True)
@click.option("--slot", required=True)
@click.option("--fd", type=int, required=True)
@click.option("--run-dir", type=click.Path(path_type=Path), required=True)
@click.option("--server", "server_json", required=True)
@click.option("--state-dir", type=click.Path(path_type=Path), required=True)
@verb
@prints(None)
def gateway_worker(
    _context: Context, slot: str, fd: int, run_dir: Path, server_json: str, state_dir: Path
) -> None:
    """Be one gateway worker, started by the supervisor."""
    with quick_imports():
        from kedge.config.model import ServerSettings
        from kedge.core.codec import decode
        from kedge.runtime.logs import log_to_stderr
        from kedge.runtime.worker import run_worker

    log_to_stderr()
    run_worker(
        decode(server_json, ServerSettings), slot=slot, fd=fd, run_dir=run_dir, state_dir=state_dir
    )


def _import_control() -> ModuleType:
    with quick_imports():
        from kedge.runtime import control

    return control


@click.command()
@click.option("--port", type=Port(), help="Override [server] control_port.")
@click.option("--parent", type=int, hidden=True, help="The supervisor to end with.")
@verb
@prints(None)
def control(context: Context, port: int | None, parent: int | None) -> None:
    """Run only control: the patrol, and the API on loopback."""
    part = _import_control()
    server = context.settings.server
    settings = part.ControlSettings(
        port=server.control_port if port is None else port,
        config=context.config,
        state_dir=context.state_dir,
        alerts=context.settings.alerts,
        loopback=server.loopback,
        fence=server.fence,
        records_gb=server.records_gb,
        traces=server.traces,
        segments=context.settings.metrics.segments,
        bind=context.settings.control,
        links=server.links,
        parent=parent or os.getppid(),
    )
    part.run_control(settings, online=lambda: context.online)
