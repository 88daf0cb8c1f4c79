"""OpenAPI document of control's API, generated from the catalogue and the structs.

`python -m kedge.web.openapi docs/reference/openapi.json` writes the file again. A test fails while
it differs from the code.
"""

from __future__ import annotations

import argparse
import sys
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from kedge.core.stored.ledger import Entry
from kedge.core.uploads import UploadRequest, UploadStatus
from kedge.core.values import Value
from kedge.operations.alerts import ListedAlert
from kedge.operations.catalogue import API, CATALOGUE, Lane, Operation
from kedge.operations.feed import AckEvent, EvidenceEvent
from kedge.operations.meanings import meanings
from kedge.operations.parameters import LabelParameters, NoParameters
from kedge.operations.served import SERVED
from kedge.web.events import StreamFault, StreamReset, StreamStart
from kedge.web.problems import PROBLEM, Problem

Json = dict[str, Any]

EVENTS: dict[str, Any] = {
    "start": StreamStart,
    "entry": Entry,
    "ack": AckEvent,
    "alert": ListedAlert,
    "evidence": EvidenceEvent,
    "reset": StreamReset,
    "fault": StreamFault,
}
"""The type of the data of each event of the stream."""
REFERENCES = "#/components/schemas/{name}"
DESCRIPTION = """\
Every command and view of kedge. A result has the fields that the command prints with --json.
A write takes `Idempotency-Key`, and `If-Match` with the epoch that the caller saw. An error is
`application/problem+json`."""


