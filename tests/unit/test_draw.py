"""Drawing of a screen: widths, wide characters, colours, and texts that try to be more than text."""

from __future__ import annotations

import re

import pytest
from rich.cells import cell_len

from kedge.cli.blocks import Column, Grid, Paragraph, Screen, bad, facts, faint, good, strong
from kedge.cli.screen.draw import draw

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b1m\u202e[bold]x[/bold]\n:smile: forged"
COLOUR = re.compile("\x1b\\[[0-9;]*m")
COLUMNS = (
    Column("ENDPOINT"),
    Column("PRODUCTION", whole=True),
    Column("REQUESTS", right=True, whole=True),
    Column("REASON"),
)
SCREEN: Screen = [
    Paragraph((strong("flights"), "  a sentence that is too long for one line of sixty columns ")),
    Grid(
        COLUMNS,
        [
            ("flights", good("r1 (v1)"), "12,345", "errors are not doubled at 25 % of callers"),
            ("予測モデル-東京", bad("r22 (v9)"), "7", "価格が変わったので比較をやり直す" * 3),
            (EVIL, faint("-"), "-", EVIL),
            ("a" * 90, "r3 (v3)", "1", "b" * 300),
        ],
        2,
    ),
    facts([("way back", EVIL), ("x" * 30, "y z " * 60)]),
]


TERMINAL = {"TERM": "xterm-256color"}


def drawn(screen: Screen, width: int, **environ: str) -> str:
    return draw(screen, width, {**TERMINAL, **environ})


def plain(screen: Screen, width: int) -> str:
    return COLOUR.sub("", drawn(screen, width))


@pytest.mark.parametrize("width", [20, 60, 79, 80, 120, 200])
def test_a_line_is_never_wider_than_the_terminal(width: int) -> None:
    lines = plain(SCREEN, width).split("\n")
    assert max(map(cell_len, lines)) <= width
    assert not [line for line in lines if line != line.rstrip()]


@pytest.mark.parametrize("width", [60, 200])
def test_nothing_of_a_value_is_lost(width: int) -> None:
    told = re.sub(r"\s", "", plain(SCREEN, width))
    assert told.count("a") >= 90
    assert told.count("b") >= 300
    assert "12,345" in told
    assert told.count("価") == 3


def test_a_value_is_text_and_nothing_else() -> None:
    told = plain(SCREEN, 200)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", told)
    assert "[bold]x[/bold]\\u000a:smile: forged" in told
    assert "owned" in told
    assert not re.search("^forged", told, re.MULTILINE)


def test_a_number_stays_beside_its_unit() -> None:
    words = Paragraph("it takes 25 % of callers and about 40 min more at 3.5 requests/s to show it")
    for width in range(20, 60):
        told = plain([words], width)
        assert not re.search(r"\n(%|min|requests/s)", told), width


def test_colour_only_stresses_what_the_words_say() -> None:
    assert "\x1b[32m" in drawn(SCREEN, 80)
    without = drawn(SCREEN, 80, NO_COLOR="1")
    assert not re.search("\x1b\\[[0-9;]*3[0-9]", without)
    assert COLOUR.sub("", without) == plain(SCREEN, 80)
    assert drawn(SCREEN, 80, TERM="dumb") == plain(SCREEN, 80)


def test_a_table_that_does_not_fit_is_a_list_of_each_row_or_another_table() -> None:
    wide = Grid([Column(f"TITLE{n}", whole=True) for n in range(9)], [["value"] * 9])
    listed = plain([wide], 60).split("\n")
    assert listed == [f"TITLE{n}  value" for n in range(9)]
    short = wide._replace(narrow=Grid((Column("ALL"),), [["nine values"]]))
    assert plain([short], 60) == "ALL\nnine values"


def test_an_empty_table_is_nothing() -> None:
    assert drawn([Grid(COLUMNS, [])], 80) == ""
