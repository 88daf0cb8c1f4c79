"""The two contracts of an endpoint: what callers promise to send, and what they are promised.

Both belong to the endpoint and not to a model, because callers do not know the answering release.

* The request contract. A release is unfit if callers do not promise one of its inputs, or promise
  it with another dtype or shape. It is also unfit if an input can be null where the model never saw
  a null. `unmet` reports this *before* a request.
* The contract of answers. A release is refused before it reaches callers if it lacks a promised
  output, or gives it in another dtype or shape (`lacking`). More outputs are allowed, and so is a
  fixed length where any length was promised. A wider *dtype* is not allowed: an answer carries its
  dtype, and a client that reads FP32 does not read FP64.
"""

from __future__ import annotations

from kedge.core.values import Field, Signature

OIP_DTYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "string": "BYTES",
}
"""kedge's dtype names, and those of the Open Inference Protocol v2."""

FROM_OIP = {theirs: ours for ours, theirs in OIP_DTYPES.items()}

_FLOATS = ("float16", "float32", "float64")


def unmet(signature: Signature, contract: tuple[Field, ...]) -> tuple[str, ...]:
    """Return what the signature needs and the contract does not promise; () if nothing.

    A float model accepts any float (the replica converts), and a length of -1 any length.
    Everything else must match exactly. A field that callers can leave null fits only a nullable
    model input or a float input. There null arrives as NaN. Its effect on the model is a finding of
    the comparison, not of the type check.
    """
    promised = {field.name: field for field in contract}
    return tuple(
        text
        for needed in signature.inputs
        if (text := _unmet(needed, promised.get(needed.name))) is not None
    )


def _unmet(needed: Field, field: Field | None) -> str | None:
    if field is None:
        return f"{needed.name} (not declared)"
    floats = needed.dtype in _FLOATS and field.dtype in _FLOATS
    if needed.dtype != field.dtype and not floats:
        return f"{needed.name} (needs {needed.dtype}, declared {field.dtype})"
    if not _fits(needed.shape, field.shape):
        return f"{needed.name} (needs shape {list(needed.shape)}, declared {list(field.shape)})"
    if field.nullable and not needed.nullable and needed.dtype not in _FLOATS:
        return f"{needed.name} (may be null, but the model takes no null {needed.dtype})"
    return None


def lacking(signature: Signature, answers: tuple[Field, ...]) -> tuple[str, ...]:
    """Return what the answers promise and the signature does not give; () if nothing."""
    given = {field.name: field for field in signature.outputs}
    return tuple(
        text
        for promised in answers
        if (text := _ungiven(promised, given.get(promised.name))) is not None
    )


def _ungiven(promised: Field, given: Field | None) -> str | None:
    if given is None:
        return f"{promised.name} (not given)"
    if given.dtype != promised.dtype:
        return f"{promised.name} (gives {given.dtype}, promised {promised.dtype})"
    if not _fits(promised.shape, given.shape):
        return f"{promised.name} (gives shape {list(given.shape)}, promised {list(promised.shape)})"
    if given.nullable and not promised.nullable:
        return f"{promised.name} (may be null, promised without null)"
    return None


def _fits(needed: tuple[int, ...], declared: tuple[int, ...]) -> bool:
    return len(needed) == len(declared) and all(
        n in (-1, d) for n, d in zip(needed, declared, strict=True)
    )
