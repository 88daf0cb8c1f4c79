"""Text of callers, models and other users cannot control the terminal of any command."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from e2e.place import Site
from support.terminal import COLOUR, shown

pytestmark = pytest.mark.e2e

EVIL = "\x1b]0;owned\x07\x1b[2J\u202eabc\u2066\x9b1m\rforged\nok  all is well"
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")
COMMANDS = (
    ("status",),
    ("status", "flights"),
    ("history", "flights"),
    ("versions", "flights"),
    ("evidence", "flights"),
    ("speed", "flights"),
    ("runbook", "flights"),
    ("runbook", "flights", "--html"),
    ("plan", "flights"),
    ("alerts",),
    ("check", "flights"),
    ("diagnose", "flights"),
    ("features", "list"),
    ("features", "status"),
    ("doctor",),
    ("drill", "flights"),
    ("outcomes", "flights", "--file", "evil.jsonl"),
    ("rollback", "flights", "--reason", EVIL),
    ("history", "flights"),
)
DRAWN = (
    ("status",),
    ("status", "flights"),
    ("history", "flights", "--all"),
    ("versions", "flights"),
    ("check", "flights", "--no-proof"),
)
"""Commands that draw tables on a terminal."""


def strings(value: Any) -> list[str]:
    match value:
        case str():
            return [value]
        case dict():
            return [one for item in (*value, *value.values()) for one in strings(item)]
        case list():
            return [one for item in value for one in strings(item)]
    return []


def test_no_command_prints_a_control_character_or_a_forged_line(site: Site) -> None:
    site.env["KEDGE_ACTOR"] = EVIL
    site.run("canary", "flights", "v2", "--weight", "50", "--reason", EVIL, check=False)
    for number in range(20):
        site.infer({"x": ("FP64", [1.0])}, id=f"{EVIL}{number}")
    (site.root / "evil.jsonl").write_text(
        json.dumps({"id": EVIL, "value": EVIL}) + "\n" + f'{{"id": {EVIL}}}\n'
    )
    site.run("freeze", "flights", "--reason", EVIL)
    site.run("thaw", "flights", "--reason", EVIL)
    for words in COMMANDS:
        done = site.run(*words, check=False)
        told = done.stdout + done.stderr
        assert told, words
        assert "Traceback" not in told, words
        assert CONTROL.findall(told) == [], words
        assert not re.search(r"^ok  all is well", told, re.MULTILINE), words
    for words in DRAWN:
        drawn = shown(site.root, [*words], columns=100)
        told = COLOUR.sub("", drawn)
        assert COLOUR.search(drawn), words
        assert CONTROL.findall(told) == [], words
        assert not re.search(r"^ok  all is well", told, re.MULTILINE), words
    entries = site.data("history", "flights")
    assert any(EVIL in one for one in strings(entries)), "JSON keeps the words as they are"
