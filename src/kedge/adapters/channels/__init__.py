"""Channels: the ways by which an alert leaves this machine."""
