"""Recording: what was observed of answers, counted in bounded windows."""
