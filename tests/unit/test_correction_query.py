"""The query that asks for a correction: read whole, or refused."""

from __future__ import annotations

import pytest

from kedge.core.errors import BadRequest
from kedge.web.correction import LONGEST, corrector
from support.access import ADMIN


@pytest.mark.parametrize(
    ("query", "by"),
    [
        (b"", ""),
        (b"correct=false", ""),
        (b"correct=true", "api (token api)"),
        (b"correct=true&by=Ada", "Ada (token api)"),
        (b"by=Ada+L%C3%B6w&correct=true", "Ada Löw (token api)"),
    ],
)
def test_it_names_the_author_of_a_correction(query: bytes, by: str) -> None:
    assert corrector(query, ADMIN) == by


@pytest.mark.parametrize(
    "query",
    [
        b"corect=true",
        b"correct=1",
        b"correct=",
        b"correct",
        b"correct=true&correct=true",
        b"by=Ada",
        b"correct=false&by=Ada",
        b"correct=true&by=",
        b"correct=true&by=%20",
        b"correct=true&by=a%00b",
        b"correct=true&by=" + b"a" * (LONGEST + 1),
        b"correct=true&by=%ff",
        b"correct=tr\xfcue",
        b"&",
        b"correct=true&by=a&by=b&by=c",
    ],
)
def test_anything_else_is_refused(query: bytes) -> None:
    with pytest.raises(BadRequest) as refused:
        corrector(query, ADMIN)
    assert refused.value.code == "bad_query"
    assert len(str(refused.value)) < 2 * LONGEST + 100
