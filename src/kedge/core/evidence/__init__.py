"""Evidence of a comparison: what is counted, and how it is judged."""
