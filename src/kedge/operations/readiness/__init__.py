"""Readiness: whether an endpoint can be rolled back now, and the gate of a promotion."""
