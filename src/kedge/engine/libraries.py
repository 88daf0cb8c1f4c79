"""Libraries of a release: those missing here, and those not of the version that wrote its model."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, entry_points, version
from importlib.util import find_spec

from kedge.core.errors import CorruptArtifact
from kedge.core.libraries import library_differences
from kedge.core.values import Proof
from kedge.ports import Artifacts


def find_differences(artifacts: Artifacts, digest: str) -> tuple[str, ...]:
    """Return a sentence for each library whose version is not the one that wrote this model."""
    proof = _proof(artifacts, digest)
    if proof is None:
        return ()
    return library_differences(
        proof.written_with, {name: _version(name) for name in proof.written_with}
    )


def find_missing(
    artifacts: Artifacts, digest: str, *, flavour: str, trusted: Sequence[str]
) -> tuple[str, ...]:
    """Return a sentence for the loader and for each module that a model needs, if missing here."""
    found = []
    if not entry_points(group="kedge.loaders", name=flavour):
        found.append(f"no loader for flavour {flavour} is installed")
    proof = _proof(artifacts, digest)
    needs = proof.needs if proof is not None else ()
    found += [f"it needs {name}, which is not installed" for name in _absent((*needs, *trusted))]
    return tuple(found)


def _absent(names: Iterable[str]) -> list[str]:
    """Return the missing top modules of these names. Private ones are part of a library."""
    tops = dict.fromkeys(name.partition(".")[0] for name in names)
    return [top for top in tops if top and not top.startswith("_") and not _is_there(top)]


def _is_there(top: str) -> bool:
    return top in sys.modules or find_spec(top) is not None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _proof(artifacts: Artifacts, digest: str) -> Proof | None:
    try:
        return artifacts.proof(digest)
    except CorruptArtifact:  # each reader of artifacts reports this
        return None
