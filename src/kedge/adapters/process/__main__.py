"""Commands of a model's process: `python -m kedge.adapters.process serve | probe | prove`."""

from __future__ import annotations

import argparse
import ctypes
import os
import resource
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from importlib.metadata import entry_points
from ipaddress import ip_address
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, Literal, cast
from urllib.parse import urlsplit

import msgspec
import numpy as np

from kedge.adapters.process import fence
from kedge.adapters.process.confine import confine
from kedge.adapters.process.host import load, prove, serve
from kedge.adapters.process.messages import (
    AnsweredRows,
    LoadedModel,
    ProofStep,
    TrialFailure,
    TrialMessage,
)
from kedge.adapters.process.trial import way_in, with_nulls
from kedge.columns import Offered, check_answer, columns_of, lists_of
from kedge.core.errors import KedgeError, ModelFailure, Refused, UnfitModel
from kedge.core.features.generations import Online
from kedge.core.golden import blank_rows, count, joined, taken, whole
from kedge.core.inputs import Described
from kedge.core.values import Plainness
from kedge.inspection import plainness
from kedge.inspection.independence import answerable, ask, grouped
from kedge.ports import Artifacts, Loader, Model
from kedge.system import streams
from kedge.system.door import own_directory, receive
from kedge.system.files import set_umask
from kedge.transforms.bundle import Bare, Composed, Transform
from kedge.transforms.lookup import lookups_of

STORE = "kedge.adapters.artifacts.directory:DirectoryArtifacts"
"""Default store of artifacts; it is a name, because adapters do not know each other."""

PR_SET_PDEATHSIG = 1
MANY_ROWS = 1024
"""Rows of the largest request by default (`limits.rows`)."""
MANY_S, MANY_KB = 1.0, 512 << 10
"""Limits of processor time and memory for so many rows inline: the worker answers no other request
meanwhile."""
PROOF_NICE = 10
"""Nice value of a proof: it may run beside traffic, and no caller waits for it."""


def main() -> int:
    """Run one of the three commands; return the exit code."""
    given = _parser().parse_args()
    set_umask()
    streams.guard()  # a failed print must not end a model: its log may be missing, or the disk full
    confine(given.memory_mb)
    if given.run == "probe":
        return _probe(given)
    if given.run == "prove":
        _hear_url(given, sys.stdin.buffer.readline())
        return _prove(given)
    line = socket.socket(fileno=0)
    try:
        handed = receive(line)
        if handed is None:
            return 1
        _hear_url(given, handed.words)
        given.own = own_directory(given.socket)
        return serve(
            given=handed,
            line=line,
            fence=lambda: _enter_fence(given),
            artifacts=_store(given),
            digest=given.digest,
            loader=lambda: _loader(given),
            trusted=tuple(given.trusted),
            memory_mb=given.memory_mb,
            code=given.code,
            generation=given.generation,
            online=given.online,
        )
    except BrokenPipeError:
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m kedge.adapters.process")
    runs = parser.add_subparsers(dest="run", required=True)
    for name, does in (
        ("serve", "serve a model on a socket"),
        ("probe", "try a model out"),
        ("prove", "deploy a release from nothing"),
    ):
        sub = runs.add_parser(name, help=does)
        if name != "serve":
            sub.add_argument("--own", type=Path, required=True, help="a directory to write")
        if name == "serve":
            sub.add_argument("--socket", type=Path, required=True)
        if name == "prove":
            sub.add_argument("--into", type=Path, required=True, help="an empty directory")
            sub.add_argument("--parent", type=int, required=True, help="who waits for it")
        sub.add_argument("--artifacts", type=Path, required=True, help="root of the store")
        sub.add_argument("--store", default=STORE, help="the store, as module:Class")
        sub.add_argument("--digest", required=True)
        sub.add_argument("--flavour", default="", help="empty: it is a transformation")
        sub.add_argument("--code", help="the digest of the transformation before the model")
        sub.add_argument("--generation", help="the runs that the transformation reads by key")
        sub.add_argument("--online", type=_online, default=Online(), help="their store, as JSON")
        sub.add_argument("--trusted", type=msgspec.json.decode, default=[], help="a JSON list")
        sub.add_argument("--fence", choices=("require", "warn"), default="warn")
        sub.add_argument("--memory-mb", type=int, default=0, help="0: no limit")
        sub.add_argument(
            "--loader", help="module:Class of a loader that is not installed as an entry point"
        )
    return parser


def _hear_url(given: argparse.Namespace, words: bytes) -> None:
    """Read the URL of the online store from the first words on standard input."""
    url = words.decode().strip()
    if url:
        given.online = msgspec.structs.replace(given.online, where=url)


