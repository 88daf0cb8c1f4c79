"""Signals that stop kedge up: a closed terminal, nohup, Ctrl-C twice, and process 1 while it imports."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from e2e.place import KEDGE, Site

pytestmark = pytest.mark.e2e


def test_a_closed_terminal_and_ctrl_c_twice_stop_in_order(make_site: Callable[..., Site]) -> None:
    site = make_site(workers=1)
    for numbers in ((signal.SIGHUP,), (signal.SIGINT, signal.SIGINT)):
        site.start(patrol=False)
        assert site.up is not None
        for number in numbers:
            site.up.send_signal(number)
            time.sleep(0.05)
        assert site.up.wait(30) == 0
        assert site.processes("gateway-worker") == []
        assert "stopped: " in (site.root / "up.log").read_text().splitlines()[-1]


def test_under_nohup_a_closed_terminal_stops_nothing(make_site: Callable[..., Site]) -> None:
    site = make_site(workers=1)
    with (site.root / "up.log").open("ab") as log:
        line = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *KEDGE, "gateway"]
        site.up = subprocess.Popen(line, cwd=site.root, env=site.env, stdout=log, stderr=log)
    site.until(lambda: site.answers("/v2/health/live"), "the gateway to answer")
    site.up.send_signal(signal.SIGHUP)
    time.sleep(1)
    assert site.up.poll() is None
    assert site.answers("/v2/health/live")
    assert site.stop() == 0


def catches_sigterm(pid: int) -> bool:
    """Whether a process has a function for SIGTERM: before it, the kernel drops what is sent to process 1."""
    status = Path(f"/proc/{pid}/status").read_text()
    return bool(int(status.split("SigCgt:")[1].split()[0], 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.parametrize("after_s", [0.0, 0.1, 0.4])
def test_process_1_ends_on_a_sigterm_while_it_imports(
    make_site: Callable[..., Site], after_s: float
) -> None:
    own = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if subprocess.run([*own, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this user may not make process id namespaces")
    site = make_site(workers=1)
    log = (site.root / "up.log").open("ab")
    line = [*own, *KEDGE, "--config", str(site.root / "kedge.toml"), "gateway"]
    site.up = subprocess.Popen(line, cwd=site.root, env=site.env, stdout=log, stderr=log)
    children = Path(f"/proc/{site.up.pid}/task/{site.up.pid}/children")
    first = int(site.until(lambda: children.read_text().split(), "process 1")[0])
    site.until(lambda: catches_sigterm(first), "the function for SIGTERM", 20)
    time.sleep(after_s)
    os.kill(first, signal.SIGTERM)
    assert site.up.wait(20) in {0, 128 + signal.SIGTERM}
