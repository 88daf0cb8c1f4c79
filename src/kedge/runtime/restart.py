"""Restart of a supervisor without an outage: the process executes itself again.

Process id, cgroup, lock and listening socket stay. The new image has the new code and settings. It
starts workers and model processes in its own folder, and relieves the earlier ones once they serve.

1. `kedge restart` sends `ASK` to the process that the lock's record names.
2. The supervisor tests the new code and kedge.toml in a child. A failure there is a refusal.
3. It hands over in the environment what cannot be derived, and executes itself.
4. An image that cannot start keeps the process and its children, reports why, and tries again.

Signals are blocked from the exec until the new image has its handlers for them. A stop signal in
between still takes effect, and a second restart does not end the process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version as distribution_version
from pathlib import Path

import msgspec
import structlog

from kedge.adapters.clock import SystemClock
from kedge.core.errors import KedgeError, NotAcknowledged, Refused
from kedge.engine.process_faults import ProcessFaults
from kedge.engine.relief import Predecessor, Relief, defers, process_of, takes
from kedge.engine.supervisor_lock import Phase, Record, SupervisorLock, _namespace, is_same, read
from kedge.system.pause import pause

log = structlog.get_logger("kedge.supervisor")

ASK = signal.SIGUSR2
"""Signal that requests a restart. It is not SIGHUP, which a closed terminal sends."""
PROTOCOL = 1
"""Version of the handover; an image refuses any other version before it changes anything."""
VARIABLE = "KEDGE_HANDOVER"
"""Environment variable with the handover of the image before."""
TRIAL_S = 60.0
"""Time limit for the import and the check of the new code."""
TRIAL_NICE = 10
"""Niceness of the trial: it imports everything, on a machine that serves."""
AGAIN_S = (2.0, 5.0, 15.0, 30.0)
"""Seconds before the n-th attempt in a row of an image that cannot start."""
IN_CHILDREN = False
"""Inheritance of the handed descriptors by children: they are for this process alone."""
SLOW_S = 60.0
"""After this long, `kedge status` shows that the new workers do not serve yet."""
PLACE = "supervisor.restart"
"""Name under which `kedge status` shows why a restart is not complete."""
BLOCKED = (signal.SIGTERM, signal.SIGINT, ASK)
HELD_STOP_S = 30.0
"""Time limit for the drain of workers while no supervisor's settings are known."""
LOOK_S = 0.05


class Standing(msgspec.Struct):
    """The settings that a restart cannot change: the new configuration must agree with them."""

    host: str
    port: int
    state_dir: str
    protocol: int = PROTOCOL


class Handover(msgspec.Struct):
    """The state that an image hands to the next one."""

    listener: int
    lock: int
    image: int
    """Number of times that this process has executed itself."""
    predecessors: list[Predecessor]
    failures: int = 0
    """Number of images in a row that could not start."""
    taken: bool = False
    """Whether an image has started and owns this state."""

    def take(self) -> None:
        """Close the descriptors; the image has its own copies by now."""
        self.taken = True
        os.close(self.listener)
        os.close(self.lock)


def command_line() -> tuple[str, ...]:
    """Return the command line of this process, with the interpreter's full path."""
    return (sys.executable, *sys.orig_argv[1:])


def take_handover() -> Handover | None:
    """Return the handover of the image before, once, and hide it from children."""
    raw = os.environ.pop(VARIABLE, None)
    if raw is None:
        return None
    handed = msgspec.json.decode(raw, type=Handover)
    for descriptor in (handed.listener, handed.lock):
        os.set_inheritable(descriptor, IN_CHILDREN)
    return handed


