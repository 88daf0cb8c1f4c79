"""The prose of the pages: sentences are short, outside of code, tables, headings and pictures."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
SENTENCE_WORDS = 30
"""The bound of a page. Writers aim at 25; the rest is for names and figures."""

FENCED = re.compile(r"(?ms)^ *```.*?^ *```")
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
PARTS = re.compile(r"\n\s*\n|\n(?=\s*(?:[-*|#>]|\d+\.)\s?)")
"""Between paragraphs, items of a list, headings and rows of a table."""
ENDS = re.compile(r'(?<=[.!?])["”)*_]*\s+(?=\S)| · ')
LINK = re.compile(r"\]\([^)]*\)")
CODE = re.compile(r"`[^`]*`")
CODES = re.compile(r"CODE(?:(?:,| and| or| ·| to) CODE)+")
"""A list of code spans, which is read as one word."""


def sentences(page: str) -> Iterator[str]:
    """Yield the sentences of a page; a code span counts as one word, and a link by its text."""
    for part in PARTS.split(COMMENT.sub("", FENCED.sub("", page))):
        text = " ".join(part.split())
        if not text.startswith(("|", "#", "![")):
            text = LINK.sub("]", text)
            yield from ENDS.split(CODES.sub("CODE", CODE.sub("CODE", text)))


def long_sentences(page: str) -> list[str]:
    return [
        sentence
        for sentence in sentences(page)
        if len(re.findall(r"\S*\w\S*", sentence)) > SENTENCE_WORDS
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_sentences_of_a_page_are_short(page: Path) -> None:
    assert long_sentences(page.read_text("utf-8")) == []


def test_long_sentences_of_a_page_are_found() -> None:
    thirty = " ".join(["word"] * 30)
    assert long_sentences(f"{thirty} more.\n") == [f"{thirty} more."]
    assert long_sentences(f"{thirty}. {thirty}.\n\n- {thirty}\n- {thirty}\n") == []
    assert long_sentences(f"{thirty[5:]} `one two three`, `four`.\n") == []
    assert long_sentences(f"| {thirty} | {thirty} |\n\n```console\n{thirty} {thirty}\n```\n") == []
