"""The API against its own OpenAPI document: schemathesis asks, in process and within bounds."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import hypothesis
import pytest
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from contract.sql_world import world
from kedge.adapters.clock import SystemClock
from kedge.engine.process_faults import ProcessFaults
from kedge.operations.catalogue import API, CATALOGUE, Lane
from kedge.web.api import Admin
from kedge.web.app import Front
from kedge.web.events import Streams
from kedge.web.readers import Readers
from kedge.workspace import Workplace
from support.access import Open
from support.api import api_of

EXAMPLES = 3
"""Requests for each operation: enough for missing, odd and valid values, and cheap."""
HOST = {"Host": "127.0.0.1"}

_root = TemporaryDirectory(prefix="kedge-schema-", ignore_cleanup_errors=True)
_state = world(Path(_root.name)).state_dir
FAULTS = ProcessFaults(SystemClock())
_readers = Readers(partial(Workplace, _state))
_earlier = Admin(lambda _: [], lambda _: None, None)  # type: ignore[arg-type]
_routes = api_of(_readers, Streams(_readers, FAULTS), _state).routes()
APP = Front(_earlier, _routes, FAULTS, gate=Open())
SLOW = tuple(f"{API}{one.path}" for one in CATALOGUE if one.lane is Lane.CHILD)
"""Operations that start a process: their parameters are tested elsewhere."""

schemathesis.serializer.alias("application/partial-upload", "application/octet-stream")
schema = schemathesis.openapi.from_asgi(f"{API}/openapi.json", APP, headers=HOST)
bounded = schema.exclude(path=[*SLOW, f"{API}/events"])


@bounded.parametrize()
@hypothesis.settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(hypothesis.HealthCheck),
)
def test_an_answer_is_what_the_document_says(case: Any) -> None:
    answer = case.call(headers=HOST)
    checks = [status_code_conformance, content_type_conformance, response_schema_conformance]
    case.validate_response(answer, checks=[not_a_server_error, *checks], excluded_checks=[])
    assert not FAULTS.faults


@pytest.mark.parametrize("name", ["paths", "components", "security"])
def test_the_document_is_served(name: str) -> None:
    assert name in schema.raw_schema
