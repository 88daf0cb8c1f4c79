"""Why did it become worse? Asked of logs of which somebody knows it: the verb, its note, and the faults."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import models
from e2e.past import Past
from e2e.place import Site
from kedge.core.commands import Canary, Promote
from kedge.core.errors import Refused
from kedge.core.filed import Filed
from kedge.diagnosing import Asked, accept, diagnosis_of
from kedge.engine.filing import newest_finding

pytestmark = pytest.mark.e2e

POLICY = (
    'output = {kind = "score", score = "score", tolerance = 1.0}\n'
    'guardrails = {quality = {metric = "absolute_error", worse_by = 0.05}}\n'
    "log = {sample = 100}\n"
)
FEATURES = POLICY + (
    'features = {schema = "view/1"}\n'
    "[endpoints.flights.fields]\n"
    'minutes = {dtype = "float64"}\n'
    'word = {dtype = "string", nullable = true}\n'
)
TRANSFORM = """
import kedge

view = kedge.schema("view/1", keys=["word"], fields={{
    "x": kedge.Field("float64", unit="h"), "word": kedge.Field("string", null=True),
}})


@kedge.transform(view)
def columns(raw: kedge.Columns) -> kedge.Columns:
    return {{"x": raw["minutes"] + {shift}, "word": raw["word"]}}
