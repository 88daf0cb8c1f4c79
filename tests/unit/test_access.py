"""Roles and scopes: which needs they meet, for which endpoints, and until when."""

import pytest

from kedge.core.access import Access, AccessKind, Need, Role, Scope, refuse
from kedge.core.errors import Refused

NOW = 1_000.0

MET = {
    Role.VIEWER: {Need.READ, Need.METRICS},
    Role.OPERATOR: {Need.READ, Need.METRICS, Need.OPERATE, Need.REGISTER, Need.OUTCOMES},
    Role.ADMIN: set(Need),
    Scope.REGISTER: {Need.REGISTER},
    Scope.OUTCOMES: {Need.OUTCOMES},
    Scope.METRICS: {Need.METRICS},
}


def access(
    *, of: tuple[str, ...] | None = None, grants: Role | Scope | None = Role.ADMIN
) -> Access:
    return Access(
        name="ci",
        kind=AccessKind.TOKEN,
        role=grants if isinstance(grants, Role) else None,
        scopes=(grants,) if isinstance(grants, Scope) else (),
        endpoints=of,
        expires_at=NOW + 10,
        token=3,
    )


@pytest.mark.parametrize("need", Need)
@pytest.mark.parametrize("grants", MET)
def test_each_role_and_scope_meets_exactly_its_needs(grants: Role | Scope, need: Need) -> None:
    found = refuse(access(grants=grants), need, "flights", NOW)
    assert (found is None) == (need in MET[grants])
    if found is not None:
        assert found.code in ("role_too_low", "scope_missing")
        assert isinstance(found, Refused)


def test_a_refusal_names_what_is_needed_and_what_the_token_has() -> None:
    found = refuse(access(grants=Role.VIEWER), Need.OUTCOMES, "flights", NOW)
    assert found is not None
    assert str(found) == "this needs role operator or scope outcomes; token ci has role viewer"
    assert found.details == {"role": "operator", "scope": "outcomes"}
    nothing = refuse(access(grants=None), Need.READ, None, NOW)
    assert nothing is not None
    assert str(nothing).endswith("token ci has neither")


def test_the_lowest_roles_are_a_ladder() -> None:
    assert [role.rank for role in Role] == [0, 1, 2]


def test_a_token_of_one_endpoint_reaches_no_other() -> None:
    limited = access(of=("flights",))
    assert refuse(limited, Need.OPERATE, "flights", NOW) is None
    other = refuse(limited, Need.READ, "fraud", NOW)
    assert other is not None
    assert other.code == "endpoint_denied"
    assert (limited.sees("flights"), limited.sees("fraud")) == (True, False)
    assert access().sees("fraud")


@pytest.mark.parametrize("need", Need)
def test_a_token_of_one_endpoint_changes_nothing_that_concerns_all(need: Need) -> None:
    """Else an admin of one endpoint could create a token for all of them."""
    found = refuse(access(of=("flights",)), need, None, NOW)
    assert (found is None) == (need in (Need.READ, Need.METRICS))
    assert need.writes == (found is not None)


def test_a_token_without_endpoints_is_for_none() -> None:
    found = refuse(access(of=()), Need.READ, "flights", NOW)
    assert found is not None
    assert found.code == "endpoint_denied"


@pytest.mark.parametrize(
    "kind, code",
    [
        (AccessKind.TOKEN, "token_expired"),
        (AccessKind.SESSION, "session_ended"),
    ],
)
def test_at_its_end_nothing_is_allowed_any_more(kind: AccessKind, code: str) -> None:
    ends = Access(name="ci", kind=kind, role=Role.ADMIN, expires_at=NOW)
    assert refuse(ends, Need.READ, None, NOW - 0.001) is None
    found = refuse(ends, Need.READ, None, NOW)
    assert found is not None
    assert found.code == code
