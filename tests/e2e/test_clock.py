"""A wall clock that jumps: heartbeats, silence and acknowledgements do not depend on it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from e2e.place import Site

SHIM = r"""
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
static long shift(void) {
    long by = 0;
    FILE *file = fopen(getenv("CLOCK_SHIFT"), "r");
    if (file) { if (fscanf(file, "%ld", &by) != 1) by = 0; fclose(file); }
    return by;
}
int clock_gettime(clockid_t which, struct timespec *at) {
    int failed = syscall(SYS_clock_gettime, which, at);
    if (!failed && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE)) at->tv_sec += shift();
    return failed;
}
time_t time(time_t *out) {
    struct timespec at;
    clock_gettime(CLOCK_REALTIME, &at);
    if (out) *out = at.tv_sec;
    return at.tv_sec;
}
"""
"""Moves the wall clock of a process, and no other clock, by the seconds that a file says."""
DAY_S = 86_400


@pytest.fixture
def shifted(tmp_path: Path) -> tuple[dict[str, str], Path]:
    """The environment of processes whose wall clock a file moves, and that file."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    (tmp_path / "shim.c").write_text(SHIM)
    library = tmp_path / "shim.so"
    line = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(tmp_path / "shim.c")]
    subprocess.run(line, check=True, capture_output=True)
    file = tmp_path / "shift"
    file.write_text("0\n")
    return {"LD_PRELOAD": str(library), "CLOCK_SHIFT": str(file)}, file


def replicas(site: Site) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = site.data("status")[0]["replicas"]
    return found


@pytest.mark.parametrize("jump_s", [-DAY_S, pytest.param(DAY_S, marks=pytest.mark.soak)])
def test_heartbeats_continue_whatever_the_wall_clock_does(
    make_site: Callable[..., Site], shifted: tuple[dict[str, str], Path], jump_s: int
) -> None:
    site = make_site()
    env, file = shifted
    site.env.update(env)
    site.start()
    site.release()
    site.run("canary", "flights", "v2", "--weight", "20")
    file.write_text(f"{jump_s}\n")

    def beating() -> bool:
        found = replicas(site)
        return len(found) == 2 and all(
            -0.5 <= r["beat_age_s"] < 3 and 0 <= r["ledger_age_s"] < 3 and r["lease"] for r in found
        )

    for _ in range(4):  # rows of before the jump, then those that were written after it
        site.until(beating, "heartbeats", within_s=10)
    (worker, _) = site.processes("gateway-worker")
    os.kill(worker, signal.SIGSTOP)
    try:
        site.until(
            lambda: any(r["silent"] and 4 < r["beat_age_s"] < 60 for r in replicas(site)),
            "the silence of a stopped worker",
        )
    finally:
        os.kill(worker, signal.SIGCONT)
    site.until(beating, "heartbeats of the worker that goes on", within_s=10)
    site.run("rollback", "flights")
    assert site.served() == "r1"
    os.kill(worker, signal.SIGKILL)
    site.until(
        lambda: beating() and worker not in {r["pid"] for r in replicas(site)}, "another worker"
    )
