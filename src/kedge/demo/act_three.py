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

from typing import TYPE_CHECKING, Any

from kedge.demo.questions import diagnosed
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
    pages: Any = demo.kedge.run("alerts", "flights").data
    for alert in pages:
        if alert["level"] == "page":
            demo.shell("ack", str(alert["number"]))
    drill = demo.shell("drill", "flights", "--for", DRILL).data
    back, forward = drill["back"], drill["forward"]
    show(
        f"  r{drill['release']} answered {drill['answered']:,} callers for {drill['lasted_s']:.1f}"
        f" s, {drill['failed']} failed; last ack {back['last_ack_ms']:.1f} ms there,"
        f" {forward['last_ack_ms']:.1f} ms back again"
    )
    demo.drill = {key: drill[key] for key in ("ok", "total_s", "lasted_s", "answered", "failed")}
    checks = demo.shell("check", "flights", codes=(0, 1)).data
    for check in checks["checks"]:
        show(f"    {check['outcome']:14} {check['name']:12} {check['why'][:88]}")
    demo.readiness = {check["name"]: check["outcome"] for check in checks["checks"]}
    demo.watch(traffic, 0.0)


def snow_act(demo: Demo, traffic: TrafficProcess) -> None:
    """Send the days of snow, and diagnose whether a rollback would help."""
    demo.step("act three: 9, 10, 14 and 17 December as they were. No model has seen such days")
    production = demo.kedge.status()["production"]["release"]
    traffic.let_it_snow()
    lasted = demo.watch_answers(traffic, SNOWED, LABELS_S)
    diagnosed(demo, "world", lasted)
    after = demo.kedge.status()["production"]["release"]
    show(
        f"  {after} is production, as before:"
        f" {'it was not rolled back' if after == production else 'NO'}"
    )
    demo.speed = demo.shell("speed", "flights").data
