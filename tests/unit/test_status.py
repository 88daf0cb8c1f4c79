"""The output of `kedge status`, as its document has it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
import pytest

from kedge.cli.text.status import status_text
from kedge.core.alerts.alerts import Alert, Topic
from kedge.core.release.commands import Canary, Pause, Promote, Rollback, Shadow
from kedge.core.release.needs import NeededRelease
from kedge.core.stored.roster import Member, ReplicaHold, Tally
from kedge.core.values import (
    UNNAMED_OWNER,
    Contact,
    Escalation,
    Placement,
    Policy,
    Rota,
    State,
)
from kedge.engine.pins import Pin
from kedge.engine.submission import SILENT_S, Unready, lacking
from kedge.operations.status.view import WINDOW_OVER, EndpointStatus, describe, lacks_of
from kedge.testing.samples import AT, endpoint, release, run

NOW = datetime.fromisoformat(AT).timestamp() + 60
ONE = run(endpoint(release(1), release(2), release(3)), Promote(1))
TWO = run(ONE, Promote(2, override="a test"))
CANARY = run(TWO, Canary(3, 100))


def member(name: str = "host/w0", **changes: Any) -> Member:
    """A replica that serves TWO and holds both of its releases."""
    plain = Member(
        name=name,
        host="host",
        pid=1,
        kind="gateway",
        address="127.0.0.1:1",
        started_at=AT,
        beat_at=NOW - 0.5,
        ledger_at=NOW - 0.25,
        epochs={"flights": TWO.epoch},
        holds=tuple(
            ReplicaHold(endpoint="flights", release=n, placement=Placement.INLINE, state="ready")
            for n in (1, 2)
        ),
    )
    return msgspec.structs.replace(plain, **changes)


def told(
    state: State = TWO,
    *members: Member,
    tallies: tuple[Tally, ...] = (),
    now: float = NOW,
    pin: Pin | None = None,
) -> dict[str, Any]:
    found = describe(
        state, members or (member(),), tallies, {} if pin is None else {"flights": pin}, now=now
    )
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(found))
    return plain


def tally(state: State, replica: str = "w0", **counts: int) -> Tally:
    return Tally(
        replica=replica,
        endpoint="flights",
        production=state.production or 0,
        candidate=state.candidate,
        salt=state.salt,
        counts={name.replace("__", "."): n for name, n in counts.items()},
    )


def test_a_healthy_endpoint_has_no_faults() -> None:
    """The quiet case is quiet."""
    item = told()
    assert item["faults"] == []
    assert (item["endpoint"], item["epoch"], item["stage"]) == ("flights", TWO.epoch, "settled")
    assert (item["candidate"], item["pin"], item["condemned"]) == (None, None, [])


def test_a_release_is_shown_with_its_version_and_where_it_runs() -> None:
    """And by its digest."""
    assert told()["production"] == {
        "release": "r2",
        "version": "v2",
        "model": "flights",
        "flavour": "onnx",
        "runtime": "inline",
        "features": "flight/1#1",
        "digest": "sha256:model-2",
        "rows": "independent",
        "libraries": [],
    }
    assert told()["previous"]["release"] == "r1"


def test_the_people_are_those_whom_an_alert_reaches() -> None:
    """The rota's turn, or the owner whom the escalation names; the placeholder is no owner."""
    ada, grace = Contact("Ada", "ada@example.org"), Contact("Grace", "grace@example.org")
    told_owner = (Escalation("0s", ("owner",)),)
    rota = Rota(start=AT, people=(ada, grace), each="1h")

    def people(now: float = NOW, **policy: Any) -> tuple[str | None, str | None]:
        state = endpoint(release(1), policy=Policy(audience="internal", **policy))
        found = describe(state, (), (), {}, now=now)
        return found.owner, found.on_call

    assert people() == (None, None)
    assert people(owner=ada) == ("Ada", None)
    assert people(owner=ada, escalation=told_owner) == ("Ada", "Ada")
    assert people(owner=ada, rota=rota) == ("Ada", "Ada")
    assert people(NOW + 3600, owner=ada, rota=rota) == ("Ada", "Grace")
    assert people(owner=UNNAMED_OWNER, escalation=told_owner) == (None, None)


def test_everything_can_be_written_as_json() -> None:
    """For every stage."""
    for state in (endpoint(), ONE, TWO, CANARY, run(TWO, Shadow(3)), run(TWO, Rollback())):
        found = describe(state, (member(),), (), {}, now=NOW)
        raw = msgspec.json.encode(found)
        assert msgspec.json.encode(msgspec.json.decode(raw, type=EndpointStatus)) == raw


