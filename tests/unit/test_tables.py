"""Tables on a terminal: each says what the plain text says, in any width, and no more than text."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

import msgspec
import pytest
from rich.cells import cell_len

from kedge.cli.blocks import Screen
from kedge.cli.screen.alerts import alerts_screen
from kedge.cli.screen.check import check_screen
from kedge.cli.screen.diagnosis import diagnosis_screen
from kedge.cli.screen.draw import draw
from kedge.cli.screen.drills import drill_screen, speed_screen
from kedge.cli.screen.evidence import evidence_screen
from kedge.cli.screen.features import runs_screen, transformations_screen
from kedge.cli.screen.plan import plan_screen
from kedge.cli.screen.receipt import receipt_screen
from kedge.cli.screen.setup import doctor_screen
from kedge.cli.screen.status import list_screen, status_screen
from kedge.cli.screen.tokens import tokens_screen
from kedge.cli.text.alerts import alerts_text
from kedge.cli.text.check import check_text
from kedge.cli.text.diagnosis import diagnosis_text
from kedge.cli.text.drills import drill_text, speed_text
from kedge.cli.text.evidence import evidence_text
from kedge.cli.text.features import runs_text, transformations_text
from kedge.cli.text.plan import plan_text
from kedge.cli.text.receipt import finding_text, receipt_text
from kedge.cli.text.setup import doctor_text
from kedge.cli.text.status import status_text
from kedge.cli.text.tokens import tokens_text
from kedge.core.access import Role, Scope
from kedge.core.alerts.alerts import Topic
from kedge.core.diagnosis.findings import Cause
from kedge.core.readiness import Check
from kedge.core.release.commands import Canary, RolledBack
from kedge.core.speed import FlipTimes, Incident, Practice, Quantiles, Speed, Trend
from kedge.core.stored.notes import ReceiptParts
from kedge.core.values import Stage
from kedge.operations.alerts import ListedAlert
from kedge.operations.doctor import DoctorFinding, DoctorReport
from kedge.operations.drills import DrillReport
from kedge.operations.evidence.read import PlannedStep, RolloutPlan
from kedge.operations.features.apply import ListedTransformation
from kedge.operations.features.materialise import RunStatus
from kedge.operations.readiness.check import CheckedEndpoint
from kedge.operations.receipts import FindingBeside, RollbackReceipt
from kedge.operations.status.view import describe
from kedge.operations.tokens import ListedToken
from kedge.system.terminal import one_line
from kedge.testing.samples import run
from unit.test_diagnosis_document import REPORT
from unit.test_text import SMALL, TWO, watched

EVIL = "\x1b[2J\u202ered\nok  all is well"
COLOUR = re.compile("\x1b\\[[0-9;]*m")

TREND = Trend(Quantiles(3, 0.5, 700.0), Quantiles())
FLIP = FlipTimes(0.1, 0.2, 0.3, None, 0.5, 1.0)
SPEED = Speed(
    endpoint="flights",
    incidents=(
        Incident(
            at=1.7e9,
            release=2,
            event="rolled_back",
            by=EVIL,
            automatic=False,
            sign="alert",
            detect_s=3.0,
            decide_s=1.0,
            machine=FLIP,
        ),
    ),
    drills=(Practice(at=1.7e9, release=1, by="ada", ok=False, why=EVIL, back=FLIP),),
    whole_s=TREND.last,
    flip_s=TREND.last,
    drill_s=TREND.last,
    slo_s=60.0,
    within=0.5,
    unknown=1,
    unreceipted=2,
    incident_trend=TREND,
    drill_trend=TREND,
    cut=900,
)
ALERT = ListedAlert(
    number=17,
    endpoint="flights",
    key="k",
    topic=Topic.FAILING,
    level="page",
    lasts="condition",
    summary=f"価格 {EVIL}",
    times=3,
    opened_at="2026-03-01T09:00:00.000Z",
    open=True,
    standing="not sent yet",
)
STEP = PlannedStep(weight=25.0, seconds=55.0, harmed=32, excess=16, callers=90, proven_s=14_000.0)
PLAN = RolloutPlan(
    endpoint="flights",
    rate=60.0,
    errors=0.01,
    counted=1_000,
    times=2.0,
    alpha=0.01,
    callers=400,
    provable=700,
    steps=(STEP,),
)
CHECKED = CheckedEndpoint(
    endpoint="flights",
    ready=False,
    failed=("owner",),
    checks=(
        Check(name="owner", outcome="fail", why=f"no owner {EVIL}", mend="write owner = {...}"),
        Check(name="warm", outcome="pass", why="r1 is loaded on 1 replicas"),
    ),
    proof=None,
    fence=(f"NOT FENCED: r1 {EVIL}",),
    libraries=(),
)
STATUS = msgspec.structs.replace(
    describe(run(TWO, Canary(3, 500, auto=True)), (), (), {}, now=0.0),
    faults=(f"w0 has been silent {EVIL}",),
)
VERSION = ListedTransformation(
    version=f"risk/1#4{EVIL}",
    digest="sha256:0123456789abcdef",
    head=True,
    production_of=("flights",),
)
RUN = RunStatus(
    run="spend/1#2.7",
    standing="ready",
    watermark=1.7e9,
    lag_s=900.0,
    stale=True,
    ahead=False,
    keys=12_345,
    every="1h",
    ttl="2h",
    read_by=(f"flights r3 {EVIL}",),
)
EVIDENCE = watched(SMALL, 60)
PARTS = ReceiptParts(
    decide_ms=1.25,
    prepare_ms=2.5,
    write_ms=4.0,
    last_ack_ms=9.5,
    first_old_answer_ms=11.0,
    total_ms=12.0,
    acks={"host/w0.1": 8.5, "host/w1.2": 9.5},
    ended=(f"host/w3 {EVIL}",),
)
RECEIPT = RollbackReceipt(
    endpoint="flights",
    epoch=13,
    event="rolled_back",
    release="r1",
    left="r2",
    stage=Stage.SETTLED,
    weight=0.0,
    events=(RolledBack(release=1, left=2, at="2026-03-01T09:00:00.000Z"),),
    receipt=PARTS,
    finding=FindingBeside(
        fault="",
        age_s=240.0,
        against=True,
        headline=f"r2 is 7 % worse {EVIL}",
        causes=(Cause.FEATURES,),
        advice="roll the features back",
    ),
)
DRILL = DrillReport(
    ok=False,
    release=1,
    why=EVIL,
    back=PARTS,
    forward=msgspec.structs.replace(PARTS, last_ack_ms=None),
    answered=1_234,
    failed=5,
    lasted_s=9.5,
)
TOKENS = [
    ListedToken(1, "ci", "valid", Role.OPERATOR, (), ("flights",), "", "ada", None, None),
    ListedToken(
        2, f"old {EVIL}", "revoked", None, (Scope.METRICS,), None, "", "ada", "2026-03-01", None
    ),
]
DOCTOR = DoctorReport(
    ok=False,
    findings=(
        DoctorFinding("ledger", ok=True, detail="13 entries, the chain is whole"),
        DoctorFinding(f"artifact 0123456789 {EVIL}", ok=False, detail="5 files are missing"),
    ),
)


LEFT_OUT = {"09:00:00"}
"""A table has the minute of an alert, and the text its second."""


class Both(NamedTuple):
    """The two forms of one result."""

    text: str
    screen: Screen


RESULTS: dict[str, Callable[[], Both]] = {
    "alerts": lambda: Both(alerts_text([ALERT]), alerts_screen([ALERT])),
    "check": lambda: Both(check_text(CHECKED), check_screen(CHECKED)),
    "diagnosis": lambda: Both(diagnosis_text(REPORT), diagnosis_screen(REPORT)),
    "evidence": lambda: Both(evidence_text(EVIDENCE), evidence_screen(EVIDENCE)),
    "features": lambda: Both(
        f"{transformations_text([VERSION])}\n{runs_text([RUN])}",
        [*transformations_screen([VERSION]), *runs_screen([RUN])],
    ),
    "doctor": lambda: Both(doctor_text(DOCTOR), doctor_screen(DOCTOR)),
    "drill": lambda: Both(drill_text("flights", DRILL), drill_screen("flights", DRILL)),
    "plan": lambda: Both(plan_text(PLAN), plan_screen(PLAN)),
    "receipt": lambda: Both(
        f"{receipt_text(RECEIPT)}\n{finding_text(one_line(RECEIPT.finding))}",
        receipt_screen(RECEIPT, RECEIPT.finding),
    ),
    "speed": lambda: Both(speed_text([SPEED]), speed_screen([SPEED])),
    "status": lambda: Both(status_text(STATUS), status_screen([STATUS])),
    "tokens": lambda: Both(tokens_text(TOKENS), tokens_screen(TOKENS)),
}


def plain(screen: Screen, width: int) -> str:
    return COLOUR.sub("", draw(screen, width, {"TERM": "xterm-256color"}))


@pytest.mark.parametrize("name", RESULTS)
@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_table_fits_and_holds_nothing_but_text(name: str, width: int) -> None:
    told = plain(RESULTS[name]().screen, width)
    assert max(map(cell_len, told.split("\n"))) <= width
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", told)
    assert not re.search("^ok  all is well", told, re.MULTILINE)


@pytest.mark.parametrize("name", RESULTS)
def test_a_table_has_every_number_of_the_text(name: str) -> None:
    """In another order, and without the words that a title replaces."""
    text, screen = RESULTS[name]()

    def numbers(of: str) -> set[str]:
        return {found.rstrip(".,:") for found in re.findall(r"\d[\d.,:%]*", of)}

    assert numbers(text) - numbers(plain(screen, 200)) <= LEFT_OUT


def test_an_endpoint_is_one_line_with_all_that_a_person_on_call_needs() -> None:
    status = msgspec.structs.replace(STATUS, owner="Ada", on_call="Grace")
    head, line, fault = plain(list_screen([status]), 110).split("\n")
    columns = "ENDPOINT PRODUCTION CANDIDATE STAGE ROLLBACK TO READY ALERTS OWNER ON CALL"
    assert head.split() == columns.split()
    assert line.split() == [
        "flights",
        "r2",
        "(v2)",
        "r3",
        "(v3)",
        "canary",
        "5",
        "%",
        "r1",
        "(v1)",
        "unchecked",
        "-",
        "Ada",
        "Grace",
    ]
    assert fault.startswith("  ! flights: w0 has been silent \\u001b[2J")


def test_a_narrow_terminal_gets_tables_too_with_the_landing_of_a_rollback() -> None:
    head, line, *_ = plain(list_screen([STATUS]), 80).split("\n")
    assert "ROLLBACK TO" in head
    assert "r1 (v1)" in line
    told = plain(evidence_screen(EVIDENCE), 52)
    titles, *_ = [line.split() for line in told.split("\n") if "METRIC" in line]
    assert titles == ["METRIC", "r1", "r2", "VERDICT"]
    errors, *_ = [line for line in told.split("\n") if line.startswith("  errors ")]
    assert errors.split() == ["errors", "0/3,342", "0/185", "too", "early"]
