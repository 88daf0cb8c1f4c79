"""Text of evidence: two releases side by side, and the evidence that is still missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kedge.cli.text.estimate import NAMES, estimate_text, next_text, part_text
from kedge.cli.text.layout import PLAIN_WIDTH, table, wrap
from kedge.core.evidence.label_summary import LabelSummary
from kedge.core.evidence.rules import Verdict
from kedge.core.evidence.unrecorded import sentence
from kedge.core.time.instants import to_minute
from kedge.core.values import Stage
from kedge.operations.evidence.read import RolloutEvidence
from kedge.operations.evidence.view import (
    AgreementView,
    CandidateCoverage,
    ComparisonView,
    CoursePoint,
    DisagreementExample,
    MetricVerdict,
)

WORDS = {
    "pass": "not worse",
    "fail": "WORSE",
    "inconclusive": "too early",
    "broken input": "cannot tell",
}
"""Verdicts in a table."""
HEADS = {
    "pass": "may go on",
    "fail": "worse",
    "inconclusive": "not yet known",
    "broken input": "cannot be judged",
}
"""Verdicts at the head of a view."""
MOST_RATIO = 99
"""Largest bound of a ratio that is shown; a larger one counts as none."""
COURSE = ["from (UTC)", "span", "releases", "at", "new failed", "old failed", "agree"]
"""Titles of a course."""
NO_COURSE = "nothing yet: windows become minutes after an hour; kedge evidence shows what is now"
NAME = 18
"""Minimum columns for the name of a metric with its segment; shares are dropped to keep them."""
INDENT = "  "


def evidence_text(found: ComparisonView, width: int = PLAIN_WIDTH) -> str:
    """Return all evidence of a rollout, in lines of at most `width` columns.

    Args:
        found: the evidence.
        width: columns of the terminal.
    """
    lines = wrap(get_head(found), width)
    lines += wrap(get_verdict(found), width)
    for text in get_outlook(found):
        lines += wrap(text, width)
    lines += ["", *_figures(found, width), *_waits(found, width)]
    lines += _agreement(found, found.agreement, width) if found.agreement is not None else []
    coverage = found.coverage
    if coverage.share is not None:
        lines += ["", *wrap(get_share(coverage), width, INDENT)]
    for text in get_losses(coverage):
        lines += wrap(text, width, INDENT)
    labels = get_labels(found)
    lines += [""] if labels else []
    for text in (*labels, *get_cost(found)):
        lines += wrap(text, width, INDENT)
    return "\n".join(lines)


def get_outlook(found: ComparisonView) -> list[str]:
    """Return what the rollout waits for, and why its evidence was restarted."""
    texts = []
    if found.estimate is not None:
        text = estimate_text(found.estimate, next_text(found))
        texts.append(text[:1].upper() + text[1:])
    if found.restarted:
        texts.append(f"evidence restarted: {found.restarted}")
    return texts


def get_share(coverage: CandidateCoverage) -> str:
    """Return the share of mirrored requests that the candidate answered."""
    return f"coverage {coverage.share or 0.0:.1%} of {coverage.mirrored:,} mirrored requests"


def names(found: ComparisonView) -> tuple[str, str]:
    """Return the names of both releases, the measure first: names stay valid when roles change."""
    return found.production, found.candidate


def get_head(found: ComparisonView) -> str:
    """Return the compared releases with their roles, and the kind of comparison."""
    arms = [f"{arm.release} ({arm.version}, {arm.role})" for arm in found.arms]
    where = found.stage.value
    if found.stage is Stage.CANARY:
        number, of = found.step, found.steps
        step = f"step {number} of {of}" if number else f"before step 1 of {of}"
        where = f"canary, {found.weight:g} % of callers, {step}"
    elif found.holdback:
        where = f"{where}, {found.holdback:g} % of callers held back"
    auto = ", automatic" if found.auto else ""
    held = ", held" if found.paused else ""
    return f"{found.endpoint}: {arms[1]} against {arms[0]}, {where}{auto}{held}" + (
        ", frozen" if found.frozen else ""
    )


def get_verdict(found: ComparisonView) -> str:
    """Return the verdict with its reason; while it waits, with the evidence so far."""
    decision = found.decision
    if found.estimate is None:
        return f"{HEADS[decision.verdict]}: {decision.reason}"
    errors = next((one for one in found.metrics if one.metric == "errors"), None)
    asked = found.requests[1]
    if found.paired:
        alone = errors.bad[1] if errors else 0
        return (
            f"too early: {asked:,} requests answered by both, {names(found)[1]} alone failed"
            f" {alone:,}"
        )
    told = f"too early: {asked:,} requests to {names(found)[1]}"
    if errors is None:
        return told
    whose = "callers met a failure" if errors.callers else "failed"
    return f"{told}, {errors.bad[1]:,} {whose}"


# ---------------------------------------------------------------- figures


def _figures(found: ComparisonView, width: int) -> list[str]:
    """Return metrics and segments as one table, so that all columns align."""
    old, new = names(found)
    shown = [*found.metrics, *found.segments]
    if not shown:
        return []
    head = ["", old, new, f"{new} / {old}", ""]
    rows = [head, *(get_cells(item, percent=True) for item in shown)]
    if sum(max(len(row[n]) for row in rows) for n in range(1, 5)) + NAME + 10 > width:
        rows = [head, *(get_cells(item, percent=False) for item in shown)]
    lines = table(rows, width, right=(False, True, True, False, False))
    if found.segments:
        lines.insert(1 + len(found.metrics), f"{INDENT}segments, the worst first")
    return lines


def get_cells(item: MetricVerdict, *, percent: bool) -> list[str]:
    """Return a row of the table: metric, both figures, their ratio and the verdict."""
    name = item.metric if not item.segment else f"{item.metric} {item.segment}"
    if item.figures is not None:
        cells = ["-" if figure is None else f"{figure:.4g}" for figure in item.figures]
    else:
        pairs = zip(item.bad, item.units, strict=True)
        cells = [_cell(bad, units, percent=percent) for bad, units in pairs]
    return [name, *cells, compared(item), WORDS[item.verdict]]


def _cell(bad: int, units: int, *, percent: bool) -> str:
    if not units:
        return "-"
    return f"{bad:,}/{units:,}" + (f" {bad / units:6.2%}" if percent else "")


def compared(item: Verdict) -> str:
    """Return the second release's ratio to the first, of rates or of losses, with its interval."""
    ratio: float | None = item.ratio
    interval: tuple[float, float | None] | None = item.interval
    if item.losses is not None:
        ratio, interval = item.loss_ratio, item.loss_interval
    if interval is None:
        return "-" if ratio is None else f"{ratio:.2f}"
    low, high = interval
    bounded = high is not None and high <= MOST_RATIO
    if ratio is not None and bounded:
        return f"{ratio:.2f} ({low:.2f} to {high:.2f})"
    if bounded:
        return f"at most {high:.2f}"
    if low > 0:
        return f"at least {low:.2f}"
    return "-" if ratio is None else f"{ratio:.2f}, no bound yet"


