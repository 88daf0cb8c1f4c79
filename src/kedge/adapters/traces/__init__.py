"""Traces sent to other systems."""
