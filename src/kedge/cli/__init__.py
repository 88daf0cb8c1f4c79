"""The command line: one file a command, registered in `main`."""

from kedge.cli.main import main

__all__ = ["main"]
