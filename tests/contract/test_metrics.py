"""Metrics of a state directory: read, served, checked by promtool, scraped by a real Prometheus."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
import subprocess
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as plain_metrics
from starlette.applications import Starlette
from starlette.requests import Request

from contract.sql_world import POLICY, World, at, world
from kedge.cli.text.prometheus_rules import rules_text
from kedge.core.errors import Denied
from kedge.core.evidence.rules import METHOD
from kedge.core.evidence.windows import Window
from kedge.core.metrics import alert_rules
from kedge.core.metrics.dashboard import make_dashboard, queries
from kedge.core.metrics.definitions import METRICS, Metric
from kedge.core.metrics.history import Durations
from kedge.core.metrics.queries import named
from kedge.core.metrics.samples import MetricFamily, MetricSample
from kedge.core.release.commands import Canary, Promote, Rollback
from kedge.core.stored.notes import AlertOpened, ReadinessNote, build_note
from kedge.core.stored.roster import Tally
from kedge.core.values import Contact, DrillPolicy, Escalation, Guardrail, Policy
from kedge.engine.recording.recorder import latency_bin
from kedge.engine.watch import Watch, comparison_of
from kedge.operations.metrics import MetricsReader
from kedge.web.metrics import MetricsPage, make_routes
from kedge.workspace import Workplace
from support.waiting import wait_until

OPEN = "application/openmetrics-text; version=1.0.0"
NASTY = 'carrier="A\\B"\n#'
"""A segment whose value could end a label, a line or a comment."""
PROMTOOL, PROMETHEUS = shutil.which("promtool"), shutil.which("prometheus")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
needs_prometheus = pytest.mark.skipif(PROMETHEUS is None, reason="prometheus is not installed")


class Measured:
    """A canary of r2 at 25 %, with counts and evidence as workers and the patrol store them."""

    def __init__(self, tmp_path: Path) -> None:
        self.world: World = world(tmp_path)
        self.place = Workplace(tmp_path / "state")
        self.reader = MetricsReader(self.place, segments=True)
        self.page = MetricsPage()
        self.number = 0
        self.world.do(Promote(release=1))
        self.world.do(Canary(release=2, weight=2_500))

    def count(self, replica: str = "h/w0.1", **counts: int) -> None:
        row = self.world.row()
        names = {name.replace("__", "."): number for name, number in counts.items()}
        latency = {"production": {latency_bin(900): counts.get("requests__production", 0)}}
        tally = Tally(
            replica, "flights", row.production or 0, row.candidate, row.salt, names, latency
        )
        self.place.evidence.publish([tally])

    def judge(self, *segments: str) -> None:
        """Store evidence as the patrol does, with as many bad units as segments."""
        row = self.world.row()
        watch = Watch(row, self.place.windows.kept("flights", comparison_of(row)))
        self.number += 1
        cells = {"": (30, 10), **dict.fromkeys(segments, (3, 1))}
        watch.fold(
            Window(
                method=METHOD,
                replica="w0",
                number=self.number,
                endpoint="flights",
                production=row.production or 0,
                candidate=row.candidate or 0,
                salt=row.salt,
                at=int(self.place.clock.unix()),
                weight=row.weight,
                paired=False,
                exposed=cells,
                answered=cells,
                bad={"errors": {"": (0, 1)}},
            )
        )
        watch.end()
        self.place.windows.keep("flights", comparison_of(row), watch.snapshot())

    def note(self, body: Any) -> None:
        self.world.ledger.note("flights", build_note(body), by="ada", reason="", at=at())

    def scrape(self, accept: str | None = None) -> str:
        self.page.put(self.reader.read())
        return self.page.get(accept).content.decode()

    def samples(self) -> dict[tuple[str, ...], float]:
        """By name and the values of its labels, sorted by label."""
        self.reader.restore()
        found = {}
        for family in plain_metrics(self.scrape()):
            for sample in family.samples:
                found[sample.name, *(v for _, v in sorted(sample.labels.items()))] = sample.value
        return found


@pytest.fixture
def measured(tmp_path: Path) -> Measured:
    return Measured(tmp_path)


def test_a_state_directory_is_exported(measured: Measured) -> None:
    measured.samples()  # the totals begin
    measured.count(requests__production=30, requests__candidate=10, errors__candidate=2)
    measured.judge("origin=JFK")
    measured.note(ReadinessNote(ready=False, failed=("owner",)))
    measured.note(AlertOpened(alert=1, level="page"))
    found = measured.samples()
    assert found["kedge_requests_total", "production", "flights", "r1"] == 30
    assert found["kedge_request_errors_total", "candidate", "flights", "r2"] == 2
    assert found["kedge_model_duration_seconds_count", "production", "flights", "r1"] == 30
    assert found["kedge_weight_ratio", "candidate", "flights", "r2"] == 0.25
    assert found["kedge_release_info", "candidate", "flights", "r2", "v2"] == 1
    assert found["kedge_ready", "flights"] == 0
    assert found["kedge_alerts_opened_total", "flights", "page"] == 1
    assert found["kedge_decision", "flights", "r2", "inconclusive"] == 1
    assert found["kedge_bad_units", "candidate", "flights", "errors", "r2", ""] == 1
    assert found["kedge_units", "candidate", "flights", "errors", "r2", "origin=JFK"] == 1


def test_a_rollback_and_its_cause_are_exported(measured: Measured) -> None:
    measured.samples()
    measured.world.do(Rollback())
    found = measured.samples()
    assert found["kedge_rollbacks_total", "candidate", "command", "flights"] == 1
    assert found["kedge_rollouts_total", "flights", "RolledBack"] == 1
    assert found["kedge_stage", "flights", "settled"] == 1
    assert ("kedge_decision", "flights", "r2", "inconclusive") not in found


def test_counters_go_on_when_another_control_reads_the_ledger(measured: Measured) -> None:
    measured.world.do(Rollback())
    before = measured.samples()
    measured.reader = MetricsReader(measured.place, segments=True)
    after = measured.samples()
    durable = [key for key in before if key[0] in ("kedge_rollbacks_total", "kedge_rollouts_total")]
    assert durable
    assert {key: after[key] for key in durable} == {key: before[key] for key in durable}


def test_a_control_that_is_killed_takes_no_count_away_that_was_scraped(
    measured: Measured,
) -> None:
    measured.samples()
    measured.count(requests__production=30)
    measured.reader.save()
    key = ("kedge_requests_total", "production", "flights", "r1")
    assert measured.samples()[key] == 30
    measured.reader.save()
    measured.count(requests__production=37)  # while no control runs
    measured.count("h/w1.2", requests__production=5)
    measured.reader = MetricsReader(measured.place, segments=True)
    after = measured.samples()
    assert after[key] == 42
    assert after["kedge_model_duration_seconds_count", *key[1:]] == 42


@pytest.mark.parametrize("damage", [b"", b"{", b'{"series": [["a", [], -1, 1]]}', b"\xff" * 9])
def test_stored_totals_that_cannot_be_read_cost_only_the_totals(
    measured: Measured, damage: bytes
) -> None:
    measured.count(requests__production=30)
    (measured.place.state_dir / "metrics.json").write_bytes(damage)
    with pytest.raises(OSError, match="holds no totals of counters"):
        measured.reader.restore()
    key = ("kedge_requests_total", "production", "flights", "r1")
    assert measured.samples()[key] == 0
    measured.count(requests__production=31)
    assert measured.samples()[key] == 1
    measured.reader.save()


def test_lost_counts_leave_the_last_samples_and_say_so(measured: Measured) -> None:
    measured.samples()
    measured.count(requests__production=30)
    assert measured.samples()["kedge_evidence_readable",] == 1
    measured.world.close()
    measured.place.database.close()
    (measured.place.state_dir / "ledger" / "ledger.db").unlink()
    found = measured.samples()
    assert found["kedge_ledger_readable",] == 0
    assert found["kedge_requests_total", "production", "flights", "r1"] == 30
    assert found["kedge_epoch", "flights"] == measured.samples()["kedge_epoch", "flights"]


def test_both_formats_hold_the_same_samples(measured: Measured) -> None:
    measured.count(requests__production=30)
    measured.judge("origin=JFK", NASTY)
    plain = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in plain_metrics(measured.scrape())
        for sample in family.samples
    }
    opened = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in open_metrics(  # type: ignore[no-untyped-call]
            measured.page.get(OPEN).content.decode()
        )
        for sample in family.samples
    }
    assert opened == plain
    assert any(NASTY in str(key) or ("segment", NASTY) in key for key in plain)


def test_a_family_that_changed_is_written_again(measured: Measured) -> None:
    first = measured.scrape()
    measured.count(requests__production=3)
    second = measured.scrape()
    assert first != second
    fresh = MetricsPage()
    fresh.put(measured.reader.read())
    stamp = re.compile(r"(kedge_metrics_timestamp_seconds|kedge_evidence_age_seconds\{.*\}) .*")
    assert stamp.sub("", fresh.get(None).content.decode()) == stamp.sub("", second)


def test_a_scrape_during_a_flip_sees_one_reading(measured: Measured) -> None:
    readings = [measured.reader.read()]
    measured.world.do(Rollback())
    readings.append(measured.reader.read())
    wholes = set()
    for reading in readings:
        fresh = MetricsPage()
        fresh.put(reading)
        wholes |= {fresh.get(accept).content for accept in (None, OPEN)}
    page, ended = MetricsPage(), threading.Event()
    page.put(readings[0])

    def flip() -> None:
        while not ended.is_set():
            for reading in readings:
                page.put(reading)

    writer = threading.Thread(target=flip)
    writer.start()
    try:
        seen = {page.get(accept).content for _ in range(200) for accept in (None, OPEN)}
    finally:
        ended.set()
        writer.join()
    assert seen <= wholes


def test_a_page_keeps_a_bounded_number_of_formats(measured: Measured) -> None:
    for version in range(1, 20):
        body = measured.page.get(f"application/openmetrics-text; version=1.{version}.0")
        assert body.content_type.startswith("application/openmetrics-text")
    assert len(measured.page._formats) == 4


# ---------------------------------------------------------------- the route


def served(page: MetricsPage, refuses: bool = False) -> Starlette:
    async def check(_: Request) -> None:
        if refuses:
            raise Denied("this token has no scope metrics", code="missing_scope")

    return Starlette(routes=[*make_routes(page, check)])


def test_the_route_negotiates_the_format(measured: Measured) -> None:
    measured.scrape()

    async def ask() -> None:
        transport = httpx2.ASGITransport(served(measured.page))
        async with httpx2.AsyncClient(transport=transport, base_url="http://kedge") as client:
            plain = await client.get("/metrics")
            assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
            opened = await client.get("/metrics", headers={"accept": OPEN})
            assert opened.headers["content-type"].startswith("application/openmetrics-text")
            assert opened.text.endswith("# EOF\n")
            assert opened.text.count("# EOF") == 1
            assert (await client.post("/metrics")).status_code == 405

    asyncio.run(ask())


def test_nothing_is_read_without_permission(measured: Measured) -> None:
    asked: list[bool] = []
    page = MetricsPage(lambda: asked.append(True))

    async def ask() -> None:
        transport = httpx2.ASGITransport(served(page, refuses=True))
        async with httpx2.AsyncClient(transport=transport, base_url="http://kedge") as client:
            with pytest.raises(Denied):
                await client.get("/metrics")

    asyncio.run(ask())
    assert not asked


# ---------------------------------------------------------------- promtool

FULL = Policy(
    audience="customer",
    owner=Contact("Ada", "mailto:ada@example.org"),
    escalation=(Escalation("0s", ("owner",)), Escalation("10m", ("rota",))),
    guardrails={"cost": Guardrail(0.2), "violations": Guardrail(0.5)},
    drill=DrillPolicy("30d"),
    readiness="refuse",
)
RULES = alert_rules.make_rules({"flights": FULL, "wine": POLICY})


def promtool(*words: str, given: str = "") -> str:
    assert PROMTOOL is not None
    done = subprocess.run(
        [PROMTOOL, *words], input=given, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@needs_promtool
def test_promtool_finds_no_fault_in_the_samples(measured: Measured) -> None:
    measured.samples()
    measured.count(requests__production=30, refused__bad_request=2, failover__model_late=1)
    measured.judge("origin=JFK", NASTY)
    measured.world.do(Rollback())
    assert promtool("check", "metrics", given=measured.scrape()) == ""


@needs_promtool
def test_promtool_finds_no_fault_in_any_metric_of_the_table() -> None:
    def value(metric: Metric) -> float | Durations:
        buckets = len(metric.bounds) + 1
        return Durations((1,) * buckets, 1.0) if metric.bounds else 1.0

    page = MetricsPage()
    page.put(
        tuple(
            MetricFamily(metric, (MetricSample(metric.labels, value(metric)),))
            for metric in METRICS
        )
    )
    assert promtool("check", "metrics", given=page.get(None).content.decode()) == ""


@needs_promtool
def test_promtool_accepts_the_rules_and_every_query_of_the_dashboard(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(rules_text(RULES), "utf-8")
    count = sum(len(group.rules) for group in RULES.groups)
    assert f"{count} rules found" in promtool("check", "rules", str(rules))
    asked = [
        {"record": "a:query", "labels": {"n": str(n)}, "expr": concrete(query)}
        for n, query in enumerate(queries(make_dashboard()))
    ]
    recorded = tmp_path / "queries.yaml"
    recorded.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": asked}]}), "utf-8")
    assert f"{len(asked)} rules found" in promtool("check", "rules", str(recorded))


def concrete(query: str) -> str:
    """A query of the dashboard with the variables that Grafana replaces."""
    return query.replace("$endpoint", "flights").replace("$__rate_interval", "1m")


def test_rules_and_dashboard_use_only_exported_metrics() -> None:
    known = {metric.name + end for metric in METRICS for end in ("", "_bucket", "_count", "_sum")}
    used: set[str] = set()
    for query in (*queries(make_dashboard()), *(r.expr for g in RULES.groups for r in g.rules)):
        assert named(query)
        used |= named(query)
    assert used <= known


def test_limits_of_the_rules_come_from_the_policy() -> None:
    def of(policy: Policy) -> dict[str, tuple[str, int, str, str]]:
        (_, group) = alert_rules.make_rules({"flights": policy}).groups
        return {
            rule.alert: (rule.expr, rule.for_s, rule.severity, rule.summary) for rule in group.rules
        }

    full, bare = of(FULL), of(Policy())
    assert full["KedgeCandidateWorseCost"][3].endswith("its margin of 0.2")
    assert "KedgeCandidateWorseCost" not in bare
    assert bare["KedgeCandidateWorseErrors"][3].endswith("its margin of 0.5")
    assert full["KedgePageUnacknowledged"][1] == 600
    assert full["KedgeDrillOverdue"][0].endswith(f"> {45 * 86_400}")
    assert "KedgeDrillOverdue" not in bare
    assert (full["KedgeNotReady"][2], bare["KedgeNotReady"][2]) == ("page", "warn")


# ---------------------------------------------------------------- a real Prometheus


@contextmanager
def web(app: Starlette) -> Iterator[str]:
    """Serve an app on loopback; yield its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)


