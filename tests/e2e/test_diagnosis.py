"""Diagnoses of logs with known causes: the command, its note, and the faults."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

import models
from e2e.past import Past
from e2e.place import Site
from kedge.cli.text.diagnosis import diagnosis_text
from kedge.config.load import load
from kedge.core.diagnosis.findings import Estimate
from kedge.core.diagnosis.summary import DiagnosisSummary
from kedge.core.errors import Refused
from kedge.core.features.generations import Online
from kedge.core.release.commands import Canary, Promote
from kedge.core.values import ActorKind
from kedge.engine.findings import newest_finding
from kedge.operations.diagnosis.document import DiagnosisReport, ReferenceWindow
from kedge.operations.diagnosis.run import DiagnoseOptions, accept, diagnosis_of
from kedge.operations.features.apply import apply_file
from kedge.operations.features.materialise import Feeder
from kedge.transforms.store import open_store

pytestmark = pytest.mark.e2e

POLICY = (
    'output = {kind = "score", score = "score", tolerance = 1.0}\n'
    'guardrails = {quality = {metric = "absolute_error", worse_by = 0.05}}\n'
    "log = {sample = 100}\n"
)
SPLIT = POLICY + 'segments = ["origin"]\n'
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

DELAYS = """
import kedge
import numpy as np

delays = kedge.schema("delays/1", keys=["word"], fields={
    "delay": kedge.Field("float32", unit="h", default=50.0),
})


@kedge.materialise(delays, source="rows.parquet", time="known_at", every="1h", ttl="3h", lookback="1h")
def by_word(rows, at):
    words, which = np.unique(rows["word"].astype(str), return_inverse=True)
    return {"word": words, "delay": np.bincount(which, rows["delay"]) / np.bincount(which)}
"""
LOOKING_UP = """
import kedge
from delays import delays

view = kedge.schema("view/1", keys=["word"], fields={{
    "x": kedge.Field("float64", unit="h"), "word": kedge.Field("string", null=True),
}})


@kedge.transform(view, reads=delays)
def columns(raw, delays):
    return {{"x": raw["minutes"] + delays["delay"]{more}, "word": raw["word"]}}