def obey() -> None:
    """Unblock signals: their handlers are set now."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, BLOCKED)


def execute(handed: Handover) -> None:
    """Execute the next image in this process.

    Raises:
        OSError: the interpreter cannot be started; nothing has changed.
    """
    kept = (handed.listener, handed.lock)
    for path in [*Path("/proc/self/fd").iterdir()]:
        with suppress(OSError):  # the listing's own descriptor
            if int(path.name) > 2:
                os.set_inheritable(int(path.name), int(path.name) in kept)
    environment = {**os.environ, VARIABLE: msgspec.json.encode(handed).decode()}
    signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)
    try:
        line = command_line()
        os.execve(line[0], line, environment)  # noqa: S606 - ourselves
    finally:
        obey()
        for descriptor in kept:
            os.set_inheritable(descriptor, IN_CHILDREN)


class Restart:
    """The supervisor's side. A signal handler may call `ask`; only its loop calls `step`."""

    def __init__(
        self,
        lock: SupervisorLock,
        standing: Standing,
        *,
        workers: int,
        image: int,
        handover: Callable[[], Handover],
        relief: Relief,
        faults: ProcessFaults,
    ) -> None:
        self._lock = lock
        self._standing = standing
        self._workers = workers
        self._handover = handover
        self._faults = faults
        self._waits_since: float | None = None
        """Start of the wait for the new workers; None before."""
        self._waiting = relief.waiting
        self._asked = False
        self._trial: subprocess.Popen[bytes] | None = None
        self._answer = -1
        self._began = 0.0
        self.image = image

    def ask(self) -> None:
        """Request a restart at the next step."""
        self._asked = True

    @property
    def known(self) -> set[int]:
        """The process id of the trial, which this object waits for."""
        return {self._trial.pid} if self._trial is not None else set()

    def started(self, *, waiting: bool) -> None:
        """Write the running image into the lock's record."""
        self._write(
            pid=os.getpid(),
            started=process_of(os.getpid()).started,
            namespace=_namespace(),
            version=distribution_version("kedge"),
            workers=self._workers,
            hint="",
            number=self._lock.record.number if self.image else 0,
            told="",
            phase=Phase.STARTING if waiting else Phase.SERVING,
        )

    def relieved(self) -> None:
        """Record that the new workers serve."""
        self._waiting = False
        self._faults.clear(PLACE)
        self._write(phase=Phase.SERVING, told="", hint="")

    def step(self, now: float) -> None:
        """Start a requested trial, act on one that has ended, or report a long wait."""
        self._watch(now)
        if self._trial is not None:
            self._judge(self._trial, now)
        elif self._asked:
            self._asked = False
            self._write(number=self._lock.record.number + 1, phase=Phase.CHECKING, told="", hint="")
            self._begin(now)

    def stop(self) -> None:
        """End a running trial, because the process stops."""
        self._asked = False
        if self._trial is not None:
            self._trial.kill()

    def _watch(self, now: float) -> None:
        if not self._waiting:
            return
        if self._waits_since is None:
            self._waits_since = now
        elif now - self._waits_since > SLOW_S:
            self._waiting = False
            self._faults.note(
                PLACE, NotAcknowledged("the new workers do not serve yet; those before them do")
            )

    def _begin(self, now: float) -> None:
        line = (*command_line(), "--json", "--trial", msgspec.json.encode(self._standing).decode())
        self._answer = os.memfd_create("kedge-trial")
        try:
            self._trial = subprocess.Popen(  # noqa: S603 - our own command
                line,
                stdin=subprocess.DEVNULL,
                stdout=self._answer,
                stderr=self._answer,
                start_new_session=True,
            )
        except OSError as error:
            os.close(self._answer)
            self._refuse(f"the trial cannot be started: {error}", "")
            return
        self._began = now
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, self._trial.pid, TRIAL_NICE)

    def _judge(self, trial: subprocess.Popen[bytes], now: float) -> None:
        if trial.poll() is None:
            if now - self._began > TRIAL_S:
                trial.kill()
            return
        self._trial = None
        raw = os.pread(self._answer, 1 << 20, 0)
        os.close(self._answer)
        if trial.returncode == 0:
            self._execute()
        elif trial.returncode == -signal.SIGKILL:
            self._refuse(f"the new code did not start within {TRIAL_S:g} s", "")
        else:
            self._refuse(*words_of(raw, trial.returncode))

    def _execute(self) -> None:
        self._write(phase=Phase.STARTING)
        log.info("supervisor.restarts", command=" ".join(command_line()))
        try:
            execute(self._handover())
        except OSError as error:
            self._refuse(f"{sys.executable} cannot be executed: {error}", "")

    def _refuse(self, told: str, hint: str) -> None:
        log.error("supervisor.restart_refused", fault=told)
        self._faults.note(PLACE, Refused(told))
        self._write(phase=Phase.REFUSED, told=told, hint=hint)

    def _write(self, **changes: object) -> None:
        try:
            self._lock.write(**changes)
        except OSError as error:
            log.warning("supervisor.record_lost", fault=str(error))


class _Fault(msgspec.Struct):
    message: str = ""
    hint: str = ""


class _Answer(msgspec.Struct):
    error: _Fault


def words_of(raw: bytes, code: int) -> tuple[str, str]:
    """Return message and hint of a failed command, from its JSON or its traceback's last line."""
    for line in raw.splitlines():
        with suppress(msgspec.DecodeError):
            fault = msgspec.json.decode(line, type=_Answer).error
            return fault.message, fault.hint
    lines = raw.decode(errors="replace").strip().splitlines()
    last = lines[-1] if lines else f"it ended with code {code} and no message"
    return f"the new code does not start: {last}", ""


# ---------------------------------------------------------------- an image that cannot start


