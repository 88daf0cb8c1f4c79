"""Readiness of an endpoint for a rollback, and the gate of a promotion."""