"""


def twice(x: Any) -> Any:
    return 2.0 * x


def thrice(x: Any) -> Any:
    return 3.0 * x


def shifted(x: Any) -> Any:
    return 2.0 * (x + 5.0)


def added(x: Any) -> Any:
    return 2.0 * (x + 1.0)


def too_late(x: Any) -> Any:
    return 2.0 * (x + 6.0)


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
    past = Past(Site(root, policy=SPLIT))
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
    site = make_site(policy=SPLIT)
    shutil.copytree(template / ".kedge", site.root / ".kedge")
    return Past(site)


def nothing_looked_up() -> Online:
    pytest.fail("nothing is looked up")


def diagnosed(
    past: Past, *, online: Callable[[], Online] = nothing_looked_up, **options: Any
) -> DiagnosisReport:
    asked = DiagnoseOptions(**{"since": "2h", **options})
    past.place._online = online
    return diagnosis_of(past.place, "flights", asked, say=lambda text: None)


def causes(told: DiagnosisReport) -> list[str]:
    return [one.cause for one in told.diagnosis.findings]


def missing(told: DiagnosisReport) -> set[str]:
    return {lack.code for lack in told.diagnosis.missing}


def effect(told: DiagnosisReport) -> Estimate:
    assert told.diagnosis.effect is not None
    return told.diagnosis.effect


def reference_of(told: DiagnosisReport) -> ReferenceWindow:
    assert told.reference is not None
    return told.reference


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
    assert "diagnosed: model" in past.site.run("history", "flights").stdout
    report = past.site.data("diagnose", "flights", "--since", "2h")
    assert (report["replayed"], report["diagnosis"]["headline"]) == ({"old": 400}, found.headline)
    accepted = past.site.data("accept", "flights", "--since", "2h", "--reason", "a test")
    assert (accepted["requests"], accepted["release"]) == (400, "r2 (v2)")
    done = past.site.data("rollback", "flights")
    assert (done["left"], done["finding"]["against"]) == ("r2", False)
    assert done["finding"]["headline"] == found.headline
    assert done["finding"]["age_s"] < 120


def test_the_world_is_distinguished_from_the_release_and_speaks_against_a_rollback(
    past: Past,
) -> None:
    """v3 answers as v1 did; what is true has changed, for both alike."""
    past.submit(Promote(release=past.release("v3").number, override="a test"))
    past.submit(Promote(release=past.release("v1").number, override="a test"))
    reference(past, production=1)
    past.given(400, 1.0, production=1, truth=lambda x: 12.0 - x, answer=twice)
    told = diagnosed(past)
    assert causes(told) == ["world"]
    assert told.diagnosis.findings[0].kind == "concept"
    assert reference_of(told).of == "r1 (v1)"
    found = newest_finding(past.place.ledger, "flights")
    assert found is not None
    assert found.against
    assert found.harm == "page"
    text = past.site.run("rollback", "flights").stdout
    assert "AGAINST  the diagnosis speaks against this rollback: go forward" in text


def test_features_are_distinguished_from_the_model_and_the_feature_is_named(
    environment: pytest.MonkeyPatch, make_site: Callable[..., Site]
) -> None:
    """Both moved; only the transformation is wrong. The cells that no caller was served are replayed."""
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
    assert told.diagnosis.findings[0].columns == ("x",)
    assert told.diagnosis.action.code == "roll_back_features"
    asked = {row.question: row.verdict for row in told.diagnosis.evidence}
    assert (asked["features"], asked["model"], asked["swap"]) == ("yes", "no", "yes")
    assert told.faults == ()


def test_a_broken_source_is_data_and_an_accepted_window_is_the_reference(past: Past) -> None:
    """A word that was never seen is a defect; once it is accepted, it is what is expected."""
    reference(past)
    past.given(1_500, 1.0, production=2, truth=thrice, answer=thrice, word="B")
    told = diagnosed(past)
    assert "data" in causes(told)
    with pytest.raises(Refused, match="a reason is required"):
        accept(past.place, "flights", reason=" ", since="2h", until=None)
    accepted = accept(past.place, "flights", reason="renamed at the source", since="2h", until=None)
    assert (accepted.requests, accepted.release) == (1_500, "r2 (v2)")
    past.now += 3600
    past.given(1_500, 0.9, production=2, truth=thrice, answer=thrice, word="B", over_h=0.8)
    told = diagnosed(past, until=past.iso(0.0))
    assert reference_of(told).rule == "accepted"
    assert causes(told) == ["noise"]
    assert told.window.since >= accepted.until


# ---------------------------------------------------------------- faults


def test_without_labels_it_cannot_tell_and_says_what_moved(past: Past) -> None:
    reference(past)
    past.given(400, 1.0, production=2, truth=None, answer=thrice)
    told = diagnosed(past)
    assert causes(told) == ["cannot_tell"]
    assert "outcomes" in missing(told)
    assert told.diagnosis.effect is None
    assert "moved" in {row.question for row in told.diagnosis.evidence}


def test_labels_for_one_arm_only_are_compared_in_pairs_or_not_at_all(past: Past) -> None:
    """The caller that met the candidate has no outcome; the candidate is asked production's requests."""
    past.submit(Canary(release=past.release("v3").number, weight=5_000, override="a test"))
    reference(past, production=2, truth=thrice, answer=thrice)
    arms: dict[str, Any] = {"production": 2, "candidate": 3}
    past.given(300, 1.0, **arms, truth=thrice, answer=thrice, over_h=0.5)
    past.given(300, 1.0, **arms, truth=None, answer=twice, over_h=0.5, arm="candidate")
    told = diagnosed(past)
    assert causes(told) == ["model"]
    assert told.diagnosis.new == "r3 (v3)"
    assert effect(told).n == 300
    assert diagnosed(past, production=True).diagnosis.new == "r2 (v2)"
    labels = next(r for r in told.diagnosis.evidence if r.question == "labels")
    assert labels.verdict == "yes"
    past.lose("v3")
    told = diagnosed(past)
    assert causes(told) == ["cannot_tell"]
    assert told.diagnosis.effect is None
    assert told.faults[0].startswith("r3 could not be replayed: ")


