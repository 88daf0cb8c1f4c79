"""Features are an axis of their own: versions by content, rolled without touching the model."""

from __future__ import annotations

import http.client
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from e2e.place import KEDGE, Site

pytestmark = pytest.mark.e2e

POLICY = (
    'output = {kind = "score", score = "score", tolerance = 0.5}\n'
    'features = {schema = "view/1"}\n'
    'shadow = {window = "1h", min_pairs = 50, min_pairs_per_segment = 10}\n'
    "log = {sample = 100}\n"
    "[endpoints.flights.fields]\n"
    'minutes = {dtype = "float64"}\n'
    'word = {dtype = "string", nullable = true}\n'
    'unread = {dtype = "float64", nullable = true}\n'
)
FEATURES = """
import kedge
import numpy as np
from units import to_hours

view = kedge.schema("view/1", keys=["word"], fields={{
    "x": kedge.Field("float64", unit="h", range=(0, 24)),
    "word": kedge.Field("string", null=True),
}})


@kedge.transform(view)
def columns(raw: kedge.Columns) -> kedge.Columns:
    import units  # the bundle's own file, also at call time
    return {{"x": to_hours(raw["minutes"]) + {shift}, "word": raw["word"]}}
"""
UNITS = "def to_hours(minutes):\n    return minutes / 60.0\n"


def write(site: Site, *, shift: str = "0.0", units: str = UNITS) -> str:
    (site.root / "units.py").write_text(units)
    path = site.root / "features.py"
    path.write_text(FEATURES.format(shift=shift))
    return str(path)


def apply(site: Site, *, golden: bool = True, **source: str) -> Any:
    """Apply it: with golden rows, or on what else there is."""
    path, rows = write(site, **source), site.root / "golden.json"
    rows.write_text(
        json.dumps({"inputs": {"minutes": [60.0, 75.0, 900.0], "word": ["a", "c", "b"]}})
    )
    given = ("--golden", str(rows)) if golden else ()
    (told,) = site.data("features", "apply", path, *given)["transformations"]
    return told


def answered(site: Site, minutes: float = 120.0) -> float:
    status, _, body = site.infer({"minutes": ("FP64", [minutes]), "word": ("BYTES", ["a"])})
    assert status == 200, body
    return float(body["outputs"][0]["data"][0])


def alerts(site: Site) -> list[dict[str, Any]]:
    found = site.data("alerts", "flights", "--all")
    return [alert for alert in found if alert["key"].startswith("override:")]


def workers(site: Site) -> dict[int, dict[str, int]]:
    return {r["pid"]: r["loads"] for r in site.data("status", "flights")["replicas"]}


def apply_and_promote(site: Site) -> None:
    """Start it; flights serves 2 * hours, by transformation 1 and model v1."""
    site.start()
    assert apply(site)["version"] == "view/1#1"
    reason = "the model is ours, which says nothing of what runs before it"
    site.run(
        "register", "flights", site.model("one"), "--schema", "view/1", "--trust-inline", reason
    )
    site.run("promote", "flights", "v1")


def started(site: Site) -> Site:
    """Start a copy, and wait for its first answer."""
    site.start()
    site.until(
        lambda: site.infer({"minutes": ("FP64", [60.0]), "word": ("BYTES", ["a"])})[0] == 200,
        "the first answer",
    )
    return site


@pytest.fixture
def rolling(copy_site: Callable[..., Site]) -> Site:
    """flights serves 2 * hours, by transformation 1 and model v1."""
    return started(copy_site(apply_and_promote, policy=POLICY))


@pytest.fixture(scope="module")
def shared(share_site: Callable[..., Site]) -> Site:
    """The same, for tests after which it serves as before."""
    return started(share_site(apply_and_promote, policy=POLICY))


@pytest.fixture
def settled(shared: Site) -> Iterator[Site]:
    """The shared one, whose candidate is aborted at the end."""
    yield shared
    shared.run("abort", "flights")


