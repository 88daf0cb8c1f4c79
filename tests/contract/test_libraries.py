"""Libraries of served models: missing ones and other versions are found without an import."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kedge.adapters.artifacts.directory import DirectoryArtifacts
from kedge.core.values import Placement, Proof, Release, Signature, State
from kedge.engine.libraries import find_differences, find_missing
from kedge.operations import doctor


def stored(root: Path, **proof: Any) -> tuple[DirectoryArtifacts, str]:
    (root / "m").write_bytes(b"a model")
    store = DirectoryArtifacts(root / "store")
    digest, _ = store.put(root / "m")
    store.write_proof(digest, Proof({}, {}, **proof))
    return store, digest


def test_another_version_and_a_missing_library_are_reported(tmp_path: Path) -> None:
    store, digest = stored(tmp_path, written_with={"numpy": "0.1", "kedge-no-such": "3"})
    older, gone = sorted(find_differences(store, digest), key=len)
    assert "trained with numpy 0.1; " in older + gone
    assert "trained with kedge-no-such 3; it is not installed here" in (older, gone)
    assert find_differences(store, "sha256:" + 64 * "0") == ()


def test_doctor_finds_a_missing_loader_and_modules_of_a_release_in_production(
    tmp_path: Path,
) -> None:
    store, digest = stored(tmp_path, needs=("json", "no_such_module"))
    trusted = ("no_such_booster.core.Booster", "_loss.Half", "pathlib.Path")
    assert find_missing(store, digest, flavour="upstream", trusted=trusted) == (
        "no loader for flavour upstream is installed",
        "it needs no_such_module, which is not installed",
        "it needs no_such_booster, which is not installed",
    )
    release = Release(
        endpoint="e",
        number=3,
        digest="",
        model="e",
        version=1,
        model_digest=digest,
        flavour="upstream",
        signature=Signature((), ()),
        placement=Placement.PROCESS,
        trusted=trusted,
    )
    found: list[tuple[str, str | None]] = []
    doctor.look_at_libraries(
        SimpleNamespace(artifacts=store),  # type: ignore[arg-type]
        {"e": State(endpoint="e", production=3, releases={3: release})},
        {},
        lambda check, fault, _: found.append((check, fault)),
    )
    ((check, fault),) = found
    assert check == "libraries of e r3"
    assert fault is not None
    assert "no loader for flavour upstream" in fault
    assert "kedge restart" in fault


def test_a_module_that_only_a_finder_of_its_own_knows_is_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A package in development (pip install -e) is not on the path."""

    class Editable:
        def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
            return ModuleSpec(name, None) if name == "kedge_in_development" else None

    store, digest = stored(tmp_path, needs=("kedge_in_development",))
    assert find_missing(store, digest, flavour="sklearn", trusted=()) != ()
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Editable()])
    assert find_missing(store, digest, flavour="sklearn", trusted=()) == ()
