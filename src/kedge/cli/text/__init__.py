"""Text of results for a terminal: one file per capability."""
