"""Predictions on disk, and the late labels that are joined to them."""

RECORDS_DIR = "records"
"""Under the state directory."""
