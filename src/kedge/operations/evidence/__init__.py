"""Evidence of a rollout: its reading, its verdict and its view."""