def hold(handed: Handover, error: BaseException) -> int:
    """Keep the process and its children while the new image cannot start; return an exit code.

    The processes that were handed over continue serving. A stop signal stops them in order. A
    restart request, or a delay of some seconds, starts another attempt.
    """
    told = f"{type(error).__name__}: {error}"
    lock = SupervisorLock(handed.lock)
    with suppress(OSError):
        lock.write(phase=Phase.FAILED, told=told, hint=getattr(error, "hint", ""))
    log.error("supervisor.cannot_start", fault=told, exc_info=error)
    stopped, asked = threading.Event(), threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    signal.signal(ASK, lambda *_: asked.set())
    while not _stopped_within(AGAIN_S[min(handed.failures, len(AGAIN_S) - 1)], stopped, asked):
        with suppress(OSError):
            lock.write(number=lock.record.number + asked.is_set(), phase=Phase.STARTING)
        handed.failures += 1
        try:
            execute(handed)
        except OSError as fault:
            with suppress(OSError):
                lock.write(phase=Phase.FAILED, told=str(fault), hint="")
        asked.clear()
    relief = Relief(handed.predecessors, remove=lambda _: None)
    clock = SystemClock()
    relief.stop("workers")
    os.close(handed.listener)
    relief.wait("workers", clock, clock.monotonic() + HELD_STOP_S)
    relief.stop("hosts")
    relief.wait("hosts", clock, clock.monotonic() + HELD_STOP_S)
    return 1


def _stopped_within(seconds: float, stopped: threading.Event, asked: threading.Event) -> bool:
    obey()
    deadline = time.monotonic() + seconds
    while not (stopped.is_set() or asked.is_set()) and time.monotonic() < deadline:
        stopped.wait(LOOK_S)
        reap(set())
    return stopped.is_set()


def reap(known: set[int]) -> list[int]:
    """Reap children that no other part waits for, as process 1 and every later image must."""
    found: list[int] = []
    while True:
        try:
            one = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if one is None or one.si_pid in known:
                return found
            os.waitpid(one.si_pid, 0)
        except ChildProcessError:
            return found
        found.append(one.si_pid)


# ---------------------------------------------------------------- the command


def restart(state_dir: Path, within_s: float) -> Record:
    """Ask the supervisor of a state directory to restart, and wait until its new workers serve.

    Raises:
        Refused: no supervisor runs or can be asked, or the new code or kedge.toml has a fault.
        NotAcknowledged: the new workers do not serve yet; the earlier ones still do.
    """
    deadline = time.monotonic() + within_s
    before = _find(state_dir)
    while before.phase is Phase.CHECKING:  # another restart's check, maybe of older settings
        if time.monotonic() > deadline:
            raise Refused("a restart is under way", code="restart_under_way", hint="wait for it")
        pause(LOOK_S)
        before = _find(state_dir)
    try:
        os.kill(before.pid, ASK)
    except OSError as error:
        raise Refused(
            f"process {before.pid} cannot be asked: {error.strerror}",
            code="not_asked",
            hint="run it as the user of kedge up",
        ) from None
    while True:
        now = read(state_dir)
        if now is None or now.pid != before.pid:
            raise NotAcknowledged(
                f"process {before.pid} ended during the restart; its workers keep serving"
                " without it",
                code="restart_failed",
                hint=f"look at its log and {state_dir / 'logs'}; kedge up takes over from them",
            )
        if now.number > before.number and now.phase is Phase.SERVING:
            return now
        if now.number > before.number and now.phase is Phase.REFUSED:
            raise Refused(f"nothing was changed: {now.told}", code="restart_refused", hint=now.hint)
        if now.number > before.number and now.phase is Phase.FAILED:
            raise _unconfirmed(
                f"the new kedge cannot start, and the old workers keep serving: {now.told}",
                now.hint or "fix it, then kedge restart",
            )
        if time.monotonic() > deadline:
            raise _unconfirmed(
                f"the new workers do not serve after {within_s:g} s; the old workers keep serving",
                f"it keeps trying; {state_dir / 'logs'} says why, kedge status what is loaded",
            )
        pause(LOOK_S)


def _unconfirmed(message: str, hint: str) -> KedgeError:
    return NotAcknowledged(message, code="restart_unconfirmed", hint=hint)


def _find(state_dir: Path) -> Record:
    """Return the record of a supervisor that can be asked to restart."""
    found = read(state_dir)
    if found is None:
        raise Refused(
            f"no kedge up runs on {state_dir}", code="not_running", hint="kedge up starts it"
        )
    process = process_of(found.pid)
    if not is_same(found) or not (takes(process, ASK) or defers(process, ASK)):
        raise Refused(
            f"the kedge up on {state_dir} cannot be asked: it is older than this command, starts"
            " just now, or runs in another container",
            code="not_asked",
            hint="run the command where kedge up runs, once it serves",
        )
    return found
