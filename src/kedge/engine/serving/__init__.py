"""Serving: one answer against one snapshot, and the pool of loaded releases."""