def test_the_same_content_is_the_same_version_and_another_says_how_it_differs(
    rolling: Site,
) -> None:
    again = apply(rolling, golden=False)
    assert (again["version"], again["new"], again["raw"]) == (
        "view/1#1",
        False,
        ["minutes", "word"],
    )
    same = apply(rolling, units=UNITS.replace("60.0", "(30.0 * 2)"))
    assert (same["version"], same["outcome"]) == ("view/1#2", "bit-equal")
    other = apply(rolling, shift="5.0")
    assert (other["version"], other["outcome"]) == ("view/1#3", "changed")
    (x,) = [c for c in other["columns"] if c["outcome"] != "bit-equal"]
    assert (x["column"], x["largest"]) == ("x", 5.0)
    assert other["endpoints"][0]["endpoint"] == "flights"
    diff = rolling.data("features", "diff", "view/1#1", "view/1#3")
    assert diff["outcome"] == "changed"
    (item,) = rolling.data("features", "impact", "view/1#3")
    assert (item["endpoint"], item["production"], item["follows"]) == ("flights", "view/1#1", False)


def test_a_transformation_is_rolled_forward_and_back_without_touching_the_model(
    rolling: Site,
) -> None:
    """Under load: no caller fails, and no worker loads the model: it runs where its transformation does."""
    apply(rolling, units=UNITS + "# the same answers\n")
    apply(rolling, shift="5.0")
    before = workers(rolling)
    assert answered(rolling) == 4.0
    with Asking(rolling) as asking:
        rolling.run("features", "roll", "flights", "2")
        assert answered(rolling) == 4.0
        (promoted,) = (
            e["event"]
            for e in rolling.data("history", "flights", "--limit", "3")
            if e["event"]["event"] == "promoted"
        )
        assert promoted["equivalence"].startswith("view/1#2 is bit-equal")
        assert "override" not in promoted
        refused = rolling.data("features", "roll", "flights", "3", check=False)
        assert refused["error"]["code"] == "transformation_changed"
        assert "x" in refused["error"]["message"]
        rolling.run("features", "roll", "flights", "3", "--override", "a drill")
        rolling.until(lambda: alerts(rolling), "the alert about the override")
        assert [a["summary"] for a in alerts(rolling)] == [
            "tester overrode the rules: r3, promoted"
        ]
        assert answered(rolling) == 14.0
        found = rolling.data("rollback", "flights", "--axis", "features")
        assert answered(rolling) == 4.0
    assert asking.failures == []
    assert set(asking.answers) == {4.0, 14.0}
    assert (found["event"], found["release"], found["left"]) == ("rolled_back", "r2", "r3")
    assert workers(rolling) == before
    assert all(loads == {} for loads in before.values())
    status = rolling.data("status", "flights")
    assert (status["production"]["version"], status["production"]["features"]) == ("v1", "view/1#2")


def test_applying_and_rolling_back_at_once_disturb_neither(rolling: Site) -> None:
    apply(rolling, shift="5.0")
    rolling.run("features", "roll", "flights", "2", "--override", "a test")
    applying = []
    for number in (7, 9):
        path = rolling.root / f"features{number}.py"
        path.write_text(FEATURES.format(shift=f"{number}.0"))
        line = [*KEDGE, "features", "apply", str(path)]
        applying.append(
            subprocess.Popen(line, cwd=rolling.root, env=rolling.env, stdout=subprocess.DEVNULL)
        )
    with Asking(rolling) as asking:
        rolling.run("rollback", "flights", "--axis", "features")
        assert [one.wait(60) for one in applying] == [0, 0]
    assert asking.failures == []
    assert answered(rolling) == 4.0
    known = [row["version"] for row in rolling.data("features", "list")]
    assert known == [f"view/1#{number}" for number in (1, 2, 3, 4)]
    assert rolling.run("doctor").returncode == 0


