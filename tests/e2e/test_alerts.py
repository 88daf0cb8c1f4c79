"""A failing canary sends a page, whatever dies meanwhile, until a recipient acknowledges it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contract.certificates import Authority
from contract.receivers import Mail, Web
from e2e.place import Site, free_port

pytestmark = pytest.mark.e2e

POLICY = (
    'output = {kind = "score", score = "score", tolerance = 0.5}\n'
    'canary = {steps = [20, 50], dwell = "1s"}\n'
    'owner = {name = "Ada Lovelace", contact = "ada@example.org"}\n'
)
PASSWORD = "tr0ub4dor"


def alerts(site: Site, *words: str) -> list[dict[str, Any]]:
    return list(site.data("alerts", "flights", *words))


def kinds(site: Site) -> list[str]:
    return [alert["key"].partition(":")[0] for alert in alerts(site)]


def kill_control(site: Site) -> None:
    for pid in site.processes("\0control"):
        os.kill(pid, signal.SIGKILL)


def test_a_page_waits_for_dead_channels_survives_kills_climbs_and_ends_with_an_ack(
    make_site: Callable[..., Site],
) -> None:
    """One story, since a site takes its time: everything is down, then comes back; control dies twice."""
    mail_port, web_port = free_port(), free_port()
    url = f"http://127.0.0.1:{web_port}"
    site = make_site(
        policy=POLICY
        + (
            f'escalation = [{{after = "0s", to = ["owner"]}}, {{after = "6s", to = ["{url}/1"]}}, '
            f'{{after = "10m", to = ["alertmanager://127.0.0.1:{web_port}"]}}]\n'
        )
    )
    config = site.root / "kedge.toml"
    config.write_text(f'[alerts]\ntimeout = "1s"\n{config.read_text()}')
    site.env["KEDGE_SMTP_URL"] = f"smtp://ada:{PASSWORD}@127.0.0.1:{mail_port}"
    site.start()
    site.release(kind="raise", trigger="boom")
    tested = site.run("alerts", "test", "flights", check=False)
    assert (tested.returncode, tested.stdout.count("FAILED")) == (1, 3)

    with site.load(rate=200, boom=3):
        site.run("canary", "flights", "v2", "--weight", "20")
        site.until(lambda: site.data("status", "flights")["stage"] == "settled", "a rollback", 60)
    kill_control(site)
    site.until(lambda: "channel" in kinds(site), "an alert about a channel", 40)
    assert "COULD NOT BE SENT" in site.run("alerts").stdout
    assert "pages: 1" in site.run("status", "flights").stdout

    mail, web = Mail(password=PASSWORD, port=mail_port), Web(web_port)
    kill_control(site)
    site.until(lambda: any("rolled back" in str(m["Subject"]) for m in mail.got), "the mail", 40)
    page = site.until(
        lambda: [
            b
            for b in web.bodies
            if isinstance(b, dict) and b["status"] == "firing" and b["level"] == "page"
        ],
        "the second level",
        40,
    )[0]
    assert (page["key"], page["endpoint"]) == ("rolled_back:r2", "flights")
    site.run("ack", str(page["number"]), "--by", "Ada")
    site.until(lambda: any("resolved" in str(m["Subject"]) for m in mail.got), "its end", 40)
    assert site.data("alerts", "test", "flights")["delivered"]
    assert kinds(site) == []
    over = {alert["number"]: alert["resolved"] for alert in alerts(site, "--all")}
    assert over[page["number"]] == "Ada has seen it"

    told = [
        (got.path, got.body["status"])
        for got in web.got
        if isinstance(got.body, dict) and got.body["number"] == page["number"]
    ]
    assert told.count(("/1", "firing")) == 1
    mail.close()
    web.close()
    logs = [*(site.root / ".kedge" / "logs").glob("*.log*"), *site.root.glob("*.log")]
    assert not [log.name for log in logs if PASSWORD in log.read_text()]
    files = (site.root / ".kedge" / "ledger").glob("ledger.db*")
    assert not [file.name for file in files if PASSWORD.encode() in file.read_bytes()]


def test_over_tls_control_sends_only_to_trusted_servers(
    make_site: Callable[..., Site], tmp_path: Path
) -> None:
    """`kedge up` starts control, which has the environment of who typed it."""
    trusted, unknown = Authority(tmp_path / "trusted"), Authority(tmp_path / "unknown")
    web, other = (Web(tls=one.signs("IP:127.0.0.1")) for one in (trusted, unknown))
    mail = Mail(password=PASSWORD, tls=trusted.signs("IP:127.0.0.1"))
    site = make_site(
        workers=1,
        policy=POLICY
        + (
            f'escalation = [{{after = "0s", to = ["{other.url}/x"]}}, '
            f'{{after = "9m", to = ["owner", "{web.url}/y"]}}]\n'
        ),
    )
    site.env["KEDGE_SMTP_URL"] = mail.url
    site.env["SSL_CERT_FILE"] = str(trusted.file)
    site.start()
    site.release()
    tested = site.run("alerts", "test", "flights", check=False)
    assert (tested.returncode, tested.stdout.count("FAILED")) == (1, 1)
    assert "its certificate is not trusted" in tested.stdout
    assert (len(mail.got), len(web.got)) == (1, 1)
    site.run("promote", "flights", "v2", "--override", "an incident")
    site.until(lambda: any("overrode" in str(m["Subject"]) for m in mail.got), "the mail", 40)
    site.until(lambda: "channel" in kinds(site), "an alert about the channel", 60)
    site.until(
        lambda: any(str(b["key"]).startswith("channel:") for b in web.bodies),
        "the next level to hear of it",
        40,
    )
    assert other.got == []
    assert mail.logins.count("ada") == len(mail.logins) >= 2
    for receiver in (web, other, mail):
        receiver.close()
