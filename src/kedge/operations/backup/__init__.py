"""Backups of a state directory: made beside a running kedge, verified, and restored elsewhere."""