def test_an_endpoint_without_a_release_is_still_shown() -> None:
    """With nothing in production and no way back."""
    item = told(endpoint(), member(epochs={"flights": 0}))
    assert (item["production"], item["back"], item["stage"]) == (None, None, "empty")
    assert item["faults"] == []


@pytest.mark.parametrize(
    "weight, shown, following",
    [(100, 1.0, 5.0), (500, 5.0, 25.0), (5000, 50.0, None), (250, 2.5, 5.0)],
)
def test_shares_are_shown_in_per_cent_with_the_next_step(
    weight: int, shown: float, following: float | None
) -> None:
    """After the last step comes production, which is no weight."""
    item = told(run(TWO, Canary(3, weight)))
    assert (item["weight"], item["next_weight"]) == (shown, following)


def test_a_shadow_has_a_sample_and_no_next_step() -> None:
    """Nothing is walked."""
    item = told(run(TWO, Shadow(3, 2500)))
    assert (item["sample"], item["weight"], item["next_weight"]) == (25.0, 0.0, None)
    assert item["candidate"]["release"] == "r3"


def test_a_held_rollout_is_shown_as_held() -> None:
    """And a condemned release by its name."""
    assert told(run(CANARY, Pause()))["paused"] is True
    assert told(run(CANARY, Rollback()))["condemned"] == ["r3"]


# ---------------------------------------------------------------- the way back


def test_the_way_back_says_where_it_is_ready_and_where_it_is_cold() -> None:
    """By replica, with the state it is in there and how long a load takes."""
    loading = ReplicaHold(
        endpoint="flights", release=1, placement=Placement.INLINE, state="loading", detail=""
    )
    back = told(TWO, member(), member("host/w1", holds=(loading,)))["back"]
    assert back["release"] == "r1"
    assert back["ready"] == ["host/w0"]
    assert list(back["cold"]) == ["host/w1"]
    assert "loading" in back["cold"]["host/w1"]


def test_a_way_back_that_failed_to_load_says_why() -> None:
    """Before an operator needs it."""
    failed = ReplicaHold(
        endpoint="flights", release=1, placement=Placement.INLINE, state="failed", detail="odd"
    )
    item = told(TWO, member(holds=(failed,)))
    assert "odd" in item["back"]["cold"]["host/w0"]
    assert item["faults"] == ["host/w0 cannot load r1 (inline): odd"]


def test_a_missing_release_of_a_replica_is_a_code_and_a_failure_is_not_hidden_by_later_ones() -> (
    None
):
    """Whatever the loader said: control gives up on what failed, and readiness on nothing that is over."""
    holds = (
        ReplicaHold(
            endpoint="flights", release=1, placement=Placement.INLINE, state="failed", detail="x"
        ),
        ReplicaHold(
            endpoint="flights",
            release=2,
            placement=Placement.INLINE,
            state="loading",
            detail="failed: once, and tries again",
        ),
    )
    (one, two) = (NeededRelease(n, Placement.INLINE) for n in (1, 2))
    absent = NeededRelease(3, Placement.INLINE)
    for serves, code in (
        ([one], Unready.FAILED),
        ([two], Unready.LOADING),
        ([absent], Unready.NOT_LOADED),
        ([one, two], Unready.FAILED),
        ([two, absent, one], Unready.FAILED),
    ):
        found = lacking((member(holds=holds),), "flights", serves)
        assert {name: lack.code for name, lack in found.items()} == {"host/w0": code}
    members = (member("silent"), member(beat_at=NOW + 15 * 86_400))
    kept, lacks = lacks_of(TWO, 1, members, NOW + 15 * 86_400)
    assert (kept, {name: lack.code for name, lack in lacks.items()}) == (
        False,
        {"silent": Unready.SILENT, "host/w0": Unready.WINDOW_OVER},
    )


def test_after_the_window_the_way_back_is_cold_everywhere() -> None:
    """Also where it happens to be loaded still: it is not kept any more. A silent replica is worse."""
    assert told()["back"]["kept"] is True
    later = NOW + 15 * 86_400
    back = told(TWO, member(beat_at=later), member("host/w1"), now=later)["back"]
    assert (back["ready"], back["kept"]) == ([], False)
    assert back["cold"] == {"host/w0": WINDOW_OVER.text, "host/w1": "silent"}


# ---------------------------------------------------------------- replicas and faults


