"""kedge: ships a model version safely, and takes it back in seconds, with proof."""

from kedge.authoring import Columns, Field, materialise, schema, transform

__all__ = ["Columns", "Field", "materialise", "schema", "transform"]
