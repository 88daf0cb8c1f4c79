"""Spelling of tokens, with a checksum; and the tokens that count at an instant."""

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kedge.core.access import AccessKind, Role, Scope
from kedge.core.errors import Denied
from kedge.core.tokens import (
    SECRET_BYTES,
    SPELLING,
    Token,
    digest_of,
    is_spelled_well,
    refuse_token,
    spell,
)

SECRETS = st.binary(min_size=SECRET_BYTES, max_size=SECRET_BYTES)
ONE = spell(bytes(range(SECRET_BYTES)))


@given(SECRETS)
def test_a_token_has_a_prefix_and_a_checksum(secret: bytes) -> None:
    text = spell(secret)
    assert SPELLING.fullmatch(text)
    assert len(text) == 55
    assert is_spelled_well(text)


@given(SECRETS, SECRETS)
def test_two_secrets_have_two_spellings_and_two_digests(one: bytes, other: bytes) -> None:
    assert (spell(one) == spell(other)) == (one == other)
    assert (digest_of(spell(one)) == digest_of(spell(other))) == (one == other)


def test_the_spelling_stays_the_same() -> None:
    """Tokens in use, and the patterns of scanners, depend on it."""
    assert spell(bytes(SECRET_BYTES)) == "kedge_" + "0" * 43 + "2wEgBg"
    assert spell(b"\xff" * SECRET_BYTES).startswith("kedge_y")


@given(SECRETS, st.integers(0, 54), st.sampled_from("0Aaz_ "))
def test_no_single_changed_character_passes(secret: bytes, at: int, instead: str) -> None:
    text = spell(secret)
    changed = text[:at] + instead + text[at + 1 :]
    assert is_spelled_well(changed) == (changed == text)


@pytest.mark.parametrize("text", ["", "kedge_", ONE[:-1], ONE + "\n", f" {ONE}", "é" * 55, "x" * 9])
def test_a_malformed_token_is_refused_without_a_look_at_the_stored_ones(text: str) -> None:
    with pytest.raises(Denied) as caught:
        digest_of(text)
    assert caught.value.code == "token_malformed"
    assert ONE[6:40] not in str(caught.value)


def test_the_digest_does_not_show_the_token() -> None:
    digest = digest_of(ONE)
    assert len(digest) == 64
    assert ONE[6:-6] not in digest
    assert f"{zlib.crc32(ONE.encode()):x}" not in digest


def test_a_token_counts_until_it_expires_or_is_revoked() -> None:
    token = Token(number=1, name="ci", digest="d", role=Role.VIEWER, expires_at=10.0)
    assert refuse_token(token, 9.9) is None
    late = refuse_token(token, 10.0)
    assert late is not None
    assert late.code == "token_expired"
    revoked = Token(number=1, name="ci", digest="d", revoked_at=5.0, revoked_by="ada")
    found = refuse_token(revoked, 0.0)
    assert found is not None
    assert (found.code, str(found)) == ("token_revoked", "token ci was revoked by ada")
    assert not revoked.is_valid(0.0)
    assert Token(number=2, name="ever", digest="d").is_valid(1e12)


def test_a_tokens_access_has_its_grants() -> None:
    token = Token(
        number=7,
        name="ci",
        digest="d",
        role=Role.OPERATOR,
        scopes=(Scope.METRICS,),
        endpoints=("flights",),
        expires_at=3.0,
    )
    access = token.access()
    assert (access.kind, access.token, access.holder) == (AccessKind.TOKEN, 7, "token ci")
    assert (access.role, access.scopes, access.endpoints, access.expires_at) == (
        Role.OPERATOR,
        (Scope.METRICS,),
        ("flights",),
        3.0,
    )
