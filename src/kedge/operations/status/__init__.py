"""Status of endpoints: read from the state directory, and described."""
