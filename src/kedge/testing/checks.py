"""Checks that the tests of a plug-in call, and that kedge's own loaders also pass.

Each check raises `AssertionError` with one sentence that states the fact. Nothing here needs
pytest. Damaged and hostile files are made from copies of the example, in a directory that is
removed.
"""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kedge.columns import DTYPES, check_answer, check_proof, columns_of, compare, lists_of
from kedge.core.errors import BadRequest, UnfitModel
from kedge.core.values import Proof, Signature
from kedge.ports import Flavour, Loader, Model
from kedge.system.interpreter import module_command, safe_environment

__all__ = ["Example", "check_announced", "check_flavour", "check_loader"]

ATTRIBUTES = ("flavour", "stalls", "looks_for")
WITHIN_S = 120.0
"""Longest time for a fresh interpreter: a library such as scikit-learn takes seconds to import."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """A model that a loader must load, and the answers that it must give.

    Attributes:
        path: a directory with the files of the model and no others.
        inputs: the rows by column: a list with one value a row.
        outputs: the answers by column, in the same order. NaN is written as nan.
        trusted: what the operator trusts with `--trust`.
        rtol: relative tolerance of floats, as NumPy's.
        atol: absolute tolerance of floats, as NumPy's.
    """

    path: Path
    inputs: Mapping[str, Sequence[Any]]
    outputs: Mapping[str, Sequence[Any]]
    trusted: tuple[str, ...] = ()
    rtol: float = 1e-4
    atol: float = 1e-6


def check_flavour(flavour: Flavour, example: Example) -> None:
    """Check that a flavour describes itself, claims the example, and claims nothing else.

    Raises:
        AssertionError: it does not; states the first fault.
    """
    _check_attributes(flavour)
    _check_claims(flavour, example)


def check_loader(loader: Loader, example: Example) -> None:
    """Check a loader: its flavour, the golden rows, and what it does with files that are not sound.

    It must answer the golden rows, twice alike. It must raise `UnfitModel` for a foreign directory,
    a damaged file and a pickle, and must never run the content of a pickle.

    Raises:
        AssertionError: it does not; states the first fault.
    """
    check_flavour(loader, example)
    model = loader.load(example.path, example.trusted)
    _check_signature(model.signature)
    _check_answers(model, example)
    _check_missing_libraries(loader)
    _check_other_directories(loader)
    _check_damage(loader, example)
    _check_pickles(loader, example)


def check_announced(flavour: str, loader: str) -> None:
    """Check in a new process that a flavour says what its loader says, without its libraries.

    Importing the flavour must import none of `libraries`; importing the loader must import all.

    Args:
        flavour: what the entry point `kedge.flavours` has, as "package.module:Class".
        loader: what the entry point `kedge.loaders` has.

    Raises:
        AssertionError: it does not; has the last line of what the process wrote.
    """
    env = safe_environment()
    env["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(  # noqa: S603 - our own interpreter and module
        module_command("kedge.testing.checks", flavour, loader),
        env=env,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    said = done.stderr.strip().splitlines() or [""]
    _expect(done.returncode == 0, said[-1])


def _expect(fact: bool, fault: str) -> None:
    if not fact:
        raise AssertionError(fault)


# ---------------------------------------------------------------- flavours


def _check_attributes(flavour: Flavour) -> None:
    name: Any = flavour.flavour
    _expect(
        isinstance(name, str) and name.isidentifier() and name == name.lower(),
        f"flavour must be a lower-case identifier, got {name!r}",
    )
    _expect(isinstance(flavour.stalls, bool), f"stalls must be a bool, got {flavour.stalls!r}")
    looks_for: Any = flavour.looks_for
    _expect(
        isinstance(looks_for, str) and bool(looks_for.strip()),
        f"looks_for must say what is looked for, got {looks_for!r}",
    )
    for optional in ("libraries", "companions"):
        names = getattr(flavour, optional, ())
        _expect(
            isinstance(names, tuple) and all(isinstance(each, str) and each for each in names),
            f"{optional} must be a tuple of names, got {names!r}",
        )


def _check_claims(flavour: Flavour, example: Example) -> None:
    before = _contents(example.path)
    claimed = flavour.claims(example.path)
    _expect(claimed is True, f"claims must be True of the example, got {claimed!r}")
    _expect(_contents(example.path) == before, "claims changed the files of the example")
    for what, directory in _other_directories():
        claimed = flavour.claims(directory)
        _expect(claimed is False, f"claims must be False of {what}, got {claimed!r}")
    with _copied(example.path) as copy:
        for file in _files(copy):
            file.rename(file.with_name(f".{file.name}"))
        _expect(flavour.claims(copy) is False, "claims must be False where its files are hidden")


def _other_directories() -> Iterator[tuple[str, Path]]:
    with TemporaryDirectory() as root:
        empty, foreign = Path(root) / "empty", Path(root) / "foreign"
        empty.mkdir()
        foreign.mkdir()
        (foreign / "notes.txt").write_text("not a model\n", encoding="utf-8")
        yield "an empty directory", empty
        yield "a directory of other files", foreign


# ---------------------------------------------------------------- answers


def _check_signature(signature: Signature) -> None:
    _expect(
        isinstance(signature, Signature),
        f"signature must be a kedge.plugins.Signature, got {type(signature).__name__}",
    )
    for side, fields in (("inputs", signature.inputs), ("outputs", signature.outputs)):
        names = [field.name for field in fields]
        _expect(bool(names), f"the signature has no {side}")
        _expect(len({*names}) == len(names), f"two {side} have one name: {', '.join(names)}")
        unknown = [field.dtype for field in fields if field.dtype not in DTYPES]
        _expect(not unknown, f"{side} have unknown dtypes: {', '.join(unknown)}")


def _check_answers(model: Model, example: Example) -> None:
    proof = Proof(
        inputs={name: [*values] for name, values in example.inputs.items()},
        outputs={name: [*values] for name, values in example.outputs.items()},
        rtol=example.rtol,
        atol=example.atol,
    )
    for turn in ("first", "second"):
        fault = check_proof(model, proof)
        _expect(fault is None, f"the golden rows, asked a {turn} time: {fault}")
    try:
        columns = columns_of(proof.inputs, model.signature)
    except BadRequest as error:
        raise AssertionError(f"the golden rows: {error}") from error
    given = lists_of({name: column.copy() for name, column in columns.items()})
    model.predict(columns)
    changed = compare(lists_of(columns), given, rtol=0.0, atol=0.0)
    _expect(changed is None, f"predict changed the columns that it was given: {changed}")
    alone = model.predict({name: column[:1] for name, column in columns.items()})
    fault = check_answer(alone, model.signature, 1, nan_allowed=True)
    _expect(fault is None, f"one row alone: {fault}")


def _check_missing_libraries(loader: Loader) -> None:
    libraries = getattr(loader, "libraries", ())
    absent = [name for name in libraries if name not in sys.modules]
    _expect(not absent, f"libraries names what the loader does not import: {', '.join(absent)}")


# ---------------------------------------------------------------- files that are not sound


def _check_other_directories(loader: Loader) -> None:
    for what, directory in _other_directories():
        _expect_unfit(loader, directory, what)


def _check_damage(loader: Loader, example: Example) -> None:
    damages: dict[str, Callable[[bytes], bytes]] = {
        "empty": lambda _: b"",
        "cut in half": lambda raw: raw[: len(raw) // 2],
        "overwritten with zeros": lambda raw: bytes(max(len(raw), 64)),
        "overwritten with other bytes": lambda _: bytes(range(255, -1, -1)) * 4,
    }
    for how, damage in damages.items():
        for copy, file in _copies(loader, example):
            file.write_bytes(damage(file.read_bytes()))
            _expect_unfit(loader, copy, f"{file.name}, {how}", example.trusted)


class _Trap:
    """An object whose pickle makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        """Return the call that reading the pickle makes."""
        return Path.touch, (self.path,)


