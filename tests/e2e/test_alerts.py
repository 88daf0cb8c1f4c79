"""A failing canary wakes somebody, whatever dies meanwhile, until somebody says that they have it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from contract.receivers import Mail, Web
from e2e.place import Site

pytestmark = pytest.mark.e2e

QUICK = (
    'output = {kind = "score", score = "score", tolerance = 0.5}\n'
    'canary = {steps = [20, 50], dwell = "1s"}\n'
    'owner = {name = "Ada Lovelace", contact = "ada@example.org"}\n'
)


@pytest.fixture
def web() -> Iterator[Web]:
    made = Web()
    yield made
    made.close()


@pytest.fixture
def mail() -> Iterator[Mail]:
    made = Mail(password="tr0ub4dor")
    yield made
    made.close()


def site_of(make_site: Callable[..., Site], escalation: str, mail: Mail | None = None) -> Site:
    """A site in which v2 fails a twentieth of its requests."""
    site = make_site(policy=f"{QUICK}escalation = [{escalation}]\n")
    config = site.root / "kedge.toml"
    config.write_text(f'[alerts]\ntimeout = "1s"\n{config.read_text()}')
    if mail is not None:
        site.env["KEDGE_SMTP_URL"] = mail.url
    site.start()
    site.release(kind="raise", trigger="boom")
    return site


def alerts(site: Site, *words: str) -> list[dict[str, Any]]:
    return list(site.data("alerts", "flights", *words))


def kill_control(site: Site) -> None:
    for pid in site.processes("\0control"):
        os.kill(pid, signal.SIGKILL)


def fails(site: Site) -> None:
    """A canary of v2, until the patrol takes it back."""
    with site.load(rate=200, boom=10):
        site.run("canary", "flights", "v2", "--weight", "20")
        site.until(lambda: site.data("status", "flights")["stage"] == "settled", "a rollback", 60)


def test_a_page_climbs_over_mail_and_webhook_survives_kills_and_ends_with_an_ack(
    make_site: Callable[..., Site], web: Web, mail: Mail
) -> None:
    site = site_of(make_site, (
        f'{{after = "0s", to = ["owner"]}}, {{after = "6s", to = ["{web.url}/1"]}}, '
        f'{{after = "10m", to = ["{web.url}/2"]}}'
    ), mail)  # fmt: skip
    tested = site.data("alerts", "test", "flights")
    assert [level["works"] for level in tested["levels"]] == [True] * 3
    fails(site)
    kill_control(site)
    site.until(lambda: any("taken back" in str(m["Subject"]) for m in mail.got), "the mail")
    kill_control(site)
    page = site.until(
        lambda: [b for b in web.bodies if b["status"] == "firing"], "the second level"
    )[0]
    assert (page["key"], page["level"]) == ("rolled_back:r2", "page")
    assert "errors" in page["detail"]
    (one,) = [a for a in alerts(site) if a["level"] == "page"]
    assert site.data("status", "flights")["alerts"][0]["number"] == one["number"] == page["number"]
    site.run("ack", str(one["number"]), "--by", "Ada")
    site.until(lambda: [b for b in web.bodies if b["status"] == "resolved"], "its end")
    assert alerts(site) == []
    assert alerts(site, "--all")[0]["resolved"] == "Ada has seen it"
    assert [got.path for got in web.got if got.body["status"] == "firing"] == ["/1"]
    logs = [*(site.root / ".kedge" / "logs").glob("*.log*"), *site.root.glob("*.log")]
    assert not [log.name for log in logs if "tr0ub4dor" in log.read_text()]
    assert b"tr0ub4dor" not in (site.root / ".kedge" / "ledger" / "ledger.db").read_bytes()


def test_with_every_channel_down_the_alert_stays_is_shown_and_arrives_in_the_end(
    make_site: Callable[..., Site], web: Web
) -> None:
    web.close()
    site = site_of(make_site, (
        f'{{after = "0s", to = ["{web.url}/0"]}}, {{after = "10m", to = ["alertmanager://127.0.0.1:{web.port}"]}}'
    ))  # fmt: skip
    tested = site.run("alerts", "test", "flights", check=False)
    assert tested.returncode == 1
    assert "FAILED" in tested.stdout
    fails(site)

    def silent() -> list[str]:
        return sorted(a["key"].partition(":")[0] for a in alerts(site))

    wanted = ["channel", "channel", "rolled_back"]
    site.until(lambda: [k for k in silent() if k in wanted] == wanted, "alerts about channels", 30)
    shown = site.run("status", "flights").stdout
    assert "pages" in shown
    assert "NOBODY COULD BE TOLD" in site.run("alerts").stdout
    again = Web(web.port)
    site.until(lambda: any("rolled_back" in str(body) for body in again.bodies), "the page", 40)
    again.close()
