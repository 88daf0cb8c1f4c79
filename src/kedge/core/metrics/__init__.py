"""Metrics that monitoring systems read: their definitions, samples, dashboard and alert rules."""
