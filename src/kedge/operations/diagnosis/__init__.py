"""Diagnosis of production: its window, cells and run, and the accepted reference."""
