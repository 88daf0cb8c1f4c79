"""Dispatch of alerts: mail, webhooks, Alertmanager, and other services through Apprise.

    mailto:ada@example.org            mail, by the SMTP server of [alerts]
    https://HOST/PATH                 a JSON object, POSTed; also webhook+https://
    alertmanager://HOST:9093          Alertmanager's API, v2; alertmanagers:// over TLS
    alertmanager-webhook+https://...  what Alertmanager itself would POST to a webhook, version 4
    anything else                     Apprise (extra `alerts`)

`${NAME}` in a channel is filled in from the environment here and nowhere else: the stored and shown
text has the name. Every attempt has a deadline as a whole, so that an end that sends a byte a
second delays no caller; none is repeated here. Redirects are not followed. Over TLS nothing is sent
to an end whose certificate is untrusted, or is another's: that is a failed attempt like any other.
"""

from __future__ import annotations

import http.client
import os
import re
import smtplib
from collections.abc import Mapping

from kedge.adapters.channels.alertmanager import alert_group, posted_alert
from kedge.adapters.channels.apprise import notify
from kedge.adapters.channels.attempt import describe
from kedge.adapters.channels.mail import send_mail
from kedge.adapters.channels.webhook import post, webhook_alert
from kedge.core.alerts.alerts import Message, shown, url_of, variables
from kedge.core.errors import BadConfig, Unavailable
from kedge.core.links import NO_LINKS, PageLinks

SMTP_VARIABLE = "KEDGE_SMTP_URL"


class Outgoing:
    """Sender to the channels that this machine reaches. Several threads may use it."""

    def __init__(
        self,
        *,
        smtp: str | None,
        sender: str,
        timeout_s: float,
        environ: Mapping[str, str] = os.environ,
        links: PageLinks = NO_LINKS,
    ) -> None:
        """Remember the settings; no connection is opened.

        Args:
            smtp: smtp://USER:PASSWORD@HOST:PORT or smtps://; the environment overrides it.
            sender: the sender of mail.
            timeout_s: limit of each attempt as a whole.
            environ: the variables.
            links: the addresses of pages, for those who write messages.
        """
        self._smtp = smtp
        self._sender = sender
        self.timeout_s = timeout_s
        self.links = links
        self._environ = environ

    def send(self, url: str, message: Message) -> None:
        """Send a message, and return when the other end has accepted it.

        Raises:
            Unavailable: `channel_failed`: the end did not accept it; the text contains no
                secret.
            Refused: `needs_alerts`: the channel needs Apprise, which is not installed.
            BadConfig: a variable or the SMTP server is missing, or the URL is invalid.
        """
        url = url_of(url)
        filled = self._filled(url)
        try:
            self._try(filled, message)
        except (OSError, http.client.HTTPException, smtplib.SMTPException, ValueError) as error:
            raise Unavailable(
                f"{shown(url)}: {describe(error)}",
                code="channel_failed",
                hint="kedge alerts test ENDPOINT tries every channel",
            ) from None

    def _try(self, filled: str, message: Message) -> None:
        scheme = filled.partition(":")[0].lower()
        if scheme == "mailto":
            send_mail(self._server(), self._sender, filled, message, self.timeout_s)
        elif scheme in ("alertmanager", "alertmanagers"):
            where = filled.replace("alertmanager", "http", 1).rstrip("/") + "/api/v2/alerts"
            post(where, [posted_alert(message)], self.timeout_s)
        elif scheme.startswith("alertmanager-webhook+"):
            post(filled.partition("+")[2], alert_group(message), self.timeout_s)
        elif scheme in ("http", "https") or scheme.startswith("webhook+"):
            post(filled.removeprefix("webhook+"), webhook_alert(message), self.timeout_s)
        else:
            notify(filled, message)

    def _server(self) -> str:
        where = self._environ.get(SMTP_VARIABLE) or self._smtp
        if not where:
            raise BadConfig(
                ["alerts.smtp: mail needs an SMTP server"],
                hint=f"the environment variable {SMTP_VARIABLE}, or [alerts] smtp",
            )
        return where

    def _filled(self, url: str) -> str:
        missing = [name for name in variables(url) if not self._environ.get(name)]
        if missing:
            raise BadConfig(
                [f"{shown(url)}: the environment variable {missing[0]} is not set"],
                hint="set it for kedge up (control sends), and for kedge alerts test",
            )
        return re.sub(r"\$\{(\w+)\}", lambda found: self._environ[found[1]], url, flags=re.ASCII)
