"""Libraries of a model: the versions that wrote it, compared with those where it is served."""

from __future__ import annotations

from collections.abc import Mapping


def library_differences(
    written_with: Mapping[str, str], installed: Mapping[str, str | None]
) -> tuple[str, ...]:
    """Return one sentence per library whose version differs here; None: not installed.

    Libraries that are missing in `installed` are left out.
    """
    found = []
    for library, version in sorted(written_with.items()):
        if library not in installed or installed[library] == version:
            continue
        here = installed[library]
        now = f"{here} is installed here" if here else "it is not installed here"
        found.append(f"trained with {library} {version}; {now}")
    return tuple(found)
