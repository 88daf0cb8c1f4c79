"""Transformations: authoring, bundles, lookups by key, and the online store of a process."""
