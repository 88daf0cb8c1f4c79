"""Secrets: passwords of this machine stand on no command line, and no model's process has them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from e2e.place import Site
from kedge.system.interpreter import PASSED

pytestmark = pytest.mark.e2e

URL, SMTP, HOOK = "hunter2url", "hunter2smtp", "hunter2hook"
ONLINE = f"""
[online]
store = "redis"
url = "redis://kedge:{URL}@127.0.0.1:9/0"
"""


def read(pid: int, what: str) -> bytes:
    return Path(f"/proc/{pid}/{what}").read_bytes()


def test_passwords_travel_to_no_command_line_and_no_model(make_site: Callable[..., Site]) -> None:
    """Every process that kedge starts is looked at, and what it was started with."""
    site = make_site(policy='runtime = "process"', server=ONLINE)
    site.env |= {
        "KEDGE_SMTP_URL": f"smtp://ada:{SMTP}@mail",
        "HOOK_TOKEN": HOOK,
        "KEDGE_ONLINE_URL": f"redis://:{URL}@127.0.0.1:9/1",
        "LC_ALL": "C.UTF-8",
        "OMP_NUM_THREADS": "2",
    }
    site.start()
    site.release()
    site.run("shadow", site.endpoint, "v2")
    hosts = site.processes("kedge.adapters.process")
    assert len(hosts) >= 3
    pids = [*hosts, *site.processes("gateway-worker"), *site.processes("control")]
    for pid in pids:
        assert b"hunter2" not in read(pid, "cmdline")
    given = [
        dict(line.split("=", 1) for line in read(pid, "environ").decode().split("\0") if line)
        for pid in hosts
    ]
    starts = tuple(name.removesuffix("*") for name in PASSED)
    ours = {"LOKY_MAX_CPU_COUNT", "JOBLIB_MULTIPROCESSING"}
    for variables in given:
        assert "hunter2" not in str(variables)
        assert {name for name in variables if not name.startswith(starts)} <= ours
        assert (variables["LC_ALL"], variables["OMP_NUM_THREADS"]) == ("C.UTF-8", "2")
    assert site.infer()[0] == 200
