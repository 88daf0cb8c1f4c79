"""Values over time: what was computed ahead, read as of any instant."""
