"""Remote commands: with KEDGE_SERVER a command runs on that control and prints its answer here.

The address, the parameters and the type of the result come from the catalogue and from the command
itself. This module imports no operation: a remote rollback must not wait for a database library.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, Union
from urllib.parse import quote, urlencode, urlsplit

import click
import msgspec

from kedge.cli.connection import ConnectionLost, ControlConnection
from kedge.core.errors import (
    BadConfig,
    KedgeError,
    NotAcknowledged,
    Overloaded,
    Refused,
    Stale,
    Unavailable,
    Usage,
)
from kedge.operations.catalogue import API, BY_NAME, Lane, Operation
from kedge.system.pause import pause

HERE = {"wait", "help", "completion", "demo", "config check", "config schema", "gateway-worker"}
"""Commands that run here: they need no server, or ask it themselves."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")
TIMEOUT_S = 930.0
"""Maximum seconds for an answer; control ends what takes 900."""
RECONNECT_S = 20.0
"""How long a request is repeated after its connection was lost: a restart of control takes seconds.
The key of a write makes its repetition safe."""
PAUSE_S = 0.3
"""Seconds between two repetitions."""
LONGEST_TOKEN = 4096
Found = TypeVar("Found")
KINDS: Mapping[int, type[KedgeError]] = {
    400: Usage,
    429: Overloaded,
    412: Stale,
    503: Unavailable,
    504: NotAcknowledged,
    507: Unavailable,
}
"""Kind of error by HTTP status; every other one is a refusal."""


class RemoteProblem(msgspec.Struct, frozen=True):
    """The part of a problem that becomes an error here."""

    code: str = "error"
    detail: str = ""
    hint: str = ""
    details: dict[str, object] = {}


class Reply(NamedTuple):
    """One answer of the server."""

    body: bytes
    etag: str


