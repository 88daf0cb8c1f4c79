"""Custom comparison: whether two answers agree, decided by a function that the policy names.

The function is other people's code. It runs in a child process, never in a worker: it may hold the
interpreter, exit, print or exhaust memory there. What the child does not answer within its time is
not compared. It is counted, and is neither an agreement nor a disagreement.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from kedge.core.errors import BadConfig, KedgeError
from kedge.core.evidence.records import Known
from kedge.core.values import Output
from kedge.system.interpreter import bare_environment, module_command

if TYPE_CHECKING:
    from kedge.typing import Columns

log = structlog.get_logger("kedge.custom")

Agree = Callable[["Columns", "Columns", int], Sequence[bool | None]]
"""From (production's answer, the other one, rows) to whether each row agrees; None: unknown."""
Pair = tuple["Columns", "Columns", int]

START_S = 30.0
"""Time to import the function's module; only `kedge apply` waits for it."""
ANSWER_S = 2.0
"""Time for some dozens of pairs, of which one takes a fraction of a millisecond. The recording
waits for it, and counts as silent if it has not written for 5 s."""
BACKOFF_S = (1.0, 5.0, 15.0, 60.0)
"""Waits before the next child, by the number of failures in a row."""
MEMORY_BYTES = 1 << 30
"""Memory limit of the child. A batch of pairs is some megabytes; the rest is for the libraries that
a function imports."""
LONGEST_FRAME = 16 << 20
FENCE = "kedge.adapters.process.fence:enclose"
"""The fence that the child enters before it imports the function; by name, as the engine imports no
adapter."""
PR_SET_PDEATHSIG = 1


_fence: list[str] = ["", "warn"]
"""The state directory, and `[server] fence`: arguments of the child's command line."""


def set_fence(state_dir: Path, policy: str) -> None:
    """Forbid this process's children to read the state directory, even beside their module.

    With the policy "require" a function does not run if a part of the fence is missing on this
    machine.
    """
    _fence[:] = str(state_dir), policy


class _Said(msgspec.Struct):
    """A message of the child: ready, the answers to a batch, or a fault."""

    ready: bool = False
    same: list[list[bool] | None] | None = None
    losses: list[float | None] | None = None
    fault: str = ""


def check_function(
    output: Output,
    place: str = "output.function",
    called: str = "with two answers, and gives one bool a row",
) -> None:
    """Raise if the function that a policy names cannot be used.

    Args:
        output: with the `function`.
        place: the setting that names it.
        called: how it is called, for the hint.

    Raises:
        BadConfig: it cannot be imported, is not a function, or its module does not load in time.
    """
    compare = Custom(output, logs=False)  # the command reports the fault itself
    try:
        fault = compare.wait(START_S)
    finally:
        compare.close()
    if fault:
        raise BadConfig(
            [f"{place}: {output.function} cannot be imported: {fault}"],
            hint=(
                "MODULE:NAME of a function that kedge's own Python can import; PYTHONPATH adds a"
                f" folder. It is called {called}"
            ),
        )


class Custom:
    """The function, in a child that is restarted after a failure; used by one thread."""

    def __init__(self, output: Output, *, logs: bool = True) -> None:
        self._logs = logs
        self._function = output.function or ""
        self._child: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None
        self._ready = False
        self._started_at = 0.0
        self._retry_at = 0.0
        self._failures = 0
        self._fault = ""

    def __del__(self) -> None:
        self.close()

    def __call__(self, ours: Columns, theirs: Columns, rows: int) -> Sequence[bool | None]:
        """Return for each row whether both answers agree."""
        return self.compare([(ours, theirs, rows)])[0]

    def compare(self, pairs: Sequence[Pair]) -> list[Sequence[bool | None]]:
        """Return for each pair whether each of its rows agrees; None if it is not compared."""
        asked = [(dict(ours), dict(theirs)) for ours, theirs, _ in pairs]
        said = self._ask(asked) if pairs and self._starts() else None
        same = said.same if said is not None and said.same is not None else []
        found: list[Sequence[bool | None]] = []
        for (_, _, rows), each in zip(
            pairs, [*same, *[None] * (len(pairs) - len(same))], strict=False
        ):
            found.append(each if each is not None and len(each) == rows else [None] * rows)
        return found

    def measure(
        self, answers: Sequence[Known], outcomes: Sequence[Known]
    ) -> list[float | None] | None:
        """Return how bad each answer was, 0 to 1; None for one where the function gives no number.

        The result is None if the child is not ready or failed. `fault` gives the reason, and a
        later call asks again.
        """
        if not answers:
            return []
        said = self._ask((list(answers), list(outcomes))) if self._starts() else None
        if said is None or said.losses is None or len(said.losses) != len(answers):
            return None
        return said.losses

    @property
    def fault(self) -> str:
        """The last fault; empty without one."""
        return self._fault

    def wait(self, patience_s: float) -> str:
        """Wait until the child is ready; return its fault, empty if it is ready."""
        until = monotonic() + patience_s
        while not self._starts() and self._child is not None and monotonic() < until:
            with suppress(subprocess.TimeoutExpired):
                self._child.wait(0.02)
        return "" if self._ready else self._fault or f"it took longer than {patience_s:g} s"

    def close(self) -> None:
        """End the child."""
        if self._line is not None:
            self._line.close()
        if self._child is not None:
            with suppress(ProcessLookupError):
                self._child.kill()
            with suppress(subprocess.TimeoutExpired):
                self._child.wait(1.0)
        self._child = self._line = None
        self._ready = False

    # ------------------------------------------------------------ the child, from outside

    def _starts(self) -> bool:
        """Start the child if it is due; return whether it is ready. Never waits."""
        if self._ready:
            return True
        now = monotonic()
        if self._child is None:
            if now >= self._retry_at:
                self._start(now)
            return False
        if self._line is None:
            return False
        try:
            said = _hear(self._line, 0.001)
        except TimeoutError:
            if now - self._started_at > START_S:
                self._failed(f"its module took longer than {START_S:g} s to load")
        except (OSError, EOFError, msgspec.MsgspecError) as error:
            self._failed(str(error) or "its process ended while it was loaded")
        else:
            self._ready = said.ready
            if not said.ready:
                self._failed(said.fault)
        return self._ready

    def _start(self, now: float) -> None:
        mine, theirs = socket.socketpair()
        try:
            self._child = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                module_command(
                    "kedge.engine.recording.custom",
                    str(theirs.fileno()),
                    self._function,
                    str(os.getpid()),
                    *_fence,
                ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                env=bare_environment(),
            )
        except OSError as error:
            mine.close()
            self._failed(str(error))
            return
        finally:
            theirs.close()
        self._line, self._started_at = mine, now

    def _ask(self, asked: object) -> _Said | None:
        assert self._line is not None
        until = monotonic() + ANSWER_S
        try:
            self._line.settimeout(ANSWER_S)
            _send(self._line, pickle.dumps(asked))
            said = _hear(self._line, max(until - monotonic(), 0.001))
        except TimeoutError:
            self._failed(f"it did not answer within {ANSWER_S:g} s")
            return None
        except (OSError, EOFError, msgspec.MsgspecError, pickle.PicklingError) as error:
            self._failed(str(error) or "its process ended")
            return None
        if said.fault:
            self._tell(said.fault)
        else:
            self._failures = 0
        return said

    def _failed(self, fault: str) -> None:
        """Kill the child; the next one starts after a wait."""
        self._tell(fault)
        self.close()
        self._retry_at = monotonic() + BACKOFF_S[min(self._failures, len(BACKOFF_S) - 1)]
        self._failures += 1

    def _tell(self, fault: str) -> None:
        if self._logs and fault != self._fault:
            log.warning("custom.failed", function=self._function, fault=fault)
        self._fault = fault


def _send(line: socket.socket, raw: bytes) -> None:
    line.sendall(len(raw).to_bytes(8) + raw)


def _hear(line: socket.socket, patience_s: float) -> _Said:
    """Return the child's next message.

    Raises:
        TimeoutError: it sends nothing in time.
        EOFError: it disconnected, or sent too much.
    """
    line.settimeout(patience_s)
    size = int.from_bytes(line.recv(8, socket.MSG_WAITALL))
    if not 0 < size <= LONGEST_FRAME:
        raise EOFError("its process ended")
    until, raw = monotonic() + max(patience_s, 0.1), bytearray()
    while len(raw) < size:
        line.settimeout(max(until - monotonic(), 0.001))
        more = line.recv(min(size - len(raw), 1 << 20))
        if not more:
            raise EOFError("its process ended")
        raw += more
    return msgspec.json.decode(bytes(raw), type=_Said)


# ---------------------------------------------------------------- in the child


def function_of(named: str) -> Callable[..., Any]:
    """Return the function that MODULE:NAME names. Raises whatever importing it raises."""
    module, _, name = named.partition(":")
    found = getattr(import_module(module), name)
    if not callable(found):
        raise TypeError(f"{named} is not a function")
    return found  # type: ignore[no-any-return]


def _same(function: Callable[..., Any], pairs: list[tuple[Columns, Columns]]) -> _Said:
    said = _Said(same=[])
    assert said.same is not None
    for ours, theirs in pairs:
        try:
            said.same.append([bool(one) for one in function(ours, theirs)])
        except BaseException as error:  # noqa: BLE001 - other people's code may even exit
            said.same.append(None)
            said.fault = f"{type(error).__name__}: {error}"[:500]
    return said


def _lost(
    function: Callable[..., Any], answers: Sequence[Known], outcomes: Sequence[Known]
) -> _Said:
    said = _Said(losses=[])
    assert said.losses is not None
    for answer, outcome in zip(answers, outcomes, strict=True):
        try:
            found = float(function(answer, outcome))
        except BaseException as error:  # noqa: BLE001 - other people's code may even exit
            said.losses.append(None)
            said.fault = f"{type(error).__name__}: {error}"[:500]
        else:
            said.losses.append(found if 0 <= found <= 1 else None)
    return said


def main(words: Sequence[str]) -> int:
    """Answer batches of pairs until the worker hangs up."""
    line = socket.socket(fileno=int(words[0]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    refusal: KedgeError | None = None
    try:
        function_of(FENCE)(*words[3:])
    except KedgeError as error:
        refusal = error
    with suppress(AttributeError):  # not Linux
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(words[2]):
        return 1
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    try:
        if refusal is not None:
            raise refusal
        function = function_of(words[1])
    except BaseException as error:  # noqa: BLE001 - importing runs other people's code
        _send(line, msgspec.json.encode(_Said(fault=f"{type(error).__name__}: {error}"[:500])))
        return 1
    _send(line, msgspec.json.encode(_Said(ready=True)))
    with line.makefile("rb") as asked:
        while head := asked.read(8):
            # Of our own process.
            batch = pickle.loads(asked.read(int.from_bytes(head)))  # noqa: S301
            said = _lost(function, *batch) if isinstance(batch, tuple) else _same(function, batch)
            _send(line, msgspec.json.encode(said))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
