"""HTTP at the callers' side."""
