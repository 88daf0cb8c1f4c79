"""The real processes of the demo: kedge's commands, `kedge up`, and the traffic.

Everything goes through the public command line, as a user would do it. Whatever is started here
is stopped here, whatever happens.
"""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from kedge.demo.figures import LastLine, TrafficSecond, TrafficSummary, TrafficTotals
from kedge.operations.outcomes import JoinedOutcomes
from kedge.operations.status.view import EndpointStatus
from kedge.system.interpreter import kedge_command, module_command, safe_environment
from kedge.system.pause import pause

HERE = Path(__file__).resolve().parent
COMMAND_TIMEOUT_S = 600
STOP_S = 60
PID_FILE = "up.pid"


class DemoFailed(Exception):
    """A step did not do what it promises."""


T = TypeVar("T")


class CommandError(msgspec.Struct, frozen=True):
    """Why a command failed; it has more fields for some codes."""

    code: str
    message: str
    hint: str = ""


class FailedCommand(msgspec.Struct, frozen=True):
    """What a command prints that failed."""

    error: CommandError


@dataclass(frozen=True, slots=True)
class CommandResult(Generic[T]):
    """The document that a command printed."""

    data: T
    started: float
    """When its process was started, on the host's monotonic clock."""
    took_ms: float


def environment(bytecode: Path) -> dict[str, str]:
    """Return the environment of the demo's processes.

    Where Python is told to keep no compiled modules, every command would compile a thousand of
    them again, for seconds; they are kept in a folder of the demo instead.
    """
    found = {**os.environ, "KEDGE_ACTOR": "demo"}
    found.pop("KEDGE_CONFIG", None)
    if found.pop("PYTHONDONTWRITEBYTECODE", None):
        found["PYTHONPYCACHEPREFIX"] = str(bytecode.absolute())
    return safe_environment(found)


