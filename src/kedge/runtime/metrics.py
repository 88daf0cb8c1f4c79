"""Metrics of the control process: a loop reads them, and puts them on the page of scrapes."""

from __future__ import annotations

from kedge.engine.loop import Duty, Loop
from kedge.operations.metrics import MetricsReader
from kedge.web.metrics import MetricsPage

FRESH_S = 5.0
"""Interval between readings while a monitoring system scrapes: a third of the usual interval."""
IDLE_S = 60.0
"""Interval between readings while none does: so a first scrape gets samples too."""
SCRAPED_S = 300.0
"""Time after a scrape for which samples stay fresh: longer than any usual interval of scrapes."""


class MetricsLoop:
    """Renews the page. Scrapes never wait for it, and it never waits for a scrape."""

    def __init__(self, duty: Duty, reader: MetricsReader) -> None:
        """Read with this reader."""
        self.page = MetricsPage(self._asked)
        self._clock = duty.clock
        self._reader = reader
        self._read_at: float | None = None
        self._scraped_at = -SCRAPED_S
        self.loop = Loop(duty, "control.metrics", self.look, every_s=FRESH_S)

    def look(self) -> None:
        """Renew the page if that is due."""
        now = self._clock.monotonic()
        idle = now - self._scraped_at >= SCRAPED_S
        if self._read_at is None or not idle or now - self._read_at >= IDLE_S:
            self._read_at = now
            try:
                self._reader.restore()
            finally:
                found = self._reader.read()
                try:
                    self._reader.save()
                finally:  # a full disk costs no scrape
                    self.page.put(found)

    def _asked(self) -> None:
        """Note a scrape; called in the thread of the scrape."""
        self._scraped_at = self._clock.monotonic()
