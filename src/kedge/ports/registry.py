"""Registry: numbers for versions and releases."""

from __future__ import annotations

from typing import Protocol

from kedge.core.values import Bundle, Field, ModelVersion, Release


class Registry(Protocol):
    """Numbers for immutable things. The same digest is the same version."""

    def add(self, version: ModelVersion) -> ModelVersion:
        """Register a version; returns the one that exists when its digest is known."""

    def versions(self, model: str) -> tuple[ModelVersion, ...]:
        """Every version of a model, in order of number."""

    def release(
        self, bundle: Bundle, *, raw: tuple[Field, ...] = (), code: str | None = None
    ) -> Release:
        """The release with exactly this bundle, made when there was none.

        `raw` and `code` are what its transformation takes, and the digest of its source.
        """

    def remove(self, model: str, number: int, *, now: float) -> None:
        """Forget a version.

        Raises:
            Refused: it is live, in some `back*`, or was production inside the window.
        """
