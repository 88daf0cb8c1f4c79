"""The operating system beneath kedge: files, sockets, streams, the terminal, limits, interpreters."""
