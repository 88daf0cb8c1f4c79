"""Mail: sends an alert to one recipient, by an SMTP server."""

from __future__ import annotations

import contextlib
import smtplib
import ssl
from email.message import EmailMessage
from urllib.parse import SplitResult, unquote, urlsplit

from kedge.adapters.channels.attempt import AttemptFailed, deadline
from kedge.core.alerts.alerts import Message
from kedge.system.terminal import one_line, printable

PORTS = {"smtp": 25, "smtps": 465}


def send_mail(server_url: str, sender: str, url: str, message: Message, timeout_s: float) -> None:
    """Send a mail, and return when the server has accepted it.

    Args:
        server_url: smtp://USER:PASSWORD@HOST:PORT or smtps://.
        sender: the sender's address.
        url: mailto:ADDRESS.
        message: the content.
        timeout_s: limit of the attempt as a whole.

    Raises:
        OSError, smtplib.SMTPException, AttemptFailed: the server did not accept it.
    """
    server = urlsplit(server_url)
    client: smtplib.SMTP
    if server.scheme == "smtps":
        client = smtplib.SMTP_SSL(timeout=timeout_s, context=ssl.create_default_context())
    else:
        client = smtplib.SMTP(timeout=timeout_s)
    port = server.port or PORTS.get(server.scheme, 25)
    # TLS checks this name, and only the constructor that connects at once would set it.
    vars(client)["_host"] = server.hostname or ""
    try:
        with deadline(timeout_s, lambda: client.sock):
            client.connect(server.hostname or "", port)
            _log_in(client, server)
            client.send_message(_mail(sender, url, message))
        with contextlib.suppress(OSError, smtplib.SMTPException):
            client.quit()  # the server has accepted the mail, whatever it answers to QUIT
    finally:
        client.close()


def _mail(sender: str, url: str, message: Message) -> EmailMessage:
    mail = EmailMessage()
    mail["From"] = sender
    mail["To"] = unquote(url.removeprefix("mailto:").partition("?")[0])
    mail["Subject"] = one_line(" ".join(message.title.split()))
    mail["Auto-Submitted"] = "auto-generated"
    host = sender.rpartition("@")[2] or "kedge"
    # The same message has the same id, so that a mail client can detect a repeated mail.
    of = message.number or message.key.replace(":", "-")
    mail["Message-ID"] = (
        f"<kedge-{message.endpoint}-{of}-{message.status}"
        f"-{message.opened_at.replace(':', '')}@{host}>"
    )
    mail.set_content(printable(message.text))
    return mail


def _log_in(client: smtplib.SMTP, server: SplitResult) -> None:
    client.ehlo()
    if server.scheme != "smtps" and client.has_extn("starttls"):
        client.starttls(context=ssl.create_default_context())
        client.ehlo()
    elif server.scheme != "smtps" and server.password and not _is_here(server.hostname):
        raise AttemptFailed("the server offers no encryption, and a password is not sent without")
    if server.username:
        client.login(unquote(server.username), unquote(server.password or ""))


def _is_here(host: str | None) -> bool:
    return host in ("localhost", "127.0.0.1", "::1")
