"""What is known of a comparison, and what follows from it."""
