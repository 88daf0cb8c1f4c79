"""Run every bench in order and print which figures reach their aims.

`run.py [--quick] [NAME ...]` measures; `run.py --docs` writes the figures of the last runs into
docs/reference/benchmarks.md and measures nothing. What has no result here keeps its rows there,
with the commit and the conditions that they came from.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from attackers import KINDS
from common import BENCH, RESULTS, ROOT

DOCS = ROOT / "docs" / "reference" / "benchmarks.md"
MARK, END = "<!-- figures -->", "<!-- /figures -->"
SCRIPTS = (
    "choose",
    "cli",
    "judge",
    "labels",
    "windows",
    "detection",
    "realdata",
    "diagnosis",
    "diagnose",
    "autopilot",
    "features",
    "axes",
    "gateway",
    "attacks",
    "runtimes",
    "reverse",
    "wayback",
    "rollback",
    "drill",
    "web",
)

MODELS = [
    f"{library}_{size}" for library in ("onnx", "sklearn") for size in ("small", "medium", "large")
]
"""What `runtimes` compares."""


class Aim(NamedTuple):
    """What a figure is to reach."""

    figure: str
    unit: str
    most: float | None = None
    least: float | None = None

    def text(self) -> str:
        """The aim as text."""
        if self.most is not None:
            return f"≤ {self.most:g} {self.unit}".strip()
        return f"≥ {self.least:,g} {self.unit}".strip() if self.least is not None else "–"

    def met(self, value: float | None) -> str:
        """Whether it is reached; a dash where there is no aim or no figure."""
        if value is None or (self.most is None and self.least is None):
            return "–"
        reached = value <= self.most if self.most is not None else value >= (self.least or 0)
        return "yes" if reached else "no"


AIMS: dict[str, tuple[Aim, ...]] = {
    "choose": (Aim("choose_us", "µs", most=2), Aim("added_us", "µs", most=20)),
    "cli": (
        Aim("help_ms", "ms", most=120),
        Aim("up_s", "s", most=3),
        Aim("core_install_mb", "MB", most=150),
    ),
    "judge": (Aim("judge_ms", "ms", most=10),),
    "labels": (
        Aim("labels_s", "s", most=60),
        Aim("labels_mb", "MB", most=1000),
        Aim("ingest_rows_per_s", "/s"),
    ),
    "detection": (
        Aim("false_rollback", "× alpha", most=1.5),
        Aim("false_promotion", "", most=0.01),
        Aim("found_24h", "", least=0.9),
        Aim("promoted_aa", "", least=0.9),
        Aim("labels_false_fail", "", most=0.015),
        Aim("cost_false", "", most=0.01),
        Aim("product_runs", "", least=20),
        Aim("product_agrees", "", least=1),
        Aim("errors_vs_oracle", "×", most=2),
        Aim("errors_vs_oracle_lab", "×", most=1.5),
        Aim("detection_s", "s", most=45),
        Aim("detection_errors", "", most=13),
    ),
    "windows": (
        Aim("seconds_mb", "MB"),
        Aim("minutes_mb_day", "MB"),
        Aim("hours_mb_day", "MB"),
        Aim("count_us", "µs"),
        Aim("count_batch_us", "µs"),
        Aim("count_ns_metric", "ns", most=100),
        Aim("count_ns_cell", "ns"),
        Aim("count_ns_plain", "ns", most=100),
        Aim("record_us", "µs"),
        Aim("offer_us", "µs", most=1),
    ),
    "realdata": (
        Aim("benign_runs", ""),
        Aim("benign_rollbacks", "", most=0),
        Aim("worse_found", "", least=1),
    ),
    "diagnosis": (
        Aim("causes_right_2000", "", least=1),
        Aim("wrong_causes_2000", "", most=0),
        Aim("wrong_causes_400", "", most=0),
        Aim("cannot_tell_400", ""),
        Aim("second_family_right", "", least=0.9),
        Aim("families_right", "", least=0.6),
        Aim("families_beside", ""),
        Aim("families_alike", ""),
        Aim("families_cannot_tell", ""),
        Aim("families_wrong", "", most=0.02),
        Aim("held_out_right", "", least=0.6),
        Aim("held_out_wrong", "", most=0.02),
        Aim("two_causes_right", ""),
        Aim("interval_coverage", "", least=0.93),
        Aim("interval_width_ratio", "×", most=1.2),
        Aim("diagnose_100k_s", "s", most=30),
        Aim("diagnose_100k_mb", "MB"),
        Aim("elec2_columns", "", least=3),
        Aim("elec2_world", "", least=1),
        Aim("census_findings", "", most=0),
        Aim("loan_windows_right", "", least=1),
        Aim("flights_right", "", least=1),
        Aim("days_false_data", "", most=0),
        Aim("days_leak_named", ""),
        Aim("days_utc_named", ""),
        Aim("days_seats_named", ""),
    ),
    "diagnose": (
        Aim("verb_100k_s", "s", most=30),
        Aim("verb_100k_mb", "MB"),
        Aim("verb_right", "", least=1),
    ),
    "autopilot": (
        Aim("detect_s_p50", "s"),
        Aim("detect_s_p99", "s"),
        Aim("detect_failovers_p50", ""),
        Aim("detect_missed", "", most=0),
        Aim("detect_callers_failed", "", most=0),
        Aim("detect_s_simulated_p50", "s"),
        Aim("detect_s_simulated_p99", "s"),
    ),
    "features": (
        Aim("fetch_us_sqlite", "µs", most=20),
        Aim("fetch_us_lmdb", "µs", most=10),
        Aim("redis_vs_raw", "×", most=1.3),
        Aim("batch_us_sqlite", "µs"),
        Aim("batch_us_lmdb", "µs"),
        Aim("batch_us_redis", "µs"),
        Aim("write_rows_per_s_sqlite", "/s", least=200_000),
        Aim("write_rows_per_s_lmdb", "/s", least=200_000),
        Aim("write_rows_per_s_redis", "/s"),
        Aim("materialise_rows_per_s_lmdb", "/s", least=200_000),
        Aim("materialise_rows_per_s_sqlite", "/s"),
    ),
    "axes": (
        Aim("axis_features_ms", "ms"),
        Aim("axis_model_ms", "ms"),
        Aim("axis_ratio", "×", most=1.1),
        Aim("axis_reloads", "", most=0),
        Aim("axis_failed", "", most=0),
    ),
    "gateway": (
        Aim("gateway_cpu_vs_floor", "×", most=2),
        Aim("gateway_rps_onnx", "/s", least=10_000),
        Aim("gateway_rps_sklearn", "/s"),
        Aim("gateway_rps_vs_mlserver", "×", least=2.5),
        Aim("gateway_rps_vs_bentoml", "×", least=7),
        Aim("gateway_rps_vs_ray", "×", least=25),
        Aim("worker_rss_mb", "MB"),
        Aim("shadow_p99_ratio", "×"),
        Aim("shadow_p99_ratio_low", "×", most=1.05),
        Aim("shadow_p99_excess_ms", "ms", most=0.3),
        Aim("shadow_p99_ratio_hanging", "×"),
        Aim("shadow_p99_ratio_low_hanging", "×", most=1.05),
        Aim("shadow_p99_excess_ms_hanging", "ms", most=0.3),
        Aim("shadow_p99_ratio_dead", "×"),
        Aim("shadow_p99_ratio_low_dead", "×", most=1.05),
        Aim("shadow_p99_excess_ms_dead", "ms", most=0.3),
        Aim("promote_p99_ratio", "×", most=1.2),
    ),
    "attacks": (
        Aim("attack_p99_ratio", "×", most=3),
        Aim("attack_failed", "", most=0),
        *(Aim(f"attack_p99_ratio_{kind}", "×", most=3) for kind in KINDS),
    ),
    "runtimes": (
        *(
            Aim(f"process_{figure}_{kind}", unit)
            for kind in MODELS
            for figure, unit in (
                ("p50_ratio", "×"),
                ("p99_ratio", "×"),
                ("rps_ratio", "×"),
                ("mb", "MB"),
            )
        ),
        Aim("process_failed", "", most=0),
    ),
    "reverse": (
        Aim("reverse_shadow_p90_ratio", "×", most=1.1),
        Aim("reverse_shadow_p99_ratio", "×", most=1.1),
        Aim("reverse_shadow_coverage", "", least=0.95),
    ),
    "wayback": (
        Aim("rollback_busy_p99_ratio", "×", most=1.2),
        Aim("rollback_busy_failed", "", most=0),
        Aim("rollback_busy_stuck", "", most=0),
    ),
    "rollback": (
        Aim("rollback_ack_ms_p50", "ms", most=15),
        Aim("rollback_ack_ms_p99", "ms", most=100),
        Aim("rollback_failed", "", most=0),
        Aim("rollback_cli_ms_p50", "ms", most=250),
        Aim("rollback_cli_per_help", "×", most=4),
    ),
    "drill": (
        Aim("drill_s", "s"),
        Aim("drill_failed", "", most=0),
        Aim("drill_not_well", "", most=0),
        Aim("drill_back_ms_p50", "ms"),
        Aim("drill_forward_ms_p50", "ms"),
    ),
    "web": (
        Aim("scrape_ms", "ms", most=50),
        Aim("axe_serious", "", most=0),
        Aim("traffic_to_pixel_s_p95", "s", most=2),
        Aim("remote_rollback_ms", "ms", most=150),
        Aim("viewer_kb", "kB", most=100),
        Aim("dashboards_p99_ratio", "×", most=1.05),
        Aim("dashboards_p99_ratio_low", "×"),
        Aim("dashboards_p99_ratio_half_width", "×", most=0.1),
        Aim("dashboards_calm_p99_ratio", "×"),
        Aim("dashboards_calm_p99_ratio_low", "×"),
        Aim("dashboards_calm_p99_ratio_half_width", "×"),
        Aim("fleet_paint_s", "s", most=1),
        Aim("fleet_kb", "kB", most=150),
    ),
}


def result(name: str) -> dict[str, Any] | None:
    """The last result of a script."""
    file = RESULTS / f"{name}.json"
    found: dict[str, Any] | None = msgspec.json.decode(file.read_bytes()) if file.exists() else None
    return found


def shown(value: float | None) -> str:
    """A figure for people."""
    if value is None:
        return "not measured"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}"


def rows(names: tuple[str, ...]) -> list[tuple[str, str, str, str]]:
    """Figure, value, aim, met."""
    found = []
    for name in names:
        figures = (result(name) or {"figures": {}})["figures"]
        for aim in AIMS[name]:
            value = figures.get(aim.figure)
            number = f"{shown(value)} {aim.unit}".strip() if value is not None else shown(value)
            found.append((aim.figure, number, aim.text(), aim.met(value)))
    return found


def table(names: tuple[str, ...]) -> str:
    """For a terminal."""
    lines = [("figure", "value", "aim", "met"), *rows(names)]
    widths = [max(len(line[at]) for line in lines) for at in range(4)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def busy(found: dict[str, Any]) -> float:
    """The largest share of the machine that others used in a phase."""
    return max((phase["others"] for phase in found["conditions"]["phases"]), default=0.0)


def conditions(name: str, found: dict[str, Any]) -> str:
    """On what a script's figures were measured, in a sentence."""
    on = found["conditions"]
    quick = " in a quick run, which is no measurement," if on["quick"] else ""
    return (
        f"`{name}`: commit {str(found['commit'])[:10]},{quick} {on['started_at'][:10]}, {on['cpus']} CPUs "
        f"({on['cpu']}), Python {on['python']}; others used at most {busy(found):.0%} of the machine."
    )


