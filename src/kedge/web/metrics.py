"""Metrics page of the control process: Prometheus text or OpenMetrics, as the scraper asks.

A loop puts samples on the page. A scrape gets the bytes that were made of them before, and reads
nothing: so it costs the same with one endpoint as with hundreds of segments.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import NamedTuple

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric as Exposed
from prometheus_client.registry import Collector
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kedge.core.metrics.definitions import MetricKind
from kedge.core.metrics.history import Durations
from kedge.core.metrics.samples import MetricFamily

PATH = "/metrics"
FORMATS = 4
"""Content types that are kept ready; a scraper asks for one."""
END = b"# EOF\n"
"""End of an OpenMetrics text; the text of each family has it, and the page once."""

Encode = Callable[[Collector], bytes]
Check = Callable[[Request], Awaitable[object]]
"""A function that raises if the caller may not read metrics."""


class MetricsBody(NamedTuple):
    """The answer to one scrape."""

    content: bytes
    content_type: str


class MetricsPage:
    """The newest samples as text, in each format that a scraper has asked for."""

    def __init__(self, asked: Callable[[], None] | None = None) -> None:
        """Begin without samples; `asked` is called at each scrape."""
        self._asked = asked
        self._lock = threading.Lock()
        self._families: tuple[MetricFamily, ...] = ()
        self._formats: dict[str, _Format] = {}

    def put(self, families: tuple[MetricFamily, ...]) -> None:
        """Replace the samples, and make the text of every known format."""
        with self._lock:
            formats = list(self._formats.values())
        for form in formats:
            form.write(families)
        self._families = families

    def get(self, accept: str | None) -> MetricsBody:
        """Return the page in the format that an Accept header names; the first call makes it."""
        if self._asked is not None:
            self._asked()
        encode, content_type = choose_encoder(accept or "")
        with self._lock:
            form = self._formats.get(content_type)
            if form is None:
                form = self._formats[content_type] = _Format(encode)
                while len(self._formats) > FORMATS:
                    del self._formats[next(iter(self._formats))]
        if not form.body:
            form.write(self._families)
        return MetricsBody(form.body, content_type)


class _Format:
    """The page in one format. Only the families that changed are written again."""

    def __init__(self, encode: Encode) -> None:
        self._encode = encode
        self._known: dict[str, tuple[MetricFamily, bytes]] = {}
        self._lock = threading.Lock()
        self.body = b""

    def write(self, families: Sequence[MetricFamily]) -> None:
        """Write the page of these families."""
        with self._lock:
            known = {}
            for family in families:
                name = family.metric.name
                before, text = self._known.get(name, (None, b""))
                known[name] = family, text if before == family else self._text(family)
            self._known = known
            body = b"".join(text for _, text in known.values())
            self.body = body + END if self._encode(_Nothing()) == END else body

    def _text(self, family: MetricFamily) -> bytes:
        return self._encode(_One(family)).removesuffix(END)


class _Nothing(Collector):
    """A collector without metrics."""

    def collect(self) -> Iterator[Exposed]:
        """Yield nothing."""
        return iter(())


class _One(Collector):
    """A collector of one family."""

    def __init__(self, family: MetricFamily) -> None:
        self._family = family

    def collect(self) -> Iterator[Exposed]:
        """Yield the family as the client library has it."""
        yield exposed(self._family)


def exposed(family: MetricFamily) -> Exposed:
    """Return a family as the client library has it."""
    metric = family.metric
    name, meaning, labels = metric.name, metric.meaning, metric.labels
    if metric.kind is MetricKind.HISTOGRAM:
        spread = HistogramMetricFamily(name, meaning, labels=labels)
        for sample in family.samples:
            assert isinstance(sample.value, Durations)
            ends = [*(f"{bound:.9g}" for bound in metric.bounds), "+Inf"]
            buckets = list(zip(ends, map(float, sample.value.counts), strict=True))
            spread.add_metric(sample.labels, buckets, sample.value.total)
        return spread
    counter = metric.kind is MetricKind.COUNTER
    kind = CounterMetricFamily if counter else GaugeMetricFamily
    plain = kind(name, meaning, labels=labels)
    for sample in family.samples:
        assert not isinstance(sample.value, Durations)
        plain.add_metric(sample.labels, float(sample.value))
    return plain


def make_routes(page: MetricsPage, check: Check | None = None) -> list[Route]:
    """Return the route of the page; `check` raises if a caller may not read it."""

    async def answer(request: Request) -> Response:
        if check is not None:
            await check(request)
        accept = ", ".join(request.headers.getlist("accept"))
        content, content_type = await run_in_threadpool(page.get, accept)
        return Response(content, headers={"content-type": content_type, "vary": "accept"})

    return [Route(PATH, answer, methods=["GET"])]
