"""Loaders of models, one for each format that kedge serves itself."""
