"""Options of this suite."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite",
        action="store_true",
        help="write the traces of tests/scenarios anew; then read the difference as a story",
    )
