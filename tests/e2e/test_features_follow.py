"""The head of a schema moves, and its followers move with it: all of them, or none."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

from e2e.place import KEDGE, Site

pytestmark = pytest.mark.e2e

FIELDS = 'minutes = {{dtype = "float64"}}\nword = {{dtype = "string", nullable = true}}\n'
ONE = (
    'output = {{kind = "score", score = "score", tolerance = 0.5}}\n'
    'features = {{schema = "view/1", follow = {follow}}}\n'
    "[endpoints.{name}.fields]\n" + FIELDS
)
POLICY = ONE.format(name="flights", follow="true") + "".join(
    f'[endpoints.{name}]\naudience = "internal"\n' + ONE.format(name=name, follow=follow)
    for name, follow in (("trips", "true"), ("quiet", "false"))
)
FEATURES = """
import kedge
import numpy as np

view = kedge.schema("view/1", fields={{
    "x": kedge.Field("float64", unit="h"), "word": kedge.Field("string", null=True),
}})


@kedge.transform(view)
def columns(raw: kedge.Columns) -> kedge.Columns:
    words = np.array([word or "" for word in raw["word"]], object)
    return {{"x": raw["minutes"] / 60.0 + {shift}, "word": words}}
"""


def apply(site: Site, shift: str) -> str:
    path = site.root / "features.py"
    path.write_text(FEATURES.format(shift=shift))
    rows = site.root / "golden.json"
    rows.write_text('{"inputs": {"minutes": [60.0, 90.0], "word": ["a", null]}}')
    (told,) = site.data("features", "apply", str(path), "--golden", str(rows))["transformations"]
    return str(told["version"])


def on(site: Site) -> dict[str, Any]:
    """Which transformation each endpoint serves."""
    return {item["endpoint"]: item["production"]["features"] for item in site.data("status")}


@pytest.fixture
def following(make_site: Callable[..., Site]) -> Site:
    """flights and trips follow view/1, quiet holds; #1 serves, #2 answers the same, #3 otherwise."""
    site = make_site(policy=POLICY)
    site.start()
    assert apply(site, "0.0") == "view/1#1"
    for name in ("flights", "trips", "quiet"):
        site.run("register", name, site.model("one"), "--schema", "view/1")
        site.run("promote", name, "v1")
    assert apply(site, "0.0 * 1") == "view/1#2"
    assert apply(site, "5.0") == "view/1#3"
    return site


@pytest.mark.soak
def test_followers_move_together_and_one_that_went_back_holds(following: Site) -> None:
    site = following
    site.run("features", "shadow", "trips", "3")
    candidate = site.data("features", "head", "view/1#2", check=False)["error"]
    assert candidate["code"] == "head_refused"
    assert "trips has a candidate" in candidate["message"]
    site.run("abort", "trips")
    dry = site.data("features", "head", "view/1#2", "--dry-run")
    assert [(one["endpoint"], one["outcome"]) for one in dry["followers"]] == [
        ("flights", "bit-equal"),
        ("trips", "bit-equal"),
    ]
    assert (dry["holding"], dry["moved"]) == (["quiet"], False)
    assert set(on(site).values()) == {"view/1#1"}
    with site.load(rate=50, column="minutes") as load:
        done = site.data("features", "head", "view/1#2")
        assert on(site) == {"flights": "view/1#2", "trips": "view/1#2", "quiet": "view/1#1"}
    assert load.failures == []
    assert all(one["last_ack_ms"] is not None for one in done["receipts"])
    assert [row["version"] for row in site.data("features", "list") if row["head"]] == ["view/1#2"]
    refused = site.data("features", "head", "view/1#3", check=False)["error"]
    assert refused["code"] == "head_refused"
    assert "flights would get other answers" in refused["message"]
    assert "trips would get other answers" in refused["message"]
    site.run("features", "head", "view/1#3", "--override", "a test")
    receipt = site.data("rollback", "flights")
    assert (receipt["release"], receipt["events"][-1]["event"]) == ("r2", "held")
    assert on(site) == {"flights": "view/1#2", "trips": "view/1#3", "quiet": "view/1#1"}
    site.run("features", "head", "view/1#2", "--override", "a test")
    assert on(site)["trips"] == "view/1#2"
    assert "flights" in site.data("features", "head", "view/1#2", "--dry-run")["holding"]
    site.run("features", "follow", "flights")
    again = site.data("features", "head", "view/1#3", check=False)["error"]
    assert "flights was rolled back from it" in again["message"]
    for number, wait_s in ((3, 0.7), (2, 1.0), (3, 1.3)):
        line = [*KEDGE, "features", "head", f"view/1#{number}", "--override", "killed on the way"]
        with subprocess.Popen(
            line, cwd=site.root, env=site.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as moving:
            time.sleep(wait_s)
            moving.send_signal(signal.SIGKILL)
        found = on(site)
        assert found["flights"] == found["trips"], "killed anywhere, both have moved or none has"
    assert site.run("doctor").returncode == 0
