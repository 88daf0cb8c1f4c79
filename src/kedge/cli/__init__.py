"""Command line: one file per command group, registered in `main`."""

from kedge.cli.main import main

__all__ = ["main"]
