"""Questions of a diagnosis, by subject: each a pure function of the case and of the answers so far."""