class Remote:
    """Control of another state directory, as one command asks it."""

    def __init__(
        self, server: str, token: str, *, insecure: bool = False, timeout_s: float = TIMEOUT_S
    ) -> None:
        """Ask this server with this token; `timeout_s` limits each wait for it.

        Raises:
            Usage: `bad_server`; `plain_http`: the token would travel unencrypted.
        """
        parts = urlsplit(server if "://" in server else f"https://{server}")
        try:
            port = parts.port
        except ValueError:
            port = None
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
            raise Usage(
                f"KEDGE_SERVER must be a URL, got {server[:200]!r}",
                code="bad_server",
                hint="KEDGE_SERVER=https://kedge.internal:8081",
            )
        if parts.scheme == "http" and parts.hostname not in LOOPBACK and not insecure:
            raise Usage(
                f"plain http to {parts.hostname} would show the token to the network",
                code="plain_http",
                hint="use https, or kedge --insecure for a network that you trust",
            )
        self._prefix = parts.path.rstrip("/")
        self._token = token
        self._name = server
        self._connection = ControlConnection(
            parts.hostname, port, tls=parts.scheme == "https", timeout_s=timeout_s
        )

    def run(
        self, ctx: click.Context, path: str, document: Any, sent: Mapping[str, str] | None = None
    ) -> Any:
        """Run the command of a parsed line on the server; return its result.

        `sent` has the parameters that name uploaded files.

        Raises:
            KedgeError: as the command on the server; `server_unreachable`.
        """
        operation = BY_NAME[path]
        endpoint = ctx.params.get("endpoint")
        values = {**read_parameters(ctx, operation), **(sent or {})}
        target = operation.path
        if endpoint is None and operation.every:
            target = target.replace("/endpoints/{endpoint}", "")
        target = target.replace("{endpoint}", quote(str(endpoint), safe=""))
        target = target.replace("{number}", str(ctx.params.get("number")))
        if operation.method == "GET":
            query = urlencode(
                {k: "true" if v is True else str(v) for k, v in sorted(values.items())}
            )
            reply = self._ask("GET", f"{target}?{query}" if query else target)
        else:
            headers = {"idempotency-key": os.urandom(16).hex()}
            if operation.expects and not ctx.params.get("again"):
                seen = self._ask(
                    "GET", f"/endpoints/{quote(str(endpoint), safe='')}/history?limit=1"
                )
                headers["if-match"] = seen.etag or "*"
            reply = self._ask("POST", target, msgspec.json.encode(values), headers)
        return read_document(document, reply.body)

    @staticmethod
    def has(path: str, given: Mapping[str, Any]) -> bool:
        """Return whether a command can run on a server, or needs none."""
        operation = BY_NAME.get(path)
        known = operation is not None and operation.lane is not Lane.LOCAL
        return path in HERE or (known and not given.get("local"))

    def only_endpoint(self, command: str) -> str:
        """Return the only endpoint that this token may see.

        Raises:
            Usage: `endpoint_needed`.
        """
        raw = self._ask("GET", "/endpoints").body
        found = [one.endpoint for one in msgspec.json.decode(raw, type=list[_Named])]
        if len(found) != 1:
            raise Usage(
                f"{command} needs the name of an endpoint: there are {len(found)}"
                + (f": {', '.join(found)}" if found else ""),
                code="endpoint_needed",
                hint=f"{command} ENDPOINT",
                details={"endpoints": found},
            )
        return found[0]

    def view(self, target: str, kind: type[Found]) -> Found:
        """Return a view of the server.

        Raises:
            KedgeError: as `run`.
        """
        found: Found = read_document(kind, self._ask("GET", target).body)
        return found

    def send(
        self, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> bytes:
        """Send a request of an upload once; return the body of its answer.

        Raises:
            KedgeError: the server's error; `server_unreachable`, also if it may have arrived.
        """
        return self._ask(method, target, body, headers, once=True).body

    def _ask(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        once: bool = False,
    ) -> Reply:
        """Send a request, and read its answer; repeat it while its connection is lost.

        Raises:
            KedgeError: the server's error; `server_unreachable`.
        """
        sent = {"authorization": f"Bearer {self._token}", **(headers or {})}
        if method == "POST":
            sent["content-type"] = "application/json"
        path, lost_at = f"{self._prefix}{API}{target}", 0.0
        while True:
            try:
                answer = self._connection.ask(method, path, sent, body)
            except OSError as error:
                lost = isinstance(error, ConnectionLost)
                if once or not (lost or lost_at):
                    raise self._unreachable(error, may_have_arrived=lost) from error
                now = time.monotonic()
                lost_at = lost_at or now
                if now - lost_at > RECONNECT_S:
                    raise self._unreachable(error, may_have_arrived=method == "POST") from error
                pause(PAUSE_S)
                continue
            if 200 <= answer.status < 300:
                return Reply(answer.body, answer.headers.get("etag", ""))
            problem = _read_problem(answer.status, answer.body)
            is_under_way = lost_at and problem.code == "in_progress"
            if not is_under_way or time.monotonic() - lost_at > TIMEOUT_S:
                raise problem
            pause(PAUSE_S)

    def _unreachable(self, error: OSError, *, may_have_arrived: bool) -> Unavailable:
        text = f"{self._name} cannot be reached: {error}"
        hint = (
            "KEDGE_SERVER is the URL of control; kedge rollback --local works on its host without"
            " it"
        )
        if may_have_arrived:
            text += "; whether the request was carried out is not known"
            hint = f"kedge history shows it; {hint}"
        return Unavailable(
            text,
            code="server_unreachable",
            hint=hint,
            details={"may_have_arrived": may_have_arrived},
        )


class _Named(msgspec.Struct):
    """The name of an endpoint, from its status."""

    endpoint: str


def connect(
    environment: Mapping[str, str], *, insecure: bool, timeout_s: float = TIMEOUT_S
) -> Remote | None:
    """Return the server of KEDGE_SERVER; None: commands work on this machine.

    Raises:
        Usage: `bad_server`, `plain_http`, `token_file_needed`.
        BadConfig: `token_file`.
    """
    server = environment.get("KEDGE_SERVER", "")
    if not server:
        return None
    named = environment.get("KEDGE_TOKEN_FILE", "")
    if not named:
        raise Usage(
            "KEDGE_SERVER needs KEDGE_TOKEN_FILE, the file with the token",
            code="token_file_needed",
            hint="kedge token create makes a token; save it with mode 0600",
        )
    return Remote(server, read_token(Path(named)), insecure=insecure, timeout_s=timeout_s)


def read_token(path: Path) -> str:
    """Return the token in a file that only its owner can read.

    Raises:
        BadConfig: `token_file`.
    """
    why = text = ""
    try:
        with path.open("rb") as file:
            shared = os.fstat(file.fileno()).st_mode & (stat.S_IRWXG | stat.S_IRWXO)
            text = file.read(LONGEST_TOKEN).decode("ascii").strip()
        if shared:
            why = "other users may read it"
        elif not text.isprintable() or not text:
            why = "it has no token"
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it has no token"
    if why:
        raise BadConfig(
            [f"{path}: {why}"],
            code="token_file",
            hint=f"chmod 600 {path}, with the token as its only line",
        )
    return text


def read_parameters(ctx: click.Context, operation: Operation) -> dict[str, object]:
    """Return the parameters of an operation from a parsed command line."""
    known = {*operation.parameters.__struct_encode_fields__}
    found: dict[str, object] = {}
    for parameter in ctx.command.params:
        value = ctx.params.get(parameter.name or "")
        name = parameter.name or ""
        if parameter.param_type_name == "option":
            name = max(parameter.opts, key=len).lstrip("-").replace("-", "_")
        name = "override" if name == "force" else name
        if name in known and value is not None and value is not False and value != "":
            found[name] = value
    return found


def read_document(document: Any, raw: bytes) -> Any:
    """Decode a result as the first alternative that fits; msgspec cannot distinguish two structs."""
    alone = typing.get_origin(document) not in (Union, types.UnionType)
    *others, last = (document,) if alone else typing.get_args(document)
    for kind in others:
        with contextlib.suppress(msgspec.ValidationError):
            return msgspec.json.decode(raw, type=kind)
    try:
        return msgspec.json.decode(raw, type=last)
    except msgspec.DecodeError as error:
        raise Unavailable(
            f"the answer cannot be read: {error}",
            code="answer_unreadable",
            hint="the server may run another version of kedge",
        ) from error


def _read_problem(status: int, raw: bytes) -> KedgeError:
    try:
        problem = msgspec.json.decode(raw, type=RemoteProblem)
    except msgspec.DecodeError:
        return Unavailable(
            f"the server answered with status {status} and without a problem",
            code="answer_unreadable",
            hint="KEDGE_SERVER is the URL of control, without /api/v1",
        )
    kind = KINDS.get(status, Refused)
    return kind(problem.detail, code=problem.code, hint=problem.hint, details=problem.details)