def _waits(found: ComparisonView, width: int) -> list[str]:
    rows = get_waits(found)
    if not rows:
        return []
    named = max(len(row[0]) for row in rows)
    lines = ["", f"{INDENT}still missing"]
    for name, text in rows:
        lines += wrap(text, width, f"{INDENT}  {name:<{named}}  ", " " * (named + 6))
    return lines


def get_waits(found: ComparisonView) -> list[tuple[str, str]]:
    """Return the remaining need of each condition, if there are several."""
    parts = found.estimate.parts if found.estimate is not None else ()
    if len(parts) < 2:
        return []
    return [(NAMES.get(part.waits_for, part.waits_for), part_text(part)) for part in parts]


# ---------------------------------------------------------------- agreement


def _agreement(found: ComparisonView, shown: AgreementView, width: int) -> list[str]:
    if not shown.pairs:
        return []
    lines = ["", *wrap(get_rates(shown), width, INDENT)]
    for text in get_noise(shown, *names(found)):
        lines += wrap(text, width, INDENT * 2)
    if shown.segments:
        rows = get_disagreements(shown)
        lines += [INDENT + line for line in table(rows, width - 2, right=(False, True, False))]
    for item in shown.examples[:3]:
        lines += wrap(get_example(item, *names(found)), width, INDENT * 2)
    return lines


