"""Repeats: the answers of writes, stored for a day under the caller's Idempotency-Key.

Theory of operation
-------------------
* A key belongs to its caller (a token or a user). It is stored with a hash of path, precondition and
  body; another request with the same key is refused.
* The key is on the disk before the work begins, and the answer before it is sent. A repetition gets
  the stored answer and changes nothing.
* A key without an answer whose request is not under way: the process ended, the work failed in the
  middle, or the answer could not be stored. Whether the work was done is not known, and the caller
  is told so. The history knows.
* A write that changed nothing and may succeed later (503) is not stored: the key is free again.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from kedge.core.codec import decode, encode
from kedge.core.errors import BadRequest, Overloaded, Refused, Unavailable
from kedge.system.durable import write_atomically

REQUESTS_DIR = "requests"
KEPT_S = 24 * 3600.0
"""How long an answer is stored."""
MOST = 10_000
"""Maximum stored keys: one each nine seconds, all day."""
SWEEP_S = 600.0
LONGEST_KEY = 128


class StoredAnswer(msgspec.Struct, frozen=True):
    """The answer of a write, or the note that one is under way."""

    request: str
    """A hash of path, precondition and body."""
    at: float
    run: str
    """The process that carries it out."""
    status: int = 0
    """0: there is no answer yet."""
    body: bytes = b""
    epoch: int | None = None


class AnswerStore:
    """The stored answers of one state directory; any thread may use it."""

    def __init__(self, state_dir: Path, unix: Callable[[], float]) -> None:
        """Store answers below a state directory."""
        self._dir = state_dir / REQUESTS_DIR
        self._unix = unix
        self._run = secrets.token_hex(8)
        self._swept: float | None = None
        self._count = 0
        self._lock = threading.Lock()
        self._under_way: set[Path] = set()

    def begin(self, holder: str, key: str, request: bytes) -> StoredAnswer | None:
        """Reserve a key; return the stored answer if the same request was answered before.

        Raises:
            BadRequest: `key_reused`: the key belongs to another request.
            Refused: `in_progress`: the first request is not answered yet; `outcome_unknown`.
            Unavailable: `requests_unwritable`.
        """
        digest = hashlib.sha256(request).hexdigest()
        path = self._path(holder, key)
        with self._lock:
            known = self._begin(path, StoredAnswer(digest, self._unix(), self._run))
            if known is None:
                self._count += 1
                self._under_way.add(path)
                return None
            is_under_way = path in self._under_way
        if known.request != digest:
            raise BadRequest(
                f"the key {key[:40]!r} was used for another request",
                code="key_reused",
                hint="use a new key for each command",
            )
        if known.status:
            return known
        if is_under_way:
            raise Refused("the first request with this key is under way", code="in_progress")
        raise Refused(
            "whether the first request with this key was carried out is not known",
            code="outcome_unknown",
            hint="kedge history shows whether it was done; then use a new key",
        )

    def finish(
        self, holder: str, key: str, request: bytes, status: int, body: bytes, epoch: int | None
    ) -> None:
        """Store the answer of a reserved key.

        A full disk must not turn a completed command into an error: the key then stays reserved.
        """
        digest = hashlib.sha256(request).hexdigest()
        answer = StoredAnswer(digest, self._unix(), self._run, status, body, epoch)
        with suppress(OSError):
            write_atomically(self._path(holder, key), encode(answer))
        self.abandon(holder, key)

    def release(self, holder: str, key: str) -> None:
        """Free a key whose request changed nothing."""
        path = self._path(holder, key)
        with self._lock, suppress(OSError):
            path.unlink()
            self._count -= 1
        self.abandon(holder, key)

    def abandon(self, holder: str, key: str) -> None:
        """End a request. Without an answer, whether it was carried out is not known."""
        with self._lock:
            self._under_way.discard(self._path(holder, key))

    def _begin(self, path: Path, reserved: StoredAnswer) -> StoredAnswer | None:
        try:
            self._dir.mkdir(mode=0o700, exist_ok=True)
            self._sweep()
            return self._reserve(path, reserved)
        except OSError as error:
            raise Unavailable(
                f"the key cannot be stored: {error.strerror}",
                code="requests_unwritable",
                hint="without Idempotency-Key the command needs no file",
            ) from error

    def _path(self, holder: str, key: str) -> Path:
        name = hashlib.sha256(f"{len(holder)}:{holder}:{key}".encode()).hexdigest()
        return self._dir / name

    def _reserve(self, path: Path, answer: StoredAnswer) -> StoredAnswer | None:
        """Write the file if it does not exist; else return its content."""
        for _ in range(3):
            if path.exists():
                with suppress(FileNotFoundError, msgspec.DecodeError):
                    known = decode(path.read_bytes(), StoredAnswer)
                    if self._unix() - known.at < KEPT_S:
                        return known
                path.unlink(missing_ok=True)
            made = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
            write_atomically(made, encode(answer))
            try:
                os.link(made, path)  # of two requests, one makes the file
            except FileExistsError:
                continue
            finally:
                made.unlink(missing_ok=True)
            return None
        return answer

    def _sweep(self) -> None:
        """Remove expired answers, at times; refuse new ones if too many are left.

        Raises:
            Overloaded: `keys_full`.
        """
        now = self._unix()
        if self._swept is None or not 0 <= now - self._swept < SWEEP_S:
            self._count = 0
            for file in self._dir.iterdir():
                with suppress(FileNotFoundError):
                    if now - file.stat().st_mtime > KEPT_S:
                        file.unlink()
                    else:
                        self._count += 1
            self._swept = now
        if self._count > MOST:
            raise Overloaded(f"{MOST:,} keys of one day are stored", code="keys_full")


def read_key(text: str | None) -> str | None:
    """Return the Idempotency-Key of a request, if it has one.

    Raises:
        BadRequest: `bad_key`.
    """
    if text is None:
        return None
    if not text or len(text) > LONGEST_KEY or not text.isascii() or not text.isprintable():
        raise BadRequest(
            f"Idempotency-Key must have 1 to {LONGEST_KEY} printable ASCII characters",
            code="bad_key",
        )
    return text
