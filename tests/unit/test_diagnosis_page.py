"""Page of a diagnosis: the square of model and features, the shares, and the stored report."""

from __future__ import annotations

from pathlib import Path

import pytest

from kedge.core.diagnosis.findings import (
    Act,
    Action,
    Cause,
    Diagnosis,
    Estimate,
    Evidence,
    Finding,
    Suspect,
)
from kedge.operations.diagnosis.document import DiagnosisReport, TodayWindow
from kedge.operations.diagnosis.stored import REPORTS_DIR, read_report, store_report
from kedge.web.dashboard.pages.diagnosis import finding_of, shares_of, square_of, whole_of


def told(question: str, figure: float | None, answer: str = "", half: float = 0.01) -> Evidence:
    low, high = (None, None) if figure is None else (figure - half, figure + half)
    return Evidence(
        question=question, answer=answer, figure=figure, low=low, high=high, verdict="yes"
    )


EVIDENCE = (
    told("split", None, "as declared"),
    told("release", 0.08, "r2 less r1"),
    told("model", 0.02, "its share (Shapley)"),
    told("features", 0.06, "its share (Shapley)"),
    told("back_model", -0.03),
    told("back_features", -0.07),
    told("swap", 0.05, "sched_hour"),
    told("swap", 0.01, "dest"),
)


def report(evidence: tuple[Evidence, ...] = EVIDENCE, filed: int | None = 7) -> DiagnosisReport:
    finding = Finding(
        cause=Cause.FEATURES,
        statement="r2 is worse than r1 by its features",
        effect=Estimate(0.06, 0.05, 0.07, 100),
        share=0.75,
        columns=("sched_hour",),
        suspects=(Suspect("dest", "recoded", "two codes changed places"),),
    )
    return DiagnosisReport(
        endpoint="flights",
        diagnosis=Diagnosis(
            new="r2 (v3)",
            old="r1 (v3)",
            metric="log_loss",
            headline="rolling back would help",
            effect=Estimate(-0.08, -0.09, -0.07, 100),
            findings=(finding,),
            evidence=evidence,
            action=Action(Act.ROLL_BACK_FEATURES, "roll the features back"),
            would_change=("more labels",),
        ),
        window=TodayWindow(
            since=0.0,
            until=3600.0,
            requests=1000,
            labelled=400,
            lost=0.0,
            unread=0,
            beyond=0,
            torn_hours=0,
            without_inputs=0,
            left_out=(),
            segment=None,
        ),
        reference=None,
        replayed={"old": 900},
        faults=(),
        filed=filed,
        not_filed="",
    )


def test_the_square_has_both_models_on_both_sets_of_features() -> None:
    square = square_of(report())
    assert square is not None
    ((new, new_cells), (old, old_cells)) = square.rows
    assert (new, old) == ("new model", "old model")
    assert [cell.text for cell in (*new_cells, *old_cells)] == [
        "the release now",
        "-0.07 [-0.08, -0.06]",
        "-0.03 [-0.04, -0.02]",
        "-0.08 [-0.09, -0.07]",
    ]
    bars = [cell.bar for cell in (*new_cells, *old_cells)]
    assert bars[0] is None
    assert bars[3] is not None
    assert bars[3].low == 5.0  # the widest one reaches the end of the common scale
    assert bars[1] is not None
    assert bars[1].low > bars[3].low


def test_without_a_replay_there_is_no_square_and_a_missing_cell_says_so() -> None:
    assert square_of(report(EVIDENCE[:4])) is None
    square = square_of(report(EVIDENCE[:5]))
    assert square is not None
    assert square.rows[0][1][1].text == "not replayed"


def test_each_part_and_feature_has_its_share_on_one_scale() -> None:
    lines = {line.what: line for line in shares_of(EVIDENCE)}
    assert {what: line.share for what, line in lines.items()} == {
        "the model": "25 %",
        "the features": "75 %",
        "feature sched_hour": "62 %",
        "feature dest": "12 %",
    }
    assert lines["the features"].bar.value > lines["feature sched_hour"].bar.value > 100


@pytest.mark.parametrize("whole", [None, 0.0, -0.01])
def test_a_share_of_no_rise_is_not_shown(whole: float | None) -> None:
    lines = shares_of((told("release", whole), told("model", 0.02)))
    assert [line.share for line in lines] == [""]


def test_every_other_question_is_in_the_evidence_with_its_figure() -> None:
    whole = whole_of(report(), is_newest=True)
    assert [line.question for line in whole.lines][:3] == ["split", "release", "model"]
    assert whole.lines[0].figure == ""
    assert whole.lines[1].figure == "+0.08 [+0.07, +0.09]"
    assert ("replayed", "900 requests on the old release") in whole.windows
    assert ("reference", "none: no earlier window has enough labels") in whole.windows


def test_a_finding_names_its_share_columns_and_suspects() -> None:
    line = finding_of(report().diagnosis.findings[0])
    assert (line.share, line.columns) == ("75 %", ("sched_hour",))
    assert line.suspects == (("dest", "two codes changed places"),)


def test_the_newest_report_is_stored_and_a_damaged_one_is_none(tmp_path: Path) -> None:
    assert read_report(tmp_path, "flights") is None
    assert store_report(tmp_path, report()) == ""
    assert read_report(tmp_path, "flights") == report()
    assert store_report(tmp_path, report(filed=8)) == ""
    found = read_report(tmp_path, "flights")
    assert found is not None
    assert found.filed == 8
    (tmp_path / REPORTS_DIR / "flights.json").write_bytes(b'{"endpoint": "flights"}')
    assert read_report(tmp_path, "flights") is None


def test_a_report_that_cannot_be_stored_fails_no_diagnosis(tmp_path: Path) -> None:
    (tmp_path / REPORTS_DIR).write_text("a file in its place")
    assert "could not be stored" in store_report(tmp_path, report())
