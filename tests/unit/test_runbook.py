"""The runbook: made from the row and from measurements, under ten minutes, typed unchanged."""

from __future__ import annotations

import html
import re
from typing import Any

import msgspec
import pytest

from kedge.core.diagnosis.findings import Act, Cause
from kedge.core.diagnosis.summary import DiagnosisSummary
from kedge.core.release.commands import Canary, Drill, Promote
from kedge.core.runbook import (
    FLIP_S,
    MOST_S,
    PEOPLE_S,
    Runbook,
    Site,
    Took,
    configuration_digest,
    markdown,
    measured,
    page,
    runbook,
)
from kedge.core.stored.upcast import read_body
from kedge.core.values import Contact, Escalation, Policy, Rota, State
from kedge.testing.samples import AT, endpoint, release, run

NOW = 1_800_000_000.0
ADA, BEN = Contact("Ada", "ada@example.org"), Contact("Ben <b>", "mailto:ben@example.org")
POLICY = Policy(
    audience="internal",
    owner=ADA,
    rota=Rota(start="2026-11-23T09:00:00Z", each="7d", people=(ADA, BEN)),
    escalation=(Escalation("0s", ("owner",)), Escalation("10m", ("rota",))),
)
ONE = run(endpoint(release(1), release(2), policy=POLICY), Promote(1))
TWO = run(ONE, Promote(2, full=True, override="a test"))
CANARY = run(TWO, Canary(1, 500, override="a test"))


def book(state: State, **took: Took) -> Runbook:
    return runbook(state, took, at=AT, now=NOW)


def commands(text: str) -> list[str]:
    return [
        line
        for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
        for line in block.splitlines()
    ]


def test_the_way_back_names_the_releases_that_are_live() -> None:
    text = markdown(book(TWO))
    assert "production r2 (v2), way back r1 (v1)" in text
    assert "Production goes from r2 (v2) to r1 (v1); r2 (v2) is condemned." in text
    assert "kedge rollback flights --to r2" in commands(text)


@pytest.mark.parametrize("state", [ONE, TWO, CANARY])
def test_the_way_back_takes_less_than_ten_minutes_a_persons_time_included(state: State) -> None:
    assert 120 < book(state).expected_s < MOST_S


def test_a_way_back_that_must_be_loaded_is_counted_with_its_load() -> None:
    slow = msgspec.structs.replace(TWO.releases[1], load_s=90.0)
    state = msgspec.structs.replace(TWO, releases={**TWO.releases, 1: slow})
    assert book(state).expected_s == book(TWO).expected_s + 90.0
    assert book(TWO).expected_s == PEOPLE_S + FLIP_S + TWO.releases[1].load_s


def test_in_a_canary_going_back_ends_the_candidate_and_production_is_a_line_of_its_own() -> None:
    text = markdown(book(CANARY))
    assert "It takes the share of r1 (v1) to zero and condemns it; production stays r2 (v2)" in text
    assert "candidate r1 (v1), canary" in text


def test_without_a_way_back_nothing_is_printed_that_would_be_refused() -> None:
    text = markdown(book(ONE))
    assert text.count("There is no way back yet") == 2
    assert "way back is nothing" not in text
    assert not {"kedge drill flights", "kedge rollback flights --local"} & {*commands(text)}


def test_it_lists_the_people_to_call_in_order() -> None:
    lines = [f"{one.when}: {one.who}" for one in book(TWO).people]
    assert lines[0] == "owner: Ada, ada@example.org"
    assert any(line.startswith("on duty when this was made: ") for line in lines)
    assert lines[-2:] == ["told at once: owner", f"told after 10 min: rota ({_duty()})"]


def _duty() -> str:
    return next(one.who.split(",")[0] for one in book(TWO).people if one.when.startswith("on duty"))


FOUND = DiagnosisSummary(
    at=0.0,
    since=0.0,
    until=0.0,
    requests=9,
    labelled=9,
    new=2,
    old=1,
    metric="brier",
    headline="said",
    causes=(Cause.WORLD, Cause.DATA),
    action=next(iter(Act)),
    advice="go forward",
    took_s=4.0,
)


def test_the_last_measurement_is_beside_the_expected_time() -> None:
    stored: list[tuple[str, str, dict[str, Any]]] = [
        ("verdict", "2026-11-26T00:00:00Z", {"verdict": "fail"}),
        ("receipt", "2026-11-25T00:00:00Z", {"of": 1, "command": "promote", "total_ms": 9e9}),
        ("receipt", "2026-11-24T00:00:00Z", {"of": 2, "command": "rollback", "total_ms": 41.0}),
        ("receipt", "2026-11-23T00:00:00Z", {"of": 3, "command": "rollback", "total_ms": 99.0}),
        ("drill", "2026-11-22T00:00:00Z", {"ok": True, "release": 1, "total_s": 1.0, "dry": True}),
        ("drill", "2026-11-21T00:00:00Z", {"ok": False, "release": 1, "total_s": 2.0}),
        ("drill", "2026-11-20T00:00:00Z", {"ok": True, "release": 1, "total_s": 3.0}),
        ("finding", "2026-11-19T00:00:00Z", msgspec.to_builtins(FOUND)),
    ]
    took = measured([(at, read_body(kind, body)) for kind, at, body in stored])
    assert {name: one.seconds for name, one in took.items()} == {
        "rollback": 0.041,
        "drill": 3.0,
        "diagnose": 4.0,
    }
    text = markdown(book(TWO, **took))
    assert "### 3. Go back (expected 16 s, last measured 41 ms on 2026-11-24)" in text
    assert "### Before the next time (last measured 3 s on 2026-11-20)" in text


def test_it_is_stale_when_policy_production_or_way_back_is_another() -> None:
    changed = msgspec.structs.replace(TWO, policy=Policy(audience="internal"))
    digests = {configuration_digest(state) for state in (ONE, TWO, changed)}
    assert len(digests) == 3
    assert configuration_digest(msgspec.structs.replace(TWO, epoch=99)) in digests


def test_the_page_has_the_same_commands_and_escapes_what_people_are_called() -> None:
    text = page(book(TWO))
    found = [html.unescape(line) for line in re.findall(r"<pre>(.*?)</pre>", text)]
    assert found == commands(markdown(book(TWO)))
    assert "Ben &lt;b&gt;" in text
    assert "<b>" not in text


def test_a_drill_makes_no_other_page() -> None:
    drilled = run(TWO, Drill(until=NOW + 10))
    assert drilled.production == 1
    assert configuration_digest(drilled) == configuration_digest(TWO)
    assert markdown(book(drilled)) == markdown(book(TWO))


def test_a_missing_contact_is_stated() -> None:
    nobody = msgspec.structs.replace(TWO, policy=Policy(audience="internal"))
    assert "- no one is named" in markdown(book(nobody))
    assert "<li>no one is named</li>" in page(book(nobody))


def test_where_it_is_typed_stands_on_it_and_in_every_command() -> None:
    site = Site("vm", "/srv/my models/kedge.toml")
    found = runbook(TWO, {}, at=AT, now=NOW, site=site)
    lines = commands(markdown(found))
    assert lines
    assert [line.split(" -", 1)[1].split("kedge.toml' ")[0] for line in lines] == [
        "-config '/srv/my models/"
    ] * len(lines)
    assert [site.typed(line) for line in commands(markdown(book(TWO)))] == lines
    told = "Log in to the host vm. kedge.toml is in /srv/my models; "
    assert told in markdown(found)
    assert f"<p>{told}" in page(found)
    assert found.digest == book(TWO).digest, "another host's page is not stale for it"
    assert Site("vm", "/kedge.toml").directory == "/"