"""


def twice(x: Any) -> Any:
    return 2.0 * x


def thrice(x: Any) -> Any:
    return 3.0 * x


def shifted(x: Any) -> Any:
    return 2.0 * (x + 5.0)


@pytest.fixture(scope="module")
def environment() -> Iterator[pytest.MonkeyPatch]:
    """Replays start model processes from here: they have to find the loader of the tests."""
    plugin = Path(tempfile.mkdtemp(prefix="kedge-plugin-"))
    with pytest.MonkeyPatch.context() as patch:
        Site.install_test_loader(plugin)
        patch.syspath_prepend(str(plugin))
        patch.setenv("PYTHONPATH", f"{models.environment()['PYTHONPATH']}:{plugin}")
        patch.setenv("KEDGE_ACTOR", "tester")
        yield patch
    shutil.rmtree(plugin)


@pytest.fixture(scope="module")
def template(environment: pytest.MonkeyPatch) -> Iterator[Path]:
    """r1 says 2 * x, which was true; r2, which says 3 * x, is production; v3 says nearly 2 * x."""
    root = Path(tempfile.mkdtemp(prefix="kedge-site-"))
    past = Past(Site(root, policy=POLICY))
    past.set_up()
    past.register("one", scale=2.0)
    past.register("two", scale=3.0)
    past.register("three", scale=2.001)
    past.submit(Promote(release=past.release("v1").number))
    past.submit(Promote(release=past.release("v2").number, override="a test"))
    yield root
    shutil.rmtree(root)


@pytest.fixture
def past(template: Path, make_site: Callable[..., Site]) -> Past:
    """A copy of it, without a log yet."""
    site = make_site(policy=POLICY)
    shutil.copytree(template / ".kedge", site.root / ".kedge")
    return Past(site)


def diagnosed(past: Past, **options: Any) -> Any:
    asked = Asked(**{"since": "2h", **options})
    return diagnosis_of(
        past.place, "flights", asked, online=lambda: pytest.fail("nothing is looked up"),
        say=lambda text: None,
    )  # fmt: skip


def causes(told: Any) -> list[str]:
    return [one["cause"] for one in told["diagnosis"]["findings"]]


def missing(told: Any) -> set[str]:
    return {lack["code"] for lack in told["diagnosis"]["missing"]}


def reference(past: Past, **more: Any) -> None:
    past.given(400, 30.0, **{"production": 1, "truth": twice, "answer": twice, **more})


# ---------------------------------------------------------------- causes


def test_a_worse_model_is_found_by_replay_filed_and_shown_beside_the_rollback(past: Past) -> None:
    reference(past)
    past.given(400, 1.0, production=2, truth=twice, answer=thrice)
    text = past.site.run("diagnose", "flights", "--since", "2h").stdout
    assert text.startswith("rolling r2 (v2) back to r1 (v1) would change absolute error by -")
    assert "replayed   400 requests on the older release" in text
    found = newest_finding(past.place.ledger, "flights")
    assert found is not None
    assert (found.causes, found.new, found.old) == (("model",), 2, 1)
    assert found.effect is not None
    assert found.effect.high < -2
    assert "found model" in past.site.run("history", "flights").stdout
    done = past.site.data("rollback", "flights")
    assert (done["left"], done["finding"]["against"]) == ("r2", False)
    assert done["finding"]["headline"] == found.headline
    assert done["finding"]["age_s"] < 120


def test_the_world_is_told_from_the_release_and_speaks_against_a_rollback(past: Past) -> None:
    """v3 answers as v1 did; what is true has changed, for both alike."""
    past.submit(Promote(release=past.release("v3").number, override="a test"))
    past.submit(Promote(release=past.release("v1").number, override="a test"))
    reference(past, production=1)
    past.given(400, 1.0, production=1, truth=lambda x: 12.0 - x, answer=twice)
    told = diagnosed(past)
    assert causes(told) == ["world"]
    assert told["diagnosis"]["findings"][0]["kind"] == "concept"
    assert told["reference"]["of"] == "r1 (v1)"
    found = newest_finding(past.place.ledger, "flights")
    assert found is not None
    assert found.against
    assert found.harm == "page"
    text = past.site.run("rollback", "flights").stdout
    assert "AGAINST  the diagnosis speaks against this rollback: go forward" in text


def test_features_are_told_from_the_model_and_the_feature_is_named(
    environment: pytest.MonkeyPatch, make_site: Callable[..., Site]
) -> None:
    """Both moved; only the transformation is wrong. The cells that nobody was served are replayed."""
    past = Past(make_site(policy=FEATURES))
    past.set_up()
    for shift in ("0.0", "5.0"):
        past.apply(TRANSFORM.format(shift=shift))
    past.register("one", schema="view/1", scale=2.0)
    past.register("two", schema="view/1", scale=2.001)
    past.submit(Promote(release=past.release("v1", transformation=1).number))
    past.submit(Promote(release=past.release("v2", transformation=2).number, override="a test"))
    past.given(400, 30.0, production=1, truth=twice, answer=twice, column="minutes")
    past.given(400, 1.0, production=2, truth=twice, answer=shifted, column="minutes")
    told = diagnosed(past)
    assert causes(told) == ["features"]
    assert told["diagnosis"]["findings"][0]["columns"] == ("x",)
    assert told["diagnosis"]["action"]["code"] == "roll_back_features"
    asked = {row["question"]: row["verdict"] for row in told["diagnosis"]["evidence"]}
    assert (asked["features"], asked["model"], asked["swap"]) == ("yes", "no", "yes")
    assert told["faults"] == []


def test_a_broken_source_is_data_and_an_accepted_window_is_the_reference(past: Past) -> None:
    """A word that was never seen is a defect; once it is accepted, it is what is expected."""
    reference(past)
    past.given(1_500, 1.0, production=2, truth=thrice, answer=thrice, word="B")
    told = diagnosed(past)
    assert "data" in causes(told)
    with pytest.raises(Refused, match="why"):
        accept(past.place, "flights", reason=" ", since="2h", until=None)
    accepted = accept(past.place, "flights", reason="renamed at the source", since="2h", until=None)
    assert (accepted["requests"], accepted["release"]) == (1_500, "r2 (v2)")
    past.now += 3600
    past.given(1_500, 0.9, production=2, truth=thrice, answer=thrice, word="B", over_h=0.8)
    told = diagnosed(past, until=past.iso(0.0))
    assert told["reference"]["rule"] == "accepted"
    assert causes(told) == ["noise"]
    assert told["window"]["since"] >= accepted["until"]


# ---------------------------------------------------------------- faults


def test_without_labels_it_cannot_tell_and_says_what_moved(past: Past) -> None:
    reference(past)
    past.given(400, 1.0, production=2, truth=None, answer=thrice)
    told = diagnosed(past)
    assert causes(told) == ["cannot_tell"]
    assert "outcomes" in missing(told)
    assert told["diagnosis"]["effect"] is None
    assert "moved" in {row["question"] for row in told["diagnosis"]["evidence"]}


def test_labels_for_one_arm_only_are_compared_in_pairs_or_not_at_all(past: Past) -> None:
    """The caller that met the candidate has no outcome; the candidate is asked production's requests."""
    past.submit(Canary(release=past.release("v3").number, weight=5_000, override="a test"))
    reference(past, production=2, truth=thrice, answer=thrice)
    arms: dict[str, Any] = {"production": 2, "candidate": 3}
    past.given(300, 1.0, **arms, truth=thrice, answer=thrice, over_h=0.5)
    past.given(300, 1.0, **arms, truth=None, answer=twice, over_h=0.5, arm="candidate")
    told = diagnosed(past)
    assert causes(told) == ["model"]
    assert told["diagnosis"]["new"] == "r3 (v3)"
    assert told["diagnosis"]["effect"]["n"] == 300
    assert diagnosed(past, production=True)["diagnosis"]["new"] == "r2 (v2)"
    labels = next(r for r in told["diagnosis"]["evidence"] if r["question"] == "labels")
    assert labels["verdict"] == "yes"
    past.lose("v3")
    told = diagnosed(past)
    assert causes(told) == ["cannot_tell"]
    assert told["diagnosis"]["effect"] is None
    assert told["faults"][0].startswith("r3 could not be replayed: ")


