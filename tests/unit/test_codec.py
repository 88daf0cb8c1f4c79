"""The codec, one promise a test."""

import hashlib
import json
from typing import Any

import msgspec
import pytest

from kedge.core.codec import (
    GENESIS,
    NOT_UTF8,
    canonical,
    chain,
    decode,
    encode,
    find_repeated,
    fingerprint,
    read_written,
)
from kedge.core.release.commands import Canary, Promote, Shadow
from kedge.core.values import Field, Policy, State
from kedge.testing.samples import endpoint, release, run


def test_the_order_of_keys_does_not_matter() -> None:
    assert canonical({"b": 1, "a": {"d": 2, "c": 3}}) == canonical({"a": {"c": 3, "d": 2}, "b": 1})


def test_the_canonical_form_has_no_blanks_and_leaves_text_as_it_is() -> None:
    assert canonical({"ö": [1, None, "é"]}) == '{"ö":[1,null,"é"]}'.encode()


def test_a_value_is_spelled_like_the_mapping_it_stands_for() -> None:
    field = Field("x", "float32")
    assert canonical(field) == canonical(msgspec.to_builtins(field))


def test_the_canonical_form_is_what_sorted_json_is() -> None:
    value = {"b": [1, 2], "a": "ü", "c": {"z": False, "y": None}}
    plain = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert canonical(value) == plain.encode()


def test_a_key_that_is_no_text_has_no_canonical_form() -> None:
    with pytest.raises(TypeError):
        canonical({1: "one"})


def test_a_fingerprint_is_the_sha256_of_the_canonical_form() -> None:
    assert fingerprint({}) == "sha256:" + hashlib.sha256(b"{}").hexdigest()


def test_any_difference_changes_the_fingerprint() -> None:
    values = [Field("x", "float32"), Field("y", "float32"), Field("x", "float64")]
    values.append(Field("x", "float32", nullable=True))
    assert len({fingerprint(value) for value in values}) == len(values)


def test_a_policy_read_back_has_the_same_fingerprint() -> None:
    policy = Policy(audience="internal", segments=("origin",), fields=(Field("x", "bool"),))
    assert fingerprint(decode(encode(policy), Policy)) == fingerprint(policy)


def test_a_row_comes_back_as_it_was() -> None:
    releases = (release(1), release(2), release(3))
    for state in (
        endpoint(),
        run(endpoint(*releases), Promote(1), Promote(2, override="é"), Canary(3, 1)),
        run(endpoint(*releases), Promote(1), Shadow(3)),
    ):
        assert decode(encode(state), State) == state
        assert decode(encode(state).decode(), State) == state


def test_an_unknown_field_is_not_swallowed() -> None:
    with pytest.raises(msgspec.ValidationError):
        decode(b'{"endpoint": "flights", "novel": 1}', State)


def test_the_chain_is_reproducible_with_a_shell() -> None:
    """`printf '%s\\n%s' $PREVIOUS $ENTRY | sha256sum`."""
    told = hashlib.sha256(GENESIS.encode() + b'\n{"a":1,"b":2}').hexdigest()
    assert chain(GENESIS, {"b": 2, "a": 1}) == told


def test_a_change_of_any_entry_changes_every_hash_after_it() -> None:
    def last(*entries: int) -> str:
        head = GENESIS
        for entry in entries:
            head = chain(head, {"entry": entry})
        return head

    assert len({last(1, 2, 3), last(1, 2, 4), last(9, 2, 3), last(2, 1, 3), last(1, 2)}) == 5


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "latin-1"])
def test_text_in_another_encoding_is_named(encoding: str) -> None:
    """With its mark or without: what Windows writes begins with a letter and a zero."""
    with pytest.raises(msgspec.DecodeError, match=NOT_UTF8):
        read_written('{"name": "é"}'.encode(encoding), Field)


@pytest.mark.parametrize(
    "raw, said",
    [
        (b'{"name": 1}', "expected text, not a whole number at name"),
        (b'{"nome": "x"}', "object contains unknown field nome"),
        (b"{,}", "object keys must be strings (byte 1)"),
        (b"[" * 5000, "is nested too deeply"),
    ],
)
def test_faults_of_a_users_text_are_described_for_people(raw: bytes, said: str) -> None:
    kind: Any = Field if raw[:1] == b"{" else object
    with pytest.raises(msgspec.DecodeError) as caught:
        read_written(b"\xef\xbb\xbf" + raw, kind)
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('{"id": "a", "value": 1, "value": 0}', "value"),
        ('{"id" \t: 1, "\\u0069d": 2}', "id"),
        ('[{"a": 1}, {"a": {"b": 1, "c": [{"b": 2, "b": 3}]}}]', "b"),
        ('{"": 1, "": 2}', ""),
        ('{"at": "2026-11-26T09:30:00Z", "a:b": "\\":", "c": {"at": 1}}', None),
        ("[1, 2]", None),
        ('{"n": ' + "9" * 5_000 + ', "o": 1e999}', None),
    ],
)
def test_a_name_that_an_object_has_twice_is_found(text: str, name: str | None) -> None:
    raw = text.encode()
    assert find_repeated(raw, None) == name
    flat = dict(json.loads(text, parse_int=str)) if text.startswith("{") else None
    assert find_repeated(raw, flat) == name
    if name is not None:
        with pytest.raises(msgspec.DecodeError, match="is named twice in one object"):
            read_written(raw, object)
