"""Printed text cannot control a terminal."""

from __future__ import annotations

import json

import pytest

from kedge.system.terminal import one_line, printable, show, show_json

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b1m\x7f\u202e\u200b\u2066\ufeff\u2028\r\x08\x00"


def test_every_control_character_is_spelled_out() -> None:
    assert printable("a\n\tb é 日本 ✓") == "a\n\tb é 日本 ✓"
    told = printable(EVIL)
    assert told.isascii()
    assert told.isprintable()
    assert "\\u001b]0;owned\\u0007" in told


def test_a_value_cannot_forge_a_line() -> None:
    found = one_line({"JFK\nok  all is well": ["a\rb", ("c\x85d", 1), None], "n": 2.5})
    assert found == {
        "JFK\\u000aok  all is well": ["a\\u000db", ("c\\u0085d", 1), None],
        "n": 2.5,
    }


def test_a_json_document_stays_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    raw = json.dumps({"id": EVIL + "日"}, ensure_ascii=False).encode()
    show_json(raw)
    out = capsys.readouterr().out
    assert json.loads(out) == {"id": EVIL + "日"}
    assert out.rstrip("\n").isprintable()


def test_stderr_is_a_terminal_too(capsys: pytest.CaptureFixture[str]) -> None:
    show(f"warning: {EVIL}", err=True)
    assert capsys.readouterr().err.rstrip("\n").isprintable()
