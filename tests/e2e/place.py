"""A place where kedge really runs: a directory, `kedge up`, the CLI, and an HTTP client."""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import models
from e2e.zygote import Zygote
from kedge.cli import documents
from kedge.gateway.auth import read_secret
from support.waiting import wait_until

KEDGE = [sys.executable, "-m", "kedge"]


@functools.cache
def zygote() -> Zygote:
    """What runs the short commands of this process's sites."""
    return Zygote()


class Site:
    """One state directory and everything that runs on it."""

    def __init__(
        self,
        root: Path,
        *,
        endpoint: str = "flights",
        policy: str = "",
        server: str = "",
        workers: int = 2,
    ) -> None:
        self.root = root
        self.endpoint = endpoint
        self.port, self.control_port = free_port(), free_port()
        self.env = {**models.environment(), "KEDGE_ACTOR": "tester"}
        self._install_test_loader()
        self.up: subprocess.Popen[bytes] | None = None
        (root / "kedge.toml").write_text(
            f"[server]\nport = {self.port}\ncontrol_port = {self.control_port}\nworkers = {workers}\n{server}\n"
            f'[endpoints.{endpoint}]\naudience = "internal"\n{policy}\n'
        )

    def _install_test_loader(self) -> None:
        """Make `models.TestLoader` an installed loader for every process of this site."""
        plugin = self.root / "plugin"
        self.install_test_loader(plugin)
        self.env["PYTHONPATH"] += os.pathsep + str(plugin)

    @staticmethod
    def install_test_loader(plugin: Path) -> None:
        """Make a directory that, on the path, has `models.TestLoader` installed."""
        models.install(plugin)

    def take_files(self, saved: Path) -> None:
        """Copy what a stopped site has; ports and log stay this one's own."""
        for path in saved.iterdir():
            if path.name in ("kedge.toml", "plugin", "up.log"):
                continue
            copy = shutil.copytree if path.is_dir() else shutil.copy2
            copy(path, self.root / path.name)

    def model(self, name: str, kind: str = "good", **more: Any) -> str:
        """Write a model that behaves as told; returns where it is."""
        return str(models.misbehaving(self.root / name, kind, **more))

    def release(self, *, promote: bool = True, **second: Any) -> None:
        """Register v1 (good) and v2 (as told), and make v1 production."""
        self.run("register", self.endpoint, self.model("one"))
        self.run("register", self.endpoint, self.model("two", **{"scale": 3.0, **second}))
        if promote:
            self.run("promote", self.endpoint, "v1")
            self.until(lambda: self.infer()[0] == 200, "the first answer")

    def run(
        self, *words: str, check: bool = True, within_s: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run one command to its end."""
        done = zygote().run(list(words), cwd=self.root, env=self.env, timeout=within_s)
        if check and done.returncode:
            raise AssertionError(
                f"kedge {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}"
            )
        if "--json" in words and done.returncode == 0:
            documents.check(list(words), done.stdout)
        return done

    def data(self, *words: str, check: bool = True) -> Any:
        """Run one command and read its JSON."""
        return json.loads(self.run(*words, "--json", check=check).stdout)

    def start(self, *words: str, wait: bool = True, patrol: bool = True) -> None:
        """Run `kedge up` (`kedge gateway` without the patrol) and wait until a worker answers."""
        log = (self.root / "up.log").open("ab")
        self.up = subprocess.Popen(
            [*KEDGE, "up" if patrol else "gateway", *words],
            cwd=self.root,
            env=self.env,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        if wait:
            self.until(lambda: self.answers("/v2/health/live"), "the gateway to answer")

    def spawn(self, *words: str) -> subprocess.Popen[bytes]:
        """Start one command and leave it running; `end` kills it."""
        log = (self.root / f"{words[0]}.log").open("ab")
        return subprocess.Popen(
            [*KEDGE, "--config", str(self.root / "kedge.toml"), *words],
            cwd=self.root,
            env=self.env,
            stdout=log,
            stderr=log,
        )

    def stop(self, by: signal.Signals = signal.SIGINT) -> int:
        """Ctrl-C, or another signal that stops it in order."""
        if self.up is None:
            return 0
        self.up.send_signal(by)
        try:
            code = self.up.wait(30)
        finally:
            self.end()
        self.up = None
        return code

    def end(self) -> None:
        """Kill all that still runs of this site, however it was started."""
        while self._kill_all():  # a supervisor that was killed last has started another child
            time.sleep(0.05)
        if self.up is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.up.wait(5)

    def _kill_all(self) -> bool:
        """Kill what runs now; whether there was anything."""
        killed = False
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError, ValueError):
                own = self.up is not None and int(path.parent.name) == self.up.pid
                line = path.read_bytes()  # of one that has ended, and was not waited for: empty
                if line and (own or str(self.root).encode() in line):
                    os.kill(int(path.parent.name), signal.SIGKILL)
                    killed = True
        return killed

    def processes(self, word: str) -> list[int]:
        """Process ids of this site whose command line has a word in it."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                line = path.read_bytes()
                if str(self.root).encode() in line and word.encode() in line:
                    found.append(int(path.parent.name))
        return sorted(found)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        within_s: float = 5.0,
    ) -> tuple[int, dict[str, str], bytes]:
        """One HTTP request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=within_s)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    @property
    def tester(self) -> dict[str, str]:
        """The headers with which this site's own secret makes a request a tester's."""
        return {"authorization": f"Bearer {read_secret(self.root / '.kedge')}"}

    def answers(self, path: str) -> bool:
        """Whether a GET is answered with 200."""
        try:
            return self.request("GET", path)[0] == 200
        except OSError:
            return False

    def controlled(self) -> bool:
        """Whether control accepts connections."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.control_port)) == 0

    def infer(
        self,
        inputs: dict[str, tuple[str, list[Any]]] | None = None,
        *,
        headers: dict[str, str] | None = None,
        path: str | None = None,
        **more: Any,
    ) -> tuple[int, dict[str, str], Any]:
        """Ask the endpoint; {name: (datatype, values)}."""
        tensors = [
            {"name": name, "datatype": datatype, "shape": [len(values)], "data": values}
            for name, (datatype, values) in (inputs or {"x": ("FP64", [1.0])}).items()
        ]
        raw = json.dumps({"inputs": tensors, **more}).encode()
        status, head, body = self.request(
            "POST", path or f"/v2/models/{self.endpoint}/infer", raw, headers
        )
        return status, head, json.loads(body)

    def until(self, true: Callable[[], Any], what: str, within_s: float = 30.0) -> Any:
        """Wait until something holds; says what did not."""
        log = self.root / "up.log"
        return wait_until(
            true,
            lambda: f"{what}\n{log.read_text() if log.exists() else ''}",
            within_s,
            every_s=0.1,
        )

    def until_logged(self, count: int) -> None:
        """Wait until the prediction log holds so many predictions."""

        def logged() -> int:
            found = 0
            for path in (self.root / ".kedge" / "records" / "hours").glob("*.db"):
                with (
                    contextlib.suppress(sqlite3.OperationalError),  # it is just made
                    contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as hour,
                ):
                    found += hour.execute("SELECT count(*) FROM prediction").fetchone()[0]
            return found

        self.until(lambda: logged() >= count, f"{count} predictions in the log")

    def served(self) -> str:
        """The release that answers now."""
        return self.infer()[1]["kedge-release"]

    @contextlib.contextmanager
    def load(
        self,
        *,
        rate: float = 100.0,
        connections: int = 4,
        boom: int = 0,
        column: str = "x",
        entity: Callable[[int, int], str] | None = None,
        within_s: float = 5.0,
    ) -> Iterator[Load]:
        """Keep callers asking while something happens; every request is counted, none is repeated.

        Every `boom`-th request of a connection carries the word that triggers a model's fault. `entity` names
        the caller by connection and number of the request; without it each request is another caller's.
        """
        load = Load(self, rate, connections, boom, column, entity, within_s)
        try:
            yield load
        finally:
            load.stop()


