"""Offline values: precomputed values over time, read as of any time."""
