"""[defaults]: one rule for merging, and faults that name where they really stand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kedge.config.defaults import merge
from kedge.config.load import find_faults, read
from kedge.config.model import Settings
from kedge.config.places import find_in
from kedge.core.errors import BadConfig
from kedge.core.values import Contact, Escalation

SHARED = """
[defaults]
owner = {name = "Ada L", contact = "mailto:ada@example.org"}
escalation = [{after = "0s", to = ["owner"]}]
canary = {steps = [5, 25], dwell = "30m"}
guardrails.errors.worse_by = 0.1

[endpoints.wine]

[endpoints.flights]
escalation = []
canary = {steps = [1, 10, 50]}
guardrails.latency.worse_by = 2
"""


def faults(text: str) -> list[str]:
    with pytest.raises(BadConfig) as refused:
        read(text, where="k")
    return refused.value.faults


def test_tables_are_merged_at_any_depth_and_the_rest_is_replaced() -> None:
    wine, flights = (read(SHARED).endpoints[name] for name in ("wine", "flights"))
    assert wine.owner == flights.owner == Contact("Ada L", "mailto:ada@example.org")
    assert wine.escalation == (Escalation("0s", ("owner",)),)
    assert flights.escalation == ()
    assert (wine.canary.steps, wine.canary.dwell) == ((5, 25), "30m")
    assert (flights.canary.steps, flights.canary.dwell) == ((1, 10, 50), "30m")
    assert [*flights.guardrails] == ["latency", "errors"]


def test_a_file_without_defaults_is_read_as_ever() -> None:
    text = "[endpoints.wine]\n"
    assert read(text) == read(f"{text}[defaults]\n")
    assert read("[defaults]\nmemory_mb = 512\n") == Settings()


TABLES = st.recursive(
    st.integers() | st.lists(st.integers(), max_size=2),
    lambda below: st.dictionaries(st.sampled_from("abc"), below, max_size=3),
)
TOP = st.dictionaries(st.sampled_from("abc"), TABLES, max_size=3)


@given(TOP, TOP)
def test_an_endpoints_own_word_always_stands(
    own: dict[str, object], defaults: dict[str, object]
) -> None:
    merged, inherited = merge(own, defaults)
    assert set(find_in(own)) <= set(find_in(merged))
    assert inherited == set(find_in(merged)) - set(find_in(own))
    assert inherited <= set(find_in(defaults))
    assert merge(own, {}) == (own, set())
    assert merge({}, defaults)[0] == defaults
    assert merge(merged, defaults)[0] == merged


def test_a_fault_of_the_defaults_is_reported_once_there_with_its_endpoints() -> None:
    text = SHARED.replace('dwell = "30m"', 'dwell = "soon"').replace("[5, 25]", "[25, 5]")
    assert faults(text) == [
        "k:5: defaults.canary.steps: must grow, within 0 to 100 per cent; got [25.0, 5.0] (in endpoints.wine)",
        "k:5: defaults.canary.dwell: 'soon' is not a duration; write 500ms, 90s, 10m, 1h or 7d (in endpoints.wine, endpoints.flights)",
    ]
    own = SHARED.replace("[1, 10, 50]", "[10, 1]")
    assert faults(own) == [
        "k:12: endpoints.flights.canary.steps: must grow, within 0 to 100 per cent; got [10.0, 1.0]"
    ]


def test_an_unknown_key_of_the_defaults_is_known_as_theirs() -> None:
    assert faults("[defaults]\nonwer = 1\n[endpoints.a]\n[endpoints.b]\n") == [
        "k:2: defaults.onwer: unknown setting, did you mean owner? (in endpoints.a, endpoints.b)"
    ]
    assert faults("[defaults]\nonwer = 1\n") == [
        "k:2: defaults.onwer: unknown setting, did you mean owner?"
    ]
    assert [f.place for f in find_faults("defaults = 3\n[endpoints.a]\n")] == ["defaults"]


def test_what_is_missing_of_a_merged_table_is_the_endpoints_own_fault() -> None:
    text = (
        '[defaults]\n[defaults.owner]\nname = "Ada L"\n[endpoints.a.owner]\ncontact = "a@b.org"\n'
    )
    assert read(text).endpoints["a"].owner == Contact("Ada L", "a@b.org")
    assert faults('[defaults.owner]\nname = "Ada L"\n[endpoints.a]\n[endpoints.b.owner]\n') == [
        "k:1: defaults.owner.contact: is missing (in endpoints.a)",
        "k:4: endpoints.b.owner.contact: is missing",
    ]
