"""Models: one loader for each format that kedge itself serves."""
