"""Diagnosis of production: the window, the cells, the run, and what was accepted."""
