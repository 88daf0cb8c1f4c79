"""Where each setting stands: every place that tomllib reads has its lines, whatever the form."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kedge.config.load import find_faults, read
from kedge.config.places import ConfigFault, Lines, enclosing, find_in, find_places, locate
from kedge.core.errors import BadConfig

FORMS = """\
# a comment with [brackets] and "quotes"
title = "a # no comment"   # [not.a.table]

[server]
port = 8080
host = '127.0.0.1'
numbers = [
  1, 2,   # two
  {a = 1, "b c" = [true]},
]

[endpoints.wine.owner]
name = \"\"\"Ada
Lovelace \\" \"\"\"
contact = '''it's
here''''

[endpoints."2 late"]
canary.steps = [1, 5]
"quoted.key".deeper = 2026-11-30T10:00:00Z
output = {kind = "class", label = "l#"}

[[endpoints.wine.escalation]]
after = "0s"
[[endpoints.wine.escalation]]
after = "5m"
[endpoints.wine.escalation.more]
x = 1
"""


def test_every_form_is_found_with_its_lines() -> None:
    places = find_places(FORMS)
    assert set(find_in(tomllib.loads(FORMS))) <= set(places)
    assert places["title"] == Lines(2, 2)
    assert places["server"] == Lines(4, 4)
    assert places["server.numbers"] == Lines(7, 10)
    assert places["server.numbers[2].b c[0]"] == Lines(9, 9)
    assert places["endpoints.wine.owner.name"] == Lines(13, 14)
    assert places["endpoints.wine.owner.contact"] == Lines(15, 16)
    assert places["endpoints.2 late.canary"] == Lines(19, 19)
    assert places["endpoints.2 late.quoted.key.deeper"] == Lines(20, 20)
    assert places["endpoints.wine.escalation[1].after"] == Lines(26, 26)
    assert places["endpoints.wine.escalation[1].more.x"] == Lines(28, 28)


KEYS = st.text("ab-_", min_size=1, max_size=3) | st.text("a .\"'#]=\\é", min_size=1, max_size=4)
SCALARS: st.SearchStrategy[Any] = (
    st.integers(-9, 99) | st.booleans() | st.text("a\"'\\#[]{}=,\n\té", max_size=6)
)
VALUES = st.recursive(
    SCALARS, lambda below: st.lists(below, max_size=3) | st.dictionaries(KEYS, below, max_size=3)
)


def written(value: Any) -> str:
    """A value as TOML in one line, with every string as a basic one."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        plain = {"\n": "\\n", "\t": "\\t", '"': '\\"', "\\": "\\\\"}
        return '"' + "".join(plain.get(c, c) for c in value) + '"'
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{written(k)} = {written(v)}" for k, v in value.items()) + "}"
    return str(value)


@given(st.dictionaries(KEYS, VALUES, max_size=4), st.dictionaries(KEYS, VALUES, max_size=3))
def test_what_tomllib_reads_has_a_place(top: dict[str, Any], table: dict[str, Any]) -> None:
    lines = [f"{written(k)} = {written(v)} # '\"[" for k, v in top.items()]
    lines += ["[a_table.'x y']", *(f"{written(k)}={written(v)}" for k, v in table.items())]
    text = "\n".join(lines)
    read_ = tomllib.loads(text)
    places = find_places(text)
    assert set(find_in(read_)) <= set(places)
    for number, name in enumerate(top, 1):
        assert places[name] == Lines(number, number)


def test_a_place_that_is_missing_has_the_line_of_the_table_around_it() -> None:
    places = find_places('[endpoints.wine]\noutput = {kind = "binary"}\n')
    assert [*enclosing("a.b[1].c")] == ["a.b[1].c", "a.b[1]", "a.b", "a"]
    found = locate("endpoints.wine.output.score: kind needs: a name", places)
    assert found == ConfigFault("endpoints.wine.output.score", 2, "kind needs: a name")
    assert found.told("k.toml") == "k.toml:2: endpoints.wine.output.score: kind needs: a name"
    assert locate("online.url: redis needs one", places).line is None


def test_each_fault_of_a_file_has_its_line() -> None:
    text = (
        '\n[server]\nprot = 1\n\n[endpoints.wine]\naudience = "public"\ncanary = {steps = [5, 1]}\n'
    )
    assert [(f.line, f.place) for f in find_faults(text)] == [
        (3, "server.prot"),
        (6, "endpoints.wine.audience"),
        (7, "endpoints.wine.canary.steps"),
    ]
    with pytest.raises(BadConfig, match=r"mine\.toml:3: server\.prot: unknown setting"):
        read(text, where="mine.toml")
