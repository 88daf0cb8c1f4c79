"""Configuration (kedge.toml): its location, settings, defaults, secrets and JSON schema."""
