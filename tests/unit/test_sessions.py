"""Sessions of browsers: what they may do, until when, and their tokens against other sites."""

from kedge.core.access import AccessKind, Need, Role, refuse
from kedge.core.sessions import (
    LONGEST_S,
    Session,
    csrf_token,
    digest_secret,
    is_csrf_token,
)
from kedge.core.tokens import Token


def test_a_session_may_do_what_its_token_may_do_until_the_earlier_end() -> None:
    session = Session("d", 1, created_at=0.0, expires_at=LONGEST_S)
    ever = Token(number=1, name="ada", digest="x", role=Role.VIEWER, endpoints=("flights",))
    access = session.access(ever)
    assert (access.kind, access.name, access.role, access.endpoints, access.session) == (
        AccessKind.SESSION,
        "ada",
        Role.VIEWER,
        ("flights",),
        "d",
    )
    assert access.expires_at == LONGEST_S
    assert refuse(access, Need.READ, "flights", LONGEST_S - 1) is None
    soon = Token(number=1, name="ada", digest="x", role=Role.VIEWER, expires_at=60.0)
    found = refuse(session.access(soon), Need.READ, None, 60.0)
    assert found is not None
    assert found.code == "session_ended"


def test_a_csrf_token_belongs_to_one_session() -> None:
    assert is_csrf_token("one", csrf_token("one"))
    assert not is_csrf_token("one", csrf_token("other"))
    assert not is_csrf_token("one", "")
    assert not is_csrf_token("one", "é")
    assert csrf_token("one") != digest_secret("one")
