"""Dashboard for Grafana, as the JSON that it imports; its queries come from the table of metrics."""

from __future__ import annotations

from typing import Literal, NamedTuple

from kedge.core.metrics import definitions as of
from kedge.core.metrics.queries import increase, quantile, rate, selector
from kedge.core.values import Stage, Value

SCHEMA = 39
"""Version of Grafana's format of dashboards: that of Grafana 11, which later ones convert."""
WIDTH, HEIGHT = 24, 8
"""Grafana's grid is 24 wide; a chart of 8 rows shows its legend."""
CHOSEN = "~$endpoint"
"""The endpoints that the viewer has chosen."""
WINDOW = "$__rate_interval"

Unit = Literal["reqps", "percentunit", "s", "short", "none", "dateTimeFromNow"]
View = Literal["timeseries", "stat", "table", "state-timeline", "bargauge"]


class _Query(NamedTuple):
    expr: str
    legend: str
    instant: bool = False


class _Chart(NamedTuple):
    title: str
    view: View
    unit: Unit
    queries: tuple[_Query, ...]
    width: int = 8
    log: bool = False
    words: tuple[str, ...] = ()
    """Names of the values 0, 1, 2, ...; empty: they are shown as numbers."""


class DataSource(Value, frozen=True):
    """The source that the viewer has chosen."""

    type: str = "prometheus"
    uid: str = "${datasource}"


SOURCE = DataSource()


class GridPosition(Value, frozen=True):
    """The place of a panel."""

    x: int
    y: int
    w: int
    h: int


class PanelTarget(Value, frozen=True, kw_only=True, rename="camel"):
    """A query of a panel."""

    ref_id: str
    expr: str
    legend_format: str
    instant: bool
    range: bool
    format: Literal["table", "time_series"] = "time_series"
    """A table with a line for each series needs its own format."""
    datasource: DataSource = SOURCE


class Panel(Value, frozen=True, kw_only=True, rename="camel"):
    """A panel."""

    id: int
    type: str
    title: str
    description: str
    grid_pos: GridPosition
    targets: tuple[PanelTarget, ...]
    field_config: dict[str, object]
    options: dict[str, object]
    datasource: DataSource = SOURCE


class GrafanaDashboard(Value, frozen=True, kw_only=True, rename="camel"):
    """A dashboard."""

    uid: str
    title: str
    tags: tuple[str, ...]
    schema_version: int
    version: int
    editable: bool
    refresh: str
    timezone: str
    time: dict[str, str]
    templating: dict[str, object]
    annotations: dict[str, object]
    panels: tuple[Panel, ...]


def make_dashboard() -> GrafanaDashboard:
    """Return the dashboard of all endpoints."""
    return GrafanaDashboard(
        uid="kedge",
        title="kedge",
        tags=("kedge",),
        schema_version=SCHEMA,
        version=1,
        editable=True,
        refresh="10s",
        timezone="browser",
        time={"from": "now-6h", "to": "now"},
        templating={"list": _variables()},
        annotations={"list": _marks()},
        panels=_panels(),
    )


def _charts() -> tuple[_Chart, ...]:
    return (*_state(), *_traffic(), *_shadow(), *_evidence(), *_quality(), *_operations())


def _state() -> tuple[_Chart, ...]:
    ends = selector(of.BACK, endpoint=CHOSEN)
    # One series for each endpoint, whose value is the number of the stage.
    numbers = "".join(
        f" + on (endpoint) {n} * {selector(of.STAGE, endpoint=CHOSEN, stage=stage.value)}"
        for n, stage in enumerate(Stage)
    )
    return (
        _Chart(
            "Stage",
            "state-timeline",
            "none",
            (_Query(numbers.removeprefix(" + on (endpoint) "), "{{endpoint}}"),),
            words=tuple(stage.value for stage in Stage),
        ),
        _Chart(
            "Share of callers",
            "timeseries",
            "percentunit",
            (_Query(selector(of.WEIGHT, endpoint=CHOSEN), "{{endpoint}} {{release}} {{arm}}"),),
        ),
        _Chart(
            "Live releases",
            "table",
            "none",
            (_Query(selector(of.RELEASE_INFO, endpoint=CHOSEN), "", instant=True),),
        ),
        _Chart(
            "Replicas",
            "timeseries",
            "short",
            (_Query(selector(of.REPLICAS, endpoint=CHOSEN), "{{endpoint}} {{state}}"),),
        ),
        _Chart(
            "Rollback target by replica",
            "timeseries",
            "short",
            (_Query(ends, "{{endpoint}} {{release}} {{state}}"),),
        ),
        _Chart(
            "Ready for a rollback",
            "stat",
            "none",
            (_Query(selector(of.READY, endpoint=CHOSEN), "{{endpoint}}", instant=True),),
        ),
    )


