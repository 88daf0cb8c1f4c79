"""Numbers on the command line: invalid ones are refused with a message, in every command."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click
import pytest

from kedge.cli.main import main
from kedge.cli.quantities import (
    SAMPLE,
    WEIGHT,
    Count,
    Duration,
    Factor,
    Percent,
    Port,
    Quantity,
    Rate,
    Share,
)

NUMERIC = (Quantity, Count, Duration)


@pytest.mark.parametrize(
    "kind, text, number",
    [
        (WEIGHT, "25", 25.0),
        (WEIGHT, "25%", 25.0),
        (WEIGHT, " 12.5 % ", 12.5),
        (WEIGHT, "0.01", 0.01),
        (SAMPLE, "100", 100.0),
        (Percent(), "0", 0.0),
        (Percent(), "0.1%", 0.1),
        (Rate(), "60/s", 60.0),
        (Rate(), "1e3", 1000.0),
        (Factor(), "1.5x", 1.5),
        (Count("callers"), "3", 3),
        (Port(), "0", 0),
        (Duration(), "7d", "7d"),
        (Duration(least="1s", most="60s"), "60s", "60s"),
    ],
)
def test_what_is_written_as_people_write_it_is_read(
    kind: click.ParamType[Any], text: str, number: object
) -> None:
    assert kind.convert(text, None, None) == number


@pytest.mark.parametrize(
    "kind, text, said",
    [
        (WEIGHT, "nan", "'nan' is not a share in per cent; write it as 25 or 0.5"),
        (WEIGHT, "inf", "is not a share in per cent"),
        (WEIGHT, "١٢", "is not a share in per cent"),
        (WEIGHT, "1,5", "is not a share in per cent"),
        (WEIGHT, "1_0", "is not a share in per cent"),
        (WEIGHT, "1e400", "is not a share in per cent"),
        (WEIGHT, "1e-9", "below the smallest share, 0.01 % (one of 10,000 callers)"),
        (WEIGHT, "0", "gives it no request; kedge abort ends a candidate"),
        (WEIGHT, "-0", "gives it no request"),
        (WEIGHT, "-1", "is below 0 %"),
        (WEIGHT, "150", "is more than 100 %"),
        (Percent(), "-0.1", "is outside 0 to 100 %"),
        (Rate(), "nan", "is not a rate in requests a second"),
        (Rate(), "0", "is below the slowest rate"),
        (Rate(), "1e-9", "is below the slowest rate"),
        (Rate(), "40%", "is not a rate"),
        (Rate(), "1e9", "is above 10,000,000 requests a second"),
        (Factor(), "1", "is not above 1"),
        (Factor(), "-2", "is not above 1"),
        (Factor(), "1e9", "is above 1,000"),
        (Count("callers"), "40%", "is not a whole number of callers"),
        (Count("callers"), "nan", "is not a whole number of callers"),
        (Count("callers"), "1.5", "is not a whole number of callers"),
        (Count("callers"), "0", "0 callers: must be 1 to"),
        (Port(), "65536", "must be 0 to 65535"),
        (Port(), "-1", "must be 0 to 65535"),
        (Duration(), "nan", "is not a duration; write 500ms, 90s, 10m, 1h or 7d"),
        (Duration(), "-7d", "is not a duration"),
        (Duration(), "7", "is not a duration"),
        (Duration(most="60s"), "2m", "2m is longer than 60s"),
        (Duration(least="1s"), "0s", "0s is shorter than 1s"),
        (Duration(), "9" * 400 + "d", "is longer than 36500d, a hundred years"),
    ],
)
def test_an_invalid_number_is_refused_with_a_message(
    kind: click.ParamType[Any], text: str, said: str
) -> None:
    with pytest.raises(click.BadParameter, match=r".") as refused:
        kind.convert(text, None, None)
    assert said in refused.value.message


def options(of: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Parameter]]:
    """Every option and argument of every command."""
    for parameter in of.params:
        yield " ".join((*path, str(parameter.name))), parameter
    if isinstance(of, click.Group):
        context = click.Context(of)
        for name in of.list_commands(context):
            command = of.get_command(context, name)
            assert command is not None
            yield from options(command, (*path, name))


HIDDEN = {"up run_for", "gateway-worker fd", "control parent", "diagnose within", "expect"}
"""Written by kedge itself."""


def test_every_number_of_every_command_is_one_of_these() -> None:
    """No option takes what Python calls a number: nan, infinity, or a share that rounds to nothing."""
    plain = [
        where
        for where, parameter in options(main)
        if isinstance(parameter.type, click.types.FloatParamType | click.types.IntParamType)
    ]
    assert set(plain) <= HIDDEN
    named = {where for where, parameter in options(main) if isinstance(parameter.type, NUMERIC)}
    assert {"plan rate", "plan errors", "plan times", "plan callers", "set-weight weight"} <= named
    shares = {where for where, parameter in options(main) if isinstance(parameter.type, Share)}
    assert len(shares) >= 5
