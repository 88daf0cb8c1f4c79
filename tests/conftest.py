"""Options of this suite."""

import atexit
import gc
import os

import hypothesis
import pytest

# How long an example takes says what else the machine does, and nothing of the code.
hypothesis.settings.register_profile(
    "kedge", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("kedge")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite",
        action="store_true",
        help="write the traces of tests/scenarios anew; then read the difference as a story",
    )


def pytest_collection_finish() -> None:
    """Keep what was collected out of every later search for garbage: it is most of all objects."""
    gc.freeze()
    atexit.register(gc.unfreeze)


MASK = os.umask(0o022)
os.umask(MASK)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    """Put the umask back: a command that runs in this process sets its own."""
    os.umask(MASK)
