"""Model of an estimator: named inputs, named outputs, and its description of itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from kedge.adapters.models.sklearn.arrangement import arrangement
from kedge.adapters.models.sklearn.outputs import head_of
from kedge.adapters.models.sklearn.signature import EstimatorInputs, known_of
from kedge.core.golden import Known
from kedge.core.inputs import DeclaredName, Described, with_output_names
from kedge.core.values import Dtype, Field, Plainness, Signature

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kedge.typing import Columns


class SklearnModel:
    """Estimator with named inputs and outputs."""

    def __init__(
        self,
        estimator: Any,
        inputs: EstimatorInputs,
        outputs: Sequence[DeclaredName] | None,
        found: Plainness,
        written_with: Mapping[str, str],
    ) -> None:
        self.plainness = found
        known = known_of(inputs)
        self.described = Described(
            assumed=inputs.assumed,
            tolerant=inputs.tolerant,
            computed=inputs.computed,
            takes_signature=True,
            known=known,
            unnamed=inputs.unnamed,
            written_with=dict(written_with),
            needs=("pandas",) if found.apart else (),
        )
        self._made_of = (estimator, inputs, outputs, found, written_with)
        self._arrange = arrangement(inputs)
        self._head, gives = head_of(estimator, self._arrange, _trial(inputs.fields, known))
        if outputs is not None:
            gives = with_output_names(gives, outputs)
        self.signature = Signature(inputs=inputs.fields, outputs=gives)
        self._names = tuple(field.name for field in gives)

    def predict(self, columns: Columns) -> Columns:
        """Answer the rows."""
        return dict(zip(self._names, self._head(self._arrange(columns)), strict=True))

    def with_dtypes(self, dtypes: Mapping[str, Dtype]) -> SklearnModel:
        """Return the same model with other input dtypes, to test whether it answers those."""
        estimator, inputs, outputs, found, written_with = self._made_of
        fields = tuple(
            msgspec.structs.replace(f, dtype=dtypes.get(f.name, f.dtype)) for f in inputs.fields
        )
        return SklearnModel(estimator, inputs._replace(fields=fields), outputs, found, written_with)


def _trial(fields: Sequence[Field], known: Mapping[str, Known]) -> Columns:
    """Return one row that the estimator is likely to answer: zeros, and known categories."""
    row: dict[str, NDArray[np.generic]] = {}
    for field in fields:
        of = known.get(field.name, Known())
        word = field.dtype == "string"
        some = (of.words or ("",))[0] if word else (of.numbers or (0,))[0]
        dtype = np.dtype(object) if word else np.dtype(field.dtype)
        row[field.name] = np.full((1, *(abs(n) for n in field.shape)), some, dtype=dtype)
    return row
