"""Parts around the answers may fail: a log, a descriptor, a terminal. Production continues."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contract.receivers import Web
from e2e.place import KEDGE, Site

pytestmark = pytest.mark.e2e


def faults(site: Site) -> dict[str, Any]:
    """What processes survived, by place."""
    status = site.data("status", "flights")
    return {fault["place"]: fault for process in status["processes"] for fault in process["faults"]}


def model_processes(site: Site) -> list[int]:
    return site.processes("adapters.process")


def is_restored(site: Site, killed: int, before: int) -> bool:
    found = model_processes(site)
    return killed not in found and len(found) == before


@pytest.fixture
def beside(make_site: Callable[..., Site]) -> Site:
    """Production in processes of its own."""
    site = make_site(policy='runtime = "process"')
    site.start()
    site.release()
    site.until(lambda: len(model_processes(site)) == 2, "both copies")
    time.sleep(1)
    return site


def test_a_log_that_cannot_be_opened_stops_nothing(beside: Site) -> None:
    log = beside.root / ".kedge/logs/flights-r1.log"
    log.unlink()
    log.mkdir()
    with beside.load(rate=100) as load:
        time.sleep(0.5)
        victim = model_processes(beside)[0]
        os.kill(victim, signal.SIGKILL)
        beside.until(lambda: is_restored(beside, victim, 2), "the model process to be started")
        beside.until(lambda: any(p.startswith("supervisor.log.") for p in faults(beside)), "it")
    assert load.failures == []
    assert len(beside.processes("gateway-worker")) == 2


def test_a_supervisor_without_descriptors_stops_nothing(beside: Site) -> None:
    assert beside.up is not None
    used = len(list(Path(f"/proc/{beside.up.pid}/fd").iterdir()))
    resource.prlimit(beside.up.pid, resource.RLIMIT_NOFILE, (used, used))
    with beside.load(rate=100) as load:
        time.sleep(0.5)
        victim = model_processes(beside)[0]
        os.kill(victim, signal.SIGKILL)
        beside.until(lambda: is_restored(beside, victim, 2), "the model process to be started")
    assert load.failures == []


def test_a_terminal_that_went_away_stops_nothing(make_site: Callable[..., Site]) -> None:
    """`kedge up | tee` whose tee died, a closed ssh session."""
    site = make_site()
    site.up = subprocess.Popen(
        [*KEDGE, "up"],
        cwd=site.root,
        env=site.env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    site.until(lambda: site.answers("/v2/health/live"), "the gateway to answer")
    site.release()
    assert site.up.stderr is not None
    site.up.stderr.close()
    with site.load(rate=100, connections=4) as load:
        time.sleep(0.5)
        (victim, other) = site.processes("gateway-worker")
        os.kill(victim, signal.SIGKILL)
        site.until(lambda: len(site.processes("gateway-worker")) == 2, "a new worker")
        time.sleep(2)
    assert len(load.failures) <= 4, load.failures  # those that the killed worker had
    assert other in site.processes("gateway-worker")
    assert site.stop() == 0


def test_a_control_that_keeps_ending_is_reported_by_the_stand_in(
    make_site: Callable[..., Site],
) -> None:
    """Its port is taken: it ends each time. The supervisor's stand-in sends, and goes when it lives."""
    web = Web()
    site = make_site(workers=1, policy=f'escalation = [{{after = "0s", to = ["{web.url}/0"]}}]\n')
    taken = socket.create_server(("127.0.0.1", site.control_port))
    try:
        site.start()
        site.release()
        site.until(lambda: [b for b in web.bodies if b["key"] == "control"], "the page", 60)
        assert "supervisor.child.control" in faults(site)
        assert "control keeps ending" in site.run("status", "flights").stdout
        taken.close()
        site.until(lambda: not site.processes("kedge.runtime.stand_in"), "the stand-in to end", 90)
        assert len(site.processes("\0control")) == 1
        assert len([b for b in web.bodies if b["key"] == "control"]) == 1
    finally:
        taken.close()
        web.close()


DIES = """
import os, sys, threading, time

def die():
    while not os.path.exists({file!r}):
        time.sleep(0.05)
    import kedge.engine.supervisor
    kedge.engine.supervisor.Supervisor._wait = lambda self: sys.exit("a bug")

if "up" in sys.orig_argv:
    threading.Thread(target=die, daemon=True).start()
"""


def test_a_supervisor_that_must_die_leaves_its_children_and_the_next_takes_over(
    make_site: Callable[..., Site],
) -> None:
    """What its loop cannot survive ends it, with an exit code; workers and models serve on."""
    site = make_site(policy='runtime = "process"')
    dies, kit = site.root / "dies", site.root / "kit"
    kit.mkdir()
    (kit / "sitecustomize.py").write_text(DIES.format(file=str(dies)))
    site.env["PYTHONPATH"] = f"{kit}{os.pathsep}{site.env['PYTHONPATH']}"
    site.start()
    site.release()
    workers = site.processes("gateway-worker")
    with site.load(rate=60) as load:
        dies.touch()
        assert site.up is not None
        assert site.up.wait(20) == 1
        dies.unlink()
        time.sleep(1)
        assert site.processes("gateway-worker") == workers
        site.start(wait=False)
        site.until(
            lambda: (
                len(now := site.processes("gateway-worker")) == 2 and not set(now) & set(workers)
            ),
            "new workers instead of the old",
            60,
        )
    assert load.failures == []
    assert site.stop() == 0
