"""Outcomes over /api/v1: rows, JSON lines and CSV in a request, and files of an upload."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contract.test_control_api import NDJSON, Site, api, batch
from kedge.operations.catalogue import API
from kedge.web import api as earlier

__all__ = ["api"]

PATH = f"{API}/endpoints/flights/outcomes"
JSON = {"content-type": "application/json"}
CSV = {"content-type": "text/csv"}


@pytest.fixture
def labels(api: Site) -> Iterator[Site]:
    yield api
    assert not any((api.place.state_dir / "uploads").glob(".inline-*"))


def post(site: Site, body: Any, headers: dict[str, str] = JSON, query: str = "") -> tuple[int, Any]:
    raw = json.dumps(body).encode() if headers is JSON else body
    return site.ask("POST", PATH + query, raw, headers)[:2]


def rows(count: int, **more: Any) -> list[dict[str, Any]]:
    return [{"id": f"id{number}", "value": 1, **more} for number in range(count)]


def test_rows_lines_and_csv_are_joined_alike(labels: Site) -> None:
    assert post(labels, {"rows": rows(3)})[1]["parked"] == 3
    again = post(labels, batch(3), NDJSON)[1]  # each waits already, with the same value
    assert (again["parked"], again["conflicts"]) == (3, 0)
    table = b"id,value\n" + b"".join(b"id%d,1\n" % number for number in range(4))
    status, found = post(labels, table, CSV)
    assert (status, found["parked"], found["conflicts"]) == (200, 4, 0)


def test_a_correction_and_a_format_are_those_of_the_command(labels: Site) -> None:
    told = {"at": "03/02/2026 10:00", "label_version": "v1"}
    refused = post(labels, {"rows": rows(1, **told)})[1]
    assert (refused["unreadable"], refused["faults"][0].startswith("line 1: at: ")) == (1, True)
    asked = {"rows": rows(1, **told), "time_format": "%d/%m/%Y %H:%M"}
    assert post(labels, asked)[1]["parked"] == 1
    line = b'{"id": "id0", "value": 2, "label_version": "v1"}'
    assert post(labels, line, NDJSON)[1]["conflicts"] == 1
    assert post(labels, line, NDJSON, "?correct=true")[1]["corrected"] == 1
    table = b"id,value,label_version\nid0,3,v1\n"
    assert post(labels, table, CSV, "?correct=true")[1]["corrected"] == 1


def test_a_faulty_row_is_named_and_costs_no_other(labels: Site) -> None:
    raw = b'{"rows": [{"id": "a",\n "value": 1}, {"id": 5}, {"id": "b", "value": 1, "value": 2}]}'
    status, found = labels.ask("POST", PATH, raw, JSON)[:2]
    assert (status, found["parked"], found["unreadable"]) == (200, 1, 2)
    assert [fault.partition(":")[0] for fault in found["faults"]] == ["line 2", "line 3"]
    status, found = post(labels, b"id,value\na,1\n,2\n", CSV)
    assert (found["unreadable"], found["faults"][0].partition(": ")[0]) == (1, "outcomes.csv:3")


@pytest.mark.parametrize(
    ("body", "headers", "query", "status", "code"),
    [
        ({}, JSON, "", 400, "bad_parameters"),
        ({"rows": []}, JSON, "", 400, "bad_parameters"),
        ({"rows": [5], "file": "a.csv"}, JSON, "", 400, "bad_parameters"),
        ({"file": "a.csv"}, JSON, "", 400, "bad_parameters"),
        ({"rows": rows(1)}, JSON, "?correct=true", 400, "bad_parameters"),
        (b"id,value", CSV, "?colour=red", 400, "bad_parameters"),
        (b"id,value", CSV, "?rows=1", 400, "bad_parameters"),
        (b"id,value", {"content-type": "text/plain"}, "", 415, "unsupported_type"),
        ({"rows": rows(60_000)}, JSON, "", 413, "too_large"),
        (b"\n" * 250_001, NDJSON, "", 413, "too_many_lines"),
        ({"upload": "0" * 64, "file": "a.csv"}, JSON, "", 404, "unknown_upload"),
    ],
)
def test_what_is_no_batch_joins_nothing(
    labels: Site, body: Any, headers: dict[str, str], query: str, status: int, code: str
) -> None:
    answered, problem = post(labels, body, headers, query)
    assert (answered, problem["code"]) == (status, code)


def test_batches_that_wait_are_bounded_together(
    labels: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(earlier, "WAITING", 0)
    assert post(labels, batch(1), NDJSON)[1]["code"] == "queue_full"


def test_a_file_of_an_upload_is_joined_as_the_command_joins_it(
    labels: Site, tmp_path: Path
) -> None:
    """The command runs apart: with its own lines, its place in messages, and its standard input."""
    for name, raw, place in (
        ("late.csv", b"id,value\nx1,1\n,2\n", "late.csv:3"),
        ("stdin", b'{"id": "x1", "value": 1}\n{"id": 7}\n', "line 2"),
    ):
        entry = {"path": name, "size": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
        wanted = {"purpose": "outcomes", "endpoint": "flights", "files": [entry]}
        made = labels.ask("POST", f"{API}/uploads", json.dumps(wanted).encode(), JSON)[1]
        part = {"content-type": "application/partial-upload", "upload-offset": "0"}
        labels.ask("PATCH", f"{API}/uploads/{made['upload']}", raw, part)
        asked = {"upload": made["upload"], "file": "-" if name == "stdin" else name}
        status, found = post(labels, asked)
        assert (status, found["unreadable"]) == (200, 1), found
        assert found["faults"][0].partition(": ")[0] == place
        assert found["parked"] + found["duplicates"] == 1
