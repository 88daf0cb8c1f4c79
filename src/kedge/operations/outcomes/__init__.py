"""Outcomes: what the operator is told of labels that were handed in."""