class Load:
    """Callers on kept-alive connections, each at its own pace."""

    def __init__(
        self,
        site: Site,
        rate: float,
        connections: int,
        boom: int = 0,
        column: str = "x",
        entity: Callable[[int, int], str] | None = None,
        within_s: float = 5.0,
    ) -> None:
        self.site = site
        self.within_s = within_s
        self.boom = boom
        self.column = column
        self.entity = entity or (lambda connection, number: f"caller-{connection}-{number}")
        self.ok = 0
        self.failures: list[str] = []
        self.releases: dict[str, int] = {}
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._ask, args=(connections / rate, number), daemon=True)
            for number in range(connections)
        ]
        for thread in self._threads:
            thread.start()

    def _ask(self, pause_s: float, caller: int) -> None:
        plain, boom = (
            json.dumps(
                {
                    "inputs": [
                        {"name": self.column, "datatype": "FP64", "shape": [1], "data": [1.0]},
                        *(
                            {"name": "word", "datatype": "BYTES", "shape": [1], "data": [word]}
                            for word in words
                        ),
                    ]
                }
            ).encode()
            for words in ((), ("boom",))
        )
        connection = None
        number = 0
        due = time.monotonic()
        while not self._ending.is_set():
            number += 1
            raw = boom if self.boom and number % self.boom == 0 else plain
            try:
                if connection is None:
                    connection = http.client.HTTPConnection(
                        "127.0.0.1", self.site.port, timeout=self.within_s
                    )
                headers = {"kedge-entity": self.entity(caller, number)}
                connection.request("POST", f"/v2/models/{self.site.endpoint}/infer", raw, headers)
                answer = connection.getresponse()
                answer.read()
                if answer.getheader("connection") == "close":
                    connection.close()
                    connection = None
                with self._lock:
                    if answer.status == 200:
                        self.ok += 1
                        release = answer.getheader("kedge-release", "")
                        self.releases[release] = self.releases.get(release, 0) + 1
                    else:
                        self.failures.append(f"HTTP {answer.status}")
            except (OSError, http.client.HTTPException) as error:
                with self._lock:
                    self.failures.append(f"{type(error).__name__}: {error}")
                connection = None
            due += pause_s
            self._ending.wait(max(0.0, due - time.monotonic()))

    def stop(self) -> None:
        """End the load; what is under way is waited for."""
        self._ending.set()
        for thread in self._threads:
            thread.join(self.within_s + 5)


def free_port() -> int:
    """A port that no process listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