def _check_pickles(loader: Loader, example: Example) -> None:
    with TemporaryDirectory() as root:
        sprung = Path(root) / "sprung"
        trap = pickle.dumps(_Trap(sprung))
        archive = BytesIO()
        with zipfile.ZipFile(archive, "w") as packed:
            packed.writestr("archive/data.pkl", trap)
        pickles = {
            "a pickle": trap,
            "a compressed pickle": zlib.compress(trap),
            "a zip archive with a pickle": archive.getvalue(),
        }
        for what, raw in pickles.items():
            for copy, file in _copies(loader, example):
                file.write_bytes(raw)
                try:
                    _expect_unfit(loader, copy, f"{file.name}, {what}", example.trusted)
                finally:
                    _expect(not sprung.exists(), f"load ran what is in {file.name}, {what}")


def _expect_unfit(loader: Loader, directory: Path, what: str, trusted: Sequence[str] = ()) -> None:
    try:
        loader.load(directory, trusted)
    except UnfitModel as error:
        _expect(bool(str(error)), f"UnfitModel without a message for {what}")
        return
    except Exception as error:
        raise AssertionError(
            f"load must raise UnfitModel for {what}, got {type(error).__name__}: {error}"
        ) from error
    raise AssertionError(f"load must raise UnfitModel for {what}, and raised nothing")


def _copies(loader: Loader, example: Example) -> Iterator[tuple[Path, Path]]:
    """Yield for each file of the model a new copy of the directory, and that file in it."""
    beside = getattr(loader, "companions", ())
    for original in _files(example.path):
        if original.name not in beside:
            with _copied(example.path) as copy:
                yield copy, copy / original.relative_to(example.path)


@contextmanager
def _copied(path: Path) -> Iterator[Path]:
    with TemporaryDirectory() as root:
        yield Path(shutil.copytree(path, Path(root) / "model"))


def _files(path: Path) -> list[Path]:
    return [file for file in sorted(path.rglob("*")) if file.is_file()]


def _contents(path: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in _files(path)}


# ---------------------------------------------------------------- in a new process


def _announced(flavour: str, loader: str) -> None:
    known = {*sys.modules}
    one = _named(flavour)
    libraries = [name for name in getattr(one, "libraries", ()) if name not in known]
    early = [name for name in libraries if name in sys.modules]
    _expect(not early, f"importing {flavour} imports {', '.join(early)}")
    other = _named(loader)
    absent = [name for name in libraries if name not in sys.modules]
    _expect(not absent, f"importing {loader} does not import {', '.join(absent)}")
    for name in ATTRIBUTES:
        mine, theirs = getattr(one, name), getattr(other, name)
        _expect(mine == theirs, f"{name} is {mine!r} of the flavour, and {theirs!r} of the loader")


def _named(spec: str) -> Any:
    module, _, name = spec.partition(":")
    return getattr(import_module(module), name)()


if __name__ == "__main__":
    _announced(*sys.argv[1:])
