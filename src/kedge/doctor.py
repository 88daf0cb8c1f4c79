"""What `kedge doctor` looks at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kedge.adapters.sql.engine import sqlite_version_fault
from kedge.core.errors import CorruptArtifact, KedgeError, Unavailable
from kedge.enrol import loaders
from kedge.files import find_open
from kedge.settings import load
from kedge.verbs import status_of
from kedge.wiring import Workplace


def examine(state_dir: Path, config: Path) -> list[dict[str, Any]]:
    """Everything `kedge doctor` looks at; each finding says what was checked and what was seen."""
    findings: list[dict[str, Any]] = []

    def found(check: str, fault: str | None, fine: str = "as it should be") -> None:
        findings.append({"check": check, "ok": not fault, "detail": fault or fine})

    found("sqlite", sqlite_version_fault())
    try:
        settings = load(config)
        found("configuration", None, f"{len(settings.endpoints)} endpoints")
    except KedgeError as error:
        found("configuration", str(error))
    installed, missing = loaders()
    found("loaders", None if installed else "none is installed",
          ", ".join([*installed, *(f"without {name}" for name in missing)]))  # fmt: skip
    wider = find_open(state_dir)
    found(
        "permissions",
        f"{len(wider)} files and directories are open to other users, such as {wider[0]}; "
        f"fix: chmod -R go= {state_dir}"
        if wider
        else None,
        "for this user alone",
    )
    place = Workplace(state_dir)
    try:
        faults = place.ledger.verify()
        found(
            "ledger chain", "; ".join(faults) or None, "every entry follows from the one before it"
        )
        states = place.ledger.read().states
    except Unavailable as error:
        found("ledger", f"{error.code}: {error}")
        states = place.disk.remembered()
    for digest in sorted({r.model_digest for s in states.values() for r in s.releases.values()}):
        try:
            place.artifacts.verify(digest)
            found(f"artifact {digest[:19]}", None, "every byte as registered")
        except CorruptArtifact as error:
            found(f"artifact {digest[:19]}", str(error))
    for name in states:
        for fault in status_of(place, name)[0]["faults"]:
            found(f"endpoint {name}", fault)
    for endpoint, pin in place.disk.pins().items():
        found(f"pin {endpoint}", f"pinned to r{pin.state.production} since {pin.at}")
    return findings
