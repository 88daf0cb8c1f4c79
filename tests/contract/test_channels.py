"""Every channel against a real receiver: the message that arrives, and the error of a failure."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from contract.receivers import Mail, Web
from kedge.adapters.channels.dispatch import Outgoing
from kedge.core.alerts.alerts import Message, Topic
from kedge.core.errors import BadConfig, KedgeError, Unavailable

# Apprise 2 imports what Python 3.13 drops, where it is there.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

FIRING = Message(
    status="firing",
    number=17,
    endpoint="flights",
    key="rolled_back:r2",
    topic=Topic.ROLLED_BACK,
    level="page",
    summary="r2 failed and was rolled back",
    detail="errors: 3 times production's",
    opened_at="2026-11-26T10:00:00.000000Z",
)
OVER = Message(
    status="resolved",
    number=17,
    endpoint="flights",
    key="rolled_back:r2",
    topic=Topic.ROLLED_BACK,
    level="page",
    summary="r2 failed and was rolled back",
    detail="errors: 3 times production's",
    opened_at="2026-11-26T10:00:00.000000Z",
    resolved_at="2026-11-26T10:05:00.000000Z",
    reason="ada has seen it",
)


@pytest.fixture
def web() -> Iterator[Web]:
    made = Web()
    yield made
    made.close()


def out(smtp: str | None = None, timeout_s: float = 2.0, **environ: str) -> Outgoing:
    return Outgoing(smtp=smtp, sender="kedge@example.org", timeout_s=timeout_s, environ=environ)


def fault_of(outgoing: Outgoing, url: str) -> KedgeError:
    with pytest.raises(KedgeError) as refused:
        outgoing.send(url, FIRING)
    return refused.value


def test_mail_arrives_with_an_id_by_which_a_second_one_is_known() -> None:
    mail = Mail()
    out(mail.url).send("mailto:ada@example.org", FIRING)
    out(mail.url).send("ada@example.org", FIRING)
    out(mail.url).send("ada@example.org", OVER)
    mail.close()
    first, second, over = mail.got
    assert mail.recipients == ["ada@example.org"] * 3
    assert first["Subject"] == "[kedge page] flights: r2 failed and was rolled back (#17)"
    assert "errors: 3 times" in first.get_content()
    assert "kedge ack 17 --by NAME" in first.get_content()
    assert first["Message-ID"] == second["Message-ID"] != over["Message-ID"]
    assert "ada has seen it" in over.get_content()


def test_a_password_of_the_environment_is_used_and_never_shown() -> None:
    mail = Mail(password="tr0ub4dor")
    out(None, KEDGE_SMTP_URL=mail.url).send("ada@example.org", FIRING)
    assert mail.logins == ["ada"]
    wrong = fault_of(out(mail.url.replace("tr0ub4dor", "hunter2")), "ada@example.org")
    mail.close()
    assert len(mail.got) == 1
    assert str(wrong) == "mailto:ada@example.org: the server refused the password (535)"


def test_mail_that_is_refused_or_has_no_server_is_a_fault() -> None:
    mail = Mail(refuse="nobody@")
    refused = fault_of(out(mail.url), "nobody@example.org")
    mail.close()
    assert str(refused).endswith("the server refused the recipient")
    with pytest.raises(BadConfig, match="mail needs an SMTP server"):
        out().send("ada@example.org", FIRING)


@pytest.mark.parametrize("prefix", ["", "webhook+"])
def test_a_webhook_gets_a_flat_object(web: Web, prefix: str) -> None:
    out().send(f"{prefix}{web.url}/hook?room=1", FIRING)
    (got,) = web.got
    assert got.path == "/hook?room=1"
    assert got.headers["content-type"] == "application/json"
    wanted = {
        "version": 1,
        "status": "firing",
        "number": 17,
        "endpoint": "flights",
        "level": "page",
        "key": "rolled_back:r2",
        "dedup_key": "kedge/flights/17",
        "detail": FIRING.detail,
    }
    assert wanted.items() <= got.body.items()


def test_a_variable_is_filled_in_and_a_missing_one_is_named(web: Web) -> None:
    where = web.url.replace("http://", "http://bot:${TOKEN}@") + "/${ROOM}"
    out(TOKEN="t0p", ROOM="r1").send(where, FIRING)
    assert web.got[0].path == "/r1"
    assert web.got[0].headers["authorization"] == "Basic Ym90OnQwcA=="
    said = str(fault_of(out(TOKEN="t0p"), where))
    assert "the environment variable ROOM is not set" in said
    assert "t0p" not in said


def test_alertmanager_gets_what_its_api_takes(web: Web) -> None:
    url = web.url.replace("http", "alertmanager")
    out().send(url, FIRING)
    out().send(url + "/prefix/", OVER)
    first, over = web.got
    assert (first.path, over.path) == ("/api/v2/alerts", "/prefix/api/v2/alerts")
    (one,), (two,) = first.body, over.body
    assert one["labels"] == two["labels"], "or it would not be known as the same"
    assert one["labels"] == {
        "alertname": "kedge_rolled_back",
        "endpoint": "flights",
        "severity": "critical",
        "alert": "17",
        "key": "rolled_back:r2",
    }
    assert one["startsAt"] == FIRING.opened_at
    stands = datetime.fromisoformat(one["endsAt"]) - datetime.fromisoformat(one["startsAt"])
    assert stands == timedelta(days=30)
    assert two["endsAt"] == OVER.resolved_at


def test_a_test_does_not_stand_at_alertmanager_for_weeks(web: Web) -> None:
    """A test is never resolved, so it carries its own end."""
    out().send(web.url.replace("http", "alertmanager"), replace(FIRING, status="test", number=0))
    ((one,),) = (got.body for got in web.got)
    stands = datetime.fromisoformat(one["endsAt"]) - datetime.fromisoformat(one["startsAt"])
    assert stands == timedelta(minutes=5)


def test_alertmanagers_webhook_format_is_version_4(web: Web) -> None:
    url = f"alertmanager-webhook+{web.url}/am"
    out().send(url, FIRING)
    out().send(url, OVER)
    first, over = web.bodies
    assert set(first) == {
        "version",
        "groupKey",
        "truncatedAlerts",
        "status",
        "receiver",
        "groupLabels",
        "commonLabels",
        "commonAnnotations",
        "externalURL",
        "alerts",
    }
    assert (first["version"], first["status"], over["status"]) == ("4", "firing", "resolved")
    (alert,) = first["alerts"]
    assert set(alert) == {
        "status",
        "labels",
        "annotations",
        "startsAt",
        "endsAt",
        "generatorURL",
        "fingerprint",
    }
    assert alert["fingerprint"] == over["alerts"][0]["fingerprint"]


def test_apprise_brings_it_everywhere_else(web: Web) -> None:
    url = web.url.replace("http", "json") + "/${ROOM}"
    out(ROOM="r1").send(url, FIRING)
    (got,) = web.got
    assert got.path.rstrip("/") == "/r1"
    assert got.body["title"].startswith("[kedge page] flights")
    assert got.body["type"] == "failure"


def test_a_channel_that_apprise_cannot_deliver_to_or_parse_is_a_fault(
    web: Web, caplog: Any
) -> None:
    web.answers = [500] * 9
    url = web.url.replace("http://", "json://user:s3cret@")
    for fault in (fault_of(out(), url), fault_of(out(), "nosuchthing://x")):
        assert fault.code == "channel_failed"
        assert "s3cret" not in str(fault) + caplog.text


def test_a_url_that_cannot_be_read_is_not_quoted() -> None:
    """A password with a slash in it looks like a port that is none."""
    said = str(fault_of(out(P="pa/ss"), "http://ada:${P}@127.0.0.1/x"))
    assert "pa" not in said.replace("password", "").replace("${P}", "")


@pytest.mark.parametrize("status", [301, 404, 429, 500])
def test_what_is_not_taken_is_a_fault(web: Web, status: int) -> None:
    web.answers = [status]
    fault = fault_of(out(), web.url + "/secret/path")
    assert isinstance(fault, Unavailable)
    assert f"HTTP {status}" in str(fault)
    assert "secret" not in str(fault)


def test_no_process_at_the_other_end_is_a_fault_at_once() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = time.monotonic()
    for url in (f"http://127.0.0.1:{port}/x", f"alertmanager://127.0.0.1:{port}"):
        assert "refused" in str(fault_of(out(), url))
    assert "refused" in str(fault_of(out(f"smtp://127.0.0.1:{port}"), "a@b.org"))
    assert time.monotonic() - started < 2


def test_an_end_that_says_nothing_or_drips_is_left_in_time(web: Web) -> None:
    """The deadline is for the attempt, not for each byte of it."""
    web.delay_s = 0.05
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        port = mute.getsockname()[1]
        for outgoing, url in (
            (out(timeout_s=0.4), f"{web.url}/x"),
            (out(timeout_s=0.4), f"http://127.0.0.1:{port}/x"),
            (out(f"smtp://127.0.0.1:{port}", timeout_s=0.4), "a@b.org"),
        ):
            started = time.monotonic()
            assert fault_of(outgoing, url).code == "channel_failed"
            assert time.monotonic() - started < 1.5
