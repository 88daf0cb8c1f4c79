"""Printed text cannot control a terminal."""

from __future__ import annotations

import contextlib
import io
import json

import pytest

from kedge.system.terminal import fit, one_line, printable, show, show_json

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


class Encoded(io.TextIOWrapper):
    """A real stream with an encoding of its own."""

    def __init__(self, encoding: str, *, terminal: bool = False) -> None:
        self.raw_bytes = io.BytesIO()
        self._terminal = terminal
        super().__init__(self.raw_bytes, encoding=encoding, write_through=True)

    def isatty(self) -> bool:
        return self._terminal

    @property
    def text(self) -> str:
        return self.raw_bytes.getvalue().decode(self.encoding)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_what_an_encoding_lacks_is_escaped_and_ends_no_command(encoding: str) -> None:
    stream = Encoded(encoding)
    value = "café 日 \U0001f600"
    with contextlib.redirect_stdout(stream):
        show(f"back \u2014 {value}\u2026")
        show_json(json.dumps({"reason": value}, ensure_ascii=False).encode())
    first, second, _ = stream.text.split("\n")
    assert json.loads(second) == {"reason": value}
    assert json.loads(f'"{first}"') in (f"back - {value}~", f"back \u2014 {value}\u2026")
    assert ("é" in first) == (encoding != "ascii")


@pytest.mark.parametrize(
    "environ, plain",
    [
        ({"LC_ALL": "C"}, True),
        ({"LANG": "C", "LC_CTYPE": "C.UTF-8"}, True),
        ({"LC_CTYPE": "C.UTF-8"}, True),
        ({"LC_ALL": "C.UTF-8"}, False),
        ({"LANG": "de_DE.UTF-8"}, False),
    ],
)
def test_a_terminal_without_an_encoding_gets_signs_of_ascii_and_every_value_whole(
    environ: dict[str, str], plain: bool
) -> None:
    text = "digest\u2026 \u2501\u2500 日"
    told = fit(text, Encoded("utf-8", terminal=True), environ)
    assert told == ("digest~ =- 日" if plain else text)
    assert fit(text, Encoded("utf-8"), environ) == text
