"""Outcomes arrive late, are joined by id, and are judged; logged requests can be replayed."""

from __future__ import annotations

import http.client
import json
import subprocess
from collections.abc import Callable
from typing import Any

import duckdb
import pytest

from e2e.place import Site, free_port
from kedge.operations.tokens import read_admin_token

pytestmark = pytest.mark.e2e

POLICY = (
    'output = {kind = "score", score = "score", tolerance = 0.5}\n'
    'shadow = {window = "1h", min_pairs = 50, min_pairs_per_segment = 10}\n'
    "log = {sample = 100}\n"
)


def ask(site: Site, number: int) -> str:
    """Answered by production with 2 * x; the id it went by."""
    name = f"flight-{number}"
    status, _, body = site.infer(
        {"x": ("FP64", [float(number % 7)])}, headers={"kedge-entity": f"caller-{number}"}, id=name
    )
    assert (status, body["id"]) == (200, name)
    return name


def hand_in(site: Site, lines: list[dict[str, Any]], *more: str) -> Any:
    path = site.root / "labels.jsonl"
    path.write_text("\n".join([*(json.dumps(line) for line in lines), *more]))
    return site.data("outcomes", "flights", "--file", str(path))


def test_outcomes_find_their_predictions_and_judge_a_shadow(make_site: Callable[..., Site]) -> None:
    """v2 says 3 * x where 2 * x is true: labels show it, whatever order they come in."""
    site = make_site(policy=POLICY)
    site.start()
    site.release(scale=3.0)
    site.run("shadow", "flights", "v2")
    site.until(lambda: site.data("status", "flights")["stage"] == "shadow", "the shadow")
    names = [ask(site, number) for number in range(120)]
    labels: list[dict[str, Any]] = [
        {"id": name, "value": 2.0 * (number % 7)} for number, name in enumerate(names)
    ]
    labels[0]["value"] = None
    site.until(
        lambda: site.data("evidence", "flights")["units"][1] >= 110, "the pairs to be counted"
    )

    found = hand_in(site, labels[::-1], "not json", '{"value": 1}')
    assert found["joined"] + found["declined"] + found["parked"] == 120
    assert (found["unreadable"], len(found["faults"])) == (2, 2)
    assert found["faults"][0].startswith("labels.jsonl:121: ")
    seen = site.until(
        lambda: (e := site.data("evidence", "flights"))["labels"]["units"][1] >= 110 and e,
        "predictions to come out of the spool and take their labels",
        60,
    )
    again = hand_in(site, [labels[5], {**labels[6], "value": 99.0}, {"id": "nobody", "value": 1.0}])
    assert (again["duplicates"], again["conflicts"], again["parked"]) == (1, 1, 1)
    assert seen["labels"]["declined"] == 1
    quality = next(m for m in seen["metrics"] if m["metric"] == "quality")
    assert quality["bad"][0] == 0
    assert quality["bad"][1] >= 100
    assert seen["decision"]["verdict"] == "fail"
    _replay_says_the_same(site)
    _an_export_holds_predictions_and_labels(site)
    _a_unit_is_forgotten(site)


def _replay_says_the_same(site: Site) -> None:
    """The same answers from the log, without a gateway: v2 is as wrong there."""
    site.run("abort", "flights")
    found = site.data("replay", "flights", "v2", "--since", "1h")
    assert found["replayed"] >= 110
    assert found["agreement"]["raw"] < 0.2
    assert next(m for m in found["metrics"] if m["metric"] == "quality")["verdict"] == "fail"


def _an_export_holds_predictions_and_labels(site: Site) -> None:
    """Read back by the library that everybody else would use."""
    told = site.data("log", "export", "flights", "--since", "1h", "--to", str(site.root / "out"))
    with duckdb.connect() as db:
        ((count, labelled, declined, sampled),) = db.execute(
            "SELECT count(*), count(label_version), count(*) FILTER (label IS NULL AND label_version IS NOT NULL),"
            f" count(inputs->>'x') FROM read_parquet('{told['to']}/*/*.parquet')"
        ).fetchall()
    assert count == told["predictions"] >= 120
    assert (labelled, declined) == (120, 1)
    assert sampled > 0
    assert not list((site.root / "out").rglob("*.partial"))
    refused = site.data("log", "export", "flights", "--to", "/proc/none", check=False)
    assert refused["error"]["code"] == "export_failed"