def test_features_and_model_are_rolled_back_separately(rolling: Site) -> None:
    """Both moved; the model's way back keeps the features, and the other way round."""
    apply(rolling, shift="5.0")
    rolling.run("features", "roll", "flights", "2", "--override", "a test")
    rolling.run("register", "flights", rolling.model("two", scale=3.0), "--schema", "view/1")
    rolling.run("promote", "flights", "v2", "--override", "a test")
    assert answered(rolling) == 21.0
    rolling.run("rollback", "flights", "--axis", "model")
    assert answered(rolling) == 14.0
    rolling.run("rollback", "flights", "--axis", "features")
    assert answered(rolling) == 4.0


def test_versions_that_read_other_columns_are_compared_on_what_callers_sent(rolling: Site) -> None:
    """The golden rows of one lack what the other reads: the log has both."""
    for number in range(30):
        body: dict[str, tuple[str, list[Any]]] = {
            "minutes": ("FP64", [60.0 * (number % 20)]),
            "word": ("BYTES", ["a"]),
            "unread": ("FP64", [float(number)]),
        }
        assert rolling.infer(body)[0] == 200
    rolling.until_logged(20)
    told = apply(rolling, shift="np.nan_to_num(raw['unread'])", golden=False)
    assert (told["outcome"], told["raw"]) == ("changed", ["minutes", "word", "unread"])
    assert 20 <= next(c for c in told["columns"] if c["column"] == "x")["rows"] <= 30


def test_a_transformation_is_shadowed_like_a_model_and_refused_by_its_answers(
    rolling: Site,
) -> None:
    apply(rolling, shift="5.0")
    with Asking(rolling):
        rolling.run("features", "shadow", "flights", "2")
        found = rolling.until(
            lambda: (e := rolling.data("evidence", "flights"))["agreement"]["pairs"] >= 50 and e,
            "pairs",
            60,
        )
    assert found["agreement"]["raw"] == 0.0
    assert rolling.data("status", "flights")["candidate"]["features"] == "view/1#2"


@pytest.mark.parametrize(
    "shift, code",
    [
        ("1 / 0", "golden_raised"),
        ("np.zeros(99)", "golden_raised"),
        ("float('nan')", "transform_nonsense"),
        ("raw['minutes'].__setitem__(0, 9.0)", "golden_raised"),
        ("np.random.default_rng().random()", "not_deterministic"),
        ("__import__('absent_module').x", "golden_raised"),
    ],
)
def test_a_function_that_breaks_its_schema_is_refused_by_apply(
    shared: Site, shift: str, code: str
) -> None:
    """It raises, has another length, gives null, changes its input, or is not a function of it."""
    refused = shared.data("features", "apply", write(shared, shift=shift), check=False)
    assert refused["error"]["code"] in (code, "transform_nonsense", "raw_unknown")
    assert answered(shared) == 4.0


def test_a_schema_never_changes_and_a_model_fits_its_schema(shared: Site) -> None:
    path = Path(write(shared))
    path.write_text(path.read_text().replace("range=(0, 24)", "range=(0, 23)"))
    refused = shared.data("features", "apply", str(path), check=False)
    assert refused["error"]["code"] == "schema_changed"
    assert "x.range" in refused["error"]["message"]
    assert "view/2" in refused["error"]["hint"]
    path.write_text(path.read_text().replace("view/1", "view/2").replace('"x"', '"y"'))
    shared.run("features", "apply", str(path))
    misfit = shared.data(
        "register", "flights", shared.model("two", scale=5.0), "--schema", "view/2", check=False
    )
    assert misfit["error"]["code"] == "schema_misfit"
    again = shared.data(
        "register", "flights", shared.model("one"), "--schema", "view/2", check=False
    )
    assert again["error"]["code"] == "schema_misfit"
    wrong = shared.data("features", "roll", "flights", "9", check=False)
    assert wrong["error"]["code"] == "unknown_transformation"


