"""Requests and a rollback on a disk whose every fsync takes two seconds.

A library that is loaded before libc's makes `fsync` and `fdatasync` of all of kedge's processes wait.
Callers must not notice; a rollback waits for the fsyncs that make it durable, and for no other.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Self

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from e2e.place import Site

SHIM = r"""
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>
static void stall(void) {
    int by = 0;
    FILE *file = fopen(getenv("FSYNC_MS"), "r");
    if (file) { if (fscanf(file, "%d", &by) != 1) by = 0; fclose(file); }
    if (by) usleep(by * 1000);
}
int fsync(int fd) { stall(); return syscall(SYS_fsync, fd); }
int fdatasync(int fd) { stall(); return syscall(SYS_fdatasync, fd); }
"""
RATE = 200.0
CONNECTIONS = 4
STALL_MS = 2_000


class Callers:
    """Callers on kept-alive connections, each request timed."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._body = json.dumps(
            {"inputs": [{"name": "x", "datatype": "FP64", "shape": [1], "data": [1.0]}]}
        ).encode()
        self._ending = threading.Event()
        self.took: list[tuple[float, float, str]] = []
        """When each answer came, how long it took in seconds, and which release gave it."""
        self.failed = 0
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(CONNECTIONS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._site.port, timeout=10)
        due, count = time.monotonic(), 0
        while not self._ending.wait(max(0.0, due - time.monotonic())):
            due += CONNECTIONS / RATE
            count += 1
            began = time.monotonic()
            try:
                connection.request(
                    "POST",
                    "/v2/models/flights/infer",
                    self._body,
                    {"kedge-entity": f"{number}-{count}"},
                )
                answer = connection.getresponse()
                answer.read()
                ended = time.monotonic()
                self.failed += answer.status != 200
                self.took.append((ended, ended - began, answer.getheader("kedge-release", "")))
            except (OSError, http.client.HTTPException):
                self.failed += 1
                connection.close()

    def p99_ms(self, since: float, until: float) -> float:
        """The p99 of what was answered in a span."""
        some = [took for at, took, _ in self.took if since <= at < until]
        return statistics.quantiles(some, n=100)[98] * 1e3


def build(folder: Path) -> dict[str, str]:
    """Compile the library; return the environment that loads it."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise SystemExit("there is no C compiler")
    (folder / "shim.c").write_text(SHIM)
    library = folder / "shim.so"
    line = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(folder / "shim.c")]
    subprocess.run(line, check=True)
    (folder / "ms").write_text("0\n")
    return {"LD_PRELOAD": str(library), "FSYNC_MS": str(folder / "ms")}


def measure(site: Site, stall: Path, seconds: float) -> dict[str, Any]:
    """One span on the disk as it is, one with stalled fsyncs, and in that a rollback."""
    site.start()
    site.release()
    site.run("canary", "flights", "v2", "--weight", "20")
    with Callers(site) as callers:
        time.sleep(3)
        quick = time.monotonic()
        time.sleep(seconds)
        stalled = time.monotonic()
        stall.write_text(f"{STALL_MS}\n")
        time.sleep(seconds)
        asked = time.monotonic()
        line = [sys.executable, "-m", "kedge", "rollback", "flights"]
        subprocess.run(line, cwd=site.root, env=site.env, check=True, capture_output=True)
        returned = time.monotonic()
        time.sleep(2)
        stall.write_text("0\n")
    last = max(at for at, _, release in callers.took if release == "r2")
    entries = site.data("history", "flights", "--limit", "20")
    receipt = next(
        e["event"]["body"]
        for e in entries
        if e["event"].get("kind") == "receipt" and e["event"]["body"]["command"] == "rollback"
    )
    before, while_ = callers.p99_ms(quick, stalled), callers.p99_ms(stalled, asked)
    return {
        "stalled_p99_ratio": while_ / before,
        "stalled_p99_ms": while_,
        "unstalled_p99_ms": before,
        "rollback_p99_ms": callers.p99_ms(asked, returned),
        "stalled_failed": callers.failed,
        "stalled_requests": len(callers.took),
        "stalled_rollback_s": last - asked,
        "stalled_command_s": returned - asked,
        "stalled_last_ack_ms": receipt["last_ack_ms"],
        "stalled_write_ms": receipt["write_ms"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="does it work? Not a measurement")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="kedge-stalled-"))
    site = Site(root)
    try:
        site.env.update(build(root))
        found = measure(site, root / "ms", 5.0 if asked.quick else asked.seconds)
    finally:
        site.end()
        shutil.rmtree(root, ignore_errors=True)
    print(
        json.dumps(found, indent=2)
        if asked.json
        else "\n".join(f"{name:22} {value:.1f}" for name, value in found.items())
    )


if __name__ == "__main__":
    os.environ.setdefault("PYTHONPATH", str(Path(__file__).parents[1] / "tests"))
    main()
