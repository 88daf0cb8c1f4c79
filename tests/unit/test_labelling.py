"""Late labels out of files: every form, every fault with its place, and all in one count."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pytest

from kedge.cli.text.outcomes import warnings
from kedge.core.errors import Refused
from kedge.core.evidence.answers import Target, target
from kedge.core.evidence.records import Ingested, Joined, Outcome
from kedge.core.time.instants import read_instant
from kedge.core.values import Field, Output, Signature, State
from kedge.operations import outcomes as labelling
from kedge.operations.outcomes import (
    BATCH,
    FAULTS,
    LineFault,
    OutcomeReading,
    Placed,
    hand_in,
    hand_in_lines,
)
from kedge.testing.samples import release

AT = 1_767_600_000.0


def read(path: Path, known: Target | None = None) -> Iterator[Outcome | LineFault]:
    found = labelling.read(path, OutcomeReading(AT + 86_400, known))
    return (one.outcome if isinstance(one, Placed) else one for one in found)


class Ledger:
    """Knows one endpoint."""

    states = {"flights": State(endpoint="flights")}

    def read(self) -> Ledger:
        return self


class Clock:
    def unix(self) -> float:
        return AT

    def monotonic(self) -> float:
        return 0.0


class Store:
    """Joins everything, and notes in which order it was asked."""

    def __init__(self, waiting: int = 0) -> None:
        self.left = waiting
        self.asked: list[Any] = []

    def waiting(self) -> int:
        return self.left

    def ingest(self, now: float) -> Ingested:
        self.left -= 1
        self.asked.append("ingest")
        return Ingested(count=1)

    def join(
        self, endpoint: str, outcomes: Sequence[Outcome], now: float, *, by: str = ""
    ) -> Joined:
        self.asked.append(len(outcomes))
        return Joined(joined=len(outcomes))


class Place:
    """What of a workplace is needed here."""

    def __init__(self, waiting: int = 0) -> None:
        self.ledger, self.clock, self.records = Ledger(), Clock(), Store(waiting)


def place(waiting: int = 0) -> Any:
    return Place(waiting)


def file(directory: Path, name: str, lines: Iterable[str]) -> Path:
    path = directory / name
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.json", "a.JSONL"])
def test_json_lines(tmp_path: Path, name: str) -> None:
    lines = [
        '{"id": "a", "value": 1}',
        "",
        '{"id": "b", "value": "late", "at": 1767600000, "label_version": "v2"}',
        '{"id": "c", "value": null, "at": "2026-01-05T09:00:00+01:00"}',
        '{"id": "d", "value": true, "at": "2026-01-05T08:00:00Z"}',
    ]
    assert list(read(file(tmp_path, name, lines))) == [
        Outcome("a", 1.0),
        Outcome("b", "late", AT, "v2"),
        Outcome("c", None, AT),
        Outcome("d", True, AT),  # noqa: FBT003
    ]


def test_csv_has_numbers_words_and_nothing(tmp_path: Path) -> None:
    lines = ["\ufeffid,value,at,label_version", "a,0.5,1767600000,v1", "b,,,", 'c,"1,5",,', "d,1_0"]
    assert list(read(file(tmp_path, "a.csv", lines))) == [
        Outcome("a", 0.5, AT, "v1"),
        Outcome("b", None),
        Outcome("c", "1,5"),
        Outcome("d", "1_0"),
    ]


def test_a_csv_without_a_header_is_one_fault(tmp_path: Path) -> None:
    (fault,) = read(file(tmp_path, "a.csv", ["a,1", "b,2"]))
    assert str(fault).startswith("a.csv:1: the header must name id and value")


def test_a_csv_line_that_cannot_be_read_does_not_stop_the_rest(tmp_path: Path) -> None:
    lines = ["id,value", "a,1", "b," + "x" * 200_000, "c,2"]
    first, fault, last = read(file(tmp_path, "a.csv", lines))
    assert (first, last) == (Outcome("a", 1.0), Outcome("c", 2.0))
    assert str(fault).startswith("a.csv:3: ")


@pytest.mark.parametrize(
    "line, why",
    [
        ("{", "not a JSON object"),
        ("7", "not an object"),
        ('{"value": 1}', "id must be"),
        ('{"id": 7, "value": 1}', "id must be"),
        ('{"id": "", "value": 1}', "id must be"),
        ('{"id": "a"}', "value is missing"),
        ('{"id": "a", "value": [1]}', "value must be"),
        ('{"id": "a", "value": 1' + "0" * 400 + "}", "value must be"),
        ('{"id": "a", "value": "' + "x" * 2000 + '"}', "at most"),
        ('{"id": "a", "value": 1, "label_version": 2}', "label_version must be"),
        ('{"id": "a", "value": 1, "at": true}', "is not a valid time; write"),
        ('{"id": "a", "value": 1, "at": "soon"}', "is not a valid time; write"),
        (
            '{"id": "a", "value": 1, "at": 1767600000000}',
            "counts milliseconds; a time is Unix seconds",
        ),
        ('{"id": "a", "value": 1, "at": 1' + "0" * 400 + "}", "is not a valid time"),
        ('{"id": "a", "value": 1, "at": "2026-01-05T08:00:00"}', "no time zone"),
        ('{"id": "a", "value": 1, "at": 20261129}', "a date without hyphens"),
        ('{"id": "a", "value": 1, "at": 0}', "never set"),
        ('{"id": "a", "value": 1, "at": "2099-01-01T00:00:00Z"}', "in the future"),
        ('{"id": "\\ud800", "value": 1}', "not a JSON object"),
        ('{"id": "a", "value": 1e400}', "not a JSON object: number out of range"),
        ("[" * 5000, "it is nested too deeply"),
        ('{"id": "a", "value": 1, "at": true}', "at: true is not a valid time"),
    ],
)
def test_a_fault_names_its_line_and_never_stops_the_rest(
    tmp_path: Path, line: str, why: str
) -> None:
    good = '{"id": "a", "value": 1}'
    first, fault, last = read(file(tmp_path, "a.jsonl", [good, line, good]))
    assert (first, last) == (Outcome("a", 1.0), Outcome("a", 1.0))
    assert str(fault).startswith("a.jsonl:2: ")
    assert why in str(fault)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_value_that_is_no_number_is_no_outcome(tmp_path: Path, value: str) -> None:
    (fault,) = read(file(tmp_path, "a.csv", ["id,value", f"a,{value}"]))
    assert "finite" in str(fault)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused) as caught:
        read(tmp_path / "a.xlsx")
    assert caught.value.code == "unknown_format"


def test_parquet_needs_its_extra(tmp_path: Path) -> None:
    hidden = sys.modules.get("duckdb")
    sys.modules["duckdb"] = None  # type: ignore[assignment]
    try:
        with pytest.raises(Refused) as caught:
            list(read(tmp_path / "a.parquet"))
    finally:
        del sys.modules["duckdb"]
        if hidden is not None:
            sys.modules["duckdb"] = hidden
    assert caught.value.code == "needs_analytics"
    assert "kedge[analytics]" in caught.value.hint


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    with duckdb.connect() as connection:
        connection.execute(
            "COPY (SELECT * FROM (VALUES ('a', 1.0, TIMESTAMPTZ '2026-01-05 08:00:00+00'),"
            f" ('b', NULL, NULL), (NULL, 2.0, NULL)) AS t(id, value, \"at\")) TO '{path}'"
        )
    first, second, fault = read(path)
    assert (first, second) == (Outcome("a", 1.0, AT), Outcome("b", None))
    assert str(fault).startswith("a.parquet: row 3: id must be")


UNREAD = (
    "TIME '10:00'",
    "INTERVAL 1 DAY",
    "[1, 2]",
    "{'a': 1}",
    "MAP {'a': 1}",
    "'x'::BLOB",
    "DATE '2026-01-05'",
    "TIMESTAMP '2026-01-05 08:00:00'",
    "['a']::VARCHAR[]",
    "[1, 2]::INTEGER[2]",
    "TIMESTAMPTZ '2026-01-05 08:00:00+00'",
    "TIMESTAMP_NS '2026-01-05 08:00:00'",
)
READ = {
    "true": True,
    "7::TINYINT": 7.0,
    "7::UBIGINT": 7.0,
    "7::HUGEINT": 7.0,
    "0.5::FLOAT": 0.5,
    "0.5::DECIMAL(4, 2)": 0.5,
    "'late'": "late",
    "'late'::ENUM('late', 'early')": "late",
    "NULL": None,
    "'6f9619ff-8b86-d011-b42d-00c04fc964ff'::UUID": "6f9619ff-8b86-d011-b42d-00c04fc964ff",
}


def parquet(directory: Path, columns: str) -> Path:
    path = directory / "a.parquet"
    with duckdb.connect() as connection:
        connection.execute(f"COPY (SELECT {columns}) TO '{path}'")
    return path


@pytest.mark.parametrize("literal", UNREAD)
def test_a_parquet_column_of_another_type_is_named_and_no_traceback(
    tmp_path: Path, literal: str
) -> None:
    (fault,) = read(parquet(tmp_path, f"'a' AS id, {literal} AS value"))
    assert str(fault).startswith("a.parquet: column value is ")
    assert "a number, text, or true and false" in str(fault)
    (fault,) = read(parquet(tmp_path, f"{literal} AS id, 1 AS value"))
    assert str(fault).startswith("a.parquet: column id is ")
    (beside,) = read(parquet(tmp_path, f"'a' AS id, 1 AS value, {literal} AS loaded"))
    assert beside == Outcome("a", 1.0), "a column that is not asked for is not read"


@pytest.mark.parametrize(("literal", "value"), READ.items())
def test_every_type_of_a_label_in_parquet(tmp_path: Path, literal: str, value: Any) -> None:
    (found,) = read(parquet(tmp_path, f"'a' AS id, {literal} AS value"))
    assert found == Outcome("a", value)


@pytest.mark.parametrize(
    ("literal", "seen"),
    [
        ("TIMESTAMPTZ '2026-01-05 08:00:00+00'", AT),
        ("1767600000", AT),
        ("1767600000.0", AT),
        ("1767600000::DECIMAL(12, 1)", AT),
        ("'2026-01-05T08:00:00Z'", AT),
        ("NULL", None),
        ("TIMESTAMP '2026-01-05 08:00:00'", "no time zone"),
        ("DATE '2026-01-05'", "no time zone"),
        ("TIMESTAMP_NS '2026-01-05 08:00:00'", "no time zone"),
        ("1767600000000", "milliseconds"),
        ("TIME '10:00'", "column at is TIME"),
        ("[1]", "column at is INTEGER[]"),
    ],
)
def test_every_type_of_a_time_in_parquet(tmp_path: Path, literal: str, seen: Any) -> None:
    (found,) = read(parquet(tmp_path, f"'a' AS id, 1 AS value, {literal} AS \"at\""))
    if isinstance(seen, str):
        assert isinstance(found, LineFault)
        assert seen in found
    else:
        assert found == Outcome("a", 1.0, seen)


def test_a_misspelt_column_of_parquet_is_a_fault(tmp_path: Path) -> None:
    (fault,) = read(parquet(tmp_path, "'a' AS id, 1 AS value, 'v1' AS label_verison"))
    assert "did you mean label_version?" in str(fault)
    (fault,) = read(parquet(tmp_path, "'a' AS name, 1 AS value"))
    assert "has no column id or value; it has name, value" in str(fault)


def test_every_row_of_parquet_that_is_not_read_for_a_column_is_counted(tmp_path: Path) -> None:
    path = parquet(tmp_path, "UNNEST([1, 2, 3]) AS id, 1 AS value")
    found = hand_in(place(), "flights", path)
    assert (found.unreadable, len(found.faults)) == (3, 1)
    assert "column id is INTEGER" in found.faults[0]


def test_a_parquet_file_that_is_none_is_one_fault(tmp_path: Path) -> None:
    (fault,) = read(file(tmp_path, "a.parquet", ["id,value", "a,1"]))
    assert str(fault).startswith("a.parquet: ")


# ---------------------------------------------------------------- marks and encodings


def test_a_line_that_names_a_member_twice_is_refused(tmp_path: Path) -> None:
    """Which of the values is meant is not known; a CSV with two such columns is refused too."""
    path = tmp_path / "late.jsonl"
    path.write_text(
        '{"id": "a", "value": 1, "value": 0}\n{"id": "b", "value": 1}\n'
        '{"id": "c", "at": "2026-01-05T08:00:00Z", "value": 1, "id": "d"}\n'
    )
    first, second, third = read(path)
    assert str(first) == 'late.jsonl:1: "value" is named twice in one object'
    assert isinstance(second, Outcome)
    assert str(third) == 'late.jsonl:3: "id" is named twice in one object'


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_a_byte_order_mark_is_passed_over(tmp_path: Path, name: str) -> None:
    text = '{"id": "a", "value": 1}\r\n' if name == "a.jsonl" else "id,value\r\na,1\r\n"
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert list(read(tmp_path / name)) == [Outcome("a", 1.0)]
    (tmp_path / name).write_bytes(text.encode("utf-16"))
    (fault,) = read(tmp_path / name)
    assert str(fault) == f"{name}:1: is not UTF-8 text; write the file as UTF-8"


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_bytes_that_are_no_utf_8_cost_their_line(tmp_path: Path, name: str) -> None:
    lines = (
        [b'{"id": "a", "value": 1}', b'{"id": "\xe9", "value": 1}', b'{"id": "c", "value": 1}']
        if name == "a.jsonl"
        else [b"id,value", b"a,1", b"\xe9,1", b"c,1"]
    )
    (tmp_path / name).write_bytes(b"\n".join(lines))
    first, fault, last = read(tmp_path / name)
    assert (first, last) == (Outcome("a", 1.0), Outcome("c", 1.0))
    assert "UTF-8" in str(fault)


def test_a_line_without_end_is_held_up_to_its_bound(tmp_path: Path) -> None:
    lines = ['{"id": "a", "value": 1}', "x" * 5_000_000, '{"id": "b", "value": 1}']
    first, fault, last = read(file(tmp_path, "a.jsonl", lines))
    assert (first, last) == (Outcome("a", 1.0), Outcome("b", 1.0))
    assert str(fault) == "a.jsonl:2: has more than 65,536 bytes"


# ---------------------------------------------------------------- handing in


def test_every_line_is_in_one_count_and_what_waits_is_taken_first(tmp_path: Path) -> None:
    there = place(waiting=2)
    lines = [json.dumps({"id": f"a{n}", "value": n % 2}) for n in range(BATCH + 5)]
    found = hand_in(there, "flights", file(tmp_path, "a.jsonl", [*lines, "7", "8"]))
    assert there.records.asked == ["ingest", "ingest", BATCH, 5]
    assert msgspec.to_builtins(found) == {
        "joined": BATCH + 5,
        "declined": 0,
        "duplicates": 0,
        "conflicts": 0,
        "parked": 0,
        "unknown": 0,
        "ambiguous": 0,
        "unrecorded": 0,
        "corrected": 0,
        "early": 0,
        "ambiguous_because": {},
        "unreadable": 2,
        "unfit": 0,
        "unfit_because": (),
        "parked_until": None,
        "unrecorded_predictions": None,
        "log_sample": 10.0,
        "faults": found.faults,
    }
    assert [fault.split(": ")[0] for fault in found.faults] == [
        f"a.jsonl:{BATCH + 6}",
        f"a.jsonl:{BATCH + 7}",
    ]


def test_faults_are_named_up_to_a_bound_and_all_counted() -> None:
    found = hand_in_lines(place(), "flights", [b"7"] * (FAULTS + 20))
    assert (found.unreadable, len(found.faults)) == (FAULTS + 20, FAULTS)
    assert found.faults[1].startswith("line 2: ")


def test_labels_of_no_endpoint_are_refused() -> None:
    there = place()
    with pytest.raises(Refused) as caught:
        hand_in_lines(there, "trains", [b'{"id": "a", "value": 1}'])
    assert caught.value.code == "unknown_endpoint"
    assert there.records.asked == []


def test_a_store_that_takes_nothing_is_not_asked_for_ever() -> None:
    class Idle(Store):
        def ingest(self, now: float) -> Ingested:
            self.asked.append("ingest")
            return Ingested()

    there = place()
    there.records = Idle(waiting=3)
    assert labelling.hand_in_lines(there, "flights", []).joined == 0
    assert there.records.asked == ["ingest"]


@pytest.mark.parametrize(
    "line", ['{"id": "a", "value": 1, "label_verison": "2"}', '{"id": "a", "valeu": 1}']
)
def test_a_misspelt_column_is_a_fault_and_a_users_own_is_not(tmp_path: Path, line: str) -> None:
    """A label under no version would be judged as another label."""
    fault, fine = read(file(tmp_path, "a.jsonl", [line, '{"id": "b", "value": 1, "comment": "x"}']))
    assert "did you mean" in str(fault)
    assert fine == Outcome("b", 1.0)


# ---------------------------------------------------------------- what a value is, the output says

WORDS = target(Output(), [Field("label", "string"), Field("p", "float64", (3,))])
WHOLE = target(Output(), [Field("label", "int64"), Field("p", "float64", (3,))])
CODES = ["007", "042", "12345678", "7.0", "1e3"]


def test_digits_in_a_csv_are_words_where_the_output_gives_words(tmp_path: Path) -> None:
    path = file(tmp_path, "a.csv", ["id,value", *(f"{n},{code}" for n, code in enumerate(CODES))])
    assert [one.value for one in read(path, WORDS) if isinstance(one, Outcome)] == CODES
    numbers = [one.value for one in read(path, WHOLE) if isinstance(one, Outcome)]
    assert numbers == [7.0, 42.0, 12345678.0, 7.0, 1000.0]
    unknown = [one.value for one in read(path) if isinstance(one, Outcome)]
    assert unknown == ["007", "042", 12345678.0, 7.0, 1000.0]


def test_one_label_is_one_value_whichever_file_it_came_in(tmp_path: Path) -> None:
    lines = ['{"id": "a", "value": 42}', '{"id": "a", "value": 42.0}', '{"id": "a", "value": "42"}']
    for known, value in ((WHOLE, 42.0), (WORDS, "42")):
        found = read(file(tmp_path, "a.jsonl", lines), known)
        assert set(found) == {Outcome("a", value)}
        (found_csv,) = read(file(tmp_path, "a.csv", ["id,value", "a,42"]), known)
        assert found_csv == Outcome("a", value)


def test_whole_numbers_that_no_float_holds_stay_as_they_are(tmp_path: Path) -> None:
    number = 2**53 + 1
    for name, lines in (
        ("a.jsonl", [f'{{"id": "a", "value": {number}}}']),
        ("a.csv", ["id,value", f"a,{number}"]),
    ):
        (found,) = read(file(tmp_path, name, lines), WHOLE)
        assert found == Outcome("a", str(number))


def test_labels_that_can_equal_no_answer_are_joined_and_said(tmp_path: Path) -> None:
    there = place()
    there.ledger.states = {
        "flights": State(
            endpoint="flights",
            production=1,
            releases={
                1: msgspec.structs.replace(
                    release(1), signature=Signature(inputs=(), outputs=(Field("label", "int64"),))
                )
            },
        )
    }
    lines = [json.dumps({"id": "a", "value": value}) for value in ("yes", "no", 1.5, 1, None)]
    found = hand_in_lines(there, "flights", [line.encode() for line in lines])
    assert (found.joined, found.unfit) == (5, 3)
    assert [msgspec.to_builtins(one) for one in found.unfit_because] == [
        {"code": "text", "count": 2, "reason": "label 'yes' is text, output label gives int64"},
        {
            "code": "fraction",
            "count": 1,
            "reason": "label 1.5 is not a whole number, output label gives int64",
        },
    ]


def test_labels_with_another_value_name_the_way_to_correct_them() -> None:
    found = hand_in_lines(place(), "flights", [b'{"id": "a", "value": 1}'])
    assert warnings(found) == []
    (said,) = warnings(msgspec.structs.replace(found, conflicts=2))
    assert "2 have another value" in said
    assert "kedge outcomes --correct" in said


def test_a_declared_form_decides_which_number_is_the_month(tmp_path: Path) -> None:
    path = file(tmp_path, "a.csv", ["id,value,at", "a,1,02/11/2023", "b,1,2023-11-02", "c,1,"])
    reading = OutcomeReading(read_instant("2024-01-01T00:00:00Z"), form="%d/%m/%Y")
    first, second, third = labelling.read(path, reading)
    assert isinstance(first, Placed)
    assert first.outcome.at == read_instant("2023-11-02T00:00:00Z")
    assert "'2023-11-02' is not written as %d/%m/%Y" in str(second)
    assert isinstance(third, Placed)
    assert third.outcome.at is None
    undeclared, *_ = labelling.read(path, OutcomeReading(reading.now))
    assert "is not a valid time" in str(undeclared)


def test_a_declared_form_may_have_a_zone(tmp_path: Path) -> None:
    path = file(tmp_path, "a.csv", ["id,value,at", "a,1,02.11.2023 10:00 +0100"])
    reading = OutcomeReading(read_instant("2024-01-01T00:00:00Z"), form="%d.%m.%Y %H:%M %z")
    (found,) = labelling.read(path, reading)
    assert isinstance(found, Placed)
    assert found.outcome.at == read_instant("2023-11-02T09:00:00Z")


@pytest.mark.parametrize("form", ["", "d/m/Y", "%Q", "%d/%", "%d/%m/%Y %d"])
def test_a_form_that_reads_no_time_is_refused_once(tmp_path: Path, form: str) -> None:
    path = file(tmp_path, "a.csv", ["id,value,at", "a,1,02/11/2023"])
    with pytest.raises(Refused) as refused:
        hand_in(place(), "flights", path, form=form)
    assert refused.value.code == "bad_time_format"
