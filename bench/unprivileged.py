"""Execution of a command without any capability, as for an ordinary user's process.

`python bench/unprivileged.py COMMAND ...`. The files stay this user's, so that root need not lend
an interpreter of its own to another user.
"""

from __future__ import annotations

import ctypes
import os
import sys

CAPABILITIES = range(64)
PR_CAPBSET_DROP = 24


def main() -> None:
    """Give all up, and become the command."""
    libc = ctypes.CDLL(None)
    for each in CAPABILITIES:
        libc.prctl(PR_CAPBSET_DROP, each, 0, 0, 0)
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
