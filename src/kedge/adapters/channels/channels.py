"""The ways out: mail, webhooks, Alertmanager, and through Apprise the rest of the world.

    mailto:ada@example.org            mail, by the SMTP server of [alerts]
    https://HOST/PATH                 a JSON object, POSTed; also webhook+https://
    alertmanager://HOST:9093          Alertmanager's API, v2; alertmanagers:// over TLS
    alertmanager-webhook+https://...  what Alertmanager itself would POST to a webhook, version 4
    anything else                     Apprise (extra `alerts`)

`${NAME}` in a channel is filled in from the environment here and nowhere else: what is stored and
shown has the name. Every attempt has a deadline as a whole, so that an end that drips a byte a
second delays no caller; none is repeated here. Redirects are not followed. Over TLS nothing is said to
an end whose certificate is not trusted, or is another's: that is a failed attempt like any other.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import logging
import os
import re
import smtplib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from email.message import EmailMessage
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

import msgspec

from kedge.core.alerts.alerts import Message, shown, url_of, variables
from kedge.core.errors import BadConfig, Refused, Unavailable
from kedge.system.terminal import one_line, printable

SMTP_VARIABLE = "KEDGE_SMTP_URL"
FIRING_FOR = timedelta(days=30)
"""Alertmanager forgets an alert that is not sent again, unless it says until when it stands."""
TEST_FOR = timedelta(minutes=5)
"""A test ends by itself: no one resolves it."""
PORTS = {"smtp": 25, "smtps": 465}


class _Failed(ValueError):
    """In words of ours. Those of others may quote a URL: they are told by their type only."""


class Outgoing:
    """The channels as this machine reaches them. May be used from several threads."""

    def __init__(
        self,
        *,
        smtp: str | None,
        sender: str,
        timeout_s: float,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """Remember how; nothing is opened.

        Args:
            smtp: smtp://USER:PASSWORD@HOST:PORT or smtps://; the environment goes before it.
            sender: whom mail is from.
            timeout_s: for each attempt as a whole.
            environ: where variables are looked up.
        """
        self._smtp = smtp
        self._sender = sender
        self.timeout_s = timeout_s
        self._environ = environ

    def send(self, url: str, message: Message) -> None:
        """Say something, and return when the other end has taken it.

        Raises:
            Unavailable: `channel_failed`: it has not; without any secret in its words.
            Refused: `needs_alerts`: it takes Apprise, which is not installed.
            BadConfig: a variable or the SMTP server is missing, or the URL is none.
        """
        url = url_of(url)
        filled = self._filled(url)
        scheme = filled.partition(":")[0].lower()
        try:
            if scheme == "mailto":
                self._mail(filled, message)
            elif scheme in ("alertmanager", "alertmanagers"):
                where = filled.replace("alertmanager", "http", 1).rstrip("/") + "/api/v2/alerts"
                self._post(where, [_alertmanager(message)])
            elif scheme.startswith("alertmanager-webhook+"):
                self._post(filled.partition("+")[2], _alertmanager_webhook(message))
            elif scheme in ("http", "https") or scheme.startswith("webhook+"):
                self._post(filled.removeprefix("webhook+"), _webhook(message))
            else:
                self._apprise(filled, message)
        except (OSError, http.client.HTTPException, smtplib.SMTPException, ValueError) as error:
            raise Unavailable(
                f"{shown(url)}: {_words(error)}",
                code="channel_failed",
                hint="kedge alerts test ENDPOINT tries every channel",
            ) from None

    def _filled(self, url: str) -> str:
        missing = [name for name in variables(url) if not self._environ.get(name)]
        if missing:
            raise BadConfig(
                [f"{shown(url)}: the environment variable {missing[0]} is not set"],
                hint="set it for kedge up (control sends), and for kedge alerts test",
            )
        return re.sub(r"\$\{(\w+)\}", lambda found: self._environ[found[1]], url, flags=re.ASCII)

    # ------------------------------------------------------------ mail

    def _mail(self, url: str, message: Message) -> None:
        where = self._environ.get(SMTP_VARIABLE) or self._smtp
        if not where:
            raise BadConfig(
                ["alerts.smtp: mail needs an SMTP server"],
                hint=f"the environment variable {SMTP_VARIABLE}, or [alerts] smtp",
            )
        server = urlsplit(where)
        mail = EmailMessage()
        mail["From"] = self._sender
        mail["To"] = unquote(url.removeprefix("mailto:").partition("?")[0])
        mail["Subject"] = one_line(" ".join(message.title.split()))
        mail["Auto-Submitted"] = "auto-generated"
        host = self._sender.rpartition("@")[2] or "kedge"
        # The same message has the same id, so that a mail that comes twice is known as one.
        mail["Message-ID"] = (
            f"<kedge-{message.endpoint}-{message.number}-{message.status}"
            f"-{message.opened_at.replace(':', '')}@{host}>"
        )
        mail.set_content(printable(message.text))
        client: smtplib.SMTP
        if server.scheme == "smtps":
            context = ssl.create_default_context()
            client = smtplib.SMTP_SSL(timeout=self.timeout_s, context=context)
        else:
            client = smtplib.SMTP(timeout=self.timeout_s)
        port = server.port or PORTS.get(server.scheme, 25)
        # TLS checks this name, and only the constructor that connects at once would set it.
        vars(client)["_host"] = server.hostname or ""
        try:
            with self._deadline(lambda: client.sock):
                client.connect(server.hostname or "", port)
                self._log_in(client, server)
                client.send_message(mail)
            with contextlib.suppress(OSError, smtplib.SMTPException):
                client.quit()  # it has taken the mail, whatever it says to a farewell
        finally:
            client.close()

    @staticmethod
    def _log_in(client: smtplib.SMTP, server: SplitResult) -> None:
        client.ehlo()
        if server.scheme != "smtps" and client.has_extn("starttls"):
            client.starttls(context=ssl.create_default_context())
            client.ehlo()
        elif server.scheme != "smtps" and server.password and not _is_here(server.hostname):
            raise _Failed("the server offers no encryption, and a password is not sent without")
        if server.username:
            client.login(unquote(server.username), unquote(server.password or ""))

    # ------------------------------------------------------------ HTTP

    def _post(self, url: str, body: object) -> None:
        parts = urlsplit(url)
        if parts.hostname is None:
            raise _Failed("there is no host in it")
        kind = (
            http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        )
        connection = kind(parts.hostname, parts.port, timeout=self.timeout_s)
        headers = {"content-type": "application/json", "user-agent": "kedge"}
        if parts.username is not None:
            known = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
            headers["authorization"] = f"Basic {base64.b64encode(known).decode()}"
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        try:
            with self._deadline(lambda: connection.sock):
                connection.request("POST", path, msgspec.json.encode(body), headers)
                answer = connection.getresponse()
                if not 200 <= answer.status < 300:
                    raise _Failed(f"HTTP {answer.status}")
        finally:
            connection.close()

    @contextlib.contextmanager
    def _deadline(self, sock: Callable[[], Any]) -> Iterator[None]:
        """Cut the connection when an attempt as a whole takes too long."""
        late = threading.Event()

        def cut() -> None:
            late.set()
            with contextlib.suppress(OSError, AttributeError):
                sock().shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(self.timeout_s, cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        except (OSError, http.client.HTTPException, smtplib.SMTPException) as error:
            if late.is_set():
                raise TimeoutError(f"no answer within {self.timeout_s:g} s") from error
            raise
        finally:
            timer.cancel()

    # ------------------------------------------------------------ the rest

    @staticmethod
    def _apprise(url: str, message: Message) -> None:
        try:
            import apprise  # noqa: PLC0415 - an extra, and a second to import
        except ImportError:
            raise Refused(
                f"{shown(url)} takes Apprise, which is not installed",
                code="needs_alerts",
                hint="pip install 'kedge[alerts]'",
            ) from None
        # What a plug-in logs may hold its URL.
        logging.getLogger("apprise").disabled = True
        kinds = {
            "firing": apprise.NotifyType.FAILURE,
            "resolved": apprise.NotifyType.SUCCESS,
            "continued": apprise.NotifyType.WARNING,
            "test": apprise.NotifyType.INFO,
        }
        try:
            one = apprise.Apprise()
            known = one.add(url)
            taken = known and one.notify(
                title=message.title, body=message.text, notify_type=kinds[message.status]
            )
        except Exception as error:  # noqa: BLE001 - a plug-in may raise anything
            raise _Failed(f"Apprise raised {type(error).__name__}") from None
        if not known:
            raise _Failed("Apprise knows no such channel")
        if not taken:
            raise _Failed("Apprise could not deliver it")


def _words(error: Exception) -> str:
    """What went wrong; of a mail server's answer the code only, which may quote anything."""
    if isinstance(error, smtplib.SMTPAuthenticationError):
        return f"the server refused the password ({error.smtp_code})"
    if isinstance(error, smtplib.SMTPResponseException):
        return f"the server answered {error.smtp_code}"
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return "the server refused the recipient"
    if isinstance(error, ssl.SSLCertVerificationError):
        why = error.verify_message.rstrip(".")
        return f"its certificate is not trusted: {why} (SSL_CERT_FILE names those that are)"
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    return str(error) if isinstance(error, _Failed) else type(error).__name__


