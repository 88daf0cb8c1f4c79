"""`python -m kedge.adapters.process serve | probe`: what runs in a model's process."""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, cast

import msgspec

from kedge.adapters.process.host import confine, load, serve
from kedge.bundles import Bare, Transform
from kedge.core.errors import KedgeError, Refused, UnfitModel
from kedge.core.generations import Online
from kedge.ports import Artifacts, Loader, Model
from kedge.tensors import check_answer, columns_of, lists_of

STORE = "kedge.adapters.artifacts:DirectoryArtifacts"
"""Where the bytes are, unless another store is named: by its name, as an adapter knows no other."""


def main() -> int:
    """Run one of the two commands; returns the exit code."""
    given = _parser().parse_args()
    confine(given.memory_mb)
    if given.run == "probe":
        return _probe(given)
    try:
        return serve(
            path=given.socket, artifacts=_store(given), digest=given.digest,
            loader=lambda: _loader(given), trusted=tuple(given.trusted),
            memory_mb=given.memory_mb, code=given.code,
            generation=given.generation, online=given.online,
        )  # fmt: skip
    except BrokenPipeError:
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m kedge.adapters.process")
    runs = parser.add_subparsers(dest="run", required=True)
    for name, does in (("serve", "serve a model on a socket"), ("probe", "try a model out")):
        sub = runs.add_parser(name, help=does)
        if name == "serve":
            sub.add_argument("--socket", type=Path, required=True)
        sub.add_argument("--artifacts", type=Path, required=True, help="root of the store")
        sub.add_argument("--store", default=STORE, help="the store, as module:Class")
        sub.add_argument("--digest", required=True)
        sub.add_argument("--flavour", default="", help="empty: it is a transformation")
        sub.add_argument("--code", help="the digest of the transformation before the model")
        sub.add_argument("--generation", help="the runs that the transformation reads by key")
        sub.add_argument("--online", type=_online, default=Online(), help="their store, as JSON")
        sub.add_argument("--trusted", type=msgspec.json.decode, default=[], help="a JSON list")
        sub.add_argument("--memory-mb", type=int, default=0, help="0: no limit")
        sub.add_argument(
            "--loader", help="module:Class of a loader that is not installed as an entry point"
        )
    return parser


def _online(text: str) -> Online:
    return msgspec.json.decode(text, type=Online)


def _store(given: argparse.Namespace) -> Artifacts:
    return cast("Artifacts", _named(given.store)(given.artifacts))


def _loader(given: argparse.Namespace) -> Loader:
    """Find the loader.

    Raises:
        UnfitModel: none of this flavour is installed, or its library is missing.
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


def _probe(given: argparse.Namespace) -> int:
    """Load, say the signature, read rows, answer them twice. One JSON object a line."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a model that prints must not speak for us

    def say(message: dict[str, Any]) -> None:
        answers.write(msgspec.json.encode(message) + b"\n")
        answers.flush()

    try:
        path = _store(given).verify(given.digest)
        model, load_s = (
            load(lambda: _loader(given), path, tuple(given.trusted), memory_mb=given.memory_mb)
            if given.flavour
            else (Bare(Transform(path)), 0.0)
        )
        say({"loaded": {"signature": model.signature, "load_s": load_s}})
        say({"answered": _ask(model, msgspec.json.decode(sys.stdin.buffer.read()))})
    except KedgeError as error:
        say({"failed": {
            "kind": type(error).__name__, "code": error.code, "message": str(error),
            "hint": error.hint, "details": error.details,
        }})  # fmt: skip
        return 1
    return 0


def _ask(model: Model, rows: dict[str, list[Any]]) -> dict[str, Any]:
    columns = columns_of(rows, model.signature)
    count = len(next(iter(columns.values())))
    try:
        first = model.predict(columns)
        fault = check_answer(first, model.signature, count, nan_allowed=True)
        if fault is not None:
            return {"inputs": rows, "outputs": {}, "again": {}, "fault": fault}
        again = model.predict(columns_of(rows, model.signature))
        return {"inputs": rows, "outputs": lists_of(first), "again": lists_of(again)}
    except KedgeError:
        raise
    except Exception as error:
        raise Refused(
            f"golden rows: the model raised {type(error).__name__}: {error}",
            code="golden_raised",
            hint="give it rows that it can answer: --golden FILE, or --training FILE",
        ) from error


if __name__ == "__main__":
    sys.exit(main())
