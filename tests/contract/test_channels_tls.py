"""Channels over TLS: trusted servers, and that no message reaches an untrusted one."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contract.certificates import Authority
from contract.receivers import Mail, Web
from contract.sql_world import POLICY
from contract.test_alerts import FAIL, Place
from contract.test_channels import FIRING, fault_of, out
from kedge.core.values import Escalation

HERE = "IP:127.0.0.1"
PASSWORD = "tr0ub4dor"
DISTRUSTED = (
    "its certificate is not trusted: unable to get local issuer certificate "
    "(SSL_CERT_FILE names those that are)"
)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def here(authority: Authority) -> ssl.SSLContext:
    """A certificate for where the receivers are."""
    return authority.signs(HERE, "DNS:localhost")


@pytest.fixture
def web(here: ssl.SSLContext) -> Iterator[Web]:
    made = Web(tls=here)
    yield made
    made.close()


@pytest.fixture
def trusting(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))


HOOKS: list[Callable[[str], str]] = [
    lambda url: url,
    lambda url: f"webhook+{url}",
    lambda url: f"alertmanager-webhook+{url}",
    lambda url: url.replace("https", "alertmanagers"),
]


@pytest.mark.parametrize("hook", HOOKS)
def test_a_webhook_gets_messages_when_its_certificate_is_trusted(
    web: Web, trusting: None, hook: Callable[[str], str]
) -> None:
    out().send(hook(web.url), FIRING)
    assert len(web.got) == 1


@pytest.mark.parametrize("hook", HOOKS)
def test_a_webhook_with_an_unknown_certificate_gets_no_message(
    web: Web, hook: Callable[[str], str]
) -> None:
    fault = fault_of(out(), hook(web.url))
    assert (fault.code, web.got) == ("channel_failed", [])
    assert str(fault).endswith(DISTRUSTED)


@pytest.mark.parametrize("at_once", [False, True], ids=["starttls", "smtps"])
def test_mail_goes_over_tls_with_its_password(
    here: ssl.SSLContext, trusting: None, at_once: bool
) -> None:
    mail = Mail(password=PASSWORD, tls=here, at_once=at_once)
    out(mail.url).send("ada@example.org", FIRING)
    mail.close()
    (got,) = mail.got
    assert (got["Subject"], mail.logins) == (
        "[kedge page] flights: r2 failed and was rolled back (#17)",
        ["ada"],
    )
    assert ("STARTTLS" in mail.heard) is not at_once
    assert not at_once or mail.heard[0].startswith("ehlo")


@pytest.mark.parametrize("at_once", [False, True], ids=["starttls", "smtps"])
def test_an_untrusted_mail_server_gets_neither_mail_nor_password(
    here: ssl.SSLContext, at_once: bool
) -> None:
    mail = Mail(password=PASSWORD, tls=here, at_once=at_once)
    fault = fault_of(out(mail.url), "ada@example.org")
    mail.close()
    assert (fault.code, mail.got, mail.logins) == ("channel_failed", [], [])
    assert not any(line.upper().startswith(("AUTH", "MAIL", "RCPT")) for line in mail.heard)
    assert str(fault).endswith(DISTRUSTED)
    assert PASSWORD not in str(fault)


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
def test_apprise_uses_its_own_certificates(
    web: Web, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And takes others by the variable of the library that it asks with."""
    channel = web.url.replace("https", "jsons")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    assert str(fault_of(out(), channel)).endswith("Apprise could not deliver it")
    assert web.got == []
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.file))
    out().send(channel, FIRING)
    assert len(web.got) == 1


def test_a_certificate_of_another_name_is_refused(authority: Authority, trusting: None) -> None:
    """Signed by who is trusted, for another name."""
    other = authority.signs("DNS:example.org")
    web, starttls = Web(tls=other), Mail(password=PASSWORD, tls=other)
    at_once = Mail(password=PASSWORD, tls=other, at_once=True)
    for smtp, channel in (
        (None, web.url),
        (starttls.url, "ada@example.org"),
        (at_once.url, "ada@example.org"),
    ):
        fault = fault_of(out(smtp), channel)
        assert "its certificate is not trusted: IP address mismatch" in str(fault)
    assert (web.got, starttls.logins, at_once.logins) == ([], [], [])
    for receiver in (web, starttls, at_once):
        receiver.close()


def test_an_unknown_certificate_is_a_channel_that_is_dead_and_a_known_one_delivers(
    tmp_path: Path, web: Web, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page climbs to who can be told, the channel is an alert of its own, and trusting it ends both."""
    plain = Web()
    policy = POLICY.__class__(
        audience=POLICY.audience,
        fields=POLICY.fields,
        escalation=(Escalation("0s", (f"{web.url}/0",)), Escalation("5m", (f"{plain.url}/1",))),
    )
    place = Place(tmp_path, policy)
    place.canary()
    place.sees(FAIL)
    for _ in range(8):
        place.clock.go(10)
        place.look()
    assert web.got == []
    pages = [body for body in plain.bodies if body["key"] == "failing:r2"]
    assert [body["status"] for body in pages] == ["firing"]
    (channel,) = (key for key in place.open() if key.startswith(f"channel:{web.url}/"))
    assert DISTRUSTED in place.open()[channel].detail
    assert any(body["key"] == channel for body in plain.bodies)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    for _ in range(10):
        place.clock.go(60)
        place.look()
    assert {body["key"] for body in web.bodies} >= {"failing:r2"}
    assert channel not in place.open()
    plain.close()
