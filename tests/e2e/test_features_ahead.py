"""Values that are computed ahead and looked up by key: updated, killed, rolled, rolled back, lost."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import pytest

from e2e.place import KEDGE, Site

pytestmark = pytest.mark.e2e

POLICY = (
    'output = {kind = "score", score = "score", tolerance = 0.5}\n'
    'features = {schema = "trip/1"}\n'
    'shadow = {window = "1h", min_pairs = 50, min_pairs_per_segment = 10}\n'
    "log = {sample = 100}\n"
    "[endpoints.flights.fields]\n"
    'minutes = {dtype = "float64"}\n'
    'word = {dtype = "string", nullable = true}\n'
)
DELAYS = """
import kedge
import numpy as np

delays = kedge.schema("delays/1", keys=["word"], fields={{
    "delay": kedge.Field("float32", unit="h", default=0.5, range=(0, 24)),
}})


@kedge.materialise(delays, source="rows.parquet", time="known_at", every="1h", ttl="{ttl}")
def by_word(rows, at):
    words, which = np.unique(rows["word"].astype(str), return_inverse=True)
    return {{"word": words, "delay": np.bincount(which, rows["delay"]) / np.bincount(which) + {shift}}}
"""
FEATURES = """
import kedge
import numpy as np
from delays import delays

trip = kedge.schema("trip/1", keys=["word"], fields={
    "x": kedge.Field("float64", unit="h"),
    "word": kedge.Field("string", null=True),
})


@kedge.transform(trip, reads=delays)
def columns(raw, delays):
    words = np.array([word or "" for word in raw["word"]], object)
    return {"x": raw["minutes"] / 60 + delays["delay"], "word": words}
