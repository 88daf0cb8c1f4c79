"""Confinement of a process that runs others' code: its memory, and its OOM score."""

from __future__ import annotations

import resource
import signal
from contextlib import suppress
from pathlib import Path

from kedge.system.machine import read_machine

OOM_SCORE = 500
"""OOM score of a model process: when memory runs out the kernel must kill a model, not a
gateway."""


def confine(memory_mb: int) -> None:
    """Limit this process's memory, before it touches anything of the model's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the group; the supervisor decides
    if memory_mb:
        limit = read_machine().for_model(memory_mb)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE), encoding="ascii")