def test_a_previous_release_that_cannot_be_loaded_leaves_a_hole_with_its_reason(
    past: Past,
) -> None:
    reference(past)
    past.given(400, 1.0, production=2, truth=twice, answer=thrice)
    past.lose("v1")
    told = diagnosed(past)
    assert causes(told) == ["cannot_tell"]
    (fault,) = told.faults
    assert fault.startswith("r1 could not be replayed: r1 did not load: CorruptArtifact: ")
    assert fault.endswith("behave.json was changed")
    assert "old_answers" in missing(told)


def test_a_torn_log_is_reported_and_the_rest_is_diagnosed(past: Past) -> None:
    reference(past)
    past.given(2_000, 1.9, production=2, truth=twice, answer=thrice, over_h=1.8)
    lost = past.tear(1.9, 0.1)
    told = diagnosed(past)
    window = told.window
    assert window.torn_hours == 1
    assert 0 < window.requests < 2_000
    assert window.lost == pytest.approx(1 - window.requests / 2_000, abs=0.01)
    assert window.lost <= lost
    assert told.diagnosis.findings[0].kind == "instrumentation"
    assert diagnosed(past).window.lost == pytest.approx(lost, abs=0.01)


def test_a_segment_without_data_is_no_verdict(past: Past) -> None:
    reference(past, segment="origin=JFK")
    past.given(400, 1.0, production=2, truth=twice, answer=thrice, segment="origin=JFK")
    assert causes(diagnosed(past, segment="origin=JFK")) == ["model"]
    told = diagnosed(past, segment="origin=XXX")
    assert causes(told) == ["cannot_tell"]
    assert (told.window.requests, told.reference) == (0, None)


def test_what_is_asked_for_is_checked(past: Past) -> None:
    every: tuple[dict[str, Any], ...] = (
        {"since": "soon"},
        {"until": "2026-13-01"},
        {"reference_since": "x"},
    )
    for options in every:
        with pytest.raises(Refused) as caught:
            diagnosed(past, **options)
        assert caught.value.code == "bad_time"
    reference(past)
    past.given(100, 1.0, production=2, truth=twice, answer=thrice)
    told = diagnosed(past, reference_since="31h", reference_until="29h")
    assert (reference_of(told).rule, reference_of(told).requests) == ("as asked for", 400)


# ---------------------------------------------------------------- values by key


class Keyed(Past):
    """Releases that add the delay of a request's word, which was computed ahead."""

    def set_up(self) -> None:
        """r1 adds the delay, and r2, which is production, 5 more; both read one run, 5 hours old."""
        super().set_up()
        with duckdb.connect() as db:  # a has a delay every hour, b had it last five hours ago
            db.execute(
                f"COPY (SELECT * FROM (SELECT word, 1.0::DOUBLE AS delay,"
                f" TIMESTAMP '{_hour(0):%Y-%m-%d %H:%M:%S}' - to_hours(h) - to_minutes(30) AS known_at, h"
                f" FROM (VALUES ('a'), ('b')) w(word), range(8) s(h)) WHERE word = 'a' OR h >= 5)"
                f" TO '{self.site.root / 'rows.parquet'}'"
            )
        (self.site.root / "delays.py").write_text(DELAYS)
        apply_file(self.place, self.site.root / "delays.py", golden=None, root=self.site.root)
        self.feed(5)
        for more in ("", " + 5.0"):
            self.apply(LOOKING_UP.format(more=more))
        self.register("one", schema="view/1", scale=2.0)
        for number in (1, 2):
            release = self.release("v1", transformation=number)
            self.submit(Promote(release=release.number, override="a test"))
        self.given(400, 30.0, production=1, truth=added, answer=added, column="minutes", word="b")
        self.requests()

    def requests(self, word: str = "a") -> None:
        """Requests that the worse release answered; one in five has this word."""
        self.given(
            400, 1.0, production=2, truth=added, answer=too_late, column="minutes", word=word
        )

    def feed(self, hours_ago: int) -> None:
        """Compute the values up to an hour."""
        feeder = Feeder(self.place, open_store(self.online()), self.site.root, lambda text: None)
        feeder.materialise("delays", _hour(hours_ago).timestamp())

    def online(self) -> Online:
        """The store, as kedge.toml says."""
        settings = load(self.site.root / "kedge.toml")
        return settings.online.opened(self.site.root, self.site.root / ".kedge")