"""


def hour(back: int) -> datetime:
    """The beginning of an hour that is so many hours before this one."""
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    return now - timedelta(hours=back)


def write_source(site: Site, hours: int = 6, words: int = 3) -> None:
    """Word w0's delay is the number of the hour, counted back; w1's one more; and so on."""
    with duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'")
        db.execute(
            f"COPY (SELECT 'w' || w AS word, (h + w)::DOUBLE AS delay,"
            f" TIMESTAMP '{hour(0):%Y-%m-%d %H:%M:%S}' - to_hours(h) - to_minutes(30) AS known_at"
            f" FROM range({words}) t(w), range({hours}) s(h)) TO '{site.root / 'rows.parquet'}'"
        )


def apply(site: Site, *, ttl: str = "3h", shift: str = "0.0") -> Any:
    (site.root / "delays.py").write_text(DELAYS.format(ttl=ttl, shift=shift))
    (site.root / "features.py").write_text(FEATURES)
    return [
        site.data("features", "apply", str(site.root / name))["transformations"][0]
        for name in ("delays.py", "features.py")
    ]


def answered(site: Site, word: str = "w0", minutes: float = 60.0) -> float:
    """What the model says, which is twice what it was given."""
    status, _, body = site.infer({"minutes": ("FP64", [minutes]), "word": ("BYTES", [word])})
    assert status == 200, body
    return float(body["outputs"][0]["data"][0]) / 2


def materialise_and_promote(site: Site) -> None:
    """Start it; flights serves 2 * (hours + delay), the delay of its word as it was known at the last hour."""
    write_source(site)
    site.start()
    view, trip = apply(site)
    assert (view["version"], trip["version"], trip["reads"]) == (
        "delays/1#1",
        "trip/1#1",
        ["delays/1"],
    )
    refused = site.data("register", "flights", site.model("one"), "--schema", "trip/1")
    assert refused["version"] == "v1"
    assert site.data("promote", "flights", "v1", check=False)["error"]["code"] == "no_generation"
    site.run("features", "materialise", "delays")
    site.run("promote", "flights", "v1")


@pytest.fixture
def ahead(copy_site: Callable[..., Site]) -> Site:
    """A copy of that, started."""
    site = copy_site(materialise_and_promote, policy=POLICY)
    site.start()
    site.until(
        lambda: site.infer({"minutes": ("FP64", [60.0]), "word": ("BYTES", ["a"])})[0] == 200,
        "the first answer",
    )
    return site


def test_values_are_looked_up_by_key_and_follow_what_is_materialised(ahead: Site) -> None:
    assert answered(ahead, "w1") == 1 + (0 + 1 + 2 + 3 + 4 + 5) / 6 + 1
    assert answered(ahead, "nobody") == 1.5, "the default of the field"
    (run,) = ahead.data("features", "status")
    assert (run["run"], run["standing"], run["keys"], run["stale"]) == (
        "delays/1#1@1",
        "ready",
        3,
        False,
    )
    assert run["read_by"] == ["flights r1"]
    assert run["watermark"] == hour(0).timestamp()
    (again,) = ahead.data("features", "materialise", "delays")
    assert (again["slices"], again["computed"]) == (0, 0), "nothing is due: nothing changes"
    future = ahead.data("features", "materialise", "delays", "--at", "2999-01-01", check=False)
    assert future["error"]["code"] == "in_the_future"
    counts = ahead.until(
        lambda: ahead.data("status", "flights")["counts"]["violations"]["production"], "counts"
    )
    assert counts["delays.missing"] >= 1
    ahead.run("features", "backfill", "delays")
    ahead.run("features", "backfill", "delays")
    ahead.run("features", "materialise", "delays")
    runs = [run["run"] for run in ahead.data("features", "status")]
    assert runs == ["delays/1#1@1", "delays/1#1@3"], (
        "one is read, one is newest; the other is dropped"
    )
    assert values(ahead, "delays/1/1/1")
    shown = ahead.data(
        "features", "roll", "flights", "1", "--generation", "delays/1#1@2", check=False
    )
    assert shown["error"]["code"] == "unknown_generation"


@pytest.mark.soak
def test_killed_while_materialising_it_continues_and_ends_with_the_same_values(
    make_site: Callable[..., Site],
) -> None:
    site = make_site(policy=POLICY)
    write_source(site, hours=60, words=500)
    site.run("init", "flights")
    site.run("apply")
    apply(site)
    line = [*KEDGE, "features", "materialise", "delays"]
    kills = 0
    for wait_s in (0.9, 1.1, 1.3, 1.5, 1.7):
        with subprocess.Popen(
            line, cwd=site.root, env=site.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as running:
            assert running.stderr is not None
            running.stderr.readline()  # a slice is in
            time.sleep(wait_s / 10)
            running.send_signal(signal.SIGKILL)
            kills += running.wait() == -signal.SIGKILL
    assert kills >= 3
    assert site.data("features", "status")[0]["standing"] == "building"
    site.run("features", "materialise", "delays")
    (run,) = site.data("features", "status")
    assert (run["standing"], run["keys"], run["watermark"]) == ("ready", 500, hour(0).timestamp())
    whole = site.data("features", "backfill", "delays")
    assert (whole["run"], whole["slices"], whole["computed"]) == ("delays/1#1@2", 60, 60)
    assert values(site, "delays/1/1/1") == values(site, "delays/1/1/2")


def values(site: Site, namespace: str) -> list[tuple[str, bytes]]:
    """Every row of a run, without its mark."""
    import sqlite3

    with sqlite3.connect(site.root / ".kedge" / "online" / "online.db") as db:
        rows = db.execute(f'SELECT key, row FROM "{namespace}" ORDER BY key').fetchall()
    return [(key, row) for key, row in rows if not key.startswith("\x1e")]


def test_a_new_run_is_rolled_forward_and_back_and_both_stay_fresh(ahead: Site) -> None:
    old = answered(ahead)
    view, _ = apply(ahead, shift="10.0")
    assert view["version"] == "delays/1#2"
    ahead.run("features", "materialise", "delays")
    assert answered(ahead) == old, "a new version moves no endpoint"
    refused = ahead.data("features", "roll", "flights", "1", "--generation", "newest", check=False)
    assert refused["error"]["code"] == "generation_changed"
    ahead.run("features", "shadow", "flights", "1", "--generation", "newest")
    body: dict[str, tuple[str, list[Any]]] = {
        "minutes": ("FP64", [60.0]),
        "word": ("BYTES", ["w0"]),
    }
    _, _, candidate = ahead.infer(body, headers={"kedge-release": "r2", **ahead.tester})
    assert candidate["outputs"][0]["data"][0] / 2 == old + 10, "in a process of its own"
    ahead.run("abort", "flights")
    before = {r["pid"]: r["loads"] for r in ahead.data("status", "flights")["replicas"]}
    ahead.run(
        "features", "roll", "flights", "1", "--generation", "delays/1#2@1", "--override", "a drill"
    )
    assert answered(ahead) == old + 10
    with ahead.load(rate=50, column="minutes"):
        receipt = ahead.data("rollback", "flights", "--axis", "features")
        assert answered(ahead) == old
    assert receipt["release"] == "r1"
    assert {r["pid"]: r["loads"] for r in ahead.data("status", "flights")["replicas"]} == before
    runs = {run["run"]: run for run in ahead.data("features", "status")}
    assert set(runs) == {"delays/1#1@1", "delays/1#2@1"}
    assert not any(run["stale"] for run in runs.values())


def test_a_rollback_to_old_values_is_refused_with_their_age_or_overridden(
    make_site: Callable[..., Site],
) -> None:
    site = make_site(policy=POLICY)
    write_source(site, hours=8)
    site.start()
    apply(site)
    site.run("features", "materialise", "delays", "--at", f"{hour(5):%Y-%m-%dT%H:%M:%S}")
    site.run("register", "flights", site.model("one"), "--schema", "trip/1")
    site.run("promote", "flights", "v1")
    site.run("features", "backfill", "delays")
    site.run(
        "features", "roll", "flights", "1", "--generation", "newest", "--override", "fresh values"
    )
    refused = site.data("rollback", "flights", check=False)["error"]
    assert refused["code"] == "stale_generation"
    assert 5 * 3600 <= refused["lag_s"] < 6.1 * 3600
    assert (
        site.data("rollback", "flights", "--accept-stale", "1h", check=False)["error"]["code"]
        == "stale_generation"
    )
    assert site.data("rollback", "flights", "--accept-stale", "7h")["release"] == "r1"
    site.run("features", "roll", "flights", "1", "--generation", "newest", "--override", "again")
    shutil.rmtree(site.root / ".kedge" / "online")
    (site.root / ".kedge" / "online").write_text("no store can be here")
    assert site.data("rollback", "flights")["release"] == "r1", (
        "a store that is gone delays no rollback"
    )


def test_a_lost_store_is_answered_by_the_rule_and_written_again_from_the_log(ahead: Site) -> None:
    known = answered(ahead, "w1")
    with ahead.load(rate=50, column="minutes") as load:
        for path in (ahead.root / ".kedge" / "online").iterdir():
            path.unlink()
        ahead.until(lambda: answered(ahead, "w1") in (1.5, known), "an answer")
        ahead.run("features", "materialise", "delays")
        ahead.until(lambda: workers_see(ahead, known), "the values to be back", within_s=60)
    assert load.failures == []


def workers_see(site: Site, known: float) -> bool:
    return all(answered(site, "w1") == known for _ in range(8))
