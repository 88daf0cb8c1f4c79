"""The state guard: notices that the state directory of a running process was deleted."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from pathlib import Path

from kedge.engine.process_faults import Net, ProcessFaults
from kedge.ports import Clock

PLACE = "state_directory"
LOOK_S = 1.0


class StateGuard:
    """A thread of a process that looks whether its state is still there."""

    def __init__(
        self,
        state_dir: Path,
        faults: ProcessFaults,
        clock: Clock,
        keep: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare it.

        Args:
            state_dir: the state directory.
            faults: where a deletion is noted; it ends when a ledger is there again.
            clock: for the pauses after a fault.
            keep: what the process must hold there; called at each look.
        """
        self._state_dir = state_dir
        self._net = Net(faults, clock)
        self._keep = keep
        self._had = False
        self._ending = threading.Event()

    def start(self) -> None:
        """Look each second, until `stop` or the end of the process."""
        threading.Thread(target=self._run, name="kedge-state-guard", daemon=True).start()

    def stop(self) -> None:
        """End."""
        self._ending.set()

    def look(self) -> None:
        """Raise FileNotFoundError where the ledger was deleted, alone or with all that is around it."""
        ledger = self._state_dir / "ledger" / "ledger.db"
        if ledger.exists():
            self._had = True
            return
        if not self._had:
            return  # it has never been there
        # The roster and the run directory are made again, so that the directory may stand there,
        # too.
        whole = not (self._state_dir / "ledger").exists()
        raise FileNotFoundError(
            errno.ENOENT,
            "deleted while this process runs; it serves what it holds. Restore it from a backup"
            " before a stop",
            str(self._state_dir if whole else ledger),
        )

    def _run(self) -> None:
        while not self._ending.wait(LOOK_S):
            self._net.run(PLACE, self.look)
            self._net.run(f"{PLACE}.lock", self._keep)
