"""Alert rules on the series that kedge really emits: promtool evaluates each rule over half an hour.

The scrapes are made from readings by the code of production. At first everything is well; then one
thing is not. Each rule fires on its fault, with its text, and no rule fires while all is well.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from msgspec.structs import replace

from kedge.cli.text.prometheus_rules import rules_text
from kedge.core.alerts.alerts import Alert, Topic
from kedge.core.evidence.label_summary import LabelDelays, LabelSummary
from kedge.core.evidence.records import Reused
from kedge.core.evidence.rules import Verdict
from kedge.core.metrics import alert_rules
from kedge.core.metrics import definitions as of
from kedge.core.metrics.alert_rules import AlertRule
from kedge.core.metrics.history import HistoryTotals, LedgerHistory
from kedge.core.metrics.readings import (
    CopyReading,
    EndpointReading,
    EvidenceReading,
    SiteReading,
)
from kedge.core.metrics.samples import build
from kedge.core.metrics.totals import SUM, Series
from kedge.core.stored.roster import Member, ReplicaHold
from kedge.core.values import (
    Contact,
    DrillPolicy,
    Escalation,
    Guardrail,
    Limits,
    Placement,
    Policy,
    Stage,
    State,
)
from kedge.engine.recording.recorder import bin_upper_us, latency_bin
from kedge.gateway.http.app import CLASS_STATUS, STATUS
from kedge.web.metrics import exposed

PROMTOOL = shutil.which("promtool")
MINUTES = 30
FAULT_AT = 10
"""Minute of the first scrape that shows the fault."""
START = 0.0
"""promtool begins at Unix time zero."""
POLICY = Policy(
    audience="customer",
    owner=Contact("Ada", "mailto:ada@example.org"),
    escalation=(Escalation("0s", ("owner",)), Escalation("10m", ("rota",))),
    guardrails={"cost": Guardrail(0.2), "violations": Guardrail(0.5)},
    drill=DrillPolicy("30d"),
    readiness="refuse",
)
RULES = alert_rules.make_rules({"flights": POLICY})
CANARY = State(
    endpoint="flights",
    epoch=7,
    stage=Stage.CANARY,
    production=1,
    candidate=2,
    salt="s",
    weight=2_500,
    back=1,
)
OURS = ("flights", "r1", "production")
LABELS = LabelSummary(
    metric="error_rate",
    version="v1",
    versions={},
    units=(0, 0),
    loss=(None, None),
    figures=(None, None),
    estimates={},
    declined=0,
    unfit=0,
    output=None,
    reads="class",
    unfit_because=(),
    matched=(0, 0),
    fault="",
    delay_s=LabelDelays(None, None),
    coverage={},
    uneven="",
    reused=Reused(),
)


TARGET = {"job": "kedge", "instance": "a:8081"}
"""Labels that Prometheus adds to each series."""


class Scrape(NamedTuple):
    """What control has read before one scrape; None: it does not answer."""

    site: SiteReading
    series: dict[Series, int]


Fault = Callable[[Scrape, int], Scrape | None]
"""Changes a scrape; the number is that of minutes since the fault began."""


def replica(epoch: int = 7, hold: str = "ready") -> Member:
    return Member(
        name="w0",
        host="h",
        pid=1,
        kind="gateway",
        address="",
        started_at="",
        beat_at=0.0,
        ledger_at=0.0,
        epochs={"flights": epoch},
        holds=(ReplicaHold("flights", 1, Placement.INLINE, hold),),
    )


def verdict(metric: str, log_e: float = 0.5) -> Verdict:
    """Evidence on a guardrail, with a ratio, or as a guardrail of losses has it."""
    losses = metric == "quality"
    return Verdict(
        metric=metric,
        segment="",
        verdict="inconclusive",
        reason="",
        units=(900, 300),
        bad=(9, 3),
        ratio=None if losses else 1.0,
        difference=0.01 if losses else None,
        interval=(0.005, 0.02) if losses else (0.8, 4.0),
        log_e=log_e,
    )


METRICS = ("errors", "latency.p50", "latency.p99", "quality", "cost", "violations")


def evidence(worse: str = "", decision: Any = "inconclusive") -> EvidenceReading:
    return EvidenceReading(
        judged=(1, 2),
        arms=("production", "candidate"),
        log_arms=("production", "candidate"),
        decision=decision,
        verdicts=tuple(verdict(name, 5.0 if name == worse else 0.5) for name in METRICS),
        threshold=100.0,
        margins={},
        healthy_s=0.0,
        window_s=None,
        newest=None,
        labels=LABELS,
    )


def well(minute: int) -> Scrape:
    """The scrape of a minute at which everything is well: ten requests a second."""
    at, answered = START + 60 * minute, 600 * minute
    history = replace(LedgerHistory().totals(), drill_at=at - 86_400)
    reading = EndpointReading(
        state=CANARY,
        step=(3, 4),
        history=history,
        copies=CopyReading(100, 100, 100, 100),
        evidence=evidence(),
        failed=(),
    )
    site = SiteReading(
        at=at,
        version="1",
        endpoints=(reading,),
        members=(replica(),),
        silent=frozenset(),
        ledger=True,
        evidence=True,
    )
    return Scrape(site, traffic(answered))


def traffic(answered: int, us: int = 3_000) -> dict[Series, int]:
    return {
        Series(of.REQUESTS.name, OURS): answered,
        Series(of.ERRORS.name, OURS): 0,
        Series(of.DURATION.name, OURS, latency_bin(us)): answered,
        Series(of.DURATION.name, OURS, SUM): answered * us,
    }


def site(**changed: Any) -> Fault:
    return lambda scrape, _: scrape._replace(site=replace(scrape.site, **changed))


def endpoint(**changed: Any) -> Fault:
    def change(scrape: Scrape, _: int) -> Scrape:
        (reading,) = scrape.site.endpoints
        return scrape._replace(site=replace(scrape.site, endpoints=(replace(reading, **changed),)))

    return change


def history(**changed: Any) -> Fault:
    def change(scrape: Scrape, minute: int) -> Scrape:
        (reading,) = scrape.site.endpoints
        totals: HistoryTotals = replace(reading.history, **changed)
        return endpoint(history=totals)(scrape, minute) or scrape

    return change


def counted(series: Series, each_minute: int, first: int = 0) -> Fault:
    """A counter whose series has not existed before."""
    return lambda scrape, minute: scrape._replace(
        series=scrape.series | {series: first + each_minute * minute}
    )


def slow(scrape: Scrape, minute: int) -> Scrape:
    before = dict(scrape.series)
    before[Series(of.DURATION.name, OURS, latency_bin(3_000))] = 600 * FAULT_AT
    return scrape._replace(
        series=before | {Series(of.DURATION.name, OURS, latency_bin(16_500_000)): 600 * minute}
    )


def stopped(scrape: Scrape, _: int) -> Scrape:
    return scrape._replace(site=replace(scrape.site, at=START + 60 * FAULT_AT))


def paged(scrape: Scrape, minute: int) -> Scrape:
    alert = Alert(
        number=1,
        endpoint="flights",
        key="k",
        topic=Topic.ROLLED_BACK,
        level="page",
        lasts="event",
        summary="s",
        opened_at="",
    )
    return endpoint(alerts=(alert,))(scrape, minute) or scrape


FAULTS: Mapping[str, Fault] = {
    "KedgeControlStopped": stopped,
    "KedgeControlStopped, and is not scraped": lambda *_: None,
    "KedgeLedgerUnreadable": site(ledger=False),
    "KedgeCountsUnreadable": site(evidence=False),
    "KedgeProcessFaults": counted(Series(of.FAULTS.name, ("control", "patrol.step")), 0, 1),
    "KedgeRequestsFail": counted(Series(of.ERRORS.name, OURS), 60),
    "KedgeRequestsFail by refusals": counted(
        Series(of.REFUSED.name, ("flights", "queue_full")), 60
    ),
    "KedgeModelSlow": slow,
    "KedgeNoReplica": site(silent=frozenset({"w0"})),
    "KedgeNoReplica known": site(members=()),
    "KedgeReplicaBehind": site(members=(replica(epoch=6),)),
    "KedgeReplicaSilent": site(silent=frozenset({"w0"})),
    "KedgeRollbackTargetCold": site(members=(replica(hold="loading"),)),
    "KedgeNotReady": endpoint(failed=("owner",)),
    "KedgeCandidateWorseErrors": endpoint(evidence=evidence("errors")),
    "KedgeCandidateWorseLatency": endpoint(evidence=evidence("latency.p99")),
    "KedgeCandidateWorseQuality": endpoint(evidence=evidence("quality")),
    "KedgeCandidateWorseCost": endpoint(evidence=evidence("cost")),
    "KedgeCandidateWorseViolations": endpoint(evidence=evidence("violations")),
    "KedgeVerdictFail": endpoint(evidence=evidence(decision="fail")),
    "KedgeBrokenInput": endpoint(evidence=evidence(decision="broken input")),
    "KedgeShadowCoverage": endpoint(
        state=replace(CANARY, stage=Stage.SHADOW, sample=10_000),
        copies=CopyReading(100, 60, 60, 60),
    ),
    "KedgeRolledBack": history(
        rollbacks={**LedgerHistory().totals().rollbacks, ("candidate", "verdict"): 1}
    ),
    "KedgePageUnacknowledged": paged,
    "KedgeDrillOverdue": history(drill_at=START - 46 * 86_400),
}
"""By alert (its first word): what is wrong."""


def scrapes(fault: Fault | None) -> Iterator[Scrape | None]:
    for minute in range(MINUTES + 1):
        scrape = well(minute)
        began = minute - FAULT_AT
        yield scrape if fault is None or began < 0 else fault(scrape, began)


def inputs(fault: Fault | None, target: dict[str, str] = TARGET) -> list[dict[str, str]]:
    """All series of the scrapes, as promtool reads them; `_`: a scrape without the series."""
    up = f"up{{{','.join(f'{k}={json.dumps(v)}' for k, v in target.items())}}}"
    found: dict[str, list[str]] = {up: []}
    for number, scrape in enumerate(scrapes(fault)):
        found[up].append(str(int(scrape is not None)))
        families = (
            build(scrape.site, scrape.series, bin_upper_us, segments=True)
            if scrape is not None
            else ()
        )
        for family in families:
            for name, labels, value, *_ in exposed(family).samples:
                told = ",".join(f"{k}={json.dumps(v)}" for k, v in (target | labels).items())
                column = found.setdefault(f"{name}{{{told}}}", ["_"] * number)
                column.append(repr(value))
        for column in found.values():
            # A series that a scrape lacks is stale at once, as in Prometheus.
            column.extend(["stale"] * (number + 1 - len(column)))
    return [{"series": name, "values": " ".join(column)} for name, column in found.items()]


def expected(rule: AlertRule, labels: dict[str, str]) -> dict[str, Any]:
    def told(text: str) -> str:
        return re.sub(r"{{ \$labels\.(\w+) }}", lambda found: labels[found[1]], text)

    own = {"severity": rule.severity} | ({"endpoint": rule.endpoint} if rule.endpoint else {})
    own |= TARGET if "sum by" not in rule.expr else {}
    return {
        "exp_labels": labels | own,
        "exp_annotations": {"summary": told(rule.summary), "description": told(rule.description)},
    }


CARRIED: Mapping[str, dict[str, str]] = {
    "KedgeProcessFaults": {"kind": "control", "place": "patrol.step"},
    "KedgeReplicaBehind": {"state": "behind"},
    "KedgeReplicaSilent": {"state": "silent"},
    "KedgeRollbackTargetCold": {"state": "cold", "release": "r1"},
    "KedgeVerdictFail": {"release": "r2", "verdict": "fail"},
    "KedgeBrokenInput": {"release": "r2", "verdict": "broken_input"},
    "KedgeShadowCoverage": {"release": "r2"},
    "KedgeRolledBack": {"arm": "candidate", "cause": "verdict"},
    "KedgePageUnacknowledged": {"level": "page", "acknowledged": "no"},
    **{
        f"KedgeCandidateWorse{name.title()}": {
            "release": "r2",
            "metric": "latency.p99" if name == "latency" else name,
        }
        for name in ("errors", "latency", "quality", "cost", "violations")
    },
}
"""By alert: the labels of its series, beside those of the rule."""


def the_rules() -> dict[str, AlertRule]:
    return {rule.alert: rule for group in RULES.groups for rule in group.rules}


def test_every_rule_has_a_fault() -> None:
    assert {name.split()[0].rstrip(",") for name in FAULTS} == set(the_rules())


def cases() -> Iterator[dict[str, Any]]:
    rules = the_rules()
    names = sorted(rules)
    yield {
        "name": "all is well",
        "interval": "1m",
        "input_series": inputs(None),
        "alert_rule_test": [
            {"eval_time": f"{MINUTES}m", "alertname": name, "exp_alerts": []} for name in names
        ],
    }
    yield from sites(rules["KedgeControlStopped"])
    for fault, change in FAULTS.items():
        name = fault.split()[0].rstrip(",")
        rule = rules[name]
        # An event is over after a while; a condition holds until the end.
        brief = name in ("KedgeProcessFaults", "KedgeRolledBack")
        when = FAULT_AT + 3 if brief else MINUTES
        yield {
            "name": fault,
            "interval": "1m",
            "input_series": inputs(change),
            "alert_rule_test": [
                {"eval_time": f"{FAULT_AT - 1}m", "alertname": name, "exp_alerts": []},
                {
                    "eval_time": f"{when}m",
                    "alertname": name,
                    "exp_alerts": [expected(rule, CARRIED.get(name, {}))],
                },
            ],
        }


def sites(rule: AlertRule) -> Iterator[dict[str, Any]]:
    """Two sites: one whose control stops beside the other, and one that is removed."""
    other = TARGET | {"instance": "b:8081"}
    stopped_one = inputs(lambda *_: None, other)
    removed = [one for one in stopped_one if not one["series"].startswith("up{")]
    alert = expected(rule, {})
    alert["exp_labels"] |= other
    for name, second, alerts in (
        ("one of two sites stops", stopped_one, [alert]),
        ("one of two sites is removed", removed, []),
    ):
        test = {"eval_time": f"{MINUTES}m", "alertname": rule.alert, "exp_alerts": alerts}
        yield {
            "name": name,
            "interval": "1m",
            "input_series": [*inputs(None), *second],
            "alert_rule_test": [test],
        }


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
def test_each_rule_fires_on_its_fault_and_none_while_all_is_well(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(rules_text(RULES), "utf-8")
    tests = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "1m",
        "tests": list(cases()),
    }
    (tmp_path / "tests.yaml").write_text(json.dumps(tests), "utf-8")
    assert PROMTOOL is not None
    done = subprocess.run(
        [PROMTOOL, "test", "rules", "tests.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_limit_above_the_last_bucket_is_one_that_a_quantile_can_reach() -> None:
    patient = Policy(limits=Limits(timeout_ms=3_600_000))
    (_, group) = alert_rules.make_rules({"flights": patient}).groups
    (rule,) = [rule for rule in group.rules if rule.alert == "KedgeModelSlow"]
    assert float(rule.expr.rpartition(" > ")[2]) < of.MODEL_BOUNDS[-1]


def test_refusals_that_count_as_failures_are_those_that_callers_cannot_avoid() -> None:
    page = Path(__file__).parents[2] / "docs" / "reference" / "errors.md"
    (part,) = re.findall(
        r"## A request is not answered\n(.*?)\n## ", page.read_text("utf-8"), re.DOTALL
    )
    own = {
        code
        for code, status in re.findall(r"^\| `(\w+)` \| (\d+) ", part, re.MULTILINE)
        if int(status) >= 500 and not code.startswith("model_") and code != "streams_full"
    }
    listed = set(alert_rules.OWN_REFUSALS)
    assert own | {"not_loaded"} == listed
    assert not listed & {code for code, status in STATUS.items() if status < 500}
    assert min(CLASS_STATUS.values()) == 400