def _hour(back: int) -> datetime:
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    return now - timedelta(hours=back)


def set_up(site: Site) -> None:
    """Make a past with look-ups."""
    Keyed(site).set_up()


@pytest.fixture
def keyed(environment: pytest.MonkeyPatch, copy_site: Callable[..., Site]) -> Keyed:
    """A past with look-ups."""
    return Keyed(copy_site(set_up, policy=FEATURES), given=800)


def test_features_that_are_looked_up_by_key_are_replayed_from_the_store(keyed: Keyed) -> None:
    """Both read one run; the newer transformation is wrong. By defaults the older one would be."""
    keyed.feed(0)
    told = diagnosed(keyed, online=keyed.online)
    assert causes(told) == ["features"]
    assert told.diagnosis.findings[0].columns == ("x",)
    assert effect(told).value == pytest.approx(-9.6, abs=0.4)
    assert told.replayed == {"old": 400}
    assert told.faults == tuple(
        f"the values of then: r{n} reads delays/1#1@1 by key, as it is now" for n in (1, 2)
    )
    assert "without    the values of then: r1 reads delays/1#1@1 by key" in diagnosis_text(told)


def test_requests_whose_values_by_key_are_too_old_are_left_out_and_counted(keyed: Keyed) -> None:
    """b has not been seen for five hours: what it was then is not known."""
    keyed.feed(0)
    keyed.requests(word="b")
    told = diagnosed(keyed, online=keyed.online)
    assert causes(told) == ["features"]
    assert effect(told).n == told.replayed["old"] == 720
    assert effect(told).value == pytest.approx(-9.6, abs=0.4)
    (fault,) = (fault for fault in told.faults if "could not" in fault)
    assert fault.startswith("r1 could not be replayed on 80 of 800 requests: ")
    assert fault.endswith("delays/1#1@1: 1 key has a value that is too old")


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("gone", "the online store has nothing of delays/1#1@1"),
        ("unreadable", "the online store cannot be asked"),
        ("stale", "has a value that is too old"),
    ],
)
def test_a_store_that_is_lost_or_stale_leaves_a_hole_with_its_reason(
    keyed: Keyed, how: str, reason: str
) -> None:
    """By the rule for callers it would be asked with defaults, and be to blame for them."""
    if how != "stale":
        keyed.feed(0)
    store = keyed.site.root / ".kedge" / "online"
    if how != "stale":
        shutil.rmtree(store)
    if how == "unreadable":
        store.write_text("no store can be here")
    told = diagnosed(keyed, online=keyed.online)
    assert causes(told) == ["cannot_tell"]
    assert told.diagnosis.findings[0].statement.startswith("log the answers of r1 (v1)")
    assert told.diagnosis.effect is None
    assert "old_answers" in missing(told)
    (fault,) = told.faults
    assert fault.startswith("r1 could not be replayed: ")
    assert reason in fault


# ---------------------------------------------------------------- by itself


def test_production_that_became_worse_is_diagnosed_and_an_alert_is_sent(
    past: Past,
) -> None:
    """No contrast fails, and nothing is taken back: control asks when labels have come."""
    reference(past, production=2, truth=thrice, answer=thrice)
    past.given(
        400, 1.0, production=2, truth=lambda x: 12.0 - x, answer=thrice, candidate=1, other=thrice
    )
    past.site.start()
    past.site.until(lambda: _filed(past) is not None, "the patrol's own diagnosis", 60)
    found = _filed(past)
    assert found is not None
    assert found.causes == ("world",)
    (entry,) = past.place.ledger.entries("flights", "finding")
    assert entry.actor is ActorKind.CONTROL
    told = past.site.until(lambda: _told(past), "an alert of it", 20)
    assert (told["level"], told["summary"]) == ("page", "r2 gives worse answers: world")
    assert past.site.data("status", "flights")["production"]["release"] == "r2"


def _told(past: Past) -> Any:
    alerts = past.site.data("alerts", "flights")
    return next((one for one in alerts if one["topic"] == "finding"), None)


def _filed(past: Past) -> DiagnosisSummary | None:
    return newest_finding(past.place.ledger, "flights")
