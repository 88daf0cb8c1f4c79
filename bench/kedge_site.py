"""A running kedge: a temporary directory, `kedge up`, its CLI and its API."""

from __future__ import annotations

import contextlib
import functools
import http.client
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec
from common import CPUS, LOAD_CPU, SERVER_CPU, alive, on, place, tree

from kedge.demo.processes import free_port, get

if TYPE_CHECKING:
    from kedge.core.release.commands import AnyCommand
    from kedge.engine.submission import Control, Receipt
    from kedge.workspace import Workplace

STOP_S = 30.0
SORT_S = 0.02
DRAIN_S = 0.2


def kedge_command() -> list[str]:
    """The command as a user runs it: the script that was installed beside this interpreter."""
    script = Path(sys.executable).with_name("kedge")
    return [str(script)] if script.exists() else [sys.executable, "-m", "kedge"]


def environment(**more: str) -> dict[str, str]:
    """The environment of what is measured: bytecode is kept, as it is where kedge is installed."""
    found = {**os.environ, "KEDGE_ACTOR": "bench", **more}
    for name in ("PYTHONDONTWRITEBYTECODE", "KEDGE_CONFIG"):
        found.pop(name, None)
    return found


def post(port: int, path: str, body: bytes, within_s: float = 5.0) -> int:
    """The status of one POST on a connection of its own; 0 without an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=within_s)
    try:
        connection.request("POST", path, body, {"content-type": "application/json"})
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def until(true: Callable[[], Any], what: str, within_s: float = 60.0, pause_s: float = 0.02) -> Any:
    """Wait until something holds; says what did not."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        found = true()
        if found:
            return found
        time.sleep(pause_s)
    raise TimeoutError(f"waited {within_s:.0f} s for {what}")


