"""kedge: ships a model version safely, and takes it back in seconds, with proof."""

from kedge.system.interpreter import drop_working_directory

drop_working_directory()

# The working directory leaves the path first.
from kedge.transforms.authoring import (  # noqa: E402
    Columns,
    Field,
    materialise,
    schema,
    transform,
)

__all__ = ["Columns", "Field", "materialise", "schema", "transform"]
