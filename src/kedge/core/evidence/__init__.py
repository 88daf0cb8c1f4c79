"""Evidence about a comparison: what counts, and how it is judged. Pure."""
