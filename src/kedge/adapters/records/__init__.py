"""Records: predictions on disk, and the late labels that are joined to them."""

RECORDS_DIR = "records"
"""Directory of the records, under the state directory."""
