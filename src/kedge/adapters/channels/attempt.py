"""Attempts to send an alert: a deadline for each, and failures without secrets."""

from __future__ import annotations

import contextlib
import http.client
import smtplib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any


class AttemptFailed(ValueError):
    """Failure in kedge's words. Other errors may quote a URL: only their type is reported."""


@contextlib.contextmanager
def deadline(timeout_s: float, sock: Callable[[], Any]) -> Iterator[None]:
    """Cut the connection when the attempt as a whole exceeds its limit."""
    late = threading.Event()

    def cut() -> None:
        late.set()
        with contextlib.suppress(OSError, AttributeError):
            sock().shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(timeout_s, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (OSError, http.client.HTTPException, smtplib.SMTPException) as error:
        if late.is_set():
            raise TimeoutError(f"no answer within {timeout_s:g} s") from error
        raise
    finally:
        timer.cancel()


def describe(error: Exception) -> str:
    """Return the fault; of a mail server's answer only the code: its text may quote a secret."""
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
    return str(error) if isinstance(error, AttemptFailed) else type(error).__name__
