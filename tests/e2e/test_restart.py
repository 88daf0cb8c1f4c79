"""Production answers while what runs is stopped, started and replaced."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from e2e.place import Site

pytestmark = pytest.mark.e2e

TWO = """
[endpoints.other]
audience = "internal"
"""


def test_one_endpoint_that_cannot_be_loaded_makes_no_other_unready(
    make_site: Callable[..., Site],
) -> None:
    """A load balancer that asks for readiness leaves the host in, and nobody waits for the load."""
    site = make_site(policy=TWO)
    site.start(patrol=False)
    site.release()
    site.run("register", "other", site.model("third", scale=5.0))
    site.run("promote", "other", "v1")
    digest = site.data("versions", "other")[0]["digest"].removeprefix("sha256:")
    assert site.stop() == 0
    for path in (site.root / ".kedge/artifacts" / digest / "files").iterdir():
        path.chmod(0o600)
        path.write_bytes(b"{}")
    began = time.monotonic()
    site.start(patrol=False)
    site.until(lambda: site.infer()[0] == 200, "the first answer")
    assert time.monotonic() - began < 20
    assert site.request("GET", "/v2/health/ready")[0] == 200
    assert site.request("GET", "/v2/models/flights/ready")[0] == 200
    assert site.request("GET", "/v2/models/other/ready")[0] == 404
