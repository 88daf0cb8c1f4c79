"""Diagnosis: facts in, findings out; why production became worse, and whether going back would help."""
