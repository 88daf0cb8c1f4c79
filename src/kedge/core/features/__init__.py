"""Feature schemas, the versions of code that implement them, and values computed ahead of time."""
