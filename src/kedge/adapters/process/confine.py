"""Bounds of a process that runs the code of others: its memory, and who ends first when memory is short."""

from __future__ import annotations

import resource
import signal
from contextlib import suppress
from pathlib import Path

from kedge.system.machine import read_machine

OOM_SCORE = 500
"""When memory runs out the kernel shall take a model, not a gateway."""


def confine(memory_mb: int) -> None:
    """Bound what this process may take, before anything of the model's is touched."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the group; the supervisor decides
    if memory_mb:
        limit = read_machine().for_model(memory_mb)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE), encoding="ascii")
