"""Quantities of the command line: shares, rates, factors, counts, ports and durations."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from math import isfinite
from typing import Any

import click

from kedge.core.time.durations import seconds
from kedge.core.values import BUCKETS

SMALLEST_SHARE = 100 / BUCKETS
"""Per cent of one bucket, the smallest weight."""
SLOWEST, FASTEST = 1 / 86_400, 1e7
"""Limits of requests per second: one a day, and more than an endpoint of one machine answers."""
LARGEST_FACTOR = 1_000.0
LARGEST_COUNT = 10**12
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d{1,15}", re.ASCII)


class Quantity(click.ParamType[float], ABC):
    """The base class; it refuses a text that is not a number in range, with a hint."""

    name = "number"
    what = "a number"
    """Name of the value in a refusal."""
    units: tuple[str, ...] = ()
    """Units that may follow the number."""
    example = "25"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number.

        Raises:
            click.BadParameter: it is none, or out of range.
        """
        found = _read(str(value), self.units)
        if found is None:
            self.fail(f"{str(value)!r} is not {self.what}; write it as {self.example}", param, ctx)
        fault = self.judge(found)
        if fault:
            self.fail(f"{str(value)!r} {fault}", param, ctx)
        return found

    @abstractmethod
    def judge(self, number: float) -> str:
        """Return why the number is out of range, as the end of a sentence; empty if it is not."""


def _read(text: str, units: tuple[str, ...]) -> float | None:
    """Return the number in a text, with or without one of the units; None if it is no number."""
    plain = text.strip()
    for unit in units:
        if plain.endswith(unit):
            plain = plain[: -len(unit)].rstrip()
            break
    if _NUMBER.fullmatch(plain) is None or not isfinite(float(plain)):
        return None
    return float(plain)


class Percent(Quantity):
    """A rate in per cent of requests, such as an error rate: 0 to 100."""

    name = "percent"
    what = "a rate in per cent"
    units = ("%",)
    example = "0.1"

    def judge(self, number: float) -> str:
        """Return why the number is no rate in per cent."""
        return "" if 0 <= number <= 100 else "is outside 0 to 100 %"


class Share(Percent):
    """A release's share of callers or requests in per cent: 25, 0.5 or 25%."""

    what = "a share in per cent"
    example = "25 or 0.5"

    def __init__(self, nothing: str) -> None:
        self.nothing = nothing
        """Text that says what to type instead of a share of zero."""

    def judge(self, number: float) -> str:
        """Return why the number is no share of the callers."""
        if number < 0:
            return "is below 0 %"
        if number == 0:
            return f"gives it no request; {self.nothing}"
        if number < SMALLEST_SHARE:
            return f"is below the smallest share, {SMALLEST_SHARE:g} % (one of 10,000 callers)"
        return "is more than 100 %: write 40 for two fifths" if number > 100 else ""


class Rate(Quantity):
    """A rate of requests per second: 60, 0.5 or 60/s."""

    name = "rate"
    what = "a rate in requests a second"
    units = ("/s", "requests/s")
    example = "60 or 0.5"

    def judge(self, number: float) -> str:
        """Return why the number is no rate."""
        if number < SLOWEST:
            return "is below the slowest rate, one request a day (0.0000116)"
        return f"is above {FASTEST:,.0f} requests a second" if number > FASTEST else ""


class Factor(Quantity):
    """A factor (times as often): above 1."""

    name = "factor"
    what = "a factor"
    units = ("x", "times")
    example = "2 or 1.5"

    def judge(self, number: float) -> str:
        """Return why the number is no factor of a worse candidate."""
        if number <= 1:
            return "is not above 1: a candidate that fails no more often is never found"
        return f"is above {LARGEST_FACTOR:,.0f}" if number > LARGEST_FACTOR else ""


class Count(click.ParamType[int]):
    """A whole number of things, at least 1."""

    name = "count"

    def __init__(self, of: str = "", *, least: int = 1, most: int = LARGEST_COUNT) -> None:
        self.of, self.least, self.most = of, least, most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number.

        Raises:
            click.BadParameter: it is none, or out of range.
        """
        text = str(value).strip()
        if _WHOLE.fullmatch(text) is None:
            self.fail(
                f"{str(value)!r} is not a whole number{f' of {self.of}' if self.of else ''}",
                param,
                ctx,
            )
        if not self.least <= int(text) <= self.most:
            self.fail(
                f"{text} {self.of}".rstrip() + f": must be {self.least} to {self.most}", param, ctx
            )
        return int(text)


class Port(Count):
    """A TCP port; 0 lets the system choose one."""

    name = "port"

    def __init__(self) -> None:
        super().__init__(least=0, most=65_535)


class Duration(click.ParamType[str]):
    """A duration as in kedge.toml: 500ms, 90s, 10m, 1h or 7d."""

    name = "duration"

    def __init__(self, *, least: str = "0s", most: str | None = None) -> None:
        self.least, self.most = least, most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text of a valid duration.

        Raises:
            click.BadParameter: it is no duration, or out of range.
        """
        try:
            found = seconds(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if found < seconds(self.least):
            self.fail(f"{value} is shorter than {self.least}", param, ctx)
        if self.most is not None and found > seconds(self.most):
            self.fail(f"{value} is longer than {self.most}", param, ctx)
        return str(value)


NUMBER = Count()
"""The number of an alert, a transformation or an entry."""
WEIGHT = Share("kedge abort ends a candidate, kedge pause holds it")
SAMPLE = Share("kedge abort ends a shadow")
