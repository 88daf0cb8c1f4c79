"""Feature schemas, the transformations that implement them, and their materialised values."""
