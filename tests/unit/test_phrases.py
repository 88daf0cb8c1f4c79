"""Wording: faults of JSON and values of callers, without Python terms."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kedge.core.phrases import CLIPPED, clip, tell_fault, tell_name, tell_shape, tell_value


class Body(msgspec.Struct):
    """Of no endpoint."""

    rows: list[dict[str, int]]
    id: str | None = None


@pytest.mark.parametrize(
    "raw, kind, said",
    [
        (b"{", Body, "input data was truncated"),
        (b"", Any, "input data was truncated"),
        (b"rows", Body, "invalid character (byte 0)"),
        (b"3", Body, "expected an object, not a whole number"),
        (b'{"rows": {}}', Body, "expected a list, not an object at rows"),
        (b'{"rows": [{"a": "x"}]}', Body, "expected a whole number, not text at rows[0][...]"),
        (b'{"rows": [], "id": 1.5}', Body, "expected text or null, not a number at id"),
        (b"{}", Body, "object missing required field rows"),
        (b"[" * 5000, Any, "it is nested too deeply"),
        (b'["\xff"]', Any, "it is not UTF-8 (byte 0)"),
        (b"[1e400]", Any, "number out of range at [0]"),
        (b'{"a": 1e400}', Any, "number out of range"),
    ],
)
def test_a_fault_is_reported_with_its_place(raw: bytes, kind: Any, said: str) -> None:
    with pytest.raises((msgspec.DecodeError, RecursionError, UnicodeDecodeError)) as caught:
        msgspec.json.decode(raw, type=kind)
    assert tell_fault(caught.value) == said


@pytest.mark.parametrize(
    "value, said",
    [
        (None, "null"),
        (True, "true"),
        ('a "b"', '"a \\"b\\""'),
        ([1], "a list"),
        ({}, "an object"),
        (1.5, "1.5"),
        (-7, "-7"),
        (10**60, "a number with too many digits"),
    ],
)
def test_a_value_is_shown_as_in_json(value: Any, said: str) -> None:
    assert tell_value(value) == said


@given(st.text())
def test_a_text_is_cut_and_a_name_can_be_seen(text: str) -> None:
    assert len(clip(text)) <= CLIPPED + 3
    assert tell_name(text) == (clip(text) if text else '""')
    if text.isascii():
        assert json.loads(tell_value(text)) == clip(text)


def test_a_shape_is_shown_as_callers_write_it() -> None:
    assert tell_shape(["rows", 3]) == "[rows, 3]"
