"""The parts of kedge.toml: where its settings stand, defaults, and its JSON schema."""
