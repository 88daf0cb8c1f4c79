"""Operations: what the verbs do, one package or module a noun."""
