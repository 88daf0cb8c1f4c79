"""Values as they are stored, and how earlier spellings are read."""
