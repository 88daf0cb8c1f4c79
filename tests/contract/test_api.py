"""Control's API in one process: every view, its parameters and bounds, and the OpenAPI document."""

from __future__ import annotations

import asyncio
import typing
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from contract.sql_world import World, at, world
from kedge.adapters.clock import SystemClock
from kedge.cli.documents import documents
from kedge.cli.main import main
from kedge.cli.root import walk
from kedge.core.stored.notes import PinDrifts, build_note
from kedge.core.uploads import Purpose
from kedge.engine.process_faults import ProcessFaults
from kedge.operations.catalogue import API, BY_NAME, CATALOGUE, Lane
from kedge.operations.served import SERVED
from kedge.web import openapi
from kedge.web.api import Admin
from kedge.web.app import Front
from kedge.web.events import Streams
from kedge.web.readers import Readers
from kedge.workspace import Workplace
from support.access import Open
from support.api import api_of

COMMANDS = dict(walk(main))
LATER = {"again", "local", "watch", "html", "help", "json", "within", "force"}
"""Options that change what a terminal shows, or that are hidden."""


class Client:
    """The API as an ASGI app, over a real state directory."""

    def __init__(self, root: Path) -> None:
        self.world: World = world(root)
        self.faults = ProcessFaults(SystemClock())
        readers = Readers(partial(Workplace, self.world.state_dir))
        earlier = Admin(lambda _: [], lambda _: None, None)  # type: ignore[arg-type]
        self.app = Front(
            earlier,
            api_of(readers, Streams(readers, self.faults), self.world.state_dir).routes(),
            self.faults,
            gate=Open(),
        )
        self.http = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(self.app), base_url="http://127.0.0.1"
        )
        self.loop = asyncio.Runner()

    def ask(self, method: str, path: str, **more: Any) -> httpx2.Response:
        """One request."""
        return self.loop.run(self.http.request(method, path, **more))

    def get(self, path: str, **query: Any) -> httpx2.Response:
        """One GET below /api/v1."""
        return self.ask("GET", API + path, params=query or None)

    def close(self) -> None:
        self.loop.run(self.http.aclose())
        self.loop.close()


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Client]:
    client = Client(tmp_path)
    yield client
    client.close()


def test_every_view_answers_with_its_document_and_the_epoch(api: Client) -> None:
    for operation in CATALOGUE:
        if operation.lane is not Lane.LOOK or operation.name in ("evidence", "features impact"):
            continue
        for path in openapi.list_paths(operation):
            found = api.get(path.removeprefix(API).replace("{endpoint}", "flights"))
            assert found.status_code == 200, (path, found.text)
            kind = SERVED[operation.name].result
            alternatives = typing.get_args(kind) if typing.get_origin(kind) is not list else (kind,)
            assert any(fits(found.content, one) for one in alternatives or (kind,)), path
            assert ("etag" in found.headers) == ("{endpoint}" in path)
            assert found.headers["x-content-type-options"] == "nosniff"
    assert not api.faults.faults


def fits(raw: bytes, kind: Any) -> bool:
    try:
        msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError:
        return False
    return True


def test_a_history_is_read_page_by_page(api: Client) -> None:
    for _ in range(6):
        note = build_note(PinDrifts(host="h", why="a test"))
        api.world.ledger.note("flights", note, by="ada", reason="", at=at(1))
    whole = api.get("/endpoints/flights/history", limit=1000, all=True).json()
    assert len(whole) == 7
    pages: list[Any] = []
    path = f"{API}/endpoints/flights/history?limit=2&all=true"
    while path:
        found = api.ask("GET", path)
        assert len(found.json()) <= 2
        pages += found.json()
        link = found.headers.get("link", "")
        path = link.partition(">")[0].lstrip("<")
    assert pages == whole


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/endpoints/nope/status", 404, "unknown_endpoint"),
        ("/endpoints/%00/status", 404, "unknown_endpoint"),
        ("/endpoints/flights/evidence", 404, "no_rollout"),
        ("/endpoints/flights/history?cursor=xx", 400, "bad_cursor"),
        ("/endpoints/flights/history?limit=0", 400, "bad_parameters"),
        ("/endpoints/flights/history?limit=5&limit=6", 400, "bad_parameters"),
        ("/endpoints/flights/history?colour=red", 400, "bad_parameters"),
        ("/nowhere", 404, "unknown_path"),
    ],
)
def test_a_refused_view_is_a_problem_with_a_code(
    api: Client, path: str, status: int, code: str
) -> None:
    found = api.get(path)
    problem = found.json()
    assert (found.status_code, problem["code"], problem["status"]) == (status, code, status)
    assert found.headers["content-type"] == "application/problem+json"
    assert problem["detail"]
    assert api.faults.limited == {f"control.{code}": 1}


def test_a_page_of_another_site_reads_nothing(api: Client) -> None:
    for headers in ({"host": "evil.example"}, {"origin": "https://evil.example"}):
        found = api.ask("GET", f"{API}/endpoints", headers=headers)
        assert (found.status_code, found.headers.get("access-control-allow-origin")) == (403, None)


def test_another_method_is_refused_with_those_that_exist(api: Client) -> None:
    found = api.ask("DELETE", f"{API}/endpoints")
    assert (found.status_code, found.json()["code"]) == (405, "wrong_method")
    assert "GET" in found.headers["allow"]


def test_the_catalogue_and_the_functions_have_the_same_operations() -> None:
    assert {one.name for one in CATALOGUE if one.lane is not Lane.LOCAL} == set(SERVED)
    assert len(BY_NAME) == len(CATALOGUE)
    assert {one.name for one in CATALOGUE if one.files or one.result} == set(
        typing.get_args(Purpose)
    )
    for one in CATALOGUE:
        fields = {*one.parameters.__struct_encode_fields__}
        assert {*one.files, *one.admin_with, *one.words} <= fields, one.name
        assert bool(one.files or one.result) == ("upload" in fields), one.name


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_an_operation_is_its_command(name: str) -> None:
    """Its summary, its parameters and its result are those of the command."""
    command, operation = COMMANDS[name], BY_NAME[name]
    assert operation.summary == (command.help or "").partition("\n")[0]
    if operation.lane is Lane.LOCAL:
        return
    assert set(spread(SERVED[name].result)) <= set(spread(documents()[name]))
    options = {
        (max(p.opts, key=len) if p.param_type_name == "option" else p.name or "")
        .lstrip("-")
        .replace("-", "_")
        for p in command.params
    }
    fields = {*operation.parameters.__struct_encode_fields__} - {"upload", "rows"}
    inside = {part.strip("{}") for part in operation.path.split("/") if part.startswith("{")}
    words = tuple(p.name for p in command.params if p.param_type_name == "argument")
    assert not operation.words or words[-len(operation.words) :] == operation.words
    assert fields | inside == options - LATER | ({"override"} & fields)


def spread(kind: Any) -> tuple[Any, ...]:
    return (kind,) if typing.get_origin(kind) is list else typing.get_args(kind) or (kind,)


def test_the_openapi_document_is_up_to_date() -> None:
    file = Path(__file__).parents[2] / "docs" / "reference" / "openapi.json"
    assert file.read_bytes() == openapi.page(), (
        "python -m kedge.web.openapi docs/reference/openapi.json"
    )
