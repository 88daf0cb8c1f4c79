"""Entities: header, field and command line spell one thing in one way, or refuse it with a reason."""

from __future__ import annotations

from typing import Any
from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kedge.core.entities import spell, spell_header
from kedge.core.errors import BadRequest

NAMES = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=20)


def refused(ask: Any, value: Any, **more: Any) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        ask(value, **more)
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    "value, entity",
    [
        (42, "42"),
        (42.0, "42"),
        ("42", "42"),
        ("42.0", "42"),
        ("42.000", "42"),
        (" 42 ", "42"),
        (-7, "-7"),
        (-7.0, "-7"),
        ("-7.0", "-7"),
        (0, "0"),
        (-0.0, "0"),
        ("-0.0", "0"),
        ("-0", "0"),
        ("0.0", "0"),
        (10, "10"),
        ("10", "10"),
        ("100.0", "100"),
        (2**63, str(2**63)),
        ("9007199254740993.0", "9007199254740993"),  # text is never rounded
        (True, "true"),
        (False, "false"),
        # What is no plain number is text, and stays what it is.
        ("007", "007"),
        ("007.0", "007.0"),
        ("4.2e1", "4.2e1"),
        ("+42", "+42"),
        ("1.50", "1.50"),
        ("v1.0", "v1.0"),
        ("1.2.0", "1.2.0"),
        ("Zo%C3%AB", "Zo%C3%AB"),
        ("a b", "a b"),
        ("李雷", "李雷"),
        ("e\u0301", "\u00e9"),
        # No entity is named.
        (None, None),
        (float("nan"), None),
        ("", None),
        (" \t ", None),
    ],
)
def test_one_entity_has_one_spelling(value: object, entity: str | None) -> None:
    assert spell(value) == entity


@given(NAMES)
def test_header_and_field_name_the_same_entity(name: str) -> None:
    """In UTF-8, composed or not."""
    assert spell_header(name.encode()) == spell(name) == spell(normalize("NFD", name))


@given(st.integers(-(2**53) + 1, 2**53 - 1))
def test_a_whole_number_is_one_entity_whatever_it_is_sent_as(number: int) -> None:
    """Integer, float, their texts, and the header."""
    told = {spell(number), spell(float(number)), spell(str(number)), spell(f"{number}.0")}
    assert told == {str(number), spell_header(b"%d" % number), spell_header(b"%d.0" % number)}


@pytest.mark.parametrize("value", [0.5, -1e-9, float("inf"), float("-inf"), 2.0**53, 1e300])
def test_a_number_that_may_not_be_what_was_meant_is_refused(value: float) -> None:
    """Not whole, or a float that may have been rounded."""
    assert refused(spell, value).code == "bad_entity"


def test_a_narrow_float_is_rounded_sooner() -> None:
    """16,777,217 arrives in a float32 as 16,777,216, which is another caller."""
    assert spell(16_777_215.0, exact=2**24) == "16777215"
    assert refused(spell, 16_777_216.0, exact=2**24).code == "bad_entity"


@pytest.mark.parametrize("text", ["a\x00b", "a\nb", "\x1f", "a\x7f", "a\x85b", "a\ud800"])
def test_text_that_no_header_can_hold_is_refused(text: str) -> None:
    """The character is named as a number: it must not reach a terminal."""
    error = refused(spell, text)
    assert error.code == "bad_entity"
    assert "U+" in str(error)


@pytest.mark.parametrize("raw", [b"Zo\xeb", b"\xff", b"a\xc3", b"\xed\xa0\x80"])
def test_a_header_that_is_not_utf8_is_refused(raw: bytes) -> None:
    """Read as Latin-1 it would name another entity than the field does."""
    error = refused(spell_header, raw)
    assert error.code == "bad_entity"
    assert "UTF-8" in str(error)


def test_the_bound_is_in_bytes_whatever_the_way() -> None:
    assert spell("é" * 128) == spell_header("é".encode() * 128) == "é" * 128
    assert spell("e\u0301" * 85) == "é" * 85
    for ask, value in ((spell, "é" * 129), (spell_header, "é".encode() * 129), (spell, "e" * 257)):
        assert refused(ask, value).code == "entity_too_long"
    assert refused(spell, "x" * 10_000_000).code == "entity_too_long"
