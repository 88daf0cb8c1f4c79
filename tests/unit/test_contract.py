"""The request contract, one promise a test."""

from typing import get_args

import pytest

from kedge.core.contract import FROM_OIP, OIP_DTYPES, unmet
from kedge.core.contract import lacking as answers_lacking
from kedge.core.values import Dtype, Field, Signature
from kedge.testing.samples import fields


def lacks(needed: Field, *declared: Field) -> tuple[str, ...]:
    return unmet(Signature(inputs=(needed,), outputs=()), declared)


def lacking(needs: str, declared: str) -> tuple[str, ...]:
    return unmet(Signature(inputs=fields(needs), outputs=()), fields(declared))


def test_a_promised_input_is_met() -> None:
    assert lacking("x:float32,y:string", "y:string,x:float32") == ()


def test_a_field_that_no_model_reads_has_no_effect() -> None:
    assert lacking("x:float32", "x:float32,z:bool") == ()


def test_everything_that_is_missing_is_named_in_the_models_order() -> None:
    assert lacking("y:string,x:float32,z:bool", "x:float32") == (
        "y (not declared)",
        "z (not declared)",
    )


@pytest.mark.parametrize("needed", ["float16", "float32", "float64"])
@pytest.mark.parametrize("declared", ["float16", "float32", "float64"])
def test_a_float_model_takes_any_float(needed: str, declared: str) -> None:
    assert lacking(f"x:{needed}", f"x:{declared}") == ()


@pytest.mark.parametrize(
    ("needed", "declared"),
    [("float32", "int32"), ("int32", "float32"), ("int32", "int64"), ("string", "bool")],
)
def test_any_other_dtype_must_match_exactly(needed: str, declared: str) -> None:
    assert lacking(f"x:{needed}", f"x:{declared}") == (f"x (needs {needed}, declared {declared})",)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_null_reaches_a_float_model_as_nan(dtype: str) -> None:
    assert lacking(f"x:{dtype}", f"x:{dtype}?") == ()


@pytest.mark.parametrize("dtype", ["bool", "int64", "string"])
def test_a_model_that_takes_no_null_is_not_given_one(dtype: str) -> None:
    assert lacking(f"x:{dtype}", f"x:{dtype}?") == (
        f"x (may be null, but the model takes no null {dtype})",
    )
    assert lacking(f"x:{dtype}?", f"x:{dtype}?") == ()
    assert lacking(f"x:{dtype}?", f"x:{dtype}") == ()


@pytest.mark.parametrize(
    ("needed", "declared", "met"),
    [
        ((), (), True),
        ((3,), (3,), True),
        ((-1,), (3,), True),
        ((-1,), (-1,), True),
        ((2, -1), (2, 7), True),
        ((3,), (4,), False),
        ((3,), (-1,), False),
        ((3,), (), False),
        ((-1,), (3, 3), False),
    ],
)
def test_a_shape_fits_when_each_length_is_the_same_or_any(
    needed: tuple[int, ...], declared: tuple[int, ...], met: bool
) -> None:
    lacked = lacks(Field("x", "float32", needed), Field("x", "float32", declared))
    told = f"x (needs shape {list(needed)}, declared {list(declared)})"
    assert lacked == (() if met else (told,))


def test_every_dtype_has_its_open_inference_name_and_back() -> None:
    assert set(OIP_DTYPES) == set(get_args(Dtype))
    assert {FROM_OIP[theirs]: theirs for theirs in OIP_DTYPES.values()} == OIP_DTYPES


def missing(gives: tuple[Field, ...], promised: tuple[Field, ...]) -> tuple[str, ...]:
    return answers_lacking(Signature(inputs=(), outputs=gives), promised)


def test_an_output_that_is_not_given_is_named_and_more_is_no_less() -> None:
    promised = fields("score:float64,label:int64")
    assert missing(fields("score:float64"), promised) == ("label (not given)",)
    assert missing(fields("why:string,label:int64,score:float64"), promised) == ()
    assert missing(fields(""), ()) == ()


@pytest.mark.parametrize(
    ("gives", "promised"),
    [("float32", "float64"), ("float64", "float32"), ("int64", "int32"), ("int64", "float64")],
)
def test_an_answer_in_another_dtype_is_another_answer(gives: str, promised: str) -> None:
    told = missing(fields(f"x:{gives}"), fields(f"x:{promised}"))
    assert told == (f"x (gives {gives}, promised {promised})",)


@pytest.mark.parametrize(
    ("gives", "promised", "fits"),
    [
        ((), (), True),
        ((3,), (3,), True),
        ((3,), (-1,), True),
        ((-1,), (-1,), True),
        ((-1,), (3,), False),
        ((1,), (), False),
        ((), (1,), False),
        ((2, 3), (2, -1), True),
    ],
)
def test_a_fixed_length_is_given_where_any_was_promised_and_not_the_reverse(
    gives: tuple[int, ...], promised: tuple[int, ...], *, fits: bool
) -> None:
    told = missing((Field("x", "float32", gives),), (Field("x", "float32", promised),))
    assert told == (() if fits else (f"x (gives shape {list(gives)}, promised {list(promised)})",))


def test_null_is_given_only_where_it_was_promised() -> None:
    assert missing(fields("x:string?"), fields("x:string")) == (
        "x (may be null, promised without null)",
    )
    assert missing(fields("x:string"), fields("x:string?")) == ()