def test_outcomes_may_be_posted(make_site: Callable[..., Site]) -> None:
    """To control, as JSON lines; a wrong endpoint and a flood are refused with a problem."""
    site = make_site(policy=POLICY)
    site.start()
    site.release(scale=3.0)
    name = ask(site, 1)
    code, found = post(site, "flights", json.dumps({"id": name, "value": 2.0}).encode())
    assert (code, found["joined"] + found["parked"]) == (200, 1)
    assert post(site, "nowhere", b"{}")[0] == 404
    code, problem = post(site, "flights", b"x" * (17 << 20))
    assert (code, problem["title"]) == (413, "too_large")
    assert site.answers("/v2/health/live")

    def refused() -> list[dict[str, int]]:
        processes = site.data("status", "flights")["processes"]
        return [each["limited"] for each in processes if each["kind"] == "control"]

    site.until(refused, "status to show what control refused", 10)
    assert sum(sum(limited.values()) for limited in refused()) >= 1


def test_control_without_its_parent_ends(make_site: Callable[..., Site]) -> None:
    """Its supervisor may die while control is still being imported: then its parent is another."""
    site = make_site(policy=POLICY)
    gone = subprocess.Popen(["true"])
    gone.wait()
    site.start()
    ended = site.run("control", "--port", str(free_port()), "--parent", str(gone.pid), check=False)
    assert ended.returncode == 0


def post(site: Site, endpoint: str, body: bytes) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", site.control_port, timeout=20)
    site.until(lambda: bool(read_admin_token(site.root / ".kedge")), "the admin token")
    token = read_admin_token(site.root / ".kedge")
    headers = {"content-type": "application/x-ndjson", "authorization": f"Bearer {token}"}
    try:
        connection.request("POST", f"/api/outcomes/{endpoint}", body, headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def _a_unit_is_forgotten(site: Site) -> None:
    assert site.data("log", "forget", "caller-7")["removed"] >= 1
    again = site.data("log", "forget", "caller-7", check=False)["error"]
    assert again["code"] == "nothing_forgotten"


def named(site: Site, name: str, x: float, who: str) -> None:
    """Ask under an id, over a connection of its own: any of the two workers may answer."""
    status, _, _ = site.infer({"x": ("FP64", [x])}, headers={"kedge-entity": who}, id=name)
    assert status == 200


@pytest.mark.soak
def test_an_id_that_two_requests_use_takes_no_label(make_site: Callable[..., Site]) -> None:
    """Whichever came first, in either worker, before or after a restart, and after its label came."""
    site = make_site(policy=POLICY, workers=2)
    site.start()
    site.release(scale=3.0)
    names = [f"order-{number}" for number in range(12)]
    for number, name in enumerate(names):
        callers = [("mallory", 9.0), ("alice", 1.0)]
        for who, x in callers if number % 2 else callers[::-1]:
            named(site, name, x, who)
    for who in ("alice", "alice"):
        named(site, "retried", 2.0, who)
    for name in ("late", "next"):
        named(site, name, 3.0, "alice")

    labels = [{"id": name, "value": 2.0} for name in (*names, "retried", "late", "next")]

    def reused() -> dict[str, int]:
        counts: dict[str, int] = site.data("evidence", "flights")["labels"]["reused"]
        return counts

    site.run("shadow", "flights", "v2")
    site.until(lambda: reused()["ids"] == 12, "both requests to come out of the spools", 40)
    found = hand_in(site, labels)
    assert (found["joined"], found["ambiguous"]) == (3, 12)
    assert found["ambiguous_because"] == {"id_reused": 12}
    assert reused() == {"ids": 12, "refused": 12, "withdrawn": 0}

    named(site, "late", 9.0, "mallory")
    site.stop()
    site.start()
    site.until(lambda: site.infer()[0] == 200, "the first answer after the restart")
    named(site, "next", 9.0, "mallory")
    site.until(lambda: reused()["withdrawn"] == 2, "their labels to be withdrawn", 40)
    told = site.run("outcomes", "flights", "--file", str(site.root / "labels.jsonl"))
    assert "14 are ambiguous and not joined: more than one request used the id" in told.stderr
    shown = " ".join(site.run("evidence", "flights").stdout.split())
    assert "14 ids were used by more than one request" in shown
