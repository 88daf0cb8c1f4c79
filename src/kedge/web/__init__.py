"""Control's HTTP side: who may ask, what a request may occupy, and the server."""