def write_docs(file: Path) -> None:
    """Put the last figures between the marks of the page; where there are none, leave what it has."""
    page = file.read_text("utf-8")
    head, _, rest = page.partition(MARK)
    before, _, after = rest.partition(END)
    kept = {line.split("`")[1]: line for line in before.splitlines() if line.count("`") >= 2}
    body, notes = ["| figure | value | aim | met |", "|---|---|---|---|"], []
    for name in SCRIPTS:
        found = result(name)
        for a, b, c, d in rows((name,)):
            row = f"| `{a}` | {b} | {c} | {d} |"
            body.append(row if found is not None else kept.get(a, row))
        line = f"- {conditions(name, found)}" if found is not None else kept.get(name)
        notes.append(line or f"- `{name}` has not been run.")
    text = "\n".join([MARK, *body, "", *notes, END])
    file.write_text(f"{head}{text}{after}", encoding="utf-8")


def main() -> int:
    """Run, then show."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("names", nargs="*", help=f"only these of {', '.join(SCRIPTS)}")
    parser.add_argument("--quick", action="store_true", help="do they work? Not a measurement.")
    parser.add_argument("--docs", action="store_true", help="write the last figures into the docs")
    given = parser.parse_args()
    if given.docs:
        write_docs(DOCS)
        return 0
    unknown = set(given.names) - set(SCRIPTS)
    if unknown:
        parser.error(f"no bench {', '.join(sorted(unknown))}; there are {', '.join(SCRIPTS)}")
    names = tuple(name for name in SCRIPTS if not given.names or name in given.names)
    failed = []
    for name in names:
        command = [sys.executable, str(BENCH / f"{name}.py"), *(["--quick"] if given.quick else [])]
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
    print(table(tuple(name for name in names if name not in failed)))
    print(f"\nresults are in {RESULTS.relative_to(ROOT)}/")
    if failed:
        print(f"did not end well: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
