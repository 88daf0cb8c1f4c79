"""Summary of a comparison's labels, as `kedge evidence` shows it."""

from __future__ import annotations

from collections.abc import Mapping

from kedge.core.evidence.answers import Reads
from kedge.core.evidence.labels import UnfitLabels
from kedge.core.evidence.records import Reused, delay_upper_s
from kedge.core.evidence.scores import BothFigures
from kedge.core.values import Value


class LabelDelays(Value, frozen=True):
    """Delays of labels, in seconds: upper bounds. Null: no label came."""

    p50: float | None
    p95: float | None


class LabelSummary(Value, frozen=True, kw_only=True):
    """Summary of a comparison's labels. Pairs are the measure, then the judged release."""

    metric: str
    """The declared metric of quality."""
    version: str | None
    """The judged label version; null: no label came."""
    versions: dict[str, int]
    """Labels by version."""
    units: tuple[int, int]
    """Judged labels."""
    loss: tuple[float | None, float | None]
    """The mean loss; null: no label."""
    figures: tuple[float | None, float | None]
    """The mean loss as the figure with the metric's name."""
    estimates: dict[str, BothFigures]
    """Figures without a verdict, by name."""
    declined: int
    """Predictions for which no label will come."""
    unfit: int
    """Labels that can equal no answer."""
    output: str | None
    """The output that labels are compared with; null: all outputs."""
    reads: Reads
    """How the output is read."""
    unfit_because: tuple[UnfitLabels, ...]
    matched: tuple[int, int]
    """Labels that equal the release's own answer."""
    fault: str
    """Why quality cannot be judged; empty when it can."""
    delay_s: LabelDelays
    coverage: dict[str, tuple[int, int]]
    """By arm: predictions with a label, and all of them."""
    uneven: str
    """Why verdicts on quality wait: the arms' labels come unequally; empty: equally."""
    reused: Reused


def get_delays(by_bin: Mapping[int, int]) -> LabelDelays:
    """Return the quantiles of delays from counts by bin (`records.delay_bin`)."""
    return LabelDelays(_quantile(by_bin, 0.5), _quantile(by_bin, 0.95))


def _quantile(by_bin: Mapping[int, int], q: float) -> float | None:
    total, run = sum(by_bin.values()), 0
    for index in sorted(by_bin):
        run += by_bin[index]
        if run >= q * total:
            return delay_upper_s(index)
    return None
