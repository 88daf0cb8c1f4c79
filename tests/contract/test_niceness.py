"""A model's load is polite, and nothing of that is left when it answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import models

LOAD = """
import json, os, threading, time
from pathlib import Path
from kedge.adapters.process.host import load

def niceness():
    tasks = Path("/proc/self/task").iterdir()
    return sorted(os.getpriority(os.PRIO_PROCESS, int(task.name)) for task in tasks)

class Loader:
    def load(self, path, trusted):
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        self.during = niceness()
        return self

loaded, _ = load(Loader, Path("."), (), memory_mb=0)
print(json.dumps([loaded.during, niceness()]))
"""


def test_threads_that_a_load_started_answer_with_the_usual_priority() -> None:
    """They are born with the load's niceness; libraries keep pools of them."""
    done = subprocess.run(
        [sys.executable, "-c", LOAD],
        env=models.environment(),
        start_new_session=True,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    during, after = json.loads(done.stdout)
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert set(after) == {own}
    assert len(after) > 1
    if os.geteuid() == 0:
        assert own + 5 in during
