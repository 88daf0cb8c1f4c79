"""Stand-in of control: it raises an alert that control keeps ending, and sends alerts meanwhile.

The supervisor starts it. It runs no patrol and takes no lock: if control runs too, the store lets
one of them claim each message. It needs no kedge.toml, which may be the reason why control fails.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

from kedge.config.model import Alerts
from kedge.core.alerts.alerts import Sight
from kedge.core.codec import decode
from kedge.core.runbook import Site
from kedge.core.values import ActorKind, Value
from kedge.engine.loop import Duty
from kedge.engine.process_faults import ProcessFaults
from kedge.operations.alerts import alerting_of
from kedge.runtime.logs import log_to_stderr
from kedge.system.interpreter import module_command
from kedge.system.pause import pause
from kedge.workspace import Workplace

Command = tuple[str, ...]


def stand_in_command(state_dir: Path, parent: int) -> Command:
    """Return its command; settings come on standard input, because a URL may hold a password."""
    return tuple(module_command("kedge.runtime.stand_in", str(state_dir), str(parent)))


class StandInSettings(Value, frozen=True):
    """Settings of the supervisor for its stand-in."""

    alerts: Alerts
    site: Site


def run_stand_in(state_dir: Path, settings: StandInSettings, parent: int) -> None:
    """Send alerts until a signal to stop, or until the parent is gone."""
    log_to_stderr()
    place = Workplace(state_dir, patience_s=1.0, actor=ActorKind.SUPERVISOR, site=settings.site)
    duty = Duty(place.clock, ProcessFaults(place.clock))
    alerting = alerting_of(duty, place, Sight, settings.alerts, stands_in=True)

    def end_with_parent() -> None:
        while os.getppid() == parent:
            pause(0.5)
        alerting.loop.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: alerting.loop.stop())
    threading.Thread(target=end_with_parent, daemon=True).start()
    alerting.loop.run()


if __name__ == "__main__":
    told = decode(sys.stdin.buffer.read(), StandInSettings)
    run_stand_in(Path(sys.argv[1]), told, int(sys.argv[2]))