def get_rates(shown: AgreementView) -> str:
    """Return the rates at which both releases agree."""
    more = "".join(
        f", {name} {figure:.2f}"
        for name, figure in (("kappa", shown.kappa), ("of the positive", shown.positive))
        if figure is not None
    )
    return (
        f"agreement {shown.raw:.1%} of {shown.pairs:,} pairs{more}; {shown.flips:,}"
        f" decisions flip, {shown.missing:,} without an answer"
    )


def get_noise(shown: AgreementView, old: str, new: str) -> list[str]:
    """Return the rate at which production disagrees with itself, if it is known."""
    own = shown.noise
    if own is None:
        return []
    beyond = "" if own.beyond is None else f"; {new} {own.beyond:+.1%} beyond that"
    return [f"{old} disagrees with itself in {own.disagreement:.1%} of {own.pairs:,}{beyond}"]


def get_disagreements(shown: AgreementView) -> list[list[str]]:
    """Return the segments in which both releases disagree most, a row each."""
    return [
        [item.segment, f"{item.disagreement:.1%} of {item.pairs:,}", "disagree"]
        for item in shown.segments[:5]
    ]


def get_example(item: DisagreementExample, old: str, new: str) -> str:
    """Return one disagreement: the output that differs, with both values."""
    where = f" ({', '.join(item.segments)})" if item.segments else ""
    told = "; ".join(
        f"{one.output} is {one.production} by {old} and {one.candidate} by {new}"
        for one in item.differs
    )
    return f"for example {item.id}{where}: " + (
        told or f"{item.production} by {old} and {item.candidate} by {new}"
    )


# ---------------------------------------------------------------- coverage, labels, cost


def causes(by_cause: Mapping[str, int]) -> str:
    """Return counts by cause, in brackets; empty if there are none."""
    told = ", ".join(f"{cause} {number:,}" for cause, number in by_cause.items())
    return f" ({told})" if told else ""


def get_losses(coverage: CandidateCoverage) -> list[str]:
    """Return the requests that the candidate never got, or too late, and lost observations."""
    unasked = sum(coverage.unasked.values())
    lines = []
    if unasked:
        lines.append(
            f"never asked {unasked:,} of the candidate's {coverage.routed:,} requests"
            f"{causes(coverage.unasked)}: no failures, and no evidence"
        )
    if coverage.late:
        lines.append(f"{coverage.late:,} answers came after their deadline: latency, no errors")
    if coverage.lost:
        lines.append(f"{coverage.lost:,} observations were dropped: a worker's recorder was full")
    return lines


def get_labels(found: ComparisonView) -> list[str]:
    """Return what is known about labels, and about predictions without a record."""
    labels = found.labels
    by_arm = found.by_arm
    arms = [
        f"{by_arm.get(arm, arm)} {labelled:,} of {predictions:,}"
        for arm, (labelled, predictions) in sorted(labels.coverage.items(), reverse=True)
    ]
    faults = [
        f"{item.count:,} labels are unfit and not judged: {item.reason}"
        for item in labels.unfit_because
    ]
    if labels.fault:
        faults.append(f"quality cannot be judged: {labels.fault}")
    reused = labels.reused
    if reused.ids:
        faults.append(
            f"{reused.ids:,} ids were used by more than one request: {reused.refused:,}"
            f" labels are not joined, {reused.withdrawn:,} were joined before and are withdrawn"
        )
    texts: list[str] = []
    if any(labels.units):
        delay = labels.delay_s.p50
        texts = [
            f"labels: {'; '.join(arms)}"
            + (f", half within {delay:.0f} s" if delay else "")
            + (f", {labels.declined:,} will never have one" if labels.declined else ""),
            _loss(labels, *names(found)),
            *_estimates(labels, *names(found)),
        ]
    return texts + faults + _recorded(found)


