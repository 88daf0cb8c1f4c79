"""Artifacts: the bytes of models and transformations, stored by content."""
