"""Text for people at a terminal: layout, and what is said of evidence, estimates and plans."""
