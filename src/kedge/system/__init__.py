"""System: kedge's access to files, sockets, streams, the terminal, limits and interpreters."""
