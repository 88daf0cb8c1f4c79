"""The announcement of `kedge up`: what it serves, said once a worker really answers."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable

Say = Callable[[str], None]

LOOK_S = 0.05
"""Between two questions whether a worker answers yet."""
ANSWER_S = 2.0
"""How long one answer is waited for."""
SLOW_S = 20.0
"""After this long without an answer it is said that there is none."""
DEATHS = 2
"""Deaths in a row of one worker after which it is said: the first may have been an accident."""


def get_reachable(host: str, port: int) -> tuple[str, int]:
    """Return an address that a client on this machine can use for one that a server is bound to."""
    if host in ("", "0.0.0.0"):  # noqa: S104 - asked, not bound
        return "127.0.0.1", port
    return ("::1" if host == "::" else host), port


def get_url(host: str, port: int) -> str:
    """Return the URL of a listening address, as a browser or curl takes it."""
    host, port = get_reachable(host, port)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_answered(host: str, port: int) -> bool:
    """Return whether a worker answers there."""
    host, port = get_reachable(host, port)
    connection = http.client.HTTPConnection(host, port, timeout=ANSWER_S)
    try:
        connection.request("GET", "/v2/health/live")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


class Announcement:
    """A thread that asks until a worker answers, says so, and ends."""

    def __init__(
        self,
        *,
        answered: Callable[[], bool],
        deaths: Callable[[], dict[str, int]],
        last_words: Callable[[str], str],
        serving: str,
        say: Say,
    ) -> None:
        """Prepare it.

        Args:
            answered: whether a worker answers now.
            deaths: how often each worker died in a row.
            last_words: the last line of a worker's log.
            serving: what is said once a worker answers.
            say: says it.
        """
        self._answered = answered
        self._deaths = deaths
        self._last_words = last_words
        self._serving = serving
        self._say = say
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kedge-announcement", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def stop(self) -> None:
        """End without a word."""
        self._ending.set()

    def _run(self) -> None:
        waited, warned = 0.0, False
        while not self._answered():
            if self._ending.wait(LOOK_S):
                return
            waited += LOOK_S
            dying = {name: count for name, count in self._deaths().items() if count >= DEATHS}
            if not warned and (dying or waited >= SLOW_S):
                warned = True
                self._warn(dying)
        if not self._ending.is_set():
            self._say(self._serving)

    def _warn(self, dying: dict[str, int]) -> None:
        if not dying:
            self._say(
                f"warning: no worker has answered within {SLOW_S:g} s; kedge doctor says what is"
                " wrong"
            )
        for name, count in sorted(dying.items()):
            self._say(
                f"warning: nothing is served yet: {name} has ended {count} times:"
                f" {self._last_words(name)}"
            )
