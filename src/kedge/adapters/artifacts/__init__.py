"""Artifacts: the files of models and transformations, stored by digest."""
