"""Probe: a marked golden row that asks a gateway which release answers."""

from __future__ import annotations

import http.client
import time
from collections.abc import Mapping, Sequence

import msgspec

from kedge.core.bounds import is_within
from kedge.core.contract import OIP_DTYPES
from kedge.core.errors import KedgeError
from kedge.core.stored.roster import Member
from kedge.core.values import State, Value
from kedge.engine.submission import Probe, replicas
from kedge.gateway.auth import read_secret
from kedge.workspace import Workplace

PROBE_TIMEOUT_S = 2.0


class ProbedColumn(Value, frozen=True):
    """One column of a request with a single row, as the gateway takes it."""

    name: str
    shape: list[int]
    datatype: str
    data: list[object]


def probe(place: Workplace) -> Probe:
    """Return a probe: it asks a replica's gateway one marked golden row, and names its release."""
    token = read_secret(place.state_dir)

    def ask(member: Member, endpoint: str, epoch: int) -> int | None:
        state = place.ledger.read().states[endpoint]
        body = _golden_row(place, state, state.production)
        if body is None:
            return None
        deadline = time.monotonic() + PROBE_TIMEOUT_S
        while time.monotonic() < deadline:
            number, at = _post(member.address, endpoint, body, token)
            if number is None or at >= epoch:
                return number
        return None

    return ask


def ask_release(place: Workplace, endpoint: str, number: int) -> bool:
    """Return whether a gateway answers a marked golden row from the release of this number."""
    state = place.ledger.read().states[endpoint]
    body = _golden_row(place, state, number)
    token, asked = read_secret(place.state_dir), {"kedge-release": f"r{number}"}
    return body is not None and any(
        _post(member.address, endpoint, body, token, asked)[0] == number
        for member in replicas(place.roster.members())
    )


def _golden_row(place: Workplace, state: State, number: int | None) -> bytes | None:
    """Return a request body with a release's first golden row; None if it cannot be read."""
    if number is None:
        return None
    try:
        live = state.releases[number]
        proof = place.artifacts.proof(live.code or live.model_digest)
    except KedgeError:
        return None
    return msgspec.json.encode({"id": "kedge-probe", "inputs": _first_row(state, proof.inputs)})


def _first_row(state: State, inputs: Mapping[str, Sequence[object]]) -> list[ProbedColumn]:
    """Return the first row that the gateway accepts as tensors; the first if it accepts none."""
    sent = [field for field in state.fields if field.name in inputs]
    rows = range(len(inputs[sent[0].name])) if sent else range(0)
    fits = (n for n in rows if all(is_within(f, inputs[f.name][n]) for f in sent))
    first = next(fits, 0)
    tensors = []
    for field in state.fields:
        if field.name in inputs:
            row = inputs[field.name][first]
            shape = [1, *(len(row) if isinstance(row, list) else size for size in field.shape)]
            data = row if isinstance(row, list) else [row]
            tensors.append(ProbedColumn(field.name, shape, OIP_DTYPES[field.dtype], data))
    return tensors


def _post(
    address: str, endpoint: str, body: bytes, token: str, more: dict[str, str] | None = None
) -> tuple[int | None, int]:
    """Return the release that answered, and its epoch; None without an answer."""
    host, _, port = address.rpartition(":")
    if host in ("", "0.0.0.0", "::"):  # noqa: S104 - asked of this host, not bound
        host = "127.0.0.1"
    connection = http.client.HTTPConnection(host, int(port), timeout=PROBE_TIMEOUT_S)
    try:
        headers = {
            "content-type": "application/json",
            "authorization": f"Bearer {token}",
            "kedge-probe": "1",
            **(more or {}),
        }
        connection.request("POST", f"/v2/models/{endpoint}/infer", body, headers)
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            return None, -1
        release, epoch = (
            answer.getheader("kedge-release", ""),
            answer.getheader("kedge-epoch", "-1"),
        )
        return int(release.removeprefix("r")), int(epoch)
    except (OSError, http.client.HTTPException, ValueError):
        return None, -1
    finally:
        connection.close()
