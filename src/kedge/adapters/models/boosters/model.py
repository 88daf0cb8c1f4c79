"""A booster with named inputs and outputs, whatever library runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from kedge.adapters.models.boosters.inputs import BoosterInputs, matrix_of
from kedge.adapters.models.boosters.outputs import BoosterHead
from kedge.adapters.models.stated import Stated
from kedge.core.inputs import Described, with_output_names
from kedge.core.values import Dtype, Plainness, Signature

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kedge.typing import Columns

    Predict = Callable[[NDArray[Any]], NDArray[Any]]
    """Function from a matrix of float64 to the booster's answer."""

RULE = 1
"""The number of this inspection: a booster is never proven plain."""


class BoosterModel:
    """A booster with named inputs and outputs."""

    def __init__(
        self,
        predict: Predict,
        inputs: BoosterInputs,
        head: BoosterHead,
        stated: Stated,
        *,
        library: str,
    ) -> None:
        """Hold a booster.

        Args:
            predict: asks it.
            inputs: its inputs.
            head: its outputs.
            stated: what the files beside it state.
            library: the library that runs it.
        """
        self.plainness = Plainness(
            proven=False,
            rule=RULE,
            why=f"{library} runs it in native code, which model processes alone load",
            apart=True,
        )
        self.described = Described(
            known=inputs.known,
            takes_signature=True,
            unnamed=inputs.unnamed,
        )
        gives = head.fields
        if stated.outputs is not None:
            gives = with_output_names(gives, stated.outputs)
        self.signature = Signature(inputs=inputs.fields, outputs=gives)
        self._names = tuple(field.name for field in gives)
        self._made_of = (predict, inputs, head, stated, library)
        self._predict, self._split = predict, head.split
        self._build = matrix_of(inputs)

    def predict(self, columns: Columns) -> Columns:
        """BoosterAnswer the rows."""
        answers = self._split(self._predict(self._build(columns)))
        return dict(zip(self._names, answers, strict=True))

    def with_dtypes(self, dtypes: Mapping[str, Dtype]) -> BoosterModel:
        """Return the same model with other input dtypes, to test whether it answers those."""
        predict, inputs, head, stated, library = self._made_of
        fields = tuple(
            msgspec.structs.replace(f, dtype=dtypes.get(f.name, f.dtype)) for f in inputs.fields
        )
        return BoosterModel(predict, inputs._replace(fields=fields), head, stated, library=library)
