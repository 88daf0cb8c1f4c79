"""Evidence of a rollout: read, judged and shown."""
