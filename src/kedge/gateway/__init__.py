"""The data edge: HTTP in, `engine.serving.answer`, HTTP out."""
