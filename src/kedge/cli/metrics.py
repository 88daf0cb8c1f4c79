"""The commands `kedge grafana` and `kedge prometheus-rules`."""

from __future__ import annotations

import click
import msgspec

from kedge.cli.context import Context, prints, verb
from kedge.cli.text.prometheus_rules import rules_text
from kedge.core.metrics.alert_rules import AlertRules
from kedge.core.metrics.dashboard import make_dashboard
from kedge.operations.metrics import alert_rules_of
from kedge.system.terminal import one_line, show


@click.command()
def grafana() -> None:
    """Print a dashboard for Grafana, as JSON to import."""
    show(msgspec.json.format(msgspec.json.encode(make_dashboard()), indent=2).decode())


@click.command("prometheus-rules")
@verb
@prints(AlertRules)
def prometheus_rules(context: Context) -> None:
    """Print alert rules for Prometheus, by the policies in force."""
    found = context.result(lambda: alert_rules_of(context.place()))
    context.out(found, rules_text(one_line(found)))
