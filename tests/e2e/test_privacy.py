"""Privacy: no other user of the machine reads predictions, labels or the ledger."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from e2e.place import Site
from kedge.files import find_open

pytestmark = pytest.mark.e2e


def test_everything_in_the_state_directory_is_for_its_user_alone(
    make_site: Callable[..., Site],
) -> None:
    """Also where an earlier kedge left it open, and what model processes write."""
    site = make_site(policy='runtime = "process"\n[endpoints.flights.log]\nsample = 100')
    state = site.root / ".kedge"
    state.mkdir(mode=0o755)
    site.start()
    site.release()
    assert "nothing is served yet" in (site.root / "up.log").read_text()
    site.until(lambda: list(state.glob("records/*/*")), "predictions")
    assert [str(path) for path in find_open(state)] == []
    assert "closed (0700)" in (site.root / "up.log").read_text()
    (state / "ledger" / "ledger.db").chmod(0o644)
    told = site.run("doctor", check=False)
    assert "ledger.db" in told.stdout
    assert f"chmod -R go= {state}" in told.stdout