class Site:
    """One state directory and everything that runs on it."""

    def __init__(self, endpoints: Mapping[str, str], *, workers: int) -> None:
        """Write its kedge.toml; `endpoints` are names and what stands in their tables."""
        self.root = Path(tempfile.mkdtemp(prefix="kedge-bench-"))
        self.port, self.control_port = free_port(), free_port()
        self.up: subprocess.Popen[bytes] | None = None
        tables = "\n".join(
            f'[endpoints.{name}]\naudience = "internal"\n{text}\n'
            for name, text in endpoints.items()
        )
        (self.root / "kedge.toml").write_text(
            f"[server]\nport = {self.port}\ncontrol_port = {self.control_port}\nworkers = {workers}\n"
            f"drain_s = {DRAIN_S}\n{tables}"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    # ------------------------------------------------------------ starting and stopping

    def launch(self, before: Sequence[str] = ()) -> float:
        """Start `kedge up` where its parent is, by what stands before it; returns when."""
        began = time.perf_counter()
        with (self.root / "up.log").open("ab") as log:
            self.up = subprocess.Popen(
                [*before, *kedge_command(), "up"],
                cwd=self.root,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return began

    def live(self) -> bool:
        """Whether it answers, with no model needed.

        Raises:
            RuntimeError: it has ended; with what it said.
        """
        if self.up is not None and self.up.poll() is not None:
            said = (self.root / "up.log").read_text()
            raise RuntimeError(f"kedge up ended with {self.up.returncode}\n{said}")
        return get(self.port, "/v2/health/live") == 200

    def start(self, *, gathered: bool = True, before: Sequence[str] = ()) -> None:
        """Start it on every CPU, which is faster, then put all of it on the server's."""
        with on(CPUS):
            self.launch(before)
        until(self.live, "the gateway")
        if gathered:
            self.gather()

    def gather(self) -> None:
        """Put everything of it on the server's CPU; what it starts later is born there."""
        assert self.up is not None
        for _ in range(3):
            for pid in tree(self.up.pid):
                place(pid, SERVER_CPU)

    def separate(self) -> None:
        """Workers on the server's CPU; the supervisor, control and model processes on the other."""
        assert self.up is not None
        workers = self.workers()
        for _ in range(3):
            for pid in tree(self.up.pid):
                place(pid, SERVER_CPU if pid in workers else LOAD_CPU)

    def stop(self) -> int:
        """Ctrl-C; its exit code."""
        if self.up is None:
            return 0
        self.up.send_signal(signal.SIGINT)
        code = self.up.wait(STOP_S)
        self.up = None
        return code

    def end(self) -> None:
        """Kill what is left of this site, and only of this one, and remove its files."""
        if self.up is not None:
            self.up.kill()
            self.up.wait(5)
            self.up = None
        for pid in self._left():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.root, ignore_errors=True)

    def _left(self) -> list[int]:
        """Processes whose command line names this site's own directory."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if str(self.root).encode() in path.read_bytes():
                    found.append(int(path.parent.name))
        return found

    # ------------------------------------------------------------ asking it to do something

    def run(self, *words: str) -> Any:
        """One command of the CLI, on the load's CPU; its JSON."""
        with on({LOAD_CPU}):
            done = subprocess.run(
                [*kedge_command(), *words, "--json"],
                cwd=self.root,
                env=environment(),
                capture_output=True,
                text=True,
                timeout=240,
                check=False,
            )
        if done.returncode:
            raise RuntimeError(
                f"kedge {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return msgspec.json.decode(done.stdout)

    @functools.cached_property
    def workplace(self) -> Workplace:
        """Its ledger, roster and registry, opened in this process."""
        from kedge.workspace import Workplace  # noqa: PLC0415 - it is there once the site has begun

        return Workplace(self.root / ".kedge")

    @functools.cached_property
    def control(self) -> Control:
        """A client that submits commands in this process."""
        return self.workplace.control(lambda text: None, None)

    def submit(self, endpoint: str, command: AnyCommand) -> Receipt:
        """Carry a command out, as its verb does."""
        return self.control.submit(endpoint, command, by="bench", reason="bench")

    def register(self, endpoint: str, path: Path) -> float:
        """Register a version; how long its load took."""
        from kedge.operations.registration import register_version  # noqa: PLC0415 - as above

        with on(CPUS):
            version, _ = register_version(
                self.workplace, endpoint, path, golden=None, training=None, trusted=()
            )
        return version.load_s

    def release(self, endpoint: str, version: int) -> int:
        """The number of the release that serves a version with today's options."""
        from kedge.operations.releases import release_of  # noqa: PLC0415 - as above

        return release_of(self.workplace, endpoint, f"v{version}").number

    def promote(self, endpoint: str, version: int) -> Receipt:
        """Put a version into production, whatever the rules say."""
        from kedge.core.release.commands import Promote  # noqa: PLC0415 - as above

        return self.submit(
            endpoint, Promote(release=self.release(endpoint, version), override="bench")
        )

    # ------------------------------------------------------------ looking at it

    def status(self, endpoint: str) -> dict[str, Any]:
        """What `kedge status` says."""
        from kedge.operations.status.read import status_without_estimates  # noqa: PLC0415 - as above

        found: dict[str, Any] = msgspec.to_builtins(
            status_without_estimates(self.workplace, endpoint)[0]
        )
        return found

    def workers(self) -> list[int]:
        """The gateway workers that are in the roster."""
        return [
            m.pid for m in self.workplace.roster.members() if m.kind == "gateway" and alive(m.pid)
        ]

    def hosts(self, endpoint: str, release: int) -> list[int]:
        """The model processes of a release."""
        assert self.up is not None
        mark = f"/{endpoint}-r{release}-".encode()
        found = []
        for pid in tree(self.up.pid):
            with contextlib.suppress(OSError):
                if mark in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(pid)
        return found

    def ready_hosts(self, endpoint: str, release: int) -> int:
        """How many model processes of a release have loaded it: a socket stands for each."""
        return len(list(self.run_dir.glob(f"*/{endpoint}-r{release}-?.sock")))

    def sort(self) -> None:
        """Model processes that serve go to the server's CPU, those that still load to the other."""
        for file in self.run_dir.glob("*/*.sock.json"):
            with contextlib.suppress(OSError, msgspec.DecodeError):
                said = msgspec.json.decode(file.read_bytes())
                if alive(said["pid"]):
                    place(said["pid"], SERVER_CPU if said["state"] == "ready" else LOAD_CPU)

    @contextlib.contextmanager
    def sorting(self) -> Iterator[None]:
        """Keep them sorted."""
        ending = threading.Event()

        def keep() -> None:
            while not ending.wait(SORT_S):
                self.sort()

        thread = threading.Thread(target=keep, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ending.set()
            thread.join()

    @functools.cached_property
    def run_dir(self) -> Path:
        """Where its sockets are."""
        from kedge.runtime.paths import RUN_DIR  # noqa: PLC0415 - as above

        return self.root / ".kedge" / RUN_DIR

    def held(self, endpoint: str, release: int) -> set[str]:
        """In which states the workers hold a release: empty when none does."""
        return {
            hold.state
            for member in self.workplace.roster.members()
            for hold in member.holds
            if (hold.endpoint, hold.release) == (endpoint, release)
        }
