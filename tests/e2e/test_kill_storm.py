"""Kill storm: ten minutes in which every kind of process is killed; only cut connections fail."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from e2e.place import KEDGE, Site

pytestmark = [pytest.mark.e2e, pytest.mark.soak]

STORM_S = float(os.environ.get("KEDGE_STORM_S", "600"))
CALM_S = 90.0
CALLERS, RATE = 6, 40.0
PATIENCE_S = 40.0
"""Longer than production's timeout: a caller that gives up first would not tell what it would have got."""
COMMANDS = (
    ["canary", "flights", "v2", "--weight", "30", "--override", "storm"],
    ["shadow", "flights", "v2"],
    ["rollback", "flights"],
    ["abort", "flights"],
    ["promote", "flights", "v2", "--full", "--override", "storm"],
    ["status", "flights"],
)


class Failed(NamedTuple):
    """A request that was not answered with 200."""

    at: float
    port: int
    how: str


class Callers:
    """Callers on kept-alive connections; each failure names the connection that it was on."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.answered: Counter[str] = Counter()
        self.failed: list[Failed] = []
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(CALLERS)]
        for thread in self._threads:
            thread.start()

    def _ask(self, caller: int) -> None:
        tensor = {"name": "x", "datatype": "FP64", "shape": [1], "data": [1.0]}
        body = json.dumps({"inputs": [tensor]}).encode()
        line: http.client.HTTPConnection | None = None
        number, port = 0, 0
        while not self._over.wait(CALLERS / RATE):
            number += 1
            try:
                if line is None:
                    line = http.client.HTTPConnection(
                        "127.0.0.1", self.site.port, timeout=PATIENCE_S
                    )
                    line.connect()
                    port = line.sock.getsockname()[1]
                entity = {"kedge-entity": f"caller-{caller}-{number}"}
                line.request("POST", "/v2/models/flights/infer", body, entity)
                answer = line.getresponse()
                said = answer.read()
                how = "" if answer.status == 200 else f"HTTP {answer.status} {said[:200]!r}"
                if how or answer.getheader("connection") == "close":
                    line.close()
                    line = None
                release = answer.getheader("kedge-release", "")
            except (OSError, http.client.HTTPException) as error:
                line, how, release = None, f"{type(error).__name__}: {error}", ""
            with self._lock:
                if how:
                    self.failed.append(Failed(time.monotonic(), port, how))
                else:
                    self.answered[release] += 1

    def stop(self) -> None:
        """End; what is under way is waited for."""
        self._over.set()
        for thread in self._threads:
            thread.join(PATIENCE_S + 5)


def connections_of(pid: int, port: int) -> set[int]:
    """Ports of the callers whose connections a worker has accepted."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            name = link.readlink().name
            if name.startswith("socket:["):
                inodes.add(name[8:-1])
    found = set()
    for row in Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]:
        words = row.split()
        local, remote, inode = words[1], words[2], words[9]
        if inode in inodes and int(local.split(":")[1], 16) == port:
            found.add(int(remote.split(":")[1], 16))
    return found - {0}


class Storm:
    """Kills, and what they are known to have cut."""

    def __init__(self, site: Site, dice: random.Random) -> None:
        self.site = site
        self.dice = dice
        self.cut: list[tuple[float, int]] = []
        """When a worker was killed, and the port of a connection that it held then."""
        self.kills: Counter[str] = Counter()

    def kill_a_worker(self) -> None:
        """Stop it first, so that which connections it holds is exact."""
        workers = self.site.processes("gateway-worker")
        if len(workers) < 2:
            return
        pid = self.dice.choice(workers)
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            os.kill(pid, signal.SIGSTOP)
            while " T " not in Path(f"/proc/{pid}/stat").read_text():
                time.sleep(0.001)
            held = connections_of(pid, self.site.port)
            self.cut += [(time.monotonic(), port) for port in held]
            os.kill(pid, signal.SIGKILL)
            self.kills["worker"] += 1

    def kill_one_of(self, word: str) -> None:
        """Kill one process whose command line has a word."""
        if victims := self.site.processes(word):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.dice.choice(victims), signal.SIGKILL)
                self.kills[word] += 1

    def kill_a_model(self) -> None:
        """By turns one process, or one and soon another."""
        self.kill_one_of("adapters.process")
        if self.dice.random() < 0.3:
            time.sleep(self.dice.uniform(0, 7))
            self.kill_one_of("adapters.process")

    def kill_control(self) -> None:
        """The patrol and the status API are gone for a moment."""
        self.kill_one_of("kedge\0control")

    def kill_the_supervisor(self) -> None:
        """Its children serve on; the next one takes over."""
        assert self.site.up is not None
        self.site.up.kill()
        self.site.up.wait()
        self.kills["supervisor"] += 1
        time.sleep(self.dice.uniform(0, 2))
        self.site.start(wait=False)

    def step(self) -> None:
        """Kill something."""
        kinds: tuple[tuple[int, Callable[[], None]], ...] = (
            (4, self.kill_a_worker),
            (2, self.kill_the_supervisor),
            (4, self.kill_a_model),
            (1, self.kill_control),
        )
        weights, kills = zip(*kinds, strict=True)
        self.dice.choices(kills, weights)[0]()

    def unexcused(self, failed: list[Failed]) -> list[Failed]:
        """Failures on connections that no killed worker held; each of those excuses one."""
        cut, left = list(self.cut), []
        for failure in sorted(failed):
            found = next((c for c in cut if c[1] == failure.port and c[0] <= failure.at), None)
            if found is None or failure.how.startswith("HTTP"):
                left.append(failure)
            else:
                cut.remove(found)
        return left


def unrest(site: Site) -> list[str]:
    """What is still wrong after the storm."""
    found: list[str] = list(site.data("status", "flights")["faults"])
    workers = len(site.processes("gateway-worker"))
    return found if workers == 2 else [*found, f"{workers} workers"]


@pytest.mark.timeout(STORM_S + 600)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_kill_storm_fails_only_requests_on_connections_of_killed_workers(
    make_site: Callable[..., Site], seed: int
) -> None:
    """Workers, supervisors, model processes, control and commands die; production is in processes."""
    dice = random.Random(seed)
    site = make_site(policy='runtime = "process"')
    site.start()
    site.release()
    storm, callers = Storm(site, dice), Callers(site)
    commands: list[subprocess.Popen[bytes]] = []
    try:
        end = time.monotonic() + STORM_S
        while time.monotonic() < end:
            commands = [each for each in commands if each.poll() is None]
            if len(commands) < 2:
                commands.append(
                    subprocess.Popen(
                        [*KEDGE, *dice.choice(COMMANDS)],
                        cwd=site.root,
                        env=site.env,
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL,
                    )
                )
            time.sleep(dice.uniform(1, 7))
            if commands and dice.random() < 0.2:
                commands[0].kill()
                storm.kills["command"] += 1
            storm.step()
        for command in commands:
            command.wait(90)
        calm = time.monotonic() + CALM_S
        while (wrong := unrest(site)) and time.monotonic() < calm:
            time.sleep(0.5)
    finally:
        callers.stop()
        for command in commands:
            command.kill()
            command.wait()
    left = storm.unexcused(callers.failed)
    sys.stdout.write(
        f"seed {seed}: kills {dict(storm.kills)}, answered {dict(callers.answered)}, "
        f"on connections of killed workers {len(callers.failed) - len(left)}, other failures {len(left)}\n"
    )
    assert not left, Counter(each.how for each in left)
    assert not wrong
    assert site.data("doctor")["ok"]
    assert {"worker", "supervisor"} <= set(storm.kills) or STORM_S < 300
