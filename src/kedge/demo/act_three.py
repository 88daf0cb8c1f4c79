"""Act three: four real days of snow. Both releases fail, and a rollback does not help.

On 9, 10, 14 and 17 December 2013, 61 to 77 % of the flights were late; over the year it is 24 %. No
model has seen such days. kedge is asked why, as it was asked of the leaking model and of the hour
in UTC. Before it snows, it is asked whether this endpoint could be taken back at all: readiness, and a drill
under load.

What days the other acts meet depends on how fast the machine is, and with it how much a mistake harms
and how many labels have come. So a diagnosis that misses what was injected is told and kept in the
report, and does not end the demo.
"""

from __future__ import annotations

from math import nan
from typing import TYPE_CHECKING

from kedge.core.alerts.alerts import Alert
from kedge.core.speed import Speed
from kedge.core.stored.notes import DrillResult
from kedge.demo.questions import diagnosed
from kedge.demo.report import DrillFigures
from kedge.operations.alerts import ListedAlert
from kedge.operations.readiness.check import CheckedEndpoint
from kedge.system.terminal import show

if TYPE_CHECKING:
    from kedge.demo.processes import TrafficProcess
    from kedge.demo.stage import Demo

SNOWED, LABELS_S = 1_600, 8.0
"""How many flights of those days, and how long their outcomes are waited for."""
DRILL = "4s"


def ready(demo: Demo, traffic: TrafficProcess) -> None:
    """Practise a rollback, and check what else is missing."""
    demo.step("rollback-ready? Practise one under load, then ask what is missing")
    for alert in demo.kedge.run("alerts", "flights", prints=list[ListedAlert]).data:
        if alert.level == "page":
            demo.shell("ack", str(alert.number), prints=Alert)
    drill = demo.shell("drill", "flights", "--for", DRILL, prints=DrillResult).data
    there, again = (
        nan if one is None or one.last_ack_ms is None else one.last_ack_ms
        for one in (drill.back, drill.forward)
    )
    show(
        f"  r{drill.release} answered {drill.answered or 0:,} callers for {drill.lasted_s:.1f}"
        f" s, {drill.failed} failed; last ack {there:.1f} ms there,"
        f" {again:.1f} ms back again"
    )
    demo.drill = DrillFigures(
        ok=drill.ok,
        total_s=drill.total_s,
        lasted_s=drill.lasted_s,
        answered=drill.answered,
        failed=drill.failed,
    )
    found = demo.shell("check", "flights", prints=CheckedEndpoint, codes=(0, 1)).data
    for check in found.checks:
        show(f"    {check.outcome:14} {check.name:12} {check.why[:88]}")
    demo.readiness = {check.name: check.outcome for check in found.checks}
    demo.watch(traffic, 0.0)


def snow_act(demo: Demo, traffic: TrafficProcess) -> None:
    """Send the days of snow, and diagnose whether a rollback would help."""
    demo.step("act three: 9, 10, 14 and 17 December as they were. No model has seen such days")
    before = _production(demo)
    traffic.let_it_snow()
    lasted = demo.watch_answers(traffic, SNOWED, LABELS_S)
    diagnosed(demo, "world", lasted)
    after = _production(demo)
    show(
        f"  {after} is production, as before:"
        f" {'it was not rolled back' if after == before else 'NO'}"
    )
    demo.speed = demo.shell("speed", "flights", prints=Speed).data


def _production(demo: Demo) -> str:
    production = demo.kedge.status().production
    assert production is not None
    return production.release
