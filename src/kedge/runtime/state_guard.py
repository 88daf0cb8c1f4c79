"""State guard: it notices a deleted state directory, and maintains the reserve of its disk."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

from kedge.engine.loop import Duty, Loop
from kedge.system.reserve import BEAT_S, Reserve

PLACE = "state_directory"
LOOK_S = 1.0


class StateGuard:
    """The regular check that a process's state directory still exists."""

    def __init__(
        self, duty: Duty, state_dir: Path, keep: Callable[[], None] = lambda: None
    ) -> None:
        """Prepare the check.

        Args:
            duty: the process's duty: its faults show a deletion until a ledger exists again.
            state_dir: the state directory.
            keep: restores the files that the process must hold there; called at each check.
        """
        self._state_dir = state_dir
        self._keep = keep
        self._had = False
        self.loop = Loop(duty, f"{PLACE}.guard", self._step, every_s=LOOK_S, rests_first=True)

    def look(self) -> None:
        """Raise FileNotFoundError if the ledger, or the whole state directory, was deleted."""
        ledger = self._state_dir / "ledger" / "ledger.db"
        if ledger.exists():
            self._had = True
            return
        if not self._had:
            return  # it has never existed
        # kedge makes the roster and the run directory again, so the state directory may exist.
        whole = not (self._state_dir / "ledger").exists()
        raise FileNotFoundError(
            errno.ENOENT,
            "deleted while this process runs; it serves what it holds. Restore it from a backup"
            " before a stop",
            str(self._state_dir if whole else ledger),
        )

    def _step(self) -> None:
        self.loop.net.run(PLACE, self.look)
        self.loop.net.run(f"{PLACE}.lock", self._keep)


def guard_state(duty: Duty, state_dir: Path, keep: Callable[[], None] = lambda: None) -> None:
    """Guard a state directory and its disk until the process ends; `keep` as in `StateGuard`."""
    reserve = Reserve(state_dir, duty.faults.note, duty.faults.clear)
    Loop(duty, "disk.look", reserve.look, every_s=BEAT_S).start("kedge-reserve")
    StateGuard(duty, state_dir, keep).loop.start("kedge-state-guard")
