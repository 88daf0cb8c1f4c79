"""Durations and instants as people write them."""
