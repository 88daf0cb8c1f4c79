"""Announcement of `kedge up`: a line that says what it serves, printed once a worker answers."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable

Say = Callable[[str], None]

LOOK_S = 0.05
"""Seconds between two requests that test whether a worker answers."""
ANSWER_S = 2.0
"""Timeout of one such request."""
LOGIN_S, LOGIN_LOOKS = 0.5, 60
"""Seconds between two looks for control, and the number of them, until its line is left out."""
SLOW_S = 20.0
"""After this long without an answer, a warning is printed."""
DEATHS = 2
"""Deaths in a row of one worker after which a warning is printed; one may be an accident."""


def get_reachable(host: str, port: int) -> tuple[str, int]:
    """Return the address at which a client on this machine reaches a server's bound address."""
    if host in ("", "0.0.0.0"):  # noqa: S104 - asked, not bound
        return "127.0.0.1", port
    return ("::1" if host == "::" else host), port


def get_url(host: str, port: int) -> str:
    """Return the URL of a listening address, for a browser or curl."""
    host, port = get_reachable(host, port)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_answered(host: str, port: int, path: str = "/v2/health/live") -> bool:
    """Return whether a worker, or another server with that path, answers at an address."""
    host, port = get_reachable(host, port)
    connection = http.client.HTTPConnection(host, port, timeout=ANSWER_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


class Announcement:
    """A thread that polls until a worker answers, prints a line, and ends."""

    def __init__(
        self,
        *,
        answered: Callable[[], bool],
        deaths: Callable[[], dict[str, int]],
        last_words: Callable[[str], str],
        serving: str,
        say: Say,
        login: Callable[[], str] = lambda: "",
    ) -> None:
        """Prepare the thread; `start` starts it.

        Args:
            answered: returns whether a worker answers now.
            deaths: returns how often each worker died in a row.
            last_words: returns the last line of a worker's log.
            serving: the line that is printed once a worker answers.
            say: prints a line.
            login: returns the line about the dashboard, or nothing while control is not ready.
        """
        self._answered = answered
        self._deaths = deaths
        self._last_words = last_words
        self._serving = serving
        self._say = say
        self._login = login
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kedge-announcement", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread; it prints nothing more."""
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
        if self._ending.is_set():
            return
        self._say(self._serving)
        for _ in range(LOGIN_LOOKS):
            told = self._login()
            if told:
                self._say(told)
                return
            if self._ending.wait(LOGIN_S):
                return

    def _warn(self, dying: dict[str, int]) -> None:
        if not dying:
            self._say(
                f"warning: no worker has answered within {SLOW_S:g} s; kedge doctor shows what is"
                " wrong"
            )
        for name, count in sorted(dying.items()):
            self._say(
                f"warning: nothing is served yet: {name} has ended {count} times:"
                f" {self._last_words(name)}"
            )
