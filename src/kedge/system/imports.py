"""Imports at the start of a process, whose modules stay until it ends."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import without the garbage collector and without rich, which take a third of the time.

    Objects made by an import stay until the process ends, so later collections skip them too.
    If rich is installed, structlog imports it for tracebacks. kedge's logs have them as text.
    """
    collects, rich = gc.isenabled(), "rich" in sys.modules
    gc.disable()
    if not rich:
        sys.modules["rich"] = None  # type: ignore[assignment]
    try:
        yield
        gc.freeze()
    finally:
        if not rich:
            sys.modules.pop("rich", None)
        if collects:
            gc.enable()
