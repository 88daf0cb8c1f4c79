"""Transformations at work: how they are written, loaded beside each other, and given values by key."""
