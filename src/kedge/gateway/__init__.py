"""Gateway: the callers' side. It turns HTTP into `engine.serving.serving.answer` and back."""
