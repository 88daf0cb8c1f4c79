"""kedge: ships a model version safely, and takes it back in seconds, with proof."""

from kedge.system.interpreter import drop_working_directory

drop_working_directory()

from kedge.transforms.authoring import Columns, Field, materialise, schema, transform  # noqa: E402 - the path first

__all__ = ["Columns", "Field", "materialise", "schema", "transform"]
