"""The start of the `kedge` command, and of `python -m kedge`: signals first, imports after."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import types

ANYWHERE = frozenset({"-h", "--help", "--version", "help"})
"""Words with which a command only prints what travels with it."""

UNIX = ("fcntl", "pwd", "resource", "termios")
"""Modules that are missing on Windows; the modules of commands import them."""


class _Absent(types.ModuleType):
    """Stands in for a module of `UNIX` while help is printed: nothing of it is called."""

    def __getattr__(self, name: str) -> int:
        """Return 0 for every constant."""
        if name.startswith("__"):
            raise AttributeError(name)
        return 0


def run() -> None:
    """Run the command line.

    Process 1 of a container has no default action for SIGTERM: until a function is set, the kernel drops
    it, and the imports take a while. Every other process keeps the default until its command sets one.
    """
    if os.getpid() == 1:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if sys.platform != "linux":
        if sys.argv[1:] and not ANYWHERE & set(sys.argv[1:]):
            _refuse()
        _stand_in()
    from kedge.cli import main  # noqa: PLC0415 - after the signals

    main()


def _stand_in() -> None:
    """Put an empty module in the place of each of `UNIX` that is missing."""
    for name in UNIX:
        try:
            importlib.import_module(name)
        except ImportError:
            sys.modules[name] = _Absent(name)


def _refuse() -> None:
    """Say what works on another system than Linux, and end: imports further on need Linux."""
    from kedge.core.codec import encode  # noqa: PLC0415 - after the signals
    from kedge.core.errors import Refused  # noqa: PLC0415
    from kedge.system.terminal import show, show_json  # noqa: PLC0415

    error = Refused(
        f"kedge runs on Linux, and this is {sys.platform}: here only `import kedge` for features"
        " files, and help, work",
        code="linux_only",
        hint="run it in a Linux container (kedge help container), in WSL 2, or on a Linux machine",
    )
    if "--json" in sys.argv:
        show_json(
            encode({"error": {"code": error.code, "message": str(error), "hint": error.hint}})
        )
    else:
        show(f"error: {error}", err=True)
    show(f"hint: {error.hint}", err=True)
    sys.exit(1)


if __name__ == "__main__":
    run()
