"""Summary of a diagnosis, as it is recorded in the ledger, and what follows from it.

A rollback shows the newest summary beside its receipt, policy uses it as a fact, and a harmful one
opens an alert. None of them waits for it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from kedge.core.diagnosis.findings import ELSEWHERE, RELEASE, Act, Cause, Diagnosis, Estimate, Kind
from kedge.core.values import Value

SHOWN_S = 24 * 3600.0
"""Greatest age of a finding that a rollback shows: an incident is seldom longer."""
FRESH_S = 2 * 3600.0
"""Greatest age of a finding that holds an automatic rollback: two of the patrol's hourly checks.
Yesterday's requests say nothing of a failure that began later."""
SOFT = frozenset({"quality", "violations", "cost"})
"""Guardrails whose failure may come from the world or a source. Errors and latency harm callers
directly: those always act."""


class DiagnosisSummary(Value, frozen=True, kw_only=True):
    """One diagnosis in short. `new` and `old` are numbers of releases."""

    at: float
    """Unix time of the end of its window, or of the diagnosis when that is earlier."""
    since: float
    until: float
    requests: int
    labelled: int
    new: int
    old: int | None
    metric: str
    headline: str
    causes: tuple[Cause, ...]
    kinds: tuple[str, ...] = ()
    statements: tuple[str, ...] = ()
    effect: Estimate | None = None
    """Effect of a rollback; negative is better."""
    harms: tuple[Estimate | None, ...] = ()
    """By finding: its addition to the loss."""
    action: Act
    advice: str
    segment: str = ""
    """The only segment that was diagnosed; such a diagnosis holds no rollback."""
    missing: tuple[str, ...] = ()
    took_s: float | None = None
    """How long the diagnosis took."""

    @property
    def against(self) -> bool:
        """Return whether it speaks against a rollback: another cause, or a rollback does harm."""
        harms = self.effect is not None and self.effect.low > 0
        return (harms or self.elsewhere) and not self.release

    @property
    def elsewhere(self) -> bool:
        """Return whether a cause is one that a rollback does not undo."""
        return bool(ELSEWHERE & set(self.causes))

    @property
    def release(self) -> bool:
        """Return whether the release is partly to blame, or a rollback is shown to help."""
        helps = self.effect is not None and self.effect.high < 0
        return helps or bool(RELEASE & set(self.causes))

    @property
    def names(self) -> tuple[str, ...]:
        """Return the causes in words; for a look-alike, both."""
        found = (
            "world or data" if self._kind(n) == Kind.WORLD_OR_DATA else str(cause).replace("_", " ")
            for n, cause in enumerate(self.causes)
        )
        return tuple(dict.fromkeys(found))

    def _kind(self, number: int) -> str:
        return self.kinds[number] if number < len(self.kinds) else ""

    @property
    def harm(self) -> Literal["page", "warn"] | None:
        """Return the urgency: page for proven harm, warn for a cause of unknown effect."""
        named = [
            harm
            for n, (cause, harm) in enumerate(zip(self.causes, self.harms, strict=True))
            if cause in RELEASE | ELSEWHERE or self._kind(n) == Kind.WORLD_OR_DATA
        ]
        if any(harm is not None and harm.low > 0 for harm in named):
            return "page"
        return "warn" if any(harm is None for harm in named) else None


def filed(
    found: Diagnosis,
    *,
    new: int,
    old: int | None,
    at: float,
    since: float,
    until: float,
    requests: int,
    labelled: int,
    segment: str = "",
    took_s: float | None = None,
) -> DiagnosisSummary:
    """Return a diagnosis in short; `new` and `old` are the numbers of its releases."""
    return DiagnosisSummary(
        at=min(at, until),
        since=since,
        until=until,
        requests=requests,
        labelled=labelled,
        new=new,
        old=old,
        metric=found.metric,
        headline=found.headline,
        causes=tuple(f.cause for f in found.findings),
        kinds=tuple(f.kind.value if f.kind is not None else "" for f in found.findings),
        statements=tuple(f.statement for f in found.findings),
        effect=found.effect,
        harms=tuple(f.effect for f in found.findings),
        action=found.action.code,
        advice=found.action.sentence,
        missing=tuple(lack.log for lack in found.missing),
        segment=segment,
        took_s=took_s,
    )


def about(found: DiagnosisSummary, left: int | None, now: float, within_s: float = SHOWN_S) -> bool:
    """Return whether it is recent and about the release that a rollback (would) leave."""
    return found.new == left and now - found.at <= within_s


def holds(
    found: DiagnosisSummary | None, new: int, old: int, failing: Collection[str], now: float
) -> str:
    """Return why a failing release is not rolled back automatically; empty when it is.

    Only soft guardrails are held, by a fresh finding about these two releases. The finding blames a
    cause that a rollback does not undo, and neither release. A finding that cannot tell holds
    nothing. Both releases must have answered the same requests, and a rollback must not be shown to
    help. Without that contrast the release could still be at fault.

    Args:
        found: the newest finding, if any.
        new: the release that fails.
        old: the landing of a rollback.
        failing: the metrics that fail.
        now: Unix time.
    """
    if found is None or found.segment or not failing or not set(failing) <= SOFT:
        return ""
    known = about(found, new, now, FRESH_S) and found.old == old
    if not known or not found.elsewhere or found.release or found.effect is None:
        return ""
    causes = " and ".join(dict.fromkeys(str(c) for c in found.causes if c in ELSEWHERE))
    return f"the diagnosis found {causes}: {found.headline}; {found.advice}"