def _recorded(found: ComparisonView) -> list[str]:
    """Return the number of predictions without a record, and of corrected labels."""
    if not isinstance(found, RolloutEvidence):
        return []
    lost, corrections = found.unrecorded, found.corrections
    texts = [sentence(lost.answered, lost.by_cause)] if lost is not None else []
    if corrections is not None and corrections.count:
        texts.append(f"{corrections.count:,} labels were corrected")
    return [text for text in texts if text]


def _loss(labels: LabelSummary, old: str, new: str) -> str:
    """Return the declared figure of each release, and its number of labels."""
    parts = [
        f"{name} {'-' if one is None else f'{one:.4g}'} of {units:,} labels"
        for name, one, units in zip((old, new), labels.figures, labels.units, strict=True)
    ]
    output = f", compared with output {labels.output}" if labels.output else ""
    return f"{labels.metric}: {'; '.join(parts)}{output}"


def _estimates(labels: LabelSummary, old: str, new: str) -> list[str]:
    """Return figures that are no average over requests, with intervals: they have no verdict."""
    return [
        f"{name.replace('_', ' ')} (an estimate, no verdict): "
        + ", ".join(
            f"{release} {one.value:.3f} ({one.low:.3f} to {one.high:.3f})"
            for release, one in zip((old, new), both, strict=True)
            if one is not None
        )
        for name, both in labels.estimates.items()
    ]


def get_cost(found: ComparisonView) -> list[str]:
    """Return the cost of an inference of both releases; nothing if it is unknown."""
    cost = found.cost
    if cost is None:
        return []
    old, new = names(found)
    arms = ["-" if one is None else f"{one:.4g}" for one in cost.per_inference]
    texts = [f"cost an inference, in {cost.currency}: {old} {arms[0]}, {new} {arms[1]}"]
    at_cap, units = cost.at_cap or (0, 0), cost.units or (0, 0)
    if cost.cap is not None and any(at_cap):
        texts.append(
            f"judged up to {cost.cap:.4g}: {at_cap[0]:,} of {units[0]:,} units of {old} cost"
            f" that or more, {at_cap[1]:,} of {units[1]:,} of {new}"
        )
    if cost.clipped is not None and any(cost.clipped):
        texts.append(f"clipped at cost.max: {cost.clipped[0]:,} and {cost.clipped[1]:,} requests")
    if cost.left_out:
        texts.append(f"{cost.left_out:,} costs were left out: more callers than a window holds")
    return texts


# ---------------------------------------------------------------- the course of time


def course_text(
    course: Sequence[CoursePoint], segment: str | None = None, width: int = PLAIN_WIDTH
) -> str:
    """Return minutes and hours of a comparison: all units, and the bad ones."""
    rows = get_course(course, segment)
    if not rows:
        return NO_COURSE
    right = (False, True, False, True, True, True, True)
    return "\n".join(table([COURSE, *rows], width, right=right, shortened=2))


def get_course(course: Sequence[CoursePoint], segment: str | None) -> list[list[str]]:
    """Return a row for each minute or hour of a comparison."""
    found = []
    for item in course:
        known = item if segment is None else item.segments.get(segment)
        if known is None:
            continue
        bad = known.bad.get("errors", (0, 0))
        old, new = (_cell(b, n, percent=False) for b, n in zip(bad, known.units, strict=True))
        agreement = "-" if segment or item.agreement is None else f"{item.agreement:.1%}"
        at = to_minute(item.at)
        how = "shadow" if item.paired else f"{item.weight:g} %"
        pair = f"{item.candidate}/{item.production}"
        span = "1 h" if item.span_s == 3600 else "1 min"
        found.append([at, span, pair, how, new, old, agreement])
    return found
