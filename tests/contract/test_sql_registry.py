"""Numbers for immutable things, and their protection."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from contract.sql_world import SIGNATURE, Other, World, at, bundle, registers, version, world
from kedge.core.errors import Refused
from kedge.core.release.commands import Canary, Drill, Promote, Rollback
from kedge.core.values import Placement, Policy

NOW = datetime.fromisoformat(at()).timestamp()
DAY = 86400.0


@pytest.fixture
def made(tmp_path: Path) -> World:
    """A ledger with r1, r2, r3 of flights, from v1, v2, v3, and a policy in force."""
    return world(tmp_path)


def refused_by(made: World, number: int, now: float = NOW) -> tuple[str, str]:
    """Code and words with which a removal is refused."""
    with pytest.raises(Refused) as raised:
        made.registry.remove("flights", number, now=now)
    return raised.value.code, str(raised.value)


# ---------------------------------------------------------------- numbers


def test_versions_are_numbered_per_model_in_order(made: World) -> None:
    """What is read is what was registered, under its number."""
    taxi = made.registry.add(version(1, model="taxis"))
    assert taxi.number == 1
    assert [v.number for v in made.registry.versions("flights")] == [1, 2, 3]
    assert made.registry.versions("taxis") == (taxi,)
    assert made.registry.versions("nobody") == ()


def test_the_same_digest_is_the_same_version(made: World) -> None:
    """What is known of it already stays; another model may have the same bytes."""
    again = made.registry.add(version(2, source="somewhere else"))
    assert (again.number, again.source) == (2, "test")
    assert made.registry.add(version(2, model="taxis", digest=again.digest)).number == 1


def test_the_same_bundle_is_the_same_release(made: World) -> None:
    """And another placement of the same version is another one."""
    v1 = made.registry.versions("flights")[0]
    first = made.registry.release(bundle(v1))
    assert (first.number, first.signature, first.model_digest) == (1, SIGNATURE, v1.digest)
    moved = msgspec.structs.replace(bundle(v1), placement=Placement.PROCESS)
    assert made.registry.release(moved).number == 4
    assert made.registry.release(bundle(v1, "taxis")).number == 1


def test_two_processes_never_get_one_number(made: World) -> None:
    """Ten versions each, five of them the same: fifteen numbers without a gap."""
    made.close()
    both = [Other(registers, made.state_dir, first) for first in (1, 6)]
    for other in both:
        other.heard()
    for other in both:
        other.told.send("go")
    said = [other.rest() for other in both]
    assert sorted(set(said[0]) | set(said[1])) == list(range(1, 16))


# ---------------------------------------------------------------- pins


def test_a_release_of_what_is_not_registered_is_refused(made: World) -> None:
    """An unknown version, and a known one with other bytes."""
    for unknown, code in ((version(9), "unknown_version"), (version(1), "digest_mismatch")):
        number = 9 if code == "unknown_version" else 2
        wrong = msgspec.structs.replace(bundle(unknown), version=number)
        with pytest.raises(Refused) as raised:
            made.registry.release(wrong)
        assert raised.value.code == code


@pytest.mark.parametrize("more", [{"schema": None}, {"schema": "view/2"}, {"transformation": 7}])
def test_a_release_that_breaks_its_pin_is_refused(made: World, more: dict[str, Any]) -> None:
    """Another schema, none at all, or a transformation that the schema does not have."""
    pinned = made.registry.add(version(4, schema="view/1"))
    made.registry.add(version(5, schema="view/2"))
    with pytest.raises(Refused) as raised:
        made.registry.release(bundle(pinned, **more))
    assert raised.value.code == "pin"
    assert made.registry.release(bundle(pinned)).schema == "view/1"


# ---------------------------------------------------------------- removal


def test_a_live_release_is_protected(made: World) -> None:
    """Production, previous and the way back are told with their endpoint; years do not help."""
    made.do(Promote(release=1))
    made.do(Promote(release=2, override="a test"))
    made.do(Canary(release=3, weight=100, override="a test"))
    for number, role in ((1, "previous and back"), (2, "production"), (3, "candidate")):
        code, words = refused_by(made, number, now=NOW + 999 * DAY)
        assert code == "protected"
        assert f"r{number} of flights" in words
        assert role in words


def test_the_release_that_a_drill_left_is_protected(made: World) -> None:
    """It is production again in a few seconds."""
    made.do(Promote(release=1))
    made.do(Promote(release=2, override="a test"))
    made.do(Drill(until=60.0))
    code, words = refused_by(made, 2, now=NOW + 999 * DAY)
    assert (code, "what a drill returns to" in words) == ("protected", True)


def test_the_window_protects_what_was_production(made: World) -> None:
    """v3 was left behind by a rollback: nothing leads back to it, but the window does."""
    for number in (1, 2, 3):
        made.do(Promote(release=number, override="a test"))
    made.do(Rollback())
    made.do(Promote(release=1, override="a test"))
    code, words = refused_by(made, 3, now=NOW + 13.9 * DAY)
    assert code == "protected"
    assert "within the last 14d" in words
    made.registry.remove("flights", 3, now=NOW + 14.1 * DAY)
    assert [v.number for v in made.registry.versions("flights")] == [1, 2]


def test_the_window_begins_when_production_ends(made: World) -> None:
    """r3 was promoted weeks before it was left behind."""
    for number in (1, 2, 3):
        made.do(Promote(release=number, override="a test"))
    late = {"at": "2026-12-23T12:00:00.000000Z"}
    made.do(Rollback(), **late)
    made.do(Promote(release=1, override="a test"), **late)
    assert refused_by(made, 3, now=NOW + 40 * DAY)[0] == "protected"
    made.registry.remove("flights", 3, now=NOW + 45 * DAY)


def test_the_window_is_that_of_the_endpoint(made: World) -> None:
    """One hour, in this policy."""
    made.configure(Policy(audience="internal", back_window="1h"))
    for number in (1, 2, 3):
        made.do(Promote(release=number, override="a test"))
    made.do(Rollback())
    assert refused_by(made, 3, now=NOW + 3000)[0] == "protected"
    made.do(Promote(release=1, override="a test"))
    made.registry.remove("flights", 3, now=NOW + 3700)


def test_a_version_that_never_served_is_removed_at_once(made: World) -> None:
    """And is then unknown to everything but the history."""
    made.do(Promote(release=1))
    before = made.ledger.stamp()
    made.registry.remove("flights", 3, now=NOW)
    assert made.ledger.stamp() != before
    assert set(made.row().releases) == {1, 2}
    v3 = msgspec.structs.replace(version(3), number=3)
    with pytest.raises(Refused) as raised:
        made.registry.release(bundle(v3))
    assert raised.value.code == "unknown_version"
    assert refused_by(made, 3)[0] == refused_by(made, 99)[0] == "unknown_version"
    assert made.ledger.verify() == []


def test_a_number_is_never_given_twice(made: World) -> None:
    """The bytes of a removed version, registered again, are a new version."""
    made.registry.remove("flights", 3, now=NOW)
    again = made.registry.add(version(3))
    assert again.number == 4
    assert made.registry.release(bundle(again)).number == 4
    assert set(made.row().releases) == {1, 2, 4}


def test_a_release_on_any_endpoint_protects_its_version(made: World) -> None:
    """The version's own endpoint does not use it; another one does."""
    v3 = made.registry.versions("flights")[2]
    made.registry.release(bundle(v3, "taxis"))
    made.configure(endpoint="taxis")
    made.do(Promote(release=1), "taxis")
    code, words = refused_by(made, 3, now=NOW + 999 * DAY)
    assert (code, "r1 of taxis" in words) == ("protected", True)
