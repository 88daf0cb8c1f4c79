"""The docs show the table that decides."""

from pathlib import Path

import pytest

from kedge.core.release.machine import TABLE
from kedge.core.release.refusals import REFUSALS
from kedge.core.values import Stage
from kedge.testing.diagram import diagram, main, refusals, renewed

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "state-machine.md"


def test_the_page_shows_the_table_as_it_is_now() -> None:
    page = PAGE.read_text("utf-8")
    assert diagram() in page
    assert refusals() in page
    assert renewed(page) == page, f"python -m kedge.testing.diagram --write {PAGE.name}"


def test_every_stage_and_every_way_is_drawn() -> None:
    drawn = diagram()
    assert all(f"{stage} --> " in drawn for stage in Stage)
    ways = [rule for rules in TABLE.values() for rule in rules if rule.refuse is None]
    assert drawn.count(" / ") == len(ways)


def test_every_refusal_is_listed_once() -> None:
    assert [line.split("`")[1] for line in refusals().splitlines()[2:]] == sorted(REFUSALS)


def test_a_page_that_fell_behind_is_renewed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    stale = PAGE.read_text("utf-8").replace("Rollback", "Undo").replace("`unchanged`", "`same`")
    page.write_text(stale, "utf-8")
    main(["--write", str(page)])
    assert diagram() in page.read_text("utf-8")
    assert refusals() in page.read_text("utf-8")


def test_a_page_without_the_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match="no block"):
        renewed("# nothing here")


def test_the_diagram_is_printed_on_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    assert capsys.readouterr().out == diagram()
