"""Certificates: the end of their validity, read from PEM files."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from kedge.core.errors import BadConfig
from kedge.core.time.instants import iso

WARN_S = 14 * 86_400.0
"""Seconds before the end at which it is reported. ACME clients renew 30 days before it, so an earlier
report would be one of certificates that are renewed in time."""
LONGEST = 1 << 20
"""Maximum bytes of a file of certificates; a chain has some thousand."""
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
_SEQUENCE, _VERSION, _UTC_TIME = 0x30, 0xA0, 0x17


def read_end(path: Path) -> float:
    """Return the earliest end of a file's certificates, as Unix time: a chain ends with it.

    Raises:
        OSError: the file cannot be read.
        ValueError: it has no certificate.
    """
    with path.open("rb") as file:
        text = file.read(LONGEST).decode("ascii", "replace")
    ends = [
        _end_of(ssl.PEM_cert_to_DER_cert(_BEGIN + part.partition(_END)[0] + _END))
        for part in text.split(_BEGIN)[1:]
    ]
    if not ends:
        raise ValueError(f"{path} has no certificate")
    return min(ends)


def check_ends(paths: Iterable[Path], now: float) -> None:
    """Raise if a certificate has ended, or ends soon; the one that ends first is named.

    Raises:
        BadConfig: `certificate_expired`, `certificate_expires`; `bad_certificate`: a file cannot be
            read.
    """
    try:
        end, path = min((read_end(path), path) for path in paths)
    except (OSError, ValueError) as error:
        raise BadConfig(
            [f"control.certificate: its end cannot be read: {error}"], code="bad_certificate"
        ) from error
    if end - now > WARN_S:
        return
    is_over = end <= now
    raise BadConfig(
        [f"{path}: the certificate {'expired' if is_over else 'expires'} at {iso(end)[:19]}Z"],
        code="certificate_expired" if is_over else "certificate_expires",
        hint="put a renewed pair in its place: it is used within five seconds, without a restart",
    )


def _end_of(der: bytes) -> float:
    """Return notAfter of an X.509 certificate (RFC 5280, 4.1)."""
    _, certificate, _ = _read(der)
    _, signed, _ = _read(certificate)
    kind, _, rest = _read(signed)
    fields = rest if kind == _VERSION else signed
    for _ in range(3):  # serial number, algorithm, issuer
        _, _, fields = _read(fields)
    kind, validity, _ = _read(fields)
    if kind != _SEQUENCE:
        raise ValueError("the certificate has no validity")
    _, _, rest = _read(validity)  # notBefore
    kind, text, _ = _read(rest)
    time = text.decode("ascii")
    if kind == _UTC_TIME:  # two digits of the year: 50 to 99 are of the last century
        time = ("19" if time >= "50" else "20") + time
    return datetime.strptime(time, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def _read(der: bytes) -> tuple[int, bytes, bytes]:
    """Return the tag and the content of the first value, and what follows it."""
    if len(der) < 2:
        raise ValueError("the certificate is cut off")
    size, begin = der[1], 2
    if size >= 0x80:
        begin += size - 0x80
        size = int.from_bytes(der[2:begin])
    if len(der) < begin + size:
        raise ValueError("the certificate is cut off")
    return der[0], der[begin : begin + size], der[begin + size :]
