"""Time: durations and instants as people write them."""
