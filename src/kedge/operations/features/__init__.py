"""Features: transformations, their golden rows and comparisons, values, and training sets."""