def _traffic() -> tuple[_Chart, ...]:
    by = "endpoint,release,arm"
    answered = rate(of.REQUESTS, WINDOW, by, endpoint=CHOSEN)
    failed = rate(of.ERRORS, WINDOW, by, endpoint=CHOSEN)
    legend = "{{endpoint}} {{release}} {{arm}}"
    return (
        _Chart("Requests", "timeseries", "reqps", (_Query(answered, legend),)),
        _Chart(
            "Failed requests",
            "timeseries",
            "percentunit",
            (_Query(f"{failed} / ({answered} + {failed})", legend),),
        ),
        _Chart(
            "Time inside the model",
            "timeseries",
            "s",
            tuple(
                _Query(
                    quantile(q, of.DURATION, WINDOW, by, endpoint=CHOSEN),
                    f"p{q * 100:.0f} {legend}",
                )
                for q in (0.5, 0.99)
            ),
            log=True,
        ),
        _Chart(
            "Refused requests",
            "timeseries",
            "reqps",
            (
                _Query(
                    rate(of.REFUSED, WINDOW, "endpoint,code", endpoint=CHOSEN),
                    "{{endpoint}} {{code}}",
                ),
            ),
        ),
        _Chart(
            "Canary requests that production answered",
            "timeseries",
            "reqps",
            (
                _Query(
                    rate(of.FAILOVERS, WINDOW, "endpoint,release,cause", endpoint=CHOSEN),
                    "{{endpoint}} {{release}} {{cause}}",
                ),
            ),
        ),
        _Chart(
            "Feature violations",
            "timeseries",
            "short",
            (
                _Query(
                    rate(of.VIOLATIONS, WINDOW, "endpoint,arm,feature,kind", endpoint=CHOSEN),
                    "{{endpoint}} {{arm}} {{feature}} {{kind}}",
                ),
            ),
        ),
    )


def _shadow() -> tuple[_Chart, ...]:
    legend = "{{endpoint}} {{release}}"
    dropped = rate(of.SHADOW_DROPPED, WINDOW, "endpoint,release,cause", endpoint=CHOSEN)
    lost = rate(of.SHADOW_FAILED, WINDOW, "endpoint,release,cause", endpoint=CHOSEN)
    return (
        _Chart(
            "Agreement and coverage of the shadow",
            "timeseries",
            "percentunit",
            (
                _Query(selector(of.AGREEMENT, endpoint=CHOSEN), f"agreement {legend}"),
                _Query(selector(of.COVERAGE, endpoint=CHOSEN), f"coverage {legend}"),
            ),
        ),
        _Chart(
            "Copies without an answer",
            "timeseries",
            "reqps",
            (
                _Query(dropped, "dropped {{endpoint}} {{cause}}"),
                _Query(lost, "failed {{endpoint}} {{cause}}"),
            ),
        ),
        _Chart(
            "Healthy part of the shadow's window",
            "bargauge",
            "percentunit",
            (
                _Query(
                    f"{selector(of.HEALTHY, endpoint=CHOSEN)}"
                    f" / {selector(of.HEALTHY_NEEDED, endpoint=CHOSEN)}",
                    "{{endpoint}}",
                    instant=True,
                ),
            ),
        ),
    )


def _evidence() -> tuple[_Chart, ...]:
    e_value = selector(of.E_VALUE, endpoint=CHOSEN)
    bad = selector(of.BAD_UNITS, endpoint=CHOSEN, segment="!")
    units = selector(of.UNITS, endpoint=CHOSEN, segment="!")
    return (
        _Chart(
            "Evidence that the candidate is worse",
            "timeseries",
            "none",
            (
                _Query(e_value, "{{endpoint}} {{release}} {{metric}}"),
                _Query(selector(of.E_THRESHOLD, endpoint=CHOSEN), "fails at: {{endpoint}}"),
            ),
            log=True,
        ),
        _Chart(
            "Rate of bad units, relative to production",
            "timeseries",
            "none",
            (
                _Query(
                    selector(of.RATE_RATIO, endpoint=CHOSEN), "{{endpoint}} {{metric}} {{bound}}"
                ),
                _Query(
                    f"1 + {selector(of.MARGIN, endpoint=CHOSEN)}", "margin {{endpoint}} {{metric}}"
                ),
            ),
        ),
        _Chart(
            "Verdicts",
            "table",
            "none",
            (_Query(selector(of.VERDICTS, endpoint=CHOSEN), "", instant=True),),
        ),
        _Chart(
            "Worst segments: share of bad units",
            "bargauge",
            "percentunit",
            (
                _Query(
                    f"topk(20, {bad} / ({units} > 0))",
                    "{{endpoint}} {{metric}} {{segment}} {{release}}",
                    instant=True,
                ),
            ),
            width=16,
        ),
    )


