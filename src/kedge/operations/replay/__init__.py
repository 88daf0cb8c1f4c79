"""Replay: the prediction log through another release."""