class Kedge:
    """The command line, in one working directory."""

    def __init__(self, work: Path, env: dict[str, str]) -> None:
        self.work = work
        self.environment = env

    def run(self, *words: str, prints: type[T], codes: Sequence[int] = (0,)) -> CommandResult[T]:
        """Run a command with --json.

        Args:
            words: the command.
            prints: the type of its document.
            codes: exit codes that are taken for success.

        Raises:
            DemoFailed: it ended with another exit code than these, or printed another document.
        """
        started = time.perf_counter()
        _, printed = self._printed(words, codes)
        took_ms = (time.perf_counter() - started) * 1e3
        return CommandResult(_read(words, printed, prints), started, took_ms)

    def attempt(self, *words: str, prints: type[T]) -> T | None:
        """Run a command that may be refused; None where it is.

        Raises:
            DemoFailed: as `run`.
        """
        code, printed = self._printed(words, (0, 1))
        return _read(words, printed, prints) if code == 0 else None

    def refused(self, *words: str) -> CommandError:
        """Run a command that is refused, and return why.

        Raises:
            DemoFailed: as `run`; also where it is not refused.
        """
        return self.run(*words, prints=FailedCommand, codes=(1,)).data.error

    def _printed(self, words: Sequence[str], codes: Sequence[int]) -> tuple[int, str]:
        done = subprocess.run(
            kedge_command(*words, "--json"),
            cwd=self.work,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        if done.returncode not in codes:
            raise DemoFailed(
                f"kedge {' '.join(words)} ended with exit code {done.returncode},"
                f" expected {codes}\n{done.stdout}{done.stderr}"
            )
        return done.returncode, done.stdout

    def status(self) -> EndpointStatus:
        """Return what `kedge status flights` says."""
        return self.run("status", "flights", prints=EndpointStatus).data


def _read(words: Sequence[str], printed: str, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(printed, type=kind)
    except msgspec.DecodeError as error:
        raise DemoFailed(
            f"kedge {' '.join(words)} printed another document: {error}\n{printed}"
        ) from None


class DemoProcess:
    """A process in a group of its own: Ctrl-C in the terminal reaches only the demo."""

    def __init__(self, name: str, command: Sequence[str], log: Path, **options: Any) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as stderr:
            self.process = subprocess.Popen(
                command, stderr=stderr, start_new_session=True, **options
            )

    def check(self) -> None:
        """Raise DemoFailed when it has ended by itself."""
        if self.process.poll() is not None:
            raise DemoFailed(
                f"{self.name} ended with exit code {self.process.returncode}\n{self.tail()}"
            )

    def tail(self) -> str:
        """Return the end of its log."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-3000:]

    def stop(self, number: int) -> int:
        """Ask it to stop and wait; one that does not is killed with all that it started.

        Returns:
            Its exit code; negative when it had to be killed.
        """
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.process.wait(STOP_S)

    def kill(self) -> None:
        """Kill it and what is left of its group."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return


class Up(DemoProcess):
    """`kedge up`."""

    def __init__(self, kedge: Kedge, port: int) -> None:
        self.port = port
        super().__init__(
            "kedge up",
            kedge_command("up", "--port", str(port)),
            kedge.work / "up.log",
            cwd=kedge.work,
            env=kedge.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        (kedge.work / PID_FILE).write_text(f"{self.process.pid}\n", encoding="utf-8")

    def wait_for(self, path: str, within_s: float = 240.0) -> float:
        """Wait until a path answers 200; returns the seconds that it took.

        Raises:
            DemoFailed: it does not in time, or the process ended.
        """
        started = time.perf_counter()
        while time.perf_counter() - started < within_s:
            self.check()
            if get(self.port, path) == http.HTTPStatus.OK:
                return time.perf_counter() - started
            pause(0.05)
        raise DemoFailed(f"{path} is not answered within {within_s:.0f} s\n{self.tail()}")


class LabelFeed:
    """Submits late labels as their files appear, from a thread of its own."""

    def __init__(self, kedge: Kedge, folder: Path) -> None:
        self.counts: Counter[str] = Counter()
        self.fault = ""
        self._kedge = kedge
        self._folder = folder
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ending.wait(0.5):
            paths = sorted(self._folder.glob("*.jsonl"))
            if not paths:
                continue
            # All at once: on a busy machine starting the command takes longer than the next file.
            batch = self._folder.with_name("handed-in.jsonl")
            batch.write_bytes(b"".join(path.read_bytes() for path in paths))
            for path in paths:
                path.unlink()
            try:
                words = ("outcomes", "flights", "--file", str(batch))
                found = self._kedge.run(*words, prints=JoinedOutcomes).data
            except DemoFailed as error:
                self.fault = str(error)
                return
            counts = msgspec.structs.asdict(found).items()
            self.counts.update({name: n for name, n in counts if isinstance(n, int)})

    def stop(self) -> None:
        """End after the present file."""
        self._ending.set()
        self._thread.join(STOP_S)


class TrafficProcess(DemoProcess):
    """The load, in its own process. `latest` is its last report."""

    def __init__(self, kedge: Kedge, cache: Path, port: int, rate: float, outcomes: Path) -> None:
        self.latest = TrafficTotals(rate=rate)
        self.summary: TrafficSummary | None = None
        super().__init__(
            "traffic",
            module_command(
                "kedge.demo.traffic",
                "--port",
                str(port),
                "--rate",
                str(rate),
                "--cache",
                str(cache),
                "--outcomes",
                str(outcomes),
            ),
            kedge.work / "traffic.log",
            env=kedge.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            last = msgspec.json.decode(line, type=LastLine)
            if last.summary is not None:
                self.summary = last.summary
            else:
                self.latest = msgspec.json.decode(line, type=TrafficSecond)

    def wait_until_it_flows(self, within_s: float = 240.0) -> None:
        """Wait for the first second of answers.

        Raises:
            DemoFailed: there are none.
        """
        deadline = time.perf_counter() + within_s
        while time.perf_counter() < deadline:
            self.check()
            if self.latest.ok:
                return
            pause(0.05)
        raise DemoFailed(f"no request was answered: {self.latest}\n{self.tail()}")

    def let_it_snow(self) -> None:
        """Switch to the days of December."""
        self.process.send_signal(signal.SIGUSR1)

    def finish(self) -> TrafficSummary:
        """Stop sending, wait for what is in flight, and return the summary.

        Raises:
            DemoFailed: there is none.
        """
        self.stop(signal.SIGTERM)
        self._reader.join(STOP_S)
        if self.summary is None:
            raise DemoFailed(f"the traffic ended without a summary\n{self.tail()}")
        return self.summary


def running_since_before(work: Path) -> int | None:
    """The `kedge up` of an earlier demo that was killed too hard to stop it; None as a rule."""
    try:
        pid = int((work / PID_FILE).read_text(encoding="utf-8"))
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    return pid if b"kedge" in command and b"up" in command else None


def get(port: int, path: str, within_s: float = 2.0) -> int:
    """Return the status of one GET on a connection of its own; 0 without an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=within_s)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def free_port() -> int:
    """Return a port of this host that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
