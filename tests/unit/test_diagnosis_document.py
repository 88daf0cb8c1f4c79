"""The documents of a diagnosis, as JSON byte for byte and as text."""

from __future__ import annotations

import json

import msgspec
import pytest

from kedge.cli.text.diagnosis import accepted_text, diagnosis_text
from kedge.cli.text.receipt import finding_text
from kedge.core.codec import encode
from kedge.core.diagnosis.findings import (
    Act,
    Action,
    Cause,
    Diagnosis,
    Estimate,
    Evidence,
    Finding,
    Kind,
    Missing,
    Suspect,
)
from kedge.operations.diagnosis.document import (
    AcceptedReference,
    DiagnosisReport,
    LogWindow,
    ReferenceWindow,
    TodayWindow,
)
from kedge.operations.receipts import FindingBeside

EFFECT = Estimate(-0.0123, -0.0151, -0.0092, 2_000)
DIAGNOSIS = Diagnosis(
    new="r3 (v4)",
    old="r2 (v3)",
    metric="log_loss",
    headline="rolling back would help",
    effect=EFFECT,
    findings=(
        Finding(
            cause=Cause.MODEL,
            kind=Kind.TRAIN_SERVE,
            statement="the model is worse",
            effect=EFFECT.turned(),
            share=0.75,
            columns=("fare", "age"),
            is_shared=True,
        ),
        Finding(
            cause=Cause.CANNOT_TELL,
            kind=Kind.WORLD_OR_DATA,
            statement="world or data",
            columns=("age",),
            suspects=(Suspect("age", "stale", "age repeats"),),
        ),
        Finding(cause=Cause.LABEL_MIX, statement="more yes"),
    ),
    evidence=(
        Evidence(question="split", answer="as configured", verdict="no"),
        Evidence(question="defects", answer="fare is null", figure=0.25, verdict="yes"),
        Evidence(
            question="back_model",
            answer="on 2,000 requests",
            figure=0.0123,
            low=0.0092,
            high=0.0151,
            verdict="yes",
        ),
    ),
    action=Action(Act.ROLL_BACK_MODEL, "roll the model back"),
    would_change=("late labels differ",),
    missing=(Missing("replay", "a replay"),),
)
EMPTY = LogWindow(
    since=1_770_000_000.0,
    until=1_770_003_600.0,
    requests=0,
    labelled=0,
    lost=0.0,
    unread=0,
    beyond=0,
    torn_hours=0,
    without_inputs=0,
    left_out=(),
)
FULL = LogWindow(
    since=1_770_000_000.0,
    until=1_770_003_600.5,
    requests=2_500,
    labelled=2_000,
    lost=0.0125,
    unread=1_200,
    beyond=7,
    torn_hours=1,
    without_inputs=30,
    left_out=("when", "id"),
)
REPORT = DiagnosisReport(
    endpoint="flights",
    diagnosis=DIAGNOSIS,
    window=TodayWindow(**msgspec.structs.asdict(FULL), segment="origin=JFK"),
    reference=ReferenceWindow(**msgspec.structs.asdict(FULL), of="r2 (v3)", rule="accepted"),
    replayed={"new": 12, "old": 2_000},
    faults=("r2 could not be replayed",),
    filed=17,
    not_filed="",
)
BARE = msgspec.structs.replace(
    REPORT,
    window=TodayWindow(**msgspec.structs.asdict(EMPTY), segment=None),
    reference=None,
    replayed={},
    faults=(),
    filed=None,
    not_filed="disk_full: no room",
)

