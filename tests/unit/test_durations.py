"""Durations are read as people write them, and other texts are refused."""

import pytest

from kedge.core.time.durations import seconds


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("500ms", 0.5), ("90s", 90), ("10m", 600), ("1h", 3600), ("7d", 604800), ("1.5h", 5400)],
)
def test_each_unit_is_seconds(text: str, wanted: float) -> None:
    """Also with a fraction."""
    assert seconds(text) == pytest.approx(wanted)


@pytest.mark.parametrize("text", ["", "7", "d", "-1s", "7 d", "1w", "1h30m", "٣s", "1e3s", "infs"])
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    """What is refused is quoted, and a duration is shown."""
    with pytest.raises(ValueError, match="write 500ms") as caught:
        seconds(text)
    assert repr(text) in str(caught.value)
