"""Every transcript is still true. `pytest tests/scenarios --rewrite` renews them."""

from pathlib import Path

import pytest

from kedge.testing.transcripts import replay

STORIES = sorted(Path(__file__).parent.glob("*.txt"))


@pytest.mark.parametrize("story", STORIES, ids=lambda path: path.stem)
def test_the_story_still_holds(story: Path, request: pytest.FixtureRequest) -> None:
    told = story.read_text("utf-8")
    happened = replay(told)
    if request.config.getoption("--rewrite"):
        story.write_text(happened, "utf-8")
    else:
        assert happened == told


def test_there_are_stories() -> None:
    assert len(STORIES) >= 8


def test_a_trace_that_is_wrong_is_noticed() -> None:
    told = replay("register v1\n\npromote v1\n")
    assert replay(told) == told
    assert replay(told.replace("promoted release=r1", "promoted release=r2")) == told


def test_remarks_are_kept() -> None:
    assert replay("# why\n\n# and\nregister v1\n").startswith("# why\n\n# and\nregister v1\n----\n")
