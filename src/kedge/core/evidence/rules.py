"""What the judge is asked, and what it says: guardrails, verdicts, failures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from kedge.core.values import Value

QUALITY = "quality"
"""The metric that labels judge; the others are seen by the workers themselves."""
METHOD = 2
"""The version of counting and judging. Evidence of another version is never added to this one's."""
SHOWN_ALPHA = 0.05
"""Of the intervals and suspicions that are shown; nothing is done on them."""
Key = tuple[str, str]
"""(metric, segment); segment "" is everything."""
Word = Literal["pass", "fail", "inconclusive", "broken input"]
Cells = Mapping[str, tuple[int, int]]
"""By segment ("" is everything): production's and the candidate's."""


class Rail(Value, frozen=True):
    """One guardrail.

    The alarm bets that the rate ratio is above `r0`; a pass needs the proof that it is below
    1 + `worse_by`.
    """

    worse_by: float
    r0: float = 1.0
    weight: float = 0.0
    """Its share of the alarm; 0: never alarms."""
    floor: float = 0.001
    """A rate of bad requests proven to be below this passes without a ratio: one in a thousand."""
    mean: bool = False
    """Judged by losses instead of counts of bad units."""
    of: str = ""
    """The metric whose events it judges, where it has none of its own."""
    stated: float | None = None
    """`worse_by` as the policy states it, where the judge works with another figure."""

    @property
    def shown(self) -> float:
        """The margin, for people."""
        return self.worse_by if self.stated is None else self.stated


class JudgeRules(Value, frozen=True, kw_only=True):
    """What the judge is asked to prove."""

    rails: dict[str, Rail]
    alpha: float = 0.01
    steps: tuple[int, ...] = (0,)
    """The declared weights, in buckets."""
    callers_floor: float = 0.01
    """The floor where the units are callers: a thousandth of them would need 5,300."""
    min_bad: int = 8
    """Bad units of the candidate before an alarm: a handful can be one cause outside the model."""
    min_units: int = 100
    """Pairs in a shadow, and requests of the candidate in a canary, before a verdict passes."""
    min_units_per_segment: int = 100


class Verdict(Value, frozen=True, kw_only=True):
    """What is known of one metric in one segment. Pairs are (production, candidate)."""

    metric: str
    segment: str
    verdict: Word
    reason: str
    units: tuple[int, int]
    """Callers that asked in this step, and requests without an entity."""
    bad: tuple[int, int]
    """Of them, those that went bad. In pairs: where only one of the two was bad (or lost more)."""
    ratio: float | None = None
    """Of the rates, candidate over production, in this step."""
    interval: tuple[float, float | None] | None = None
    """95 %; None above: no bound yet. Of the mean difference, in losses."""
    difference: float | None = None
    """Mean loss, the candidate's less production's."""
    log_e: float = 0.0
    """Evidence that it is worse, scaled so that it fails at 1/alpha."""
    log_e_pass: float = 0.0
    """Evidence that it is not worse than the margin, scaled so that it passes at 1/alpha."""
    suspect: bool = False
    """Stands out now (e-BH over all segments); nothing follows from it."""
    callers: bool = False
    """Some of its units are callers."""
    provable: bool = True
    """False: so few callers belong to the candidate at this step that no certificate can be had."""
    method: int = METHOD


class Overall(Value, frozen=True):
    """The alarm over everything."""

    verdict: Word
    reason: str
    log_e: float = 0.0
    needed: float = 0.0
    """It sounds at this."""
    metric: str = ""
    segment: str = ""
    method: int = METHOD


class Alarm(Value, frozen=True):
    """An alarm that sounded. It stays."""

    metric: str
    segment: str
    weight: int
    at: float
    ratio: float
    """Of the richest bet when it sounded."""
    part: Literal["labels", "counts"] = "labels"
    bad: tuple[int, int] = (0, 0)
    """Units that went bad, of production and of the candidate, as of then."""
    seconds: int = 0
    """Separate seconds in which the candidate's did, as far as they are kept."""
