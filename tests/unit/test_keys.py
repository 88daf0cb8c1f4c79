"""Keys: one text for one value, and none for an ambiguous one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kedge.core.keys import EXACT, JOINED, spell, spell_all

WORDS = st.text(st.characters(exclude_characters="\x1e\x1f"), min_size=1)


@given(st.integers(-(2**63), 2**64 - 1))
def test_a_whole_number_is_its_digits_whichever_type_holds_it(number: int) -> None:
    assert spell(number) == str(number)
    as_float = float(number)
    assert spell(as_float) == (str(number) if abs(as_float) < EXACT else None)


@given(st.lists(WORDS, min_size=2, max_size=4), st.lists(WORDS, min_size=2, max_size=4))
def test_different_rows_have_different_keys(one: list[str], other: list[str]) -> None:
    (first,) = spell_all([[part] for part in one])
    (second,) = spell_all([[part] for part in other])
    assert (first == second) == (one == other)


@given(WORDS)
def test_words_stay_as_they_are(word: str) -> None:
    assert spell(word) == word
    assert spell(f"{word}{JOINED}") is None
    assert spell_all([[word, None], [7, 7]]) == [f"{word}{JOINED}7", None]
