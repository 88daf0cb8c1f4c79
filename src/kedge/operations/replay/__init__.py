"""Replay of the prediction log through another release."""
