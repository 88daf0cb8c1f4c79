"""Auth of testers and callers: tokens for a chosen release or an uncounted request, or for any.

A tester sends `Authorization: Bearer TOKEN`. The file of the setting `tester_token_file` has the
tokens, one per line. kedge's own commands send the secret of the state directory, which only the
user of `kedge up` can read.
"""

from __future__ import annotations

import hmac
import os
import stat
from codecs import BOM_UTF8
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from kedge.core.errors import BadConfig, BadRequest
from kedge.system.durable import write_atomically

SECRET = "secret"
"""Name of a file in the state directory, of mode 0600: one token, for kedge's own commands."""
LEAST = 16
"""Minimum characters of a token: a shorter one can be guessed."""
MOST_BYTES = 64 * 1024
"""Maximum bytes of the token file: some thousand tokens."""
BEARER = b"bearer "


TESTERS, CALLERS = "tester_token_file", "caller_token_file"
"""The settings that name a file of tokens."""
_WHY = {
    TESTERS: "only a tester may ask a certain release, or mark a probe",
    CALLERS: "a caller needs a token",
}


class Tokens:
    """The tokens of testers, or of callers, stored as digests only."""

    def __init__(self, *files: Path, setting: str = TESTERS) -> None:
        """Accept the tokens of these files, which are read again when they change."""
        self._setting = setting
        self._files = [_TokenFile(path, f"server.{setting}") for path in files]

    def check(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Raise if a request does not come from one of them.

        Raises:
            BadRequest: the request has no valid token.
        """
        shown = [value for name, value in headers if name == b"authorization"]
        if not shown:
            raise BadRequest(
                _WHY[self._setting],
                code="token_missing",
                hint=f"Authorization: Bearer TOKEN, from [server] {self._setting}",
            )
        # Of two, a server before this one may have checked the other.
        given = _digest(shown[0][len(BEARER) :].strip())
        good = len(shown) == 1 and shown[0][: len(BEARER)].lower() == BEARER
        # Compare every token, in constant time, so that timing does not show which one is similar.
        known = False
        for each in (digest for file in self._files for digest in file.digests()):
            known |= hmac.compare_digest(given, each)
        if not (good and known):
            raise BadRequest(
                "the token is not known, or given twice",
                code="token_refused",
                hint=f"[server] {self._setting} lists the tokens",
            )


class _TokenFile:
    """The tokens of one file."""

    def __init__(self, path: Path, setting: str) -> None:
        self._path, self._setting = path, setting
        self._mark: tuple[int, int, int] | None = None
        self._digests: tuple[bytes, ...] = ()

    def digests(self) -> tuple[bytes, ...]:
        """Return the digests; none while the file is unreadable, or readable by other users."""
        try:
            found = self._path.stat()
            mark = (found.st_ctime_ns, found.st_size, found.st_ino)
            if mark != self._mark:
                self._digests = tuple(
                    _digest(token) for token in read_tokens(self._path, self._setting)
                )
                self._mark = mark
        except (OSError, BadConfig):
            self._digests, self._mark = (), None
        return self._digests


def make_secret(state_dir: Path) -> None:
    """Make the secret of a state directory, unless a complete one exists."""
    path = state_dir / SECRET
    if read_secret(state_dir):
        return
    write_atomically(path, os.urandom(32).hex().encode() + b"\n")


def read_secret(state_dir: Path) -> str:
    """Return the secret of a state directory; empty if it is missing or not readable."""
    try:
        found = read_tokens(state_dir / SECRET, SECRET)
    except BadConfig:
        return ""
    return found[0].decode("latin-1") if found else ""


def read_tokens(path: Path, setting: str) -> list[bytes]:
    """Read the tokens of a file, one per line; skip empty lines and lines with #.

    `setting` names the file in an error, as kedge.toml does.

    Raises:
        BadConfig: the file cannot be read, other users can read it, or a token is too short.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise BadConfig([f"{setting}: {path}: {error.strerror}"]) from error
    if stat.S_IMODE(mode) & 0o077:
        raise BadConfig(
            [f"{setting}: {path} can be read by other users"],
            hint=f"chmod 600 {path}",
        )
    if len(text) > MOST_BYTES:
        raise BadConfig([f"{setting}: {path} is larger than {MOST_BYTES} bytes"])
    tokens = [line.strip() for line in text.removeprefix(BOM_UTF8).splitlines()]
    tokens = [token for token in tokens if token and not token.startswith(b"#")]
    if any(len(token) < LEAST for token in tokens):
        raise BadConfig(
            [f"{setting}: a token in {path} is shorter than {LEAST} characters"],
            hint="openssl rand -hex 32",
        )
    return tokens


def _digest(token: bytes) -> bytes:
    return sha256(token).digest()