def test_values_out_of_range_of_a_transformation_are_counted_by_arm(rolling: Site) -> None:
    """Each in its process: both are looked at, and both answer."""
    apply(rolling, shift="20.0")
    rolling.run("features", "shadow", "flights", "2")

    def counted() -> Any:
        answered(rolling, minutes=6 * 60.0)
        answered(rolling, minutes=30 * 60.0)
        found = rolling.data("status", "flights")["counts"]["violations"]
        return found if all(found.values()) else None

    found = rolling.until(counted, "violations of both arms", 30)
    assert set(found["production"]) == set(found["candidate"]) == {"x.range"}
    assert found["candidate"]["x.range"] > found["production"]["x.range"] / 2


@pytest.mark.parametrize(
    "when, cause",
    [("1 / 0", "model_raised"), ("float('nan')", "transform_nonsense"), ("hang()", "model_late")],
)
def test_a_transformation_that_fails_in_a_canary_is_answered_for_by_production(
    settled: Site, when: str, cause: str
) -> None:
    """It is fine on its golden rows; what it does with 999 minutes, callers never see."""
    broken = f"(0.0 if float(raw['minutes'][0]) != 999.0 else {when})"
    units = UNITS + "def hang():\n    import time\n    time.sleep(5)\n    return 0.0\n"
    path = Path(write(settled, shift=broken, units=units))
    path.write_text(path.read_text().replace("import to_hours", "import hang, to_hours"))
    (told,) = settled.data("features", "apply", str(path))["transformations"]
    number = told["version"].partition("#")[2]
    settled.run("features", "canary", "flights", number, "--weight", "100")
    settled.until(
        lambda: (
            settled.infer({"minutes": ("FP64", [60.0]), "word": ("BYTES", ["a"])})[1]["kedge-arm"]
            == "candidate"
        ),
        "the candidate",
        30,
    )
    assert answered(settled, minutes=999.0) == 999 / 30
    found = settled.until(
        lambda: settled.data("status", "flights")["counts"]["failovers_by_cause"], "the count", 10
    )
    assert cause in found


LOGS = """
import kedge
import numpy as np

risk = kedge.schema("risk/1", fields={{"x": kedge.Field("float64"), "word": kedge.Field("string", null=True)}})


@kedge.transform(risk, raw={{"minutes": kedge.Field("float64"), "word": kedge.Field("string", null=True)}})
def columns(raw: kedge.Columns) -> kedge.Columns:
    return {{"x": np.log1p(raw["minutes"] * {by}), "word": raw["word"]}}
"""


def logs(site: Site, by: str, *words: str) -> Any:
    """Apply log1p(minutes * by): 0 for a row of zeros, whatever `by` is."""
    path = site.root / "logs.py"
    path.write_text(LOGS.format(by=by))
    (told,) = site.data("features", "apply", str(path), *words)["transformations"]
    return told


def apply_two_logs(site: Site) -> None:
    """Start it; flights serves risk/1#1; risk/1#2 answers otherwise, but to zeros. No caller has asked yet."""
    site.start()
    assert logs(site, "1.0")["rows"] == "independent"
    site.run("register", "flights", site.model("one"), "--schema", "risk/1")
    site.run("promote", "flights", "v1")
    told = logs(site, "1.1")
    assert (told["version"], told["outcome"]) == ("risk/1#2", "untested")
    assert set(told["compared_on"]) == {"made"}


@pytest.fixture
def stopped(copy_site: Callable[..., Site]) -> Site:
    """flights has risk/1#1 in production, and is stopped; no caller has asked yet."""
    return copy_site(apply_two_logs, policy=POLICY.replace("view/1", "risk/1"))


@pytest.fixture
def untried(stopped: Site) -> Site:
    """The same, started."""
    stopped.start()
    return stopped


def sent(site: Site, minutes: float) -> int:
    """The status of one request."""
    return site.infer({"minutes": ("FP64", [minutes]), "word": ("BYTES", ["a"])})[0]


def rolled(site: Site) -> str:
    """The code of the refusal to roll."""
    refused = site.data("features", "roll", "flights", "2", check=False)
    assert site.data("status", "flights")["production"]["features"] == "risk/1#1"
    return str(refused["error"]["code"])


