"""Results as text for a terminal, one file a capability."""
