"""The start of the `kedge` command, and of `python -m kedge`: signals first, imports after."""

from __future__ import annotations

import os
import signal
import sys


def run() -> None:
    """Run the command line.

    Process 1 of a container has no default action for SIGTERM: until a function is set, the kernel drops
    it, and the imports take a while. Every other process keeps the default until its command sets one.
    """
    if os.getpid() == 1:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    from kedge.cli import main  # noqa: PLC0415 - after the signals

    main()


if __name__ == "__main__":
    run()
