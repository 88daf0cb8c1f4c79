"""Live snapshot: what an answer is given against, whatever is swapped meanwhile; and the answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from kedge.core.evidence.answers import get_target
from kedge.core.routing import Choice, Plan, Reason
from kedge.core.values import Arm, Stage, State
from kedge.engine.recording.predictions import Log
from kedge.engine.recording.recorder import Recorder
from kedge.engine.serving.deadlines import Deadlines
from kedge.engine.serving.pool import Handle
from kedge.ports import CallerContract

if TYPE_CHECKING:
    from kedge.typing import Columns


Headers = list[tuple[bytes, bytes]]
"""Headers of an answer, in ASGI's form."""


class Live:
    """What an endpoint serves at one epoch; immutable except the deadline and the answered mark."""

    __slots__ = (
        "answered",
        "compares",
        "contract",
        "deadlines",
        "first_answer",
        "gathers",
        "handles",
        "heads",
        "instead",
        "lease",
        "log",
        "names",
        "noise",
        "output",
        "pinned",
        "plan",
        "recorder",
        "reverse",
        "sampled",
        "state",
        "troubled",
        "watched",
    )

    def __init__(
        self,
        *,
        state: State,
        plan: Plan,
        handles: dict[int, Handle],
        contract: CallerContract,
        recorder: Recorder,
        lease: bool,
        pinned: bool,
        first_answer: Callable[[], None] = lambda: None,
    ) -> None:
        self.first_answer = first_answer
        """Called once, when a caller got the first answer of this snapshot."""
        self.state = state
        self.watched = watched(state)
        self.log = Log(state)
        self.sampled = not state.divided
        self.output = get_target(state)
        self.compares = state.policy.output.kind != "custom"  # an operator's code does not run here
        self.noise = state.policy.shadow.noise / 100 if state.stage is Stage.SHADOW else 0.0
        self.reverse = state.candidate is None
        """Whether copies go to the release that was left."""
        # A candidate is judged by the duration of each copy.
        self.gathers = state.policy.limits.shadow_in_flight if self.reverse else 1
        self.plan = plan
        self.handles = handles
        self.contract = contract
        self.recorder = recorder
        self.lease = lease
        self.pinned = pinned
        # Every choice that is answered here belongs to this snapshot, so its identity is a key.
        self.instead = {
            reason: Choice(arm=Arm.PRODUCTION, release=plan.outside.release, reason=reason)
            for reason in (Reason.FAILOVER, Reason.BREAKER)
        }
        self.heads: dict[int, Headers] = {}
        """The headers that the answers of one choice share, by choice."""
        self.names: dict[int, tuple[str, str, str]] = {}
        self.deadlines = Deadlines(state.policy.limits)
        self.answered = False
        self.troubled = False

    def refresh_deadline(self) -> None:
        """Compute the candidate's deadlines and limit of silence from production's latency."""
        self.deadlines.refresh(self.recorder)
        handle = self.handles.get(self.state.compared or 0)
        rows = handle.largest[0] if handle is not None else 1
        self.recorder.conduct.patience_s = self.deadlines.patience(rows)

    @property
    def deadline_s(self) -> float:
        """The candidate's deadline for a request with a single row."""
        return self.deadlines.single_s


def watched(state: State) -> bool:
    """Return whether observations are needed: for a comparison or for the prediction log."""
    return state.compared is not None or state.policy.log.sample > 0


class Answer:
    """What is returned, which release gave it, at which epoch, and the reason for that release."""

    __slots__ = ("choice", "failover", "live", "micros", "outputs", "unknown", "violated")

    def __init__(
        self, choice: Choice, outputs: Columns, micros: int, violated: bool = False
    ) -> None:
        self.choice = choice
        self.outputs = outputs
        self.micros = micros
        self.violated = violated
        """Whether a feature of it violated its schema."""
        self.failover: str | None = None
        """Why the candidate's answer was not used; None if it was used, or not asked for."""
        self.unknown = False
        """Whether the candidate was not asked, or may still answer: nothing is known of it yet."""
        self.live: Live | None = None
        """The snapshot that answered, if it is a later one than the request arrived at."""
