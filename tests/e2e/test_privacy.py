"""Privacy: no other user of the machine reads predictions, labels or the ledger."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from e2e.place import Site
from kedge.system.files import find_open

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


@pytest.mark.parametrize("name", ["../../../x", "a\tb", "x" * 300])
def test_a_name_that_is_a_path_registers_nothing(make_site: Callable[..., Site], name: str) -> None:
    site = make_site()
    site.run("up", "--run-for", "5", check=False)
    before = sorted(path for path in site.root.parent.glob("x*"))
    refused = site.run("register", name, str(site.model("one")), "--json", check=False)
    assert refused.returncode == 1
    assert json.loads(refused.stdout)["error"]["code"] == "unknown_endpoint"
    assert not list((site.root / ".kedge/artifacts").glob("*/files"))
    assert sorted(path for path in site.root.parent.glob("x*")) == before
