"""A host's saved rows, and its pins."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from kedge.core.errors import Refused, Unavailable
from kedge.core.release.commands import (
    Canary,
    CandidateRolledBack,
    Configure,
    Promote,
    Rollback,
    RolledBack,
)
from kedge.core.values import Policy, State
from kedge.engine.pins import HostDisk, Pin
from kedge.testing.samples import AT, endpoint, release, run

ONE = run(endpoint(release(1), release(2), release(3)), Promote(1))
TWO = run(ONE, Promote(2, override="a test"))


@pytest.fixture
def disk(tmp_path: Path) -> HostDisk:
    return HostDisk(tmp_path)


def pinned(disk: HostDisk, command: Rollback | None = None, state: State = TWO) -> Pin:
    """Remember a row, and pin the host to what a rollback makes of it."""
    disk.remember("w0", state)
    return disk.pin("flights", command or Rollback(), by="ada", reason="it burns", at=AT)


# ---------------------------------------------------------------- memory


def test_a_new_host_remembers_nothing_and_is_not_pinned(disk: HostDisk) -> None:
    """Empty, not an error."""
    assert disk.remembered() == {}
    assert disk.pins() == {}


def test_the_newest_row_that_any_replica_served_is_remembered(disk: HostDisk) -> None:
    """By epoch: a worker that lags behind does not take the host back."""
    disk.remember("w0", TWO)
    disk.remember("w1", ONE)
    other = msgspec.structs.replace(ONE, endpoint="fraud")
    disk.remember("w1", other)
    assert disk.remembered() == {"flights": TWO, "fraud": other}


def test_a_memory_survives_the_process(disk: HostDisk, tmp_path: Path) -> None:
    """Whole, with policy and releases: a gateway starts from it."""
    disk.remember("w0", TWO)
    assert HostDisk(tmp_path).remembered() == {"flights": TWO}


@pytest.mark.parametrize("raw", [b"", b"{", b"null", b'{"endpoint": 3}', b"\xff"])
def test_a_memory_that_cannot_be_read_is_passed_over(
    disk: HostDisk, tmp_path: Path, raw: bytes
) -> None:
    """Another replica's may be whole."""
    disk.remember("w0", ONE)
    disk.remember("w1", TWO)
    (tmp_path / "replicas/w1/flights.json").write_bytes(raw)
    assert disk.remembered() == {"flights": ONE}


# ---------------------------------------------------------------- pins


def test_a_pin_is_what_a_rollback_would_have_made_of_the_last_row(disk: HostDisk) -> None:
    """Decided by the same rules, with who, why, when and the epoch that was left."""
    pin = pinned(disk)
    assert pin.state == run(TWO, Rollback())
    assert (pin.state.production, pin.left) == (1, TWO.epoch)
    assert (pin.by, pin.reason, pin.at, pin.drift) == ("ada", "it burns", AT, "")
    assert disk.pins() == {"flights": pin}


def test_in_a_canary_a_pin_takes_the_candidate_away_and_leaves_production(disk: HostDisk) -> None:
    """As `rollback` does; `--production` goes further."""
    canary = run(TWO, Canary(3, 100))
    state = pinned(disk, state=canary).state
    assert (state.production, state.candidate) == (2, None)
    assert pinned(disk, Rollback(production=True), canary).state.production == 1


def test_a_pin_survives_the_process_and_a_second_one_replaces_it(
    disk: HostDisk, tmp_path: Path
) -> None:
    """The newest order counts."""
    pinned(disk)
    again = pinned(HostDisk(tmp_path), Rollback(to=1))
    assert HostDisk(tmp_path).pins() == {"flights": again}


def test_a_host_that_never_served_the_endpoint_cannot_be_pinned(disk: HostDisk) -> None:
    """It would not know to what; the hint says where to try."""
    with pytest.raises(Unavailable) as caught:
        disk.pin("flights", Rollback(), by="ada", reason="", at=AT)
    assert caught.value.code == "no_memory"
    assert caught.value.hint
    assert disk.pins() == {}


def test_a_pin_with_nothing_to_go_back_to_is_refused_and_leaves_no_file(disk: HostDisk) -> None:
    """The rules are the same without the ledger."""
    with pytest.raises(Refused) as caught:
        pinned(disk, state=ONE)
    assert caught.value.code == "nothing_to_go_back_to"
    assert disk.pins() == {}


def test_unpinning_says_whether_there_was_a_pin(disk: HostDisk) -> None:
    """Twice is once too often, and no error."""
    pinned(disk)
    assert disk.unpin("flights")
    assert not disk.unpin("flights")
    assert disk.pins() == {}


@pytest.mark.parametrize("raw", [b"", b"{", b'{"endpoint": "flights"}'])
def test_a_pin_that_cannot_be_read_pins_nothing(disk: HostDisk, tmp_path: Path, raw: bytes) -> None:
    """Half a file must not stop a replica."""
    (tmp_path / "pins").mkdir()
    (tmp_path / "pins/flights.json").write_bytes(raw)
    assert disk.pins() == {}


def test_a_drift_is_written_into_the_pin(disk: HostDisk) -> None:
    """It stays until an operator unpins."""
    pin = pinned(disk)
    disk.write(msgspec.structs.replace(pin, drift="the row moved on"))
    assert disk.pins()["flights"].drift == "the row moved on"


# ---------------------------------------------------------------- handing it in


def test_a_pin_is_handed_in_as_the_events_of_its_command(disk: HostDisk) -> None:
    """On the row as it is then."""
    pin = pinned(disk)
    assert pin.events(TWO, "later") == (RolledBack(release=1, left=2, at="later"),)
    canary = run(TWO, Canary(3, 100))
    assert pin.events(canary, "later") == (CandidateRolledBack(release=3, weight=100),)


def test_a_pin_that_the_rules_refuse_by_then_says_so(disk: HostDisk) -> None:
    """Another process may have been faster."""
    pin = pinned(disk)
    with pytest.raises(Refused) as caught:
        pin.events(run(TWO, Rollback()), AT)
    assert caught.value.code == "nothing_to_go_back_to"


def test_a_configured_row_can_be_pinned_too(disk: HostDisk) -> None:
    """Every event since the first is in the state, none is replayed."""
    configured = run(TWO, Configure(policy=Policy(back_window="3d"), digest="sha256:new"))
    assert pinned(disk, state=configured).state.policy.back_window == "3d"


def test_a_folder_that_is_missing_is_made(tmp_path: Path) -> None:
    disk = HostDisk(tmp_path / "new")
    disk.remember("w0", TWO)
    assert [p.name for p in (tmp_path / "new" / "replicas" / "w0").iterdir()] == ["flights.json"]
