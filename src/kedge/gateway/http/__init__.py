"""HTTP side of the gateway: bounded connections, trusted peers, and the infer call."""