def test_a_replica_is_shown_with_what_it_serves_and_holds() -> None:
    """And how long ago it was heard."""
    (replica,) = told()["replicas"]
    assert (replica["name"], replica["epoch"], replica["lease"]) == ("host/w0", TWO.epoch, True)
    assert (replica["silent"], replica["beat_age_s"], replica["ledger_age_s"]) == (False, 0.5, 0.25)
    assert [hold["release"] for hold in replica["holds"]] == ["r1", "r2"]


def test_a_supervisor_is_no_replica() -> None:
    """It serves no caller."""
    supervisor = member("host/supervisor.1", kind="supervisor", epochs={})
    assert [r["name"] for r in told(TWO, member(), supervisor)["replicas"]] == ["host/w0"]
    assert told(TWO, supervisor)["faults"] == ["no replica is known: is kedge up running?"]


def test_a_replica_that_is_not_heard_is_silent() -> None:
    """By name, and since when."""
    (fault,) = told(TWO, member(beat_at=NOW - SILENT_S - 1))["faults"]
    assert fault == f"host/w0 has been silent for {SILENT_S + 1:.0f} s"


@pytest.mark.parametrize("epochs", [{"flights": TWO.epoch - 1}, {}])
def test_a_replica_that_lags_behind_is_a_fault(epochs: dict[str, int]) -> None:
    """It serves something else than the ledger says."""
    (fault,) = told(TWO, member(epochs=epochs))["faults"]
    assert fault == f"host/w0 serves epoch {epochs.get('flights')}, not {TWO.epoch}"


def test_a_replica_without_the_ledger_is_a_fault() -> None:
    """It gives no candidate a share."""
    (fault,) = told(TWO, member(lease=False))["faults"]
    assert "has lost the ledger" in fault


def test_a_pin_is_shown_and_is_a_fault_and_no_lag() -> None:
    """The host serves another row on purpose."""
    pin = Pin(
        endpoint="flights",
        command=Rollback(),
        left=TWO.epoch,
        state=run(TWO, Rollback()),
        by="ada",
        reason="it burns",
        at=AT,
        drift="another command came first",
    )
    item = told(TWO, member(epochs={}, pinned={"flights": 1}), pin=pin)
    assert item["pin"] == {
        "serves": "r1",
        "left_epoch": TWO.epoch,
        "row_epoch": TWO.epoch,
        "by": "ada",
        "reason": "it burns",
        "at": AT,
        "drift": "another command came first",
    }
    assert item["faults"] == [
        "this host is pinned to r1 by ada; it drifts: another command came first"
    ]
    assert item["replicas"][0]["pinned"] == "r1"


def test_loads_and_pins_of_another_endpoint_are_not_shown() -> None:
    """Its loads, its pins."""
    other = ReplicaHold(endpoint="fraud", release=1, placement=Placement.INLINE, state="failed")
    item = told(TWO, member(holds=(*member().holds, other), pinned={"fraud": 1}))
    assert len(item["replicas"][0]["holds"]) == 2
    assert item["replicas"][0]["pinned"] is None
    assert item["faults"] == []


# ---------------------------------------------------------------- counts


def test_counts_are_those_of_this_comparison_on_all_replicas() -> None:
    """Another candidate, another production, another rollout: other evidence."""
    counted = tally(CANARY, requests__candidate=3)
    others = [
        msgspec.structs.replace(counted, **change)
        for change in ({"candidate": 2}, {"candidate": None}, {"production": 1}, {"salt": "x"})
    ]
    mine = (counted, tally(CANARY, "w1", requests__candidate=4))
    item = told(CANARY, tallies=(*mine, *others))
    assert item["counts"]["requests"] == {"candidate": 7}
    assert item["canary"] == item["counts"]["canary"]
    assert item["shadow"] == item["counts"]["shadow"]


def test_open_alerts_are_counted_and_the_newest_three_named() -> None:
    """The status of an endpoint shows that an operator is needed."""
    found = [
        Alert(
            number=n,
            endpoint="flights",
            key=f"k{n}",
            topic=Topic.OTHER,
            level="page" if n == 4 else "warn",
            lasts="condition",
            summary=f"thing {n}",
            opened_at=AT,
            acknowledged_by="ada" * (n == 1),
        )
        for n in (4, 3, 2, 1)
    ]
    item = describe(TWO, (member(),), (), {}, now=NOW, alerts=found)
    text = status_text(item)
    assert "4 open, pages: 1, not acknowledged: 3" in text
    assert "page        #4 thing 4" in text
    assert "thing 1" not in text
    assert told()["alerts"] == []