def test_a_previous_release_that_cannot_be_loaded_leaves_a_hole_with_its_reason(
    past: Past,
) -> None:
    reference(past)
    past.given(400, 1.0, production=2, truth=twice, answer=thrice)
    past.lose("v1")
    told = diagnosed(past)
    assert causes(told) == ["cannot_tell"]
    assert told["faults"] == ["r1 could not be replayed: r1 did not load: its process ended"]
    assert "old_answers" in missing(told)


def test_a_log_that_is_torn_is_told_and_diagnosed_from_the_rest(past: Past) -> None:
    reference(past)
    past.given(2_000, 1.9, production=2, truth=twice, answer=thrice, over_h=1.8)
    lost = past.tear(1.9, 0.1)
    told = diagnosed(past)
    window = told["window"]
    assert window["torn_hours"] == 1
    assert 0 < window["requests"] < 2_000
    assert window["lost"] == pytest.approx(1 - window["requests"] / 2_000, abs=0.01)
    assert window["lost"] <= lost
    assert told["diagnosis"]["findings"][0]["kind"] == "instrumentation"
    assert diagnosed(past)["window"]["lost"] == pytest.approx(lost, abs=0.01)


def test_a_segment_without_data_is_no_verdict(past: Past) -> None:
    reference(past, segment="origin=JFK")
    past.given(400, 1.0, production=2, truth=twice, answer=thrice, segment="origin=JFK")
    assert causes(diagnosed(past, segment="origin=JFK")) == ["model"]
    told = diagnosed(past, segment="origin=XXX")
    assert causes(told) == ["cannot_tell"]
    assert (told["window"]["requests"], told["reference"]) == (0, None)


def test_what_is_asked_for_is_checked(past: Past) -> None:
    for options in ({"since": "soon"}, {"until": "2026-13-01"}, {"reference_since": "x"}):
        with pytest.raises(Refused) as caught:
            diagnosed(past, **options)
        assert caught.value.code == "bad_time"
    reference(past)
    past.given(100, 1.0, production=2, truth=twice, answer=thrice)
    told = diagnosed(past, reference_since="31h", reference_until="29h")
    assert (told["reference"]["rule"], told["reference"]["requests"]) == ("as asked for", 400)


# ---------------------------------------------------------------- by itself


def test_production_that_became_worse_is_diagnosed_by_itself_and_somebody_is_told(
    past: Past,
) -> None:
    """No contrast fails, and nothing is taken back: control asks when labels have come."""
    reference(past, production=2, truth=thrice, answer=thrice)
    past.given(400, 1.0, production=2, truth=lambda x: 12.0 - x, answer=thrice,
               candidate=1, other=thrice)  # fmt: skip
    past.site.start()
    past.site.until(lambda: _filed(past) is not None, "the patrol's own diagnosis", 60)
    found = _filed(past)
    assert found is not None
    assert found.causes == ("world",)
    assert past.place.ledger.entries("flights", "finding")[0].by.startswith("patrol@")
    told = past.site.until(lambda: _told(past), "an alert of it", 20)
    assert (told["level"], told["summary"]) == ("page", "r2 answers worse: world")
    assert past.site.data("status", "flights")["production"]["release"] == "r2"


def _told(past: Past) -> Any:
    alerts = past.site.data("alerts", "flights")
    return next((one for one in alerts if "answers worse" in one["summary"]), None)


def _filed(past: Past) -> Filed | None:
    return newest_finding(past.place.ledger, "flights")
