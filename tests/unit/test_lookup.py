"""Values by key: present, missing, too old, and a store that cannot be reached."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kedge.adapters.online.sqlite import SqliteOnline
from kedge.core.errors import ModelFailure, Unavailable, UnfitModel
from kedge.core.features.generations import META, LookupRules, Mark, Online, Run, pack_mark
from kedge.core.features.schema import Feature, Spec, declared
from kedge.transforms.lookup import Lookup, keys_of, lookups_of, pack

SCHEMA = declared(
    "delays/1",
    {
        "mean": Feature("float32", default=0.5),
        "pair": Feature("float32", (2,), null=True),
    },
    ["carrier", "hour"],
)
RUN = Run("delays/1", 1, 1)
HOUR = 3600.0
ASKED = {"carrier": np.array(["AA", "UA", "AA"], object), "hour": np.array([1, 1, 2])}


class Clock:
    """Unix time and time since the start, both set by hand."""

    def __init__(self) -> None:
        self.unix = 100 * HOUR
        self.since = 0.0

    @property
    def both(self) -> tuple[Callable[[], float], Callable[[], float]]:
        return lambda: self.unix, lambda: self.since


class Fails:
    """A real store behind a line that can be cut."""

    def __init__(self, store: SqliteOnline) -> None:
        self.store = store
        self.cut = False
        self.asked = 0

    def read(self, namespace: str, keys: Sequence[str]) -> list[bytes | None]:
        self.asked += 1
        if self.cut:
            raise Unavailable("cut", code="online_unavailable")
        return self.store.read(namespace, keys)

    def write(self, namespace: str, rows: Iterable[tuple[str, bytes]]) -> int:
        return self.store.write(namespace, rows)

    def namespaces(self) -> tuple[str, ...]:
        if self.cut:
            raise Unavailable("cut", code="online_unavailable")
        return self.store.namespaces()

    def drop(self, namespace: str) -> None:
        self.store.drop(namespace)

    def count(self, namespace: str) -> int:
        return self.store.count(namespace)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path) -> Fails:
    """AA at hour 1 is known since hour 99, AA at hour 2 since hour 90; a value may be 5 hours old."""
    found = Fails(SqliteOnline(tmp_path / "online.db"))
    for hour, key, number in ((99, "AA", 1), (90, "AA", 2)):
        columns = {"mean": np.array([hour], np.float32), "pair": np.array([[1, 2]], np.float32)}
        keys = [
            key
            for key in keys_of(
                {"carrier": np.array([key]), "hour": np.array([number])}, SCHEMA.keys
            )
            if key
        ]
        found.write(RUN.namespace, pack(SCHEMA, keys, hour * HOUR, columns))
    found.write(RUN.namespace, [(META, pack_mark(Mark(99 * HOUR, 2, 5 * HOUR)))])
    return found


def opened(store: Fails, clock: Clock, *, alone: bool = True, **rules: Any) -> Lookup:
    return Lookup(store, RUN, SCHEMA, LookupRules(**rules), clock.both, alone=alone)


def test_a_value_is_found_and_what_is_not_there_has_the_default(store: Fails, clock: Clock) -> None:
    lookup = opened(store, clock)
    found = lookup.columns(ASKED)
    assert found["mean"].dtype == np.float32
    assert found["mean"].tolist() == [99.0, 0.5, 0.5]
    assert found["pair"].shape == (3, 2)
    assert found["pair"][0].tolist() == [1, 2]
    assert np.isnan(found["pair"][1:]).all(), "no default: null"
    assert lookup.counts == {"delays.missing": 1, "delays.expired": 1}
    assert lookup.columns(ASKED)["mean"].tolist() == [99.0, 0.5, 0.5]
    assert lookup.counts == {"delays.missing": 2, "delays.expired": 2}, "cumulative"


def test_a_value_expires_by_what_it_knows_and_a_clock_behind_expires_nothing(
    store: Fails, clock: Clock
) -> None:
    clock.unix = 105 * HOUR
    assert opened(store, clock).columns(ASKED)["mean"].tolist() == [0.5, 0.5, 0.5]
    clock.unix = 10 * HOUR
    assert opened(store, clock).columns(ASKED)["mean"].tolist() == [99.0, 0.5, 90.0]


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ("missing", "features_missing"),
        ("expired", "features_expired"),
        ("outage", "features_outage"),
    ],
)
def test_each_rule_refuses_by_a_code_of_its_own(
    store: Fails, clock: Clock, what: str, code: str
) -> None:
    rules: dict[str, Any] = {what: "refuse"}
    lookup = opened(store, clock, **rules)
    store.cut = what == "outage"
    with pytest.raises(ModelFailure) as refused:
        lookup.columns(ASKED)
    assert refused.value.code == code
    assert "AA" not in str(refused.value), "a key can be a person's name"


def test_an_alert_that_a_refusal_suppresses_is_still_counted(store: Fails, clock: Clock) -> None:
    lookup = opened(store, clock, missing="refuse")
    with pytest.raises(ModelFailure):
        lookup.columns(ASKED)
    assert lookup.counts == {"delays.missing": 1, "delays.expired": 1}


def test_production_answers_for_a_candidate_and_makes_do_for_itself(
    store: Fails, clock: Clock
) -> None:
    lookup = opened(store, clock, alone=False, missing="production")
    with pytest.raises(ModelFailure) as refused:
        lookup.columns(ASKED)
    assert refused.value.code == "features_unread"
    lookup.alone = True
    assert lookup.columns(ASKED)["mean"].tolist() == [99.0, 0.5, 0.5]


def test_a_store_that_fails_is_avoided_ever_longer_and_used_again_at_once(
    store: Fails, clock: Clock
) -> None:
    lookup = opened(store, clock)
    store.cut, before = True, store.asked
    trials = []
    for second in range(40):
        clock.since = float(second)
        assert lookup.columns(ASKED)["mean"].tolist() == [0.5] * 3
        if store.asked > before:
            trials.append(second)
            before = store.asked
    assert trials == [0, 1, 3, 7, 15, 31]
    assert lookup.counts == {"delays.outage": 120}
    store.cut, clock.since = False, 100.0
    assert lookup.columns(ASKED)["mean"][0] == 99.0
    store.cut = True
    lookup.columns(ASKED)
    clock.since = 101.0
    store.cut = False
    assert lookup.columns(ASKED)["mean"][0] == 99.0, "a second again, and no longer"


def test_a_longer_life_is_noticed_within_a_minute(store: Fails, clock: Clock) -> None:
    lookup = opened(store, clock)
    store.write(RUN.namespace, [(META, pack_mark(Mark(99 * HOUR, 2, None)))])
    assert lookup.columns(ASKED)["mean"][2] == 0.5
    clock.since = 61.0
    assert lookup.columns(ASKED)["mean"][2] == 90.0


def test_a_run_that_is_not_there_is_refused_and_a_store_that_is_not_there_is_an_outage(
    store: Fails, clock: Clock
) -> None:
    with pytest.raises(UnfitModel) as refused:
        Lookup(store, Run("delays/1", 1, 9), SCHEMA, LookupRules(), clock.both)
    assert refused.value.code == "generation_gone"
    store.cut = True
    assert opened(store, clock).columns(ASKED)["mean"].tolist() == [0.5] * 3


def test_a_damaged_row_is_a_missing_one(store: Fails, clock: Clock) -> None:
    store.write(RUN.namespace, [("AA\x1f1", b"short")])
    lookup = opened(store, clock)
    assert lookup.columns(ASKED)["mean"].tolist() == [0.5] * 3
    assert lookup.counts["delays.missing"] == 2


@pytest.mark.parametrize(
    ("values", "key"),
    [
        (np.array([7]), "7"),
        (np.array([7.0]), "7"),
        (np.array(["7"], object), "7"),
        (np.array(["a b"], object), "a b"),
        (np.array([True]), "True"),
        (np.array([2**53 + 1]), "9007199254740993"),
        (np.array([2**64 - 1], np.uint64), "18446744073709551615"),
        (np.array(["007"], object), "007"),
        (np.array([" 7 "], object), " 7 "),
        (np.array(["7.4"], object), "7.4"),
    ],
)
def test_a_key_is_the_same_text_whatever_wrote_it(values: Any, key: str) -> None:
    assert keys_of({"k": values}, ["k"]) == [key]
    assert keys_of({"k": values, "l": values}, ["k", "l"]) == [f"{key}\x1f{key}"]


@pytest.mark.parametrize(
    "value", [None, float("nan"), float("inf"), "", 7.5, 2.0**53, "a\x1fb", "\x1emeta"]
)
def test_what_is_no_key_is_none_everywhere(store: Fails, clock: Clock, value: Any) -> None:
    none = np.array([value], object)
    assert keys_of({"k": none}, ["k"]) == [None]
    assert keys_of({"k": np.array(["a"], object), "l": none}, ["k", "l"]) == [None]
    lookup = opened(store, clock)
    asked = {"carrier": np.array([value, "AA"], object), "hour": np.array([1, 1])}
    assert lookup.columns(asked)["mean"].tolist()[0] == 0.5, "the default of the field"
    assert lookup.counts["delays.missing"] >= 1


def test_a_release_that_names_no_run_of_what_it_reads_cannot_be_loaded(tmp_path: Path) -> None:
    spec = Spec(schema=SCHEMA, entry="a:b", raw=(), reads=(SCHEMA,))
    online = Online("sqlite", str(tmp_path / "online.db"))
    with pytest.raises(UnfitModel, match="names no run of delays/1"):
        lookups_of(spec, None, online, alone=True)
    nothing = Spec(schema=SCHEMA, entry="a:b", raw=())
    assert lookups_of(nothing, None, Online("nonsense", ""), alone=True) == ()
    with pytest.raises(UnfitModel) as refused:
        lookups_of(spec, RUN.label, Online("nonsense", ""), alone=True)
    assert refused.value.code == "unknown_store"