def build_document() -> Json:
    """Return the OpenAPI 3.1 document."""
    kinds: list[Any] = [Problem, UploadRequest, UploadStatus, LabelParameters, *EVENTS.values()]
    for operation in CATALOGUE:
        if operation.lane is not Lane.LOCAL:
            kinds += [SERVED[operation.name].result, operation.parameters]
    schemas, components = msgspec.json.schema_components(
        kinds, schema_hook=_describe_any, ref_template=REFERENCES
    )
    by_kind = dict(zip(map(repr, kinds), schemas, strict=True))
    for struct in _structs(kinds):
        _describe(struct, components)
    paths: dict[str, Json] = {}
    for operation in CATALOGUE:
        if operation.lane is Lane.LOCAL:
            continue
        for path in list_paths(operation):
            described = _describe_operation(operation, path, by_kind, components)
            paths.setdefault(path, {})[operation.method.lower()] = described
    paths[f"{API}/events"] = {"get": _describe_events(by_kind)}
    paths |= _describe_uploads(by_kind)
    return {
        "openapi": "3.1.0",
        "info": {"title": "kedge", "version": "1", "description": DESCRIPTION},
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": dict(sorted(components.items())),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }


def _describe_any(kind: type) -> Json:
    """Return the schema of a type that holds any value of JSON."""
    if kind is not object:
        raise NotImplementedError
    return {"description": "Any value."}


def list_paths(operation: Operation) -> list[str]:
    """Return the paths of an operation: with its endpoint, and the one that means all of them."""
    whole = API + operation.path
    return [whole, whole.replace("/endpoints/{endpoint}", "")] if operation.every else [whole]


def _describe_operation(
    operation: Operation, path: str, by_kind: dict[str, Json], components: Json
) -> Json:
    identity = operation.name.replace(" ", "_").replace("-", "_")
    is_whole = operation.every and "{endpoint}" not in path
    found: Json = {
        "operationId": f"{identity}_all" if is_whole else identity,
        "summary": operation.summary,
        "description": _describe_needs(operation),
        "parameters": [*_path_parameters(path)],
        "responses": {
            "200": {
                "description": "The result.",
                "content": {
                    "application/json": {"schema": by_kind[repr(SERVED[operation.name].result)]}
                },
            },
            "default": {
                "description": "An error.",
                "content": {PROBLEM: {"schema": by_kind[repr(Problem)]}},
            },
        },
    }
    if operation.method == "GET":
        found["parameters"] += _query_parameters(operation.parameters, components)
    else:
        found["parameters"] += _write_headers(operation)
        found["requestBody"] = {
            "required": bool(msgspec.json.schema(operation.parameters).get("required")),
            "content": {"application/json": {"schema": by_kind[repr(operation.parameters)]}},
        }
        if operation.inline:
            lines = {"schema": {"type": "string"}}
            found["requestBody"]["required"] = True
            found["requestBody"]["content"] |= {"application/x-ndjson": lines, "text/csv": lines}
            found["parameters"] += _query_parameters(LabelParameters, components)
    return found


def _describe_needs(operation: Operation) -> str:
    told = f"As `kedge {operation.name}`. The caller needs: {operation.needs}"
    if operation.admin_with:
        told += f"; admin with {' or '.join(operation.admin_with)}"
    if operation.files:
        told += f". Parameters that name files of the upload: {', '.join(operation.files)}"
    if operation.inline:
        told += ". The query has parameters only for data that is the body itself"
    return f"{told}."


def _describe_events(by_kind: dict[str, Json]) -> Json:
    names = {"type": "string", "minLength": 1, "maxLength": 64}
    number = {"type": "integer", "minimum": 0, "maximum": 10**15 - 1}
    return {
        "operationId": "events",
        "summary": "Stream entries of the ledger, acks, alerts and evidence as they happen.",
        "parameters": [
            {"name": "endpoint", "in": "query", "required": False, "schema": names},
            {"name": "after", "in": "query", "required": False, "schema": number},
            {"name": "Last-Event-ID", "in": "header", "required": False, "schema": number},
        ],
        "responses": {
            "200": {
                "description": "Server-sent events. The data of an event is JSON.",
                "content": {"text/event-stream": {"schema": {"type": "string"}}},
            },
            "default": {
                "description": "An error.",
                "content": {PROBLEM: {"schema": by_kind[repr(Problem)]}},
            },
        },
        "x-events": {name: by_kind[repr(kind)] for name, kind in EVENTS.items()},
    }


_UPLOAD = {
    "name": "upload",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_UPLOAD_HEADERS = {
    "Upload-Offset": {"schema": {"type": "integer"}},
    "Upload-Complete": {"schema": {"type": "string"}},
    "Upload-Length": {"schema": {"type": "integer"}},
}


def _describe_uploads(by_kind: dict[str, Json]) -> dict[str, Json]:
    """Return the paths of uploads; they are no operations of the catalogue."""
    status: Json = {"description": "How far the upload is.", "headers": _UPLOAD_HEADERS}
    whole = {**status, "content": {"application/json": {"schema": by_kind[repr(UploadStatus)]}}}
    wanted = {"application/json": {"schema": by_kind[repr(UploadRequest)]}}
    result = {"description": "The file.", "content": {"application/octet-stream": _BINARY}}
    path = {"name": "path", "in": "path", "required": True, "schema": {"type": "string"}}

    def describe(identity: str, summary: str, code: str, answer: Json, **more: Any) -> Json:
        error = {
            "description": "An error.",
            "content": {PROBLEM: {"schema": by_kind[repr(Problem)]}},
        }
        responses = {code: answer, "default": error}
        return {"operationId": identity, "summary": summary, "responses": responses, **more}

    offset = {"type": "integer", "minimum": 0, "maximum": 10**15 - 1}
    complete = {"type": "string", "enum": ["?0", "?1"]}
    create = "Make an upload, or find the one with the same files."
    append = "Add bytes; the last one ends the upload once every digest is right."
    stream = "Stream a file that the command wrote; Range asks for a part."
    return {
        f"{API}/uploads": {
            "post": describe(
                "upload_create",
                create,
                "201",
                whole,
                requestBody={"required": True, "content": wanted},
            )
        },
        f"{API}/uploads/{{upload}}": {
            "parameters": [_UPLOAD],
            "get": describe("upload_status", "Return how far an upload is.", "200", whole),
            "head": describe("upload_offset", "Return the same as headers.", "200", status),
            "patch": describe(
                "upload_append",
                append,
                "200",
                whole,
                parameters=[
                    {"name": "Upload-Offset", "in": "header", "required": True, "schema": offset},
                    {"name": "Upload-Complete", "in": "header", "schema": complete},
                ],
                requestBody={"required": True, "content": {"application/partial-upload": _BINARY}},
            ),
            "delete": describe(
                "upload_remove", "Remove an upload.", "204", {"description": "It is removed."}
            ),
        },
        f"{API}/uploads/{{upload}}/results/{{path}}": {
            "parameters": [_UPLOAD, path],
            "get": describe("upload_result", stream, "200", result),
        },
    }


def _path_parameters(path: str) -> Iterable[Json]:
    for part in path.split("/"):
        if part.startswith("{"):
            kind: Json = {"type": "string", "minLength": 1, "maxLength": 64}
            if part == "{number}":
                kind = {"type": "integer", "minimum": 1}
            yield {"name": part.strip("{}"), "in": "path", "required": True, "schema": kind}


def _query_parameters(struct: type[NoParameters], components: Json) -> Iterable[Json]:
    schema = components[struct.__name__]
    for name, described in schema.get("properties", {}).items():
        kind = {key: value for key, value in described.items() if key != "description"}
        # A query has no null.
        alternatives = [one for one in kind.get("anyOf", ()) if one != {"type": "null"}]
        kind = alternatives[0] if alternatives else kind
        told = described.get("description", "")
        needed = name in schema.get("required", ())
        yield {"name": name, "in": "query", "required": needed, "description": told, "schema": kind}


def _write_headers(operation: Operation) -> Iterable[Json]:
    yield {
        "name": "Idempotency-Key",
        "in": "header",
        "required": False,
        "description": "A key of the caller's choice. A repetition gets the first answer.",
        "schema": {"type": "string", "pattern": "^[!-~]{1,128}$"},
    }
    if operation.expects:
        yield {
            "name": "If-Match",
            "in": "header",
            "required": False,
            "description": "The epoch that the caller saw, in quotes; 412 if it has changed.",
            "schema": {"type": "string", "pattern": '^"[0-9]{1,15}"$'},
        }


def _structs(kinds: Iterable[Any]) -> list[type[msgspec.Struct]]:
    """Return the structs within types, each once."""
    found: list[type[msgspec.Struct]] = []
    waiting = [*kinds]
    while waiting:
        kind = waiting.pop()
        waiting += typing.get_args(kind)
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind not in found:
            found.append(kind)
            waiting += typing.get_type_hints(kind, include_extras=True).values()
    return found


def _describe(struct: type[msgspec.Struct], components: Json) -> None:
    """Add the meanings of a struct's fields to its schema."""
    schema = components.get(struct.__name__)
    if schema is None or struct in (Value, msgspec.Struct):
        return
    told = meanings(struct)
    wire = zip(struct.__struct_fields__, struct.__struct_encode_fields__, strict=True)
    for name, spelled in wire:
        if name in told and spelled in schema.get("properties", {}):
            schema["properties"][spelled]["description"] = told[name]


def page() -> bytes:
    """Return the document as a file."""
    return msgspec.json.format(msgspec.json.encode(build_document(), order="sorted")) + b"\n"


def main(arguments: list[str]) -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description="Write the OpenAPI document.")
    parser.add_argument("file", type=Path, metavar="FILE", help="the file to write")
    target: Path = parser.parse_args(arguments).file
    target.write_bytes(page())


if __name__ == "__main__":
    main(sys.argv[1:])
