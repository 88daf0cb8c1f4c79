"""Artifacts: files stored by digest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from kedge.core.values import FileEntry, Proof


class Artifacts(Protocol):
    """The store of artifacts: files by digest."""

    def put(self, source: Path, beside: Sequence[Path] = ()) -> tuple[str, tuple[FileEntry, ...]]:
        """Store a file or a directory, with files beside it; return its digest and entries."""

    def path(self, digest: str) -> Path:
        """Return where the files are, unverified.

        Raises:
            CorruptArtifact: the artifact is missing.
        """

    def verify(self, digest: str) -> Path:
        """Hash every byte again, then return where the files are.

        Raises:
            CorruptArtifact: a file is missing, was added, or differs; names the file.
        """

    def fetch(self, digest: str, into: Path) -> None:
        """Copy an artifact, unverified, into the root of another store.

        Raises:
            CorruptArtifact: the artifact is missing.
            Unavailable: it cannot be copied.
        """

    def write_proof(self, digest: str, proof: Proof) -> None:
        """Store the golden rows beside the files, replacing earlier ones as a whole."""

    def proof(self, digest: str) -> Proof:
        """Return the golden rows.

        Raises:
            CorruptArtifact: they are missing, or cannot be read.
        """