def _is_here(host: str | None) -> bool:
    return host in ("localhost", "127.0.0.1", "::1")


# ---------------------------------------------------------------- formats


def _webhook(message: Message) -> dict[str, Any]:
    """Kedge's own: a flat object; `dedup_key` is the same for one alert for ever."""
    return {
        "version": 1,
        "source": "kedge",
        "dedup_key": _key(message),
        **msgspec.to_builtins(message),
        "title": message.title,
        "text": message.text,
    }


def _key(message: Message) -> str:
    return f"kedge/{message.endpoint}/{message.number or message.key}"


def _alertmanager(message: Message) -> dict[str, Any]:
    """One alert as clients send it to /api/v2/alerts."""
    severity = "critical" if message.level == "page" else "warning"
    begun = datetime.fromisoformat(message.opened_at)
    stands = TEST_FOR if message.status == "test" else FIRING_FOR
    ends = message.resolved_at or (begun + stands).isoformat()
    return {
        "labels": {
            "alertname": f"kedge_{message.topic}",
            "endpoint": message.endpoint,
            "severity": severity,
            "alert": str(message.number),
            "key": message.key,
        },
        "annotations": {"summary": message.summary, "description": message.text},
        "startsAt": message.opened_at,
        "endsAt": ends,
    }


def _alertmanager_webhook(message: Message) -> dict[str, Any]:
    """What Alertmanager POSTs to a webhook_config, version 4; a test fires.

    The format knows two statuses only: an alert in spite of which an operator continued ends as
    "resolved" there, and its description says who and why.
    """
    one = _alertmanager(message)
    status = "resolved" if message.resolved_at else "firing"
    if status == "firing":
        one["endsAt"] = "0001-01-01T00:00:00Z"
    return {
        "version": "4",
        "groupKey": _key(message),
        "truncatedAlerts": 0,
        "status": status,
        "receiver": "kedge",
        "groupLabels": {"alertname": one["labels"]["alertname"]},
        "commonLabels": one["labels"],
        "commonAnnotations": one["annotations"],
        "externalURL": "",
        "alerts": [
            {
                **one,
                "status": status,
                "generatorURL": "",
                "fingerprint": f"{abs(message.number):016x}",
            }
        ],
    }
