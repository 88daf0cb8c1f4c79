"""Registry: the numbers of versions and releases."""

from __future__ import annotations

from typing import Protocol

from kedge.core.values import Bundle, Field, ModelVersion, Release


class Registry(Protocol):
    """Numbers of immutable versions and releases. The same digest is the same version."""

    def add(self, version: ModelVersion) -> ModelVersion:
        """Register a version; return the existing one if its digest is known."""

    def versions(self, model: str) -> tuple[ModelVersion, ...]:
        """Return every version of a model, in order of number."""

    def release(
        self, bundle: Bundle, *, raw: tuple[Field, ...] = (), code: str | None = None
    ) -> Release:
        """Return the release with exactly this bundle; create it if there is none.

        `raw` is the input of its transformation, `code` the digest of its source.
        """

    def remove(self, model: str, number: int, *, now: float) -> None:
        """Remove a version.

        Raises:
            Refused: it is live, is a way back, or was production within the window.
        """
