"""Every command with --json states the type of its document, and the page of them is up to date."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Literal

import msgspec
import pytest

from kedge.cli.documents import check, documents, find_absent, main, page, spell
from kedge.core.values import Stage, Value
from kedge.operations.receipts import PinnedHost

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "json.md"


def test_the_page_is_what_the_commands_print() -> None:
    assert PAGE.read_text("utf-8") == page(), (
        f"python -m kedge.cli.documents docs/reference/{PAGE.name}"
    )


def test_the_page_is_written_where_it_is_asked_for(tmp_path: Path) -> None:
    main([str(tmp_path / "json.md")])
    assert (tmp_path / "json.md").read_text("utf-8") == page()


@pytest.mark.parametrize("path", documents())
def test_a_command_states_its_document(path: str) -> None:
    assert documents()[path] is not inspect.Parameter.empty


class Inner(Value, frozen=True):
    name: str
    share: float | None = None


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (int | None, "integer or null"),
        (int | msgspec.UnsetType, "integer or absent"),
        (list[Inner], "list of [Inner](#inner)"),
        (tuple[str, int], "[string, integer]"),
        (tuple[str, ...], "list of string"),
        (dict[str, list[float]], "object of list of number"),
        (Literal["a", "b"], '`"a"` or `"b"`'),
        (Stage, " or ".join(f'`"{one.value}"`' for one in Stage)),
    ],
)
def test_types_are_spelled_in_words(kind: object, words: str) -> None:
    assert spell(kind) == words


def test_the_page_has_the_field_that_tells_a_note_from_an_event() -> None:
    table = page().split("\n## Note\n")[1].split("\n## ")[0]
    assert '| `event` | `"noted"` | |' in table


def test_a_document_of_two_kinds_is_held_against_both() -> None:
    words = ["rollback", "flights", "--local", "--json"]
    pinned = PinnedHost(endpoint="flights", serves="r1", left_epoch=7, acks={"w0": 1.5}, silent=())
    raw = msgspec.json.encode(pinned).decode()
    check(words, raw)
    with pytest.raises(ValueError, match="rollback"):
        check(words, raw.replace("silent", "quiet"))


class Sparse(Value, frozen=True, omit_defaults=True):
    always: int
    sometimes: int = 0


class Open(Value, frozen=True):
    always: int
    sometimes: int | msgspec.UnsetType = msgspec.UNSET


@pytest.mark.parametrize("struct", [Sparse, Open])
def test_fields_that_can_be_absent_are_found(struct: type[msgspec.Struct]) -> None:
    assert find_absent(struct) == {"sometimes"}


@pytest.mark.parametrize(
    ("printed", "why"),
    [
        ('[{"number": 1}]', "missing required field"),
        ("{}", "Expected `array`"),
        ("[1]", "Expected `object`"),
    ],
)
def test_another_document_is_refused(printed: str, why: str) -> None:
    check(["alerts", "flights", "--all", "--json"], "[]")
    with pytest.raises(ValueError, match=why):
        check(["alerts", "--json"], printed)
