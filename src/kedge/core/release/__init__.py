"""The release machine: commands, guards, ways back, and the one table that decides."""
