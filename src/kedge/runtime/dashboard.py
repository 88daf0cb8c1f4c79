"""Dashboard of the control process: its threads, its samples of the traffic, and its diagnoses."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial

import msgspec

from kedge.core.errors import Unavailable
from kedge.engine.loop import Duty, Loop
from kedge.operations.diagnosis.document import DiagnosisReport
from kedge.ports import Clock
from kedge.runtime.outcomes import read_report
from kedge.web.dashboard.guard import Guard
from kedge.web.dashboard.rates import TrafficSampler
from kedge.web.dashboard.routes import Dashboard, DashboardParts
from kedge.web.readers import Readers
from kedge.workspace import Workplace

SAMPLE_S = 1.0
"""Interval of samples of the traffic: workers count once a second."""
COMMANDS = 4
"""Threads that carry commands out: a cold rollback can wait for a minute, and others must not."""
ROLLBACKS = 2
"""Threads of rollbacks alone: a promotion that waits for a load must not delay one."""
DIAGNOSES = 2
"""Maximum diagnoses at once; each may take a processor. Others wait."""
DIAGNOSIS_S = 600.0
"""Time limit of a diagnosis that a page starts."""


class DiagnosisProcess:
    """A diagnosis in a process of its own, because it runs models again."""

    def __init__(self, command: Callable[[str], tuple[str, ...]]) -> None:
        """Diagnose an endpoint with this command line."""
        self._command = command
        self._turn = asyncio.Semaphore(DIAGNOSES)

    async def __call__(self, endpoint: str) -> DiagnosisReport:
        """Return the diagnosis of an endpoint.

        Raises:
            Refused, Unavailable: the fault that the command reports; `diagnosis_late`.
        """
        async with self._turn:
            return await self._run(endpoint)

    async def _run(self, endpoint: str) -> DiagnosisReport:
        child = await asyncio.create_subprocess_exec(
            *self._command(endpoint),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(DIAGNOSIS_S):
                raw, _ = await child.communicate()
        except TimeoutError:
            raise Unavailable(
                f"the diagnosis did not end within {DIAGNOSIS_S:g} s", code="diagnosis_late"
            ) from None
        finally:
            if child.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    child.kill()
        return msgspec.json.decode(read_report(raw, child.returncode), type=DiagnosisReport)


def dashboard_of(
    clock: Clock,
    open_place: Callable[..., Workplace],
    *,
    guard: Guard,
    diagnose: Callable[[str], tuple[str, ...]],
    sampler: TrafficSampler,
    loopback: bool,
    is_stopping: Callable[[], bool],
) -> Dashboard:
    """Build the dashboard.

    Args:
        clock: the clock of the process.
        open_place: opens the state directory for a thread.
        guard: identifies the callers.
        diagnose: the command line of a diagnosis.
        sampler: the samples of the traffic.
        loopback: whether only this machine reaches the gateways.
        is_stopping: whether the server waits for its streams to end.
    """
    parts = DashboardParts(
        readers=Readers(open_place, name="page"),
        commands=Readers(open_place, name="command", threads=COMMANDS),
        rollbacks=Readers(open_place, name="rollback", threads=ROLLBACKS),
        open_place=lambda holder: open_place(token=holder, patience_s=5.0),
        sampler=sampler,
        unix=clock.unix,
        monotonic=clock.monotonic,
        diagnose=DiagnosisProcess(diagnose),
        loopback=loopback,
        is_stopping=is_stopping,
    )
    return Dashboard(guard, parts)


def sampling_of(duty: Duty, place: Workplace, sampler: TrafficSampler) -> Loop:
    """Build the loop that samples the traffic, with its own workplace."""
    return Loop(duty, "control.rates", partial(sampler.sample, place), every_s=SAMPLE_S)
