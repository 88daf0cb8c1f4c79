"""Alerts, and the conditions that raise them."""
