"""Rules of the judge and its results: guardrails, verdicts, alarms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from kedge.core.values import Value

QUALITY = "quality"
"""The metric that labels judge; workers observe the others themselves."""
METHOD = 2
"""The version of counting and judging. Evidence of another version is never added to this one's."""
SHOWN_ALPHA = 0.05
"""Error of the intervals and suspicions that are shown; no action follows from them."""
Key = tuple[str, str]
"""(metric, segment); segment "" is the whole."""
Word = Literal["pass", "fail", "inconclusive", "broken input"]
Cells = Mapping[str, tuple[int, int]]
"""By segment ("" is the whole): production's and the candidate's count."""


class Rail(Value, frozen=True):
    """One guardrail.

    The alarm bets that the rate ratio is above `r0`; a pass needs the proof that it is below
    1 + `worse_by`.
    """

    worse_by: float
    r0: float = 1.0
    weight: float = 0.0
    """Its share of the alarm; 0: it never raises one."""
    floor: float = 0.001
    """A rate of bad requests that is proven to be below this passes without a ratio."""
    mean: bool = False
    """It is judged by losses instead of counts of bad units."""
    squared: bool = False
    """Its losses are squares, and the metric is the root of their mean."""
    of: str = ""
    """The metric whose events it judges, where it has none of its own."""
    stated: float | None = None
    """`worse_by` as the policy states it, where the judge works with another figure."""

    @property
    def shown(self) -> float:
        """Return the margin as it is shown."""
        return self.worse_by if self.stated is None else self.stated


class JudgeRules(Value, frozen=True, kw_only=True):
    """Rules by which the judge decides."""

    rails: dict[str, Rail]
    alpha: float = 0.01
    steps: tuple[int, ...] = (0,)
    """The declared weights, in buckets."""
    callers_floor: float = 0.01
    """The floor where the units are callers: a floor of 0.001 would need 5,300 callers."""
    min_bad: int = 8
    """Bad units of the candidate before an alarm: a few can have one cause outside the model."""
    min_units: int = 100
    """Pairs in a shadow, and requests of the candidate in a canary, before a verdict passes."""
    min_units_per_segment: int = 100


class Verdict(Value, frozen=True, kw_only=True):
    """Verdict on one metric in one segment. Pairs are (production, candidate)."""

    metric: str
    segment: str
    verdict: Word
    reason: str
    units: tuple[int, int]
    """Callers that asked in this step, and requests without an entity."""
    bad: tuple[int, int]
    """Units of them that went bad. In pairs: where only one of the two was bad (or lost more)."""
    ratio: float | None = None
    """Ratio of the rates, candidate over production, in this step."""
    interval: tuple[float, float | None] | None = None
    """95 % interval; upper end None: no bound yet. With losses, of the mean difference."""
    difference: float | None = None
    """Difference of the mean loss, the candidate's less production's."""
    losses: tuple[float, float] | None = None
    """With losses: the mean of each release, 0 to 1."""
    loss_ratio: float | None = None
    """With losses: the candidate's metric over production's, as the margin states it."""
    loss_interval: tuple[float, float] | None = None
    """95 % interval of that ratio."""
    log_e: float = 0.0
    """Evidence that it is worse, scaled so that it fails at 1/alpha."""
    log_e_pass: float = 0.0
    """Evidence that it is not worse than the margin, scaled so that it passes at 1/alpha."""
    suspect: bool = False
    """It stands out now (e-BH over all segments); no action follows from it."""
    callers: bool = False
    """Some of its units are callers."""
    provable: bool = True
    """False: the candidate has too few callers at this step for any certificate."""
    method: int = METHOD


class Overall(Value, frozen=True):
    """The alarm over all rows."""

    verdict: Word
    reason: str
    log_e: float = 0.0
    needed: float = 0.0
    """Evidence at which it sounds."""
    metric: str = ""
    segment: str = ""
    method: int = METHOD


class Alarm(Value, frozen=True):
    """An alarm that sounded. It is permanent."""

    metric: str
    segment: str
    weight: int
    at: float
    ratio: float
    """Rate ratio of the richest bet when it sounded."""
    part: Literal["labels", "counts"] = "labels"
    bad: tuple[int, int] = (0, 0)
    """Units that went bad until then, of production and of the candidate."""
    seconds: int = 0
    """Separate seconds in which the candidate's units went bad, as far as they are stored."""