FOUND_JSON = (
    '{"new":"r3 (v4)","old":"r2 (v3)","metric":"log_loss","headline":"rolling back would help",'
    '"effect":{"value":-0.0123,"low":-0.0151,"high":-0.0092,"n":2000},'
    '"findings":[{"cause":"model","kind":"train_serve","statement":"the model is worse",'
    '"effect":{"value":0.0123,"low":0.0092,"high":0.0151,"n":2000},"share":0.75,'
    '"columns":["fare","age"],"is_shared":true,"suspects":[]},'
    '{"cause":"cannot_tell","kind":"world_or_data","statement":"world or data","effect":null,'
    '"share":null,"columns":["age"],"is_shared":false,'
    '"suspects":[{"column":"age","kind":"stale","text":"age repeats"}]},'
    '{"cause":"label_mix","kind":null,"statement":"more yes","effect":null,"share":null,'
    '"columns":[],"is_shared":false,"suspects":[]}],'
    '"evidence":[{"question":"split","answer":"as configured","figure":null,"low":null,'
    '"high":null,"verdict":"no"},{"question":"defects","answer":"fare is null","figure":0.25,'
    '"low":null,"high":null,"verdict":"yes"},{"question":"back_model",'
    '"answer":"on 2,000 requests","figure":0.0123,"low":0.0092,"high":0.0151,"verdict":"yes"}],'
    '"action":{"code":"roll_back_model","sentence":"roll the model back"},'
    '"would_change":["late labels differ"],"missing":[{"code":"replay","log":"a replay"}]}'
)
FULL_JSON = (
    '{"since":1770000000.0,"until":1770003600.5,"requests":2500,"labelled":2000,"lost":0.0125,'
    '"unread":1200,"beyond":7,"torn_hours":1,"without_inputs":30,"left_out":["when","id"],'
)
EMPTY_JSON = (
    '{"since":1770000000.0,"until":1770003600.0,"requests":0,"labelled":0,"lost":0.0,"unread":0,'
    '"beyond":0,"torn_hours":0,"without_inputs":0,"left_out":[],"segment":null}'
)
REPORT_JSON = (
    f'{{"endpoint":"flights","diagnosis":{FOUND_JSON},'
    f'"window":{FULL_JSON}"segment":"origin=JFK"}},'
    f'"reference":{FULL_JSON}"of":"r2 (v3)","rule":"accepted"}},'
    '"replayed":{"new":12,"old":2000},"faults":["r2 could not be replayed"],"filed":17,'
    '"not_filed":""}'
)
BARE_JSON = (
    f'{{"endpoint":"flights","diagnosis":{FOUND_JSON},"window":{EMPTY_JSON},"reference":null,'
    '"replayed":{},"faults":[],"filed":null,"not_filed":"disk_full: no room"}'
)
ACCEPTED = AcceptedReference(
    endpoint="flights",
    since=1_770_000_000.0,
    until=1_770_003_600.5,
    release="r2 (v2)",
    requests=1_500,
    labelled=1_200,
)
ACCEPTED_JSON = (
    '{"endpoint":"flights","since":1770000000.0,"until":1770003600.5,"release":"r2 (v2)",'
    '"requests":1500,"labelled":1200}'
)
BESIDE = FindingBeside(
    fault="",
    age_s=130.5,
    against=True,
    headline="it is the world",
    causes=(Cause.WORLD, Cause.LABEL_MIX),
    effect=None,
    action=Act.GO_FORWARD,
    advice="go forward",
    new="r3",
    old=None,
)
BESIDE_JSON = (
    '{"fault":"","age_s":130.5,"against":true,"headline":"it is the world",'
    '"causes":["world","label_mix"],"effect":null,"action":"go_forward","advice":"go forward",'
    '"new":"r3","old":null}'
)
UNREAD = FindingBeside(fault="busy: it is locked", against=False)
UNREAD_JSON = '{"fault":"busy: it is locked","against":false}'


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (REPORT, REPORT_JSON),
        (BARE, BARE_JSON),
        (ACCEPTED, ACCEPTED_JSON),
        (BESIDE, BESIDE_JSON),
        (UNREAD, UNREAD_JSON),
    ],
    ids=["report", "bare", "accepted", "beside", "unread"],
)
def test_a_document_is_spelled_as_clients_know_it(document: msgspec.Struct, expected: str) -> None:
    assert encode(document).decode() == expected
    assert msgspec.json.decode(expected, type=type(document)) == document
    assert json.loads(expected)


# ---------------------------------------------------------------- text


LINES = """rolling back would help

  found   model, train serve: the model is worse (+0.0123 [+0.0092, +0.0151], 75% of the rise)
  found   cannot tell, world or data: world or data
  found   label mix: more yes
  do      roll the model back

  evidence
    split         no                                          as configured
    defects       yes        +0.25                            fare is null
    back model    yes        +0.0123 [+0.0092, +0.0151]       on 2,000 requests
"""
READ = (
    "2026-02-02 02:40 to 2026-02-02 03:40 UTC: 2,500 requests, 2,000 labelled (1,200 older ones"
    " left out by the bound; 7 of those with an outcome; 30 left out: their inputs are not logged;"
    " 1 hours of the log torn; 1.2% of the log lost; when, id not compared: ids or times)"
)
REPORT_TEXT = f"""{LINES}
  today      {READ}, origin=JFK only
  reference  accepted: {READ}, of r2 (v3)
  replayed   12 requests on the newer release
  replayed   2,000 requests on the older release
  without    r2 could not be replayed
  missing    a replay
  could change if  late labels differ"""
BARE_TEXT = f"""{LINES}
  today      2026-02-02 02:40 to 2026-02-02 03:40 UTC: 0 requests, 0 labelled
  reference  none: no earlier window has enough labels
  missing    a replay
  could change if  late labels differ"""


@pytest.mark.parametrize(
    ("report", "expected"), [(REPORT, REPORT_TEXT), (BARE, BARE_TEXT)], ids=["report", "bare"]
)
def test_a_report_begins_with_its_headline_and_ends_with_what_could_change_it(
    report: DiagnosisReport, expected: str
) -> None:
    assert diagnosis_text(report) == expected


def test_a_finding_stands_beside_a_rollback_in_one_line_or_in_two_when_against_it() -> None:
    first, second = finding_text(BESIDE).splitlines()
    assert first == "  finding  2 min ago: world, label mix: it is the world"
    assert second == "  AGAINST  the diagnosis speaks against this rollback: go forward"
    assert finding_text(msgspec.structs.replace(BESIDE, against=False)) == first
    assert finding_text(UNREAD) == "  finding  could not be read: busy: it is locked"


def test_an_accepted_window_is_named_with_its_release() -> None:
    assert accepted_text(ACCEPTED) == (
        "flights: 1,500 requests of r2 (v2) are the reference now, 1,200 of them labelled"
    )