def test_without_real_rows_nothing_is_equal_and_nothing_rolls(untried: Site) -> None:
    assert rolled(untried) == "transformation_untested"
    assert untried.data("features", "diff", "risk/1#1", "risk/1#2")["outcome"] == "untested"
    untried.run("features", "follow", "flights")
    head = untried.data("features", "head", "risk/1#2", check=False)["error"]
    assert "nothing was compared on" in head["message"]
    zeros = untried.root / "zeros.json"
    zeros.write_text('{"inputs": {"minutes": [0.0, 0.0], "word": ["a", "a"]}}')
    assert logs(untried, "1.1", "--golden", str(zeros))["outcome"] == "untested"
    assert rolled(untried) == "transformation_untested"
    untried.run("features", "roll", "flights", "2", "--override", "a test")
    assert untried.data("status", "flights")["production"]["features"] == "risk/1#2"


def test_golden_rows_show_what_zeros_hide_also_of_a_version_that_is_there(stopped: Site) -> None:
    rows = stopped.root / "rows.json"
    rows.write_text('{"inputs": {"minutes": [0.0, 20.0], "word": ["a", "b"]}}')
    told = logs(stopped, "1.1", "--golden", str(rows))
    assert (told["new"], told["outcome"], told["compared_on"]) == (False, "changed", {"given": 2})
    assert rolled(stopped) == "transformation_changed"
    assert logs(stopped, "(0.5 * 2.2)", "--golden", str(rows))["outcome"] != "changed"


def test_logged_rows_show_it_at_the_roll(untried: Site) -> None:
    for minutes in (5.0, 20.0):
        untried.until(lambda m=minutes: sent(untried, m) == 200, "an answer")  # type: ignore[misc]
    untried.until(lambda: rolled(untried) == "transformation_changed", "rows in the log", 30)


def test_rows_of_a_training_set_show_it(stopped: Site) -> None:
    """Raw columns beside the features; kept when a model is registered, or named."""
    lines = [f"{n / 10},w,{n},{n % 2}" for n in range(1, 9)]
    (stopped.root / "set.csv").write_text("\n".join(["x,word,minutes,late", *lines]))
    stopped.run(
        "register",
        "flights",
        stopped.model("two", scale=3.0),
        "--schema",
        "risk/1",
        "--training",
        str(stopped.root / "set.csv"),
    )
    diff = stopped.data("features", "diff", "risk/1#1", "risk/1#2")
    assert (diff["outcome"], diff["compared_on"]) == ("changed", {"training": 8})
    named = logs(stopped, "1.2", "--training", str(stopped.root / "set.csv"))
    assert (named["outcome"], named["compared_on"]["training"]) == ("changed", 8)


def test_a_transformation_that_depends_on_its_batch_is_marked(stopped: Site) -> None:
    told = logs(stopped, "(1 / (1 + np.abs(raw['minutes']).mean()))")
    assert told["rows"] == "dependent"
    text = stopped.run("features", "apply", str(stopped.root / "logs.py")).stdout
    assert "never merged" in text


class Asking:
    """A caller that keeps asking; every answer is kept."""

    def __init__(self, site: Site) -> None:
        import threading

        self.answers: list[float] = []
        self.failures: list[str] = []
        self._site = site
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join(10)

    def _ask(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._site.port, timeout=5)
        body = json.dumps(
            {
                "inputs": [
                    {"name": "minutes", "datatype": "FP64", "shape": [1], "data": [120.0]},
                    {"name": "word", "datatype": "BYTES", "shape": [1], "data": ["a"]},
                ]
            }
        )
        while not self._ending.wait(0.005):
            connection.request("POST", "/v2/models/flights/infer", body)
            answer = connection.getresponse()
            said = json.loads(answer.read())
            if answer.status == 200:
                self.answers.append(said["outputs"][0]["data"][0])
            else:
                self.failures.append(said["error"])
