"""One operation for each command: the command line, the API and the dashboard cannot differ."""

from __future__ import annotations

from pathlib import Path

import pytest

from contract.sql_world import world
from kedge.core.errors import Refused
from kedge.core.release.commands import Promote
from kedge.operations import commands, feature_rollouts, rollouts
from kedge.operations.ask import Ask
from kedge.operations.commands import Order
from kedge.operations.parameters import ReasonParameters, RollbackParameters
from kedge.operations.receipts import RollbackReceipt
from kedge.operations.served import SERVED
from kedge.web.dashboard.commands import ActAsk, carry_out
from kedge.workspace import Workplace


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    made = world(tmp_path)
    made.do(Promote(release=1))
    made.do(Promote(release=2, full=True, override="a test"))
    return Workplace(made.state_dir)


def test_following_without_a_feature_schema_is_refused_to_every_caller(place: Workplace) -> None:
    run = SERVED["features follow"].run
    assert run is not None
    with pytest.raises(Refused) as remote:
        run(Ask(place, "flights", ReasonParameters(), "ada"))
    with pytest.raises(Refused) as local:
        feature_rollouts.follow(Order(place, "flights", "ada"))
    assert remote.value.code == local.value.code == "no_schema"


def test_a_rollback_tells_every_caller_the_same(place: Workplace) -> None:
    run = SERVED["rollback"].run
    assert run is not None
    done = run(Ask(place, "flights", RollbackParameters(reason="late"), "ada", expect=3))
    assert isinstance(done, RollbackReceipt)
    assert (done.left, done.seq > 0, done.finding) == ("r2", True, None)
    entry = place.ledger.entries("flights", "rolled_back")[0]
    assert (entry.by, entry.reason) == ("ada", "late")
    row = place.ledger.read().states["flights"]
    ask = ActAsk(endpoint="flights", act="rollback", epoch=row.epoch, reason="late", by="ada")
    page = carry_out(place, ask, loopback=True)
    with pytest.raises(Refused) as refused:
        commands.roll_back(Order(place, "flights", "ada"))
    assert (page.state, page.text) == ("refused", str(refused.value))


def test_the_reason_of_an_override_stands_for_a_missing_one(place: Workplace) -> None:
    order = Order(place, "flights", "ada")
    rollouts.start_canary(order, "r1", weight=5, auto=False, override="tested elsewhere")
    commands.set_weight(order, 10, "hurry")
    commands.pause(order._replace(reason="look"))
    newest = [e for e in place.ledger.history("flights", 20) if hasattr(e.event, "evidence")]
    assert [entry.reason for entry in newest[:3]] == ["look", "hurry", "tested elsewhere"]
