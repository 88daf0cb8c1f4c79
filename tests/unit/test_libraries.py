"""Libraries that wrote a model, beside those that serve it."""

from kedge.core.libraries import library_differences


def test_another_version_and_none_are_said_and_the_same_is_not() -> None:
    wrote = {"scikit-learn": "1.7.2", "numpy": "2.2.0", "other": "1"}
    here = {"scikit-learn": "1.9.1", "numpy": "2.2.0", "other": None}
    assert library_differences(wrote, here) == (
        "trained with other 1; it is not installed here",
        "trained with scikit-learn 1.7.2; 1.9.1 is installed here",
    )
    assert library_differences(wrote, {"numpy": "2.2.0"}) == ()
