"""A series is bounded, begins with its first point, and ends with a recent one."""

from __future__ import annotations

from kedge.core.evidence.series import EVERY_S, POINTS, EvidenceSeries


def filled(seconds: int) -> EvidenceSeries:
    series = EvidenceSeries()
    for at in range(1_000, 1_000 + seconds):
        if series.is_due(at):
            series = series.plus(at, float(at))
    return series


def test_a_week_of_seconds_is_a_bounded_line_from_its_beginning() -> None:
    series = filled(7 * 86_400)
    assert POINTS // 2 <= len(series.at) <= POINTS
    assert series.at[0] == 1_000
    assert 1_000 + 7 * 86_400 - series.at[-1] <= series.every_s
    assert [value for (value,) in series.values] == [float(at) for at in series.at]
    gaps = {after - before for before, after in zip(series.at, series.at[1:], strict=False)}
    assert gaps == {series.every_s}


def test_a_short_series_has_every_point() -> None:
    series = filled(60)
    assert series.at == tuple(range(1_000, 1_060, EVERY_S))
    assert not series.is_due(1_057)
    assert not series.is_due(900), "a clock that jumps back adds nothing"