@contextmanager
def prometheus(tmp_path: Path, target: str) -> Iterator[str]:
    """A Prometheus that scrapes the target each second, with the rules; yield its URL."""
    assert PROMETHEUS is not None
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (tmp_path / "rules.yaml").write_text(rules_text(RULES), "utf-8")
    config = tmp_path / "prometheus.yaml"
    scrape = {"job_name": "kedge", "static_configs": [{"targets": [target]}]}
    config.write_text(
        json.dumps(
            {
                "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                "rule_files": [str(tmp_path / "rules.yaml")],
                "scrape_configs": [scrape],
            }
        ),
        "utf-8",
    )
    process = subprocess.Popen(
        [
            PROMETHEUS,
            f"--config.file={config}",
            f"--storage.tsdb.path={tmp_path / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def asked(url: str, query: str) -> list[dict[str, Any]]:
    """The result of a query; none while Prometheus starts."""
    try:
        where = f"{url}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
        with urllib.request.urlopen(where, timeout=10) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
            return found
    except OSError:
        return []


@needs_prometheus
def test_a_real_prometheus_scrapes_and_evaluates_everything(
    measured: Measured, tmp_path: Path
) -> None:
    measured.samples()
    measured.count(requests__production=30, requests__candidate=10)
    measured.judge("origin=JFK", NASTY)
    measured.scrape(OPEN)
    with web(served(measured.page)) as target, prometheus(tmp_path, target) as url:
        (up,) = wait_until(lambda: asked(url, "up == 1"), "Prometheus scrapes", 60)
        assert up["metric"]["job"] == "kedge"
        (answered,) = asked(url, 'kedge_requests_total{arm="production"}')
        assert answered["value"][1] == "30"
        assert {s["metric"].get("segment", "") for s in asked(url, "kedge_units")} == {
            "",
            "origin=JFK",
            NASTY,
        }
        with urllib.request.urlopen(f"{url}/api/v1/metadata", timeout=10) as answer:
            told = {name: found[0] for name, found in json.load(answer)["data"].items()}
        exported = {family.metric for family in measured.reader.read()}
        for metric in exported:
            # In OpenMetrics a counter's family is named without the end of its sample.
            known = told.get(metric.name) or told[metric.name.removesuffix("_total")]
            assert known["type"] == metric.kind.value, metric.name
            assert known["help"] == metric.meaning, metric.name
        assert len(exported) > 30
        for query in (*queries(make_dashboard()), *(r.expr for g in RULES.groups for r in g.rules)):
            where = urllib.parse.urlencode({"query": concrete(query)})
            with urllib.request.urlopen(f"{url}/api/v1/query?{where}", timeout=10) as answer:
                assert json.load(answer)["status"] == "success", query
        assert asked(url, concrete(queries(make_dashboard())[0]))
