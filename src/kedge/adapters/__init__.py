"""Adapters: one module or package for each outside system. They know the ports, not each other."""
