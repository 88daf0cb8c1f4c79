"""Status of endpoints: its reading from the state directory, and its view."""