def _enter_fence(
    given: argparse.Namespace, read: tuple[Path, ...] = (), cpu_s: int | None = None
) -> tuple[str, ...]:
    """Enter the fence: from here on only the artifact and the common paths are readable.

    Return the parts that this machine is missing; they are not applied.

    Raises:
        UnfitModel: `not_fenced`: a part is missing, and all are required.
    """
    own: Path = given.own
    own.mkdir(mode=0o700, exist_ok=True)
    os.environ.update(TMPDIR=str(own), HOME=str(own))
    tempfile.tempdir = None
    digests = (given.digest, getattr(given, "code", None))
    homes = read or tuple(given.artifacts / d.removeprefix("sha256:") for d in digests if d)
    write: tuple[Path, ...] = ()
    port, unix, names = None, False, False
    reads = getattr(given, "generation", None) is not None
    online: Online = given.online
    if reads and online.store == "redis":
        url = urlsplit(online.where)
        unix = url.scheme == "unix"
        port = None if unix else url.port or 6379
        names = not unix and not _is_address(url.hostname or "")
    elif reads:
        write = (Path(online.where).parent,)
    return fence.enter_or_refuse(
        fence.Openings(
            read=homes,
            write=write,
            own=own,
            hidden=given.artifacts.parent,
            port=port,
            names=names,
            unix=unix,
            cpu_s=cpu_s,
        ),
        given.fence,
    )


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _online(text: str) -> Online:
    return msgspec.json.decode(text, type=Online)


def _store(given: argparse.Namespace) -> Artifacts:
    return cast("Artifacts", _named(given.store)(given.artifacts))


def _loader(given: argparse.Namespace) -> Loader:
    """Return the loader.

    Raises:
        UnfitModel: no loader of this flavour is installed, or its library is missing.
    """
    try:
        if given.loader is not None:
            return cast("Loader", _named(given.loader)())
        for point in entry_points(group="kedge.loaders", name=given.flavour):
            return cast("Loader", point.load()())
    except ImportError as error:
        raise UnfitModel(
            f"the loader for {given.flavour} needs {error.name or error}, which is not installed",
            code="missing_dependency",
            hint=f"pip install 'kedge[{given.flavour}]'",
        ) from error
    raise UnfitModel(f"no loader for flavour {given.flavour} is installed", code="no_loader")


def _named(spec: str) -> Any:
    module, _, name = spec.partition(":")
    return getattr(import_module(module), name)


Say = Callable[[TrialMessage], None]


def _voice() -> Say:
    """Return a function that writes one JSON object a line."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a model's prints must not mix with the messages

    def say(message: TrialMessage) -> None:
        answers.write(msgspec.json.encode(message) + b"\n")
        answers.flush()

    return say


def _failure(error: KedgeError) -> TrialMessage:
    failed = TrialFailure(type(error).__name__, error.code, str(error), error.hint, error.details)
    return TrialMessage(failed=failed)


def _probe(given: argparse.Namespace) -> int:
    """Load, report the signature, read rows, answer them twice and in groupings."""
    say = _voice()
    try:
        _enter_fence(given, cpu_s=fence.PROBE_CPU_S)
        path = _store(given).verify(given.digest)
        model, load_s = (
            load(lambda: _loader(given), path, tuple(given.trusted), memory_mb=given.memory_mb)
            if given.flavour
            else (Bare(Transform(path)), 0.0)
        )
        described = getattr(model, "described", Described())
        say(TrialMessage(loaded=LoadedModel(model.signature, load_s, described)))
        offered = msgspec.json.decode(sys.stdin.buffer.read(), type=Offered)
        answered = _ask(model, offered)
        if given.flavour and answered.fault is None:
            plain = _plain(model, answered.inputs)
            answered = msgspec.structs.replace(answered, plain=plain)
        say(TrialMessage(answered=answered))
    except KedgeError as error:
        say(_failure(error))
        return 1
    return 0


def _ask(model: Model, offered: Offered) -> AnsweredRows:
    """Answer the golden rows twice, and all offered rows in groupings."""
    used, rows = _chosen(model, offered)
    if offered.nulls:
        rows = with_nulls(model, rows)
    columns = columns_of(rows, model.signature)
    asked = len(next(iter(columns.values())))
    try:
        first = model.predict(columns)
        fault = check_answer(first, model.signature, asked, nan_allowed=True)
        if fault is not None:
            return AnsweredRows(inputs=rows, outputs={}, again={}, fault=fault)
        again = model.predict(columns_of(rows, model.signature))
    except KedgeError:
        raise
    except Exception as error:
        raise _raised(f"the model raised {type(error).__name__}: {error}") from error
    outputs = lists_of(first)
    if offered.single:
        outputs = joined([ask(model, taken(rows, [row])) for row in range(asked)])
    found = AnsweredRows(inputs=rows, outputs=outputs, again=lists_of(again), used=used)
    if not offered.grouped:
        return found
    # Made rows that became golden ones are asked once; made rows with nulls remain.
    golden = rows if used != "made" else {}
    mark = grouped(
        model, golden, offered.made, rtol=offered.rtol, atol=offered.atol, clock=perf_counter
    )
    return msgspec.structs.replace(found, grouped=mark)


def _plain(model: Model, rows: dict[str, list[Any]]) -> Plainness:
    """Return the walk's result; if it found nothing, also test the cost of many rows.

    Shapes that multiply with the number of rows appear in no operator and no attribute.
    """
    found = plainness(model)
    if not found.proven:
        return found
    columns = {
        name: np.resize(column, (MANY_ROWS, *column.shape[1:]))
        for name, column in columns_of(rows, model.signature).items()
    }
    began, before = process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        model.predict(columns)
        why = ""
    except Exception as error:  # noqa: BLE001 - a model may raise anything
        why = f"{MANY_ROWS} rows at once raised {type(error).__name__}"
    took_s = process_time() - began
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    if took_s > MANY_S:
        why = f"{MANY_ROWS} rows at once took {took_s:.1f} s of a processor, more than {MANY_S:g}"
    elif grown > MANY_KB:
        why = f"{MANY_ROWS} rows at once took {grown >> 10} MB, more than {MANY_KB >> 10}"
    return msgspec.structs.replace(found, proven=False, why=why) if why else found


def _chosen(
    model: Model, offered: Offered
) -> tuple[Literal["golden", "sample", "made"], dict[str, list[Any]]]:
    """Return the golden rows: the required ones, else the others that the model answers.

    Raises:
        Refused: `golden_raised`: the model answers none.
        ModelFailure: as a transformation raises it.
    """
    if offered.golden:
        return "golden", offered.golden
    failure: KedgeError | None = None
    offers: tuple[tuple[Literal["sample", "made"], dict[str, list[Any]]], ...] = (
        ("sample", offered.sample),
        ("made", whole(offered.made)),
    )
    for used, rows in offers:
        kept, failed = answerable(model, rows)
        if kept and count(kept):
            return used, _together(model, kept)
        failure = failed or failure
    if failure is None:
        raise _raised("there are no rows to ask")
    if failure.code == "model_nonsense":  # its form is judged with all answers
        return "made", blank_rows(model.signature.inputs)
    raise _raised(str(failure), way_in(model)) if failure.code == "model_raised" else failure


def _together(model: Model, rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Return the rows; only the first if they fail together although each is answered alone."""
    try:
        ask(model, rows)
    except ModelFailure:
        return taken(rows, [0])
    return rows


