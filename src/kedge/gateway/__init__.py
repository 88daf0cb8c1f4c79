"""The data edge: HTTP in, `engine.serving.serving.answer`, HTTP out."""