def _quality() -> tuple[_Chart, ...]:
    return (
        _Chart(
            "Quality of labelled predictions",
            "timeseries",
            "none",
            (_Query(selector(of.QUALITY, endpoint=CHOSEN), "{{endpoint}} {{release}} {{metric}}"),),
        ),
        _Chart(
            "Loss, relative to production's",
            "timeseries",
            "none",
            (
                _Query(
                    selector(of.LOSS_RATIO, endpoint=CHOSEN), "{{endpoint}} {{metric}} {{bound}}"
                ),
                _Query(
                    f"1 + {selector(of.MARGIN, endpoint=CHOSEN, metric='quality')}",
                    "margin {{endpoint}}",
                ),
            ),
        ),
        _Chart(
            "Labels",
            "timeseries",
            "percentunit",
            (
                _Query(
                    selector(of.LABEL_COVERAGE, endpoint=CHOSEN), "coverage {{endpoint}} {{arm}}"
                ),
            ),
        ),
    )


def _operations() -> tuple[_Chart, ...]:
    return (
        _Chart(
            "Rollbacks",
            "timeseries",
            "short",
            (
                _Query(
                    increase(of.ROLLBACKS, WINDOW, "endpoint,arm,cause", endpoint=CHOSEN),
                    "{{endpoint}} {{arm}} {{cause}}",
                ),
            ),
        ),
        _Chart(
            "Time of rollbacks, by phase (p95 of all)",
            "bargauge",
            "s",
            (
                _Query(
                    "histogram_quantile(0.95, sum by (le,phase) ("
                    f"{selector(of.ROLLBACK_DURATION, '_bucket', endpoint=CHOSEN)}))",
                    "{{phase}}",
                    instant=True,
                ),
            ),
        ),
        _Chart(
            "Open alerts",
            "timeseries",
            "short",
            (
                _Query(
                    f"{selector(of.ALERTS, endpoint=CHOSEN)} > 0",
                    "{{endpoint}} {{level}} acknowledged: {{acknowledged}}",
                ),
            ),
        ),
        _Chart(
            "Last drill that succeeded",
            "stat",
            "dateTimeFromNow",
            (
                _Query(
                    f"{selector(of.DRILL_AT, endpoint=CHOSEN)} * 1000",
                    "{{endpoint}}",
                    instant=True,
                ),
            ),
        ),
        _Chart(
            "Failing checks of readiness",
            "table",
            "none",
            (_Query(selector(of.UNREADY, endpoint=CHOSEN), "", instant=True),),
        ),
        _Chart(
            "Faults that kedge survived, and refusals of its limits",
            "timeseries",
            "short",
            (
                _Query(rate(of.FAULTS, WINDOW, "kind,place"), "{{kind}} {{place}}"),
                _Query(rate(of.LIMITED, WINDOW, "kind,limit"), "{{kind}} {{limit}}"),
            ),
        ),
    )


def _panels() -> tuple[Panel, ...]:
    found: list[Panel] = []
    x = y = 0
    for number, chart in enumerate(_charts(), start=1):
        if x + chart.width > WIDTH:
            x, y = 0, y + HEIGHT
        found.append(_panel(number, chart, GridPosition(x, y, chart.width, HEIGHT)))
        x += chart.width
    return tuple(found)


def _panel(number: int, chart: _Chart, place: GridPosition) -> Panel:
    defaults: dict[str, object] = {"unit": chart.unit}
    if chart.view == "timeseries":
        scale = {"type": "log", "log": 10} if chart.log else {"type": "linear"}
        defaults["custom"] = {"scaleDistribution": scale}
    if chart.words:
        named = {str(n): {"text": word, "index": n} for n, word in enumerate(chart.words)}
        defaults["mappings"] = [{"type": "value", "options": named}]
    reduced: dict[str, object] = {"reduceOptions": {"calcs": ["lastNotNull"]}}
    return Panel(
        id=number,
        type=chart.view,
        title=chart.title,
        description="",
        grid_pos=place,
        targets=tuple(
            PanelTarget(
                ref_id=chr(ord("A") + n),
                expr=query.expr,
                legend_format=query.legend or "__auto",
                instant=query.instant,
                range=not query.instant,
                format="table" if chart.view == "table" else "time_series",
            )
            for n, query in enumerate(chart.queries)
        ),
        field_config={"defaults": defaults, "overrides": []},
        options=reduced if chart.view in ("stat", "bargauge") else {},
    )


def _variables() -> list[dict[str, object]]:
    return [
        {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Source"},
        {
            "name": "endpoint",
            "type": "query",
            "label": "Endpoint",
            "datasource": SOURCE,
            "query": f"label_values({selector(of.EPOCH)}, endpoint)",
            "refresh": 2,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"text": "All", "value": "$__all"},
        },
    ]


def _marks() -> list[dict[str, object]]:
    """Return the marks on every chart: each change of an endpoint's row.

    Two minutes have at least two scrapes with any usual interval of them.
    """
    return [
        {
            "name": "Changes",
            "datasource": SOURCE,
            "enable": True,
            "iconColor": "blue",
            "expr": f"changes({selector(of.EPOCH, endpoint=CHOSEN)}[2m]) > 0",
            "step": "60s",
            "titleFormat": "{{endpoint}} changed",
        }
    ]


def queries(dashboard: GrafanaDashboard) -> tuple[str, ...]:
    """Return every query of a dashboard's panels."""
    return tuple(target.expr for panel in dashboard.panels for target in panel.targets)
