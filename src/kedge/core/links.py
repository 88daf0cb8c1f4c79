"""PageLinks to the dashboard: the path of each page, and its address as `[server] public_url` has it.

The dashboard's pages and everything that points to them take their paths from here. A link never
carries a token: the reader logs in, and the login leads back to the page. No link uses a fragment,
which a login would lose.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
"""Bytes that stand for themselves in a part of a path."""
_URL = re.compile(
    r"(?P<scheme>[Hh][Tt][Tt][Pp][Ss]?)://"
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)"
    r"(?::(?P<port>\d{1,5}))?"
    r"(?P<path>(?:/[A-Za-z0-9._~%!$&'()*+,;=:@-]*)*)",
    re.ASCII,
)
LONGEST = 500
"""Characters of a public URL: a mail's line has 998."""

ALERTS = "alerts"
"""The path of the page of all alerts. That of all endpoints is empty."""


def quote(text: str) -> str:
    """Return a text as one part of a path: percent-encoded, also its slashes."""
    return "".join(chr(b) if b in _PLAIN else f"%{b:02X}" for b in text.encode())


def read_public_url(text: str) -> str:
    """Return a public URL in its one spelling: scheme and host in lower case, no slash at the end.

    Raises:
        ValueError: it is not the address of a dashboard; the text says why.
    """
    if "?" in text or "#" in text:
        raise ValueError(f"must have no query and no fragment; got {text[:80]!r}")
    if "@" in text.partition("//")[2].partition("/")[0]:
        raise ValueError(
            "must have no user and no password: everyone who gets a link could read it"
        )
    found = _URL.fullmatch(text) if len(text) <= LONGEST else None
    path = found["path"].rstrip("/") if found is not None else ""
    parts = path.split("/")[1:]
    if found is None or int(found["port"] or 1) not in range(1, 65_536):
        raise ValueError(
            f"must be an address such as https://kedge.example.org/models; got {text[:80]!r}"
        )
    if any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"must have no empty part and no dots as a part of its path; got {path!r}")
    port = f":{int(found['port'])}" if found["port"] else ""
    return f"{found['scheme']}://{found['host']}".lower() + port + path


def host_of(public_url: str) -> str:
    """Return the host of a public URL, as a request names it; empty without a URL."""
    found = _URL.fullmatch(public_url)
    return found["host"].strip("[]") if found is not None else ""


# ---------------------------------------------------------------- paths below the root of all pages


def endpoint_path(endpoint: str) -> str:
    """Return the path of an endpoint's page."""
    return f"endpoints/{quote(endpoint)}"


def decisions_path(endpoint: str, cursor: str = "") -> str:
    """Return the path of the newest entries of an endpoint's history, or of those after a cursor."""
    before = f"?before={quote(cursor)}" if cursor else ""
    return f"{endpoint_path(endpoint)}/decisions{before}"


def decision_path(endpoint: str, seq: int) -> str:
    """Return the path of one entry of an endpoint's history, by its number in the ledger."""
    return f"{decisions_path(endpoint)}/{seq}"


def diagnosis_path(endpoint: str) -> str:
    """Return the path of an endpoint's diagnoses."""
    return f"{endpoint_path(endpoint)}/diagnosis"


def ready_path(endpoint: str) -> str:
    """Return the path of an endpoint's readiness, drills and runbook."""
    return f"{endpoint_path(endpoint)}/ready"


def segment_path(endpoint: str, segment: str) -> str:
    """Return the path of one segment of a comparison."""
    return f"{endpoint_path(endpoint)}/segment?name={quote(segment)}"


def act_path(endpoint: str, act: str, epoch: int | None = None) -> str:
    """Return the path of a command's form, made for a row at an epoch."""
    seen = f"?epoch={epoch}" if epoch is not None else ""
    return f"{endpoint_path(endpoint)}/act/{quote(act)}{seen}"


def receipt_path(endpoint: str, name: str) -> str:
    """Return the path of the receipt of a command that a page started."""
    return f"{endpoint_path(endpoint)}/acts/{quote(name)}"


def diagnose_path(endpoint: str) -> str:
    """Return the path that starts a diagnosis."""
    return f"{endpoint_path(endpoint)}/diagnose"


def alert_path(number: int) -> str:
    """Return the path of one alert."""
    return f"{ALERTS}/{number}"


def acknowledge_path(number: int) -> str:
    """Return the path that acknowledges an alert."""
    return f"{alert_path(number)}/ack"


# ---------------------------------------------------------------- links


class PageLinks(NamedTuple):
    """The addresses of pages for readers elsewhere; all are empty without a public URL."""

    public_url: str = ""
    """As `read_public_url` returns it; empty: there is none."""

    def to(self, path: str) -> str:
        """Return the address of a path of this module."""
        return f"{self.public_url}/{path}" if self.public_url else ""

    def endpoint(self, endpoint: str) -> str:
        """Return the address of an endpoint's page."""
        return self.to(endpoint_path(endpoint))

    def decision(self, endpoint: str, seq: int) -> str:
        """Return the address of one entry of an endpoint's history."""
        return self.to(decision_path(endpoint, seq))

    def ready(self, endpoint: str) -> str:
        """Return the address of an endpoint's readiness, drills and runbook."""
        return self.to(ready_path(endpoint))

    def alert(self, endpoint: str, number: int) -> str:
        """Return the address of an alert; without a number yet, that of its endpoint."""
        return self.to(alert_path(number)) if number > 0 else self.endpoint(endpoint)


NO_LINKS = PageLinks()
"""The links of a machine without a public URL."""
