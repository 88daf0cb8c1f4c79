"""Artifacts: bytes by digest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from kedge.core.values import FileEntry, Proof


class Artifacts(Protocol):
    """Bytes by digest."""

    def put(self, source: Path, beside: Sequence[Path] = ()) -> tuple[str, tuple[FileEntry, ...]]:
        """Copy a file or a directory in, with files beside it; returns its digest and its per-file manifest."""

    def path(self, digest: str) -> Path:
        """Where the files are, unverified.

        Raises:
            CorruptArtifact: it is not there.
        """

    def verify(self, digest: str) -> Path:
        """Hash every byte again, then say where the files are.

        Raises:
            CorruptArtifact: a file is missing, was added, or differs; names it.
        """

    def fetch(self, digest: str, into: Path) -> None:
        """Copy an artifact, unverified, into the root of another store.

        Raises:
            CorruptArtifact: it is not there.
            Unavailable: it cannot be copied.
        """

    def write_proof(self, digest: str, proof: Proof) -> None:
        """Keep the golden rows beside the files; replaces those that are there, whole."""

    def proof(self, digest: str) -> Proof:
        """The golden rows.

        Raises:
            CorruptArtifact: there are none, or they cannot be read.
        """
