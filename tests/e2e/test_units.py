"""A unit is a caller: few that ask often, and many that ask once, with real processes."""

from __future__ import annotations

from collections.abc import Callable
from zlib import crc32

import pytest

from e2e.place import Site
from e2e.test_patrol import evidence, kinds, settled

pytestmark = pytest.mark.e2e

POLICY = (
    'output = {kind = "score", score = "score", tolerance = 0.5}\n'
    'canary = {steps = [25], dwell = "1s", on_pass = "promote"}\n'
)


@pytest.mark.soak
def test_a_regression_is_found_among_callers_that_ask_again_and_again(
    make_site: Callable[..., Site],
) -> None:
    """200 callers, a request a second each: after minutes every one of them has asked hundreds of times."""
    site = make_site(policy=POLICY)
    site.start()
    site.release(kind="raise", trigger="boom")

    def one_of_200(connection: int, number: int) -> str:
        return f"caller-{crc32(f'{connection}-{number}'.encode()) % 200}"

    with site.load(rate=200, boom=50, entity=one_of_200) as load:
        site.run("canary", "flights", "v2", "--auto")
        settled(site, 90)
    assert load.failures == []
    assert kinds(site) == ["candidate_rolled_back"]
    assert site.served() == "r1"


@pytest.mark.soak  # its time is spent waiting; the suite has a quarter of an hour
def test_an_identical_candidate_is_not_condemned_by_heavy_callers(
    make_site: Callable[..., Site],
) -> None:
    """Five callers make four fifths of the traffic, 2,000 the rest; both releases fail one request in 25."""
    site = make_site(policy=POLICY.replace("25", "20"))
    site.start()
    site.run("register", "flights", site.model("one", "raise", trigger="boom"))
    site.run("register", "flights", site.model("two", "raise", trigger="boom", scale=3.0))
    site.run("promote", "flights", "v1")
    site.until(lambda: site.infer()[0] == 200, "the first answer")

    def heavy_and_light(connection: int, number: int) -> str:
        if number % 5:
            return f"heavy-{number % 5}"
        return f"light-{(connection * 500 + number // 5) % 2_000}"

    with site.load(rate=200, boom=26, entity=heavy_and_light) as load:
        site.run("canary", "flights", "v2", "--weight", "20")
        site.until(lambda: load.ok > 6_000, "enough requests", 90)
        found = evidence(site)
    assert found["decision"]["verdict"] in ("inconclusive", "pass")
    errors = next(metric for metric in found["metrics"] if metric["metric"] == "errors")
    assert sum(errors["bad"]) > 20
    assert kinds(site) == []