def _raised(said: str, hint: str = "") -> Refused:
    rows = "give it rows that it can answer: --golden FILE, or --training FILE"
    return Refused(
        f"golden rows: {said}", code="golden_raised", hint=f"{hint}; or {rows}" if hint else rows
    )


def _prove(given: argparse.Namespace) -> int:
    """Fetch, verify, load, answer golden rows, then sample rows. Report each step's time."""
    _end_with(given.parent)
    with suppress(OSError):
        os.nice(PROOF_NICE)
    say, began = _voice(), perf_counter()

    def done(step: str, rows: int = 0) -> None:
        nonlocal began
        now = perf_counter()
        say(TrialMessage(done=ProofStep(step, now - began, rows)))
        began = now

    try:
        digests = [given.digest, *([given.code] if given.code is not None else [])]
        for digest in digests:
            _store(given).fetch(digest, given.into)
        done("fetch")
        _enter_fence(given, (given.into,), cpu_s=fence.PROBE_CPU_S)
        _end_with(given.parent)  # a new user id cleared it
        copy = cast("Artifacts", _named(given.store)(given.into))
        paths = [copy.verify(digest) for digest in digests]
        done("verify")
        loader = lambda: _loader(given)  # noqa: E731 - as `load` takes it
        model, _ = load(loader, paths[0], tuple(given.trusted), memory_mb=given.memory_mb)
        parts = [model]
        if given.code is not None:
            transform = Transform(
                paths[1], lambda spec: lookups_of(spec, given.generation, given.online, alone=False)
            )
            parts, model = [model, Bare(transform)], Composed(transform, model)
        done("load")
        rows = 0
        for part, digest in zip(parts, digests, strict=True):
            proof = copy.proof(digest)
            prove(part, proof)
            rows += len(next(iter(proof.inputs.values()), ()))
        done("answer", rows)
        asked = msgspec.json.decode(sys.stdin.buffer.read())
        began = perf_counter()
        done("sample", _sampled(model, asked))
    except KedgeError as error:
        say(_failure(error))
        return 1
    return 0


def _sampled(model: Model, rows: dict[str, list[Any]]) -> int:
    """Ask rows whose answer is unknown: it must only be finite and of the right form.

    Raises:
        Refused: `bad_answer`.
    """
    if not rows:
        return 0
    columns = columns_of(rows, model.signature)
    count = len(next(iter(columns.values())))
    try:
        answer = model.predict(columns)
    except Exception as error:
        raise Refused(
            f"the model raised {type(error).__name__}: {error}", code="bad_answer"
        ) from error
    fault = check_answer(answer, model.signature, count)
    if fault is not None:
        raise Refused(fault, code="bad_answer")
    return count


def _end_with(parent: int) -> None:
    """End with the waiting process, however it ends: no other would stop a hanging load."""
    with suppress(AttributeError):  # not on Linux
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
