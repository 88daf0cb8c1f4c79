"""Location of a command's kedge.toml and state directory, and the errors where none exists."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from kedge.core.errors import BadConfig, KedgeError, Unavailable

CONFIG, STATE, LEDGER = "kedge.toml", ".kedge", "ledger"
RESTORING = "restoring"
"""Directory within the state directory in which a restore assembles its files. If it exists and the
ledger does not, a restore was interrupted."""
WORKER = b"gateway-worker"
"""The part of the command line that identifies a gateway worker."""


def find_config(start: Path | None = None) -> Path:
    """Return the nearest kedge.toml upwards from a directory, or a lost one beside its state.

    If none is found, return the path at which this directory's would be written.

    Args:
        start: the first directory; None: the working directory.

    Raises:
        BadConfig: `foreign_config`: it is in a parent directory and of another user, who could
            choose which code runs; `no_directory`: the working directory was deleted.
    """
    if start is None:
        try:
            start = Path.cwd()
        except OSError:
            raise BadConfig(
                ["the working directory does not exist any more"],
                code="no_directory",
                hint="cd to the directory of kedge.toml, or kedge --config FILE COMMAND",
            ) from None
    for folder in (start, *start.parents):
        config, ledger = folder / CONFIG, folder / STATE / LEDGER
        found = next((path for path in (config, ledger) if os.path.lexists(path)), None)
        if found is not None:
            if folder != start and not _is_ours(found):
                raise BadConfig(
                    [f"{config} belongs to another user, and {start} is below it"],
                    code="foreign_config",
                    hint=(
                        f"to use it: kedge --config {shlex.quote(str(config))} COMMAND, or cd there"
                    ),
                )
            return config
    return start / CONFIG


def _is_ours(path: Path) -> bool:
    """Return whether a file belongs to this user, to root, or to the user who called sudo."""
    try:
        owner = path.lstat().st_uid
    except OSError:
        return False
    return str(owner) in {"0", str(os.getuid()), os.environ.get("SUDO_UID")}


def no_kedge_here(config: Path, *, named: bool = False) -> BadConfig:
    """Return the error of a command that found no kedge.toml: upwards, or at the path `named`."""
    absent = (
        f"{config} does not exist" if named else f"no {config.name} in {config.parent} or above"
    )
    return BadConfig(
        [absent],
        code="no_kedge_here",
        hint=(
            "cd to the directory of kedge.toml; or kedge --config FILE COMMAND; or set"
            " KEDGE_CONFIG; kedge init ENDPOINT begins here"
        ),
    )


def check_here(config: Path, state_dir: Path, *, named: bool = False) -> None:
    """Raise if there is no state to work on: a wrong directory is not a lost ledger.

    Raises:
        BadConfig: `no_kedge_here`: neither kedge.toml nor a state directory exists.
        Unavailable: `no_state`: nothing was ever served; `state_dir_deleted`: workers still serve.
    """
    fault = find_fault(config, state_dir, named=named)
    if fault is not None:
        raise fault


def find_fault(config: Path, state_dir: Path, *, named: bool = False) -> KedgeError | None:
    """Return why there is no state here; None if a ledger, or a host's memory of one, exists."""
    interrupted = find_interrupted(state_dir)
    if interrupted is not None:
        return interrupted
    if (state_dir / "ledger").exists() or any(state_dir.glob("replicas/*/*.json")):
        return None
    deleted = find_deletion(state_dir)
    if deleted is not None:
        return deleted
    if not config.exists() and not state_dir.exists():
        return no_kedge_here(config, named=named)
    missing = "there is no ledger in" if state_dir.exists() else "there is no state directory"
    return Unavailable(
        f"{missing} {state_dir}: nothing is served from here yet",
        code="no_state",
        hint="kedge up makes one; if there was one, mount it or restore it from a backup first",
    )


def find_interrupted(state_dir: Path) -> Unavailable | None:
    """Return the fault of a restore that was interrupted, or None."""
    if (state_dir / "ledger").exists() or not (state_dir / RESTORING).exists():
        return None
    return Unavailable(
        f"a restore into {state_dir} was interrupted, or is still going on: there is no ledger yet",
        code="restore_unfinished",
        hint=f"kedge restore DIR restarts it; to begin without the backup, remove {state_dir}",
    )


def find_deletion(state_dir: Path) -> Unavailable | None:
    """Return the fault of a state directory deleted under its workers, which may recreate parts."""
    if (state_dir / "ledger").exists():
        return None
    living = find_workers(state_dir)
    if not living:
        return None
    return Unavailable(
        f"the state directory {state_dir} was deleted, or lost its ledger, while kedge runs:"
        f" gateway workers {', '.join(map(str, living))} keep serving what they hold",
        code="state_dir_deleted",
        hint="restore it from a backup before anything is stopped: kedge help repair",
    )


def find_workers(state_dir: Path) -> tuple[int, ...]:
    """Return the gateway workers of a state directory, found by their command lines alone."""
    mine = b"\0--state-dir\0" + str(state_dir).encode(errors="surrogateescape") + b"\0"
    try:
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    except OSError:
        return ()  # this system has no /proc
    return tuple(sorted(pid for pid in pids if is_worker(pid, mine)))


def is_worker(pid: int, words: bytes = b"") -> bool:
    """Return whether a process is a gateway worker with these words in its command line."""
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return WORKER in line and words in line
