"""The gate before production, and alerts of control: on a real ledger, without processes."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import pytest

from contract.sql_world import POLICY, at, world
from contract.test_alerts import HandClock, Place
from contract.test_patrol import QUICK, Watched
from kedge.adapters.artifacts.directory import DirectoryArtifacts
from kedge.cli.text.check import check_text
from kedge.core.alerts import conditions
from kedge.core.alerts.alerts import Sight
from kedge.core.errors import Refused, Unavailable
from kedge.core.readiness import DAY_S, REFUSING_S
from kedge.core.release.commands import AnyCommand, Canary, Configure, Promote, Rollback, Shadow
from kedge.core.runbook import configuration_digest
from kedge.core.stored.ledger import Note
from kedge.core.stored.notes import OverrideNote, Proven, ReadinessNote
from kedge.core.stored.roster import Member, ReplicaHold
from kedge.core.values import ActorKind, Contact, Escalation, Placement, Policy, Proof, State
from kedge.engine.control.patrol import Patrol
from kedge.engine.control.readiness import EVERY_S, Readiness
from kedge.engine.loop import Duty
from kedge.engine.process_faults import ProcessFaults
from kedge.operations.readiness.check import check_of, gate_of
from kedge.workspace import Workplace

PEOPLE: dict[str, Any] = {
    "owner": Contact("Ada Lovelace", "ada@example.org"),
    "escalation": (Escalation("0s", ("owner",)), Escalation("9m", ("ben@example.org",))),
}


def policy(of: Policy = POLICY, **more: Any) -> Policy:
    return msgspec.structs.replace(of, **{**PEOPLE, **more})


class Gated(Watched):
    """A world in which r1 is production, and whose promotions pass the gate."""

    def __init__(self, tmp_path: Path, of: Policy, *, loopback: bool = True) -> None:
        self.loopback = loopback
        self.said: list[str] = []
        super().__init__(tmp_path, of)

    def control(self) -> Any:
        place = Workplace(self.world.state_dir, actor=ActorKind.PATROL)
        gate = gate_of(place, loopback=self.loopback, say=self.said.append)
        return place.control(self.said.append, None, gate)

    def fresh(self, by: str = "patrol@here") -> Patrol:
        place = Workplace(self.world.state_dir, actor=ActorKind.PATROL)
        return Patrol(
            Duty(place.clock, ProcessFaults(place.clock), by=by),
            ledger=place.ledger,
            store=place.windows,
            records=place.records,
            roster=place.roster,
            control=self.control,
        )

    def file(self, kind: str, **body: Any) -> None:
        now = self.place.clock.now()
        self.place.ledger.note("flights", Note(kind=kind, body=body), by="test", reason="", at=now)

    def fix(self) -> None:
        """All that fails with r1 in production, and a candidate."""
        self.file("alert_tested", delivered=True, levels=[])
        self.file("runbook", digest=configuration_digest(self.world.row()))
        self.file("proven", **msgspec.to_builtins(Proven(release=1, ok=True, load_s=0.1)))
        far = self.place.clock.unix() + 1_000  # it goes on beating
        holds = tuple(
            ReplicaHold("flights", release, placement, "ready")
            for release in (1, 2)
            for placement in Placement
        )
        self.place.roster.publish(
            Member(
                name="w0",
                host="here",
                pid=1,
                kind="gateway",
                address="127.0.0.1:1",
                started_at=at(),
                beat_at=far,
                ledger_at=far,
                epochs={"flights": 99},
                holds=holds,
            )
        )

    def begin(self, command: AnyCommand) -> None:
        """Do something just now: evidence may be as old as that."""
        self.world.do(command, at=self.place.clock.now())

    def notes(self, kind: str) -> list[Any]:
        found = self.place.ledger.entries("flights", kind, limit=50)
        return [entry.event for entry in found if isinstance(entry.event, Note)]

    def failing(self) -> list[str]:
        return list(check_of(self.place, "flights", by="test", again=False).failed)


@pytest.mark.parametrize(
    "said, loopback, refuses",
    [("refuse", True, True), (None, False, True), (None, True, False), ("warn", False, False)],
)
def test_on_a_public_address_a_promotion_is_refused_and_else_warned(
    tmp_path: Path, said: Any, loopback: bool, refuses: bool
) -> None:
    site = Gated(tmp_path, policy(readiness=said), loopback=loopback)
    site.begin(Canary(release=2, weight=500))
    if not refuses:
        site.control().submit("flights", Promote(full=True), by="ada")
        assert (site.world.row().production, site.notes("proven")) == (2, [])
        assert site.said[0].startswith(
            "warning: a rollback of flights at night could fail or reach no one. Not set up: notification"
        )
        (noted,) = site.notes("readiness")
        assert (noted.body.ready, noted.body.promoting) == (False, "r2")
        return
    site.file("proven", **msgspec.to_builtins(Proven(release=1, ok=True)))
    with pytest.raises(Refused) as refused:
        site.control().submit("flights", Promote(full=True), by="ada")
    assert (refused.value.code, site.world.row().candidate) == ("not_ready", 2)
    assert site.notes("readiness") == []
    assert site.control().submit("flights", Rollback(), by="ada").state.candidate is None


@pytest.mark.parametrize("said, served", [(None, True), ("warn", True), ("refuse", False)])
def test_the_first_release_is_served_with_a_warning_where_others_reach_it(
    tmp_path: Path, said: Any, served: bool
) -> None:
    """A container listens on 0.0.0.0: what is not set up yet must not keep it from its first answer."""
    made = world(tmp_path, releases=2, configured=False)
    made.configure(msgspec.structs.replace(POLICY, readiness=said))
    place, told = Workplace(made.state_dir), list[str]()
    control = place.control(told.append, None, gate_of(place, loopback=False, say=told.append))
    if not served:
        with pytest.raises(Refused, match="not ready"):
            control.submit("flights", Promote(release=1), by="ada")
        return
    control.submit("flights", Promote(release=1), by="ada")
    assert made.row().production == 1
    assert ("the next promotion is refused" in told[0]) == (said is None)
    (noted,) = place.ledger.entries("flights", "readiness")
    assert isinstance(noted.event, Note)
    assert isinstance(noted.event.body, ReadinessNote)
    assert (noted.event.body.promoting, noted.event.body.ready) == ("r1", False)
    if said is None:
        made.do(Canary(release=2, weight=500))
        with pytest.raises(Refused, match="not ready"):
            control.submit("flights", Promote(full=True), by="ada")


def test_a_step_within_the_canary_and_another_command_pass_no_gate(tmp_path: Path) -> None:
    site = Gated(tmp_path, policy(readiness="refuse"))
    control = site.control()
    control.submit("flights", Canary(release=2, weight=100), by="ada")
    control.submit("flights", Promote(), by="ada")
    assert site.world.row().weight == 500
    control.submit("flights", Rollback(), by="ada")
    assert site.said == []


def test_a_gateway_that_others_reach_counts_whatever_the_configuration_says(tmp_path: Path) -> None:
    site = Gated(tmp_path, policy())
    site.begin(Canary(release=2, weight=500))
    site.file("proven", **msgspec.to_builtins(Proven(release=1, ok=True)))
    member = Member(
        name="w0",
        host="h",
        pid=1,
        kind="gateway",
        address="0.0.0.0:8080",
        started_at=at(),
        beat_at=0.0,
        ledger_at=0.0,
    )
    site.place.roster.publish(member)
    with pytest.raises(Refused, match="not ready"):
        site.control().submit("flights", Promote(full=True), by="ada")


def test_an_override_goes_past_it_and_is_kept(tmp_path: Path) -> None:
    site = Gated(tmp_path, policy(readiness="refuse"))
    site.begin(Canary(release=2, weight=500))
    site.control().submit("flights", Promote(full=True, override="an incident"), by="ada")
    (entry,) = site.place.ledger.entries("flights", "override")
    assert isinstance(entry.event, Note)
    assert isinstance(entry.event.body, OverrideNote)
    assert (entry.by, entry.reason, entry.event.body.promoting) == ("ada", "an incident", "r2")
    assert "deployable" in entry.event.body.failed
    promoted = site.place.ledger.entries("flights", "promoted")[0]
    assert not isinstance(promoted.event, Note)
    told = conditions.happened(promoted.event, by="ada", actor=promoted.actor, reason="")
    assert told is not None


def test_the_patrol_passes_the_same_gate_and_continues_when_it_is_fixed(tmp_path: Path) -> None:
    site = Gated(tmp_path, policy(QUICK, readiness="refuse"))
    site.file("proven", **msgspec.to_builtins(Proven(release=1, ok=False, why="gone")))
    site.begin(Shadow(release=2))
    site.pass_time(12)
    for _ in range(3):
        site.look()
    assert (site.told(), site.world.row().production) == (["ShadowPassed"], 1)
    assert "flights" in site.patrol._unready
    site.fix()
    assert site.failing() == []
    site.look()
    assert site.world.row().production == 1
    site.patrol._unready.clear()  # a minute later
    site.look()
    assert (site.told(), site.world.row().production) == (["ShadowPassed", "Promoted"], 2)


def test_people_who_change_have_to_be_tested_again(tmp_path: Path) -> None:
    site = Gated(tmp_path, policy())
    site.file("alert_tested", delivered=True, levels=[])
    assert "notification" not in site.failing()
    other = policy(memory_mb=100)
    site.world.do(Configure(policy=other, digest="sha256:other"))
    assert "notification" not in site.failing()
    people = policy(escalation=PEOPLE["escalation"][::-1])
    site.world.do(Configure(policy=people, digest="sha256:people"))
    assert "notification" in site.failing()


def test_a_result_is_recorded_when_it_is_news(tmp_path: Path) -> None:
    site = Gated(tmp_path, policy())
    assert site.failing() == site.failing() == ["notification", "runbook"]
    assert len(site.notes("readiness")) == 1
    site.file("alert_tested", delivered=True, levels=[])
    assert site.failing() == ["runbook"]
    assert [note.body.failed for note in site.notes("readiness")] == [
        ("runbook",),
        ("notification", "runbook"),
    ]


def test_a_way_back_that_the_policy_lets_go_of_is_judged_by_how_long_it_loads(
    tmp_path: Path,
) -> None:
    """A quiet endpoint does not carry a warning for ever; a silent replica still causes one."""
    site = Gated(tmp_path, policy(back_window="1d"))
    now = site.place.clock.unix()
    ago = datetime.fromtimestamp(now - 2 * DAY_S, UTC).isoformat().replace("+00:00", "Z")
    site.world.do(Promote(release=2, override="a test"), at=ago)
    site.fix()
    (member,) = site.place.roster.members()
    site.place.roster.publish(
        msgspec.structs.replace(
            member, holds=tuple(hold for hold in member.holds if hold.release == 2)
        )
    )
    checks = {
        one.name: one for one in check_of(site.place, "flights", by="test", again=False).checks
    }
    assert checks["warm"].outcome == "pass"
    assert "r1 is not kept loaded, since its back_window of 1d has ended" in checks["warm"].why
    assert site.failing() == ["drill"]
    site.file("proven", **msgspec.to_builtins(Proven(release=1, ok=True, load_s=301.0)))
    assert site.failing() == ["warm", "drill"]
    site.file("proven", **msgspec.to_builtins(Proven(release=1, ok=True, load_s=3.0)))
    site.place.roster.publish(msgspec.structs.replace(member, beat_at=now - 60))
    assert site.failing() == ["warm", "drill"]
    site.world.configure(policy(back_window="3d"))
    site.file("runbook", digest=configuration_digest(site.world.row()))
    site.place.roster.publish(msgspec.structs.replace(member, holds=()))
    assert site.failing() == ["warm", "drill"]


def test_each_check_is_a_line(tmp_path: Path) -> None:
    site = Gated(tmp_path, policy())
    text = check_text(check_of(site.place, "flights", by="test", again=False))
    lines = text.splitlines()
    assert (lines[0], len(lines)) == ("flights is NOT READY: 2 of 10 checks fail", 11)
    assert "  FAIL  runbook       there is no runbook; fix: kedge runbook flights" in lines


def test_a_release_of_another_library_is_reported_and_fails_no_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Gated(tmp_path, policy())
    digest = site.world.row().releases[1].model_digest
    proof = Proof({}, {}, written_with={"scikit-learn": "0.1"})
    monkeypatch.setattr(
        DirectoryArtifacts,
        "proof",
        lambda _, asked: proof if asked == digest else Proof({}, {}),
    )
    before = site.failing()
    found = check_of(site.place, "flights", by="test", again=False)
    assert (found.libraries, list(found.failed)) == (
        (f"r1 was trained with scikit-learn 0.1; {version('scikit-learn')} is installed here",),
        before,
    )
    assert f"  !     {found.libraries[0]}" in check_text(found).splitlines()


# ---------------------------------------------------------------- control


class Asked:
    """Answers what a test wants, and counts."""

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ("drill",)
        self.epochs: list[int] = []

    def __call__(self, state: State) -> tuple[str, ...]:
        self.epochs.append(state.epoch)
        if self.names == ("fault",):
            raise Unavailable("gone", code="ledger_gone")
        return self.names


def test_control_looks_at_what_stood_still_and_keeps_its_last_word(tmp_path: Path) -> None:
    site, asked, leads = Gated(tmp_path, policy()), Asked(), [True]
    clock = HandClock()
    readiness = Readiness(
        Duty(clock, ProcessFaults(clock), leads=lambda: leads[0]),
        ledger=site.place.ledger,
        check=asked,
    )
    readiness.loop.turn()
    assert (asked.epochs, readiness.unready) == ([], {})
    readiness.loop.turn()
    assert readiness.unready == {"flights": ("drill",)}
    site.begin(Canary(release=2, weight=500))
    readiness.loop.turn()
    assert len(asked.epochs) == 1
    asked.names = ("fault",)
    readiness.loop.turn()
    clock.go(EVERY_S)
    assert (len(asked.epochs), readiness.unready) == (2, {"flights": ("drill",)})
    asked.names = ()
    readiness.loop.turn()
    assert readiness.unready == {"flights": ()}
    leads[0] = False
    readiness.loop.turn()
    assert readiness.unready == {}


def test_a_lasting_lack_of_readiness_is_a_warning_until_it_ends(tmp_path: Path) -> None:
    place = Place(tmp_path, policy(escalation=(), readiness="refuse"))
    place.sight = Sight(unready={"flights": ("drill",)})
    place.look()
    assert place.store.listed(None, over=True, limit=9) == ()
    place.clock.go(REFUSING_S)
    place.look()
    (alert,) = place.store.listed(None, over=False, limit=9)
    assert (alert.key, alert.level) == ("unready", "warn")
    assert alert.summary == "it is not ready for a rollback: drill"
    place.sight = Sight()  # control restarted, and no patrol has looked yet
    place.look()
    assert place.store.listed(None, over=False, limit=9)[0].open
    place.sight = Sight(unready={"flights": ()})
    place.look()
    (alert,) = place.store.listed(None, over=True, limit=9)
    assert alert.resolved == "it is ready again"


def test_followers_of_a_head_pass_the_gate_too_and_a_reason_goes_past_it(tmp_path: Path) -> None:
    site = Gated(tmp_path, policy(readiness="refuse"))
    site.file("proven", **msgspec.to_builtins(Proven(release=1, ok=True)))
    moves = {"flights": Promote(release=2, override="the head moved")}
    asked = {"by": "ada", "reason": "head", "head": ("flight/1", 1)}
    with pytest.raises(Refused, match="not ready"):
        site.control().together(moves, **asked)
    assert site.world.row().production == 1
    site.control().together(moves, **asked, override="an incident")
    assert (site.world.row().production, len(site.notes("override"))) == (2, 1)
