"""The main job on real flights: a bad model is refused and rolled back, a better one promoted by evidence.

Real processes, real clock, real data; every number that is printed was measured in this run.
Everything is done through the command line, as a user would, in .kedge/demo/ (made anew each
time); trained models are kept in .kedge/demo-cache/. Ends with .kedge/demo/report.json.

    kedge demo [--port N] [--rate N] [--keep]
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
import time

from kedge.demo.act_three import ready, snow_act
from kedge.demo.act_two import features_act
from kedge.demo.pace import FREE, load, share_of_core
from kedge.demo.processes import (
    DemoFailed,
    free_port,
    running_since_before,
)
from kedge.demo.stage import WORK, Demo
from kedge.system.interpreter import kedge_command
from kedge.system.pause import pause
from kedge.system.terminal import show as say

OURS = "made-by-the-kedge-demo"


def clean() -> None:
    """Create the working directory again; delete only one of an earlier demo."""
    if WORK.exists():
        if not (WORK / OURS).exists():
            raise DemoFailed(f"{WORK} exists and was not made by the demo: move it away")
        if (pid := running_since_before(WORK)) is not None:
            raise DemoFailed(f"an earlier demo's kedge up still runs: stop it (kill {pid})")
        shutil.rmtree(WORK)
    WORK.mkdir(parents=True)
    (WORK / OURS).touch()


def play(demo: Demo, port: int) -> int:
    """Run every act; return how many requests failed."""
    if (share := share_of_core()) < FREE:
        say(
            f"this machine is busy ({load()}; the demo gets {share:.0%} of a core): fewer"
            " requests, and everything takes longer"
        )
    demo.train()
    up = demo.start(port)
    demo.first_release()
    took = up.wait_for("/v2/health/ready")
    say(f"  ready {took:.1f} s later")
    traffic = demo.send(up)
    demo.show_shadow(traffic)
    demo.show_canary(traffic)
    demo.roll_back_production(traffic)
    demo.promote_the_better_one(traffic)
    demo.features = features_act(demo, traffic, WORK)
    ready(demo, traffic)
    snow_act(demo, traffic)
    return demo.finish(up, traffic)


def keep(demo: Demo, port: int) -> None:
    """Run kedge and its traffic again until Ctrl-C, and say how to open it."""
    demo.step("kedge up again: it stays until Ctrl-C")
    up = demo.start_up(port)
    up.wait_for("/v2/health/ready")
    traffic = demo.send(up)
    say("\nopen the dashboard by this link, which works once (kedge login prints another):")
    subprocess.run(kedge_command("login"), cwd=WORK, env=demo.kedge.environment, check=True)
    say(f"or, in another terminal: cd {WORK.absolute()} && kedge status --watch; Ctrl-C stops it")
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            up.check()
            traffic.check()
            pause(1.0)


def run(port: int | None, rate: float | None, *, keeps: bool = False) -> int:
    """Run the demo in the working directory.

    Args:
        port: where kedge answers. None: a free one.
        rate: requests a second. None: as many as this machine can take, at most 190.
        keeps: whether kedge goes on afterwards, with traffic, until Ctrl-C.

    Returns:
        An exit code: 1 when a request failed or a step did not do what it promises.
    """
    # So that being told to stop still stops what was started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    demo = Demo(rate)
    try:
        with demo.cleanup:
            clean()
            port = port or free_port()
            failed = play(demo, port)
            if keeps:
                keep(demo, port)
    except KeyboardInterrupt:
        say("\nstopped")
        return 130
    except (DemoFailed, subprocess.SubprocessError) as error:
        say(f"\nthe demo failed: {error}\nhint: logs are in {WORK}")
        return 1
    say(f"done in {time.perf_counter() - demo.began:.0f} s")
    return 1 if failed else 0
