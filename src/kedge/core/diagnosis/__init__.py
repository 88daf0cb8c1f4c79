"""Diagnosis: why production became worse, and whether a rollback would help."""
