"""The logs of a process, and the counted events."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kedge.system.streams import LogFile, find_last_error

SCRIPT = """
import json, logging, structlog, sys
from kedge.runtime.logs import count_faults, log_to_stderr
log_to_stderr()
counted = []
count_faults(lambda place, text: counted.append((place, text)))
log = structlog.get_logger()
log.warning("replica.ledger_lost", fault="no file")
log.warning("alerting.opened", alert=3)
log.info("process.fault_ended", fault="passed")
log.error("process.fault", fault="counted where it is logged")
logging.getLogger("kedge.database").warning("the %s failed", "roster")
logging.getLogger("other").warning("not ours")
print(json.dumps(counted))
"""


def test_a_log_event_of_a_fault_is_logged_and_counted() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=60
    )
    assert json.loads(done.stdout.splitlines()[-1]) == [
        ["replica.ledger_lost", "no file"],
        ["database", "the roster failed"],
    ]
    for words in ("replica.ledger_lost", "alerting.opened", "the roster failed", "not ours"):
        assert words in done.stderr


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (
            ["Traceback (most recent call last):", "  File x", "OSError: [Errno 5] no"],
            "OSError: [Errno 5] no",
        ),
        (
            [
                "Timeout (0:01:00)!",
                "Thread 0x01 (most recent call first):",
                '  File "x", line 1 in run',
            ],
            "Timeout (0:01:00)!",
        ),
        (["error: port 80 is taken", "hint: choose another"], "error: port 80 is taken"),
        (['{"event": "worker.started", "level": "info"}'], ""),
        (
            [
                '{"event": "process.fault", "fault": "OSError: no", "level": "error"}',
                '{"event": "worker.started", "level": "info"}',
            ],
            "process.fault: OSError: no",
        ),
        (['{"event": "cut off'], ""),
        (["[1, 2]", '{"a": 1}', "{}"], "[1, 2]"),
        ([], ""),
        (["x" * 1000], "x" * 300),
    ],
)
def test_the_error_that_ended_a_process_is_found_in_its_log(lines: list[str], found: str) -> None:
    assert find_last_error("\n".join(lines)) == found


def test_the_error_of_an_earlier_process_is_not_taken_for_this_ones(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "w0.log")
    log.descriptor()
    (tmp_path / "w0.log").write_text("OSError: earlier\n")
    before = log.size()
    assert log.last_error(before) == ""
    with (tmp_path / "w0.log").open("a") as out:
        out.write("OSError: now\n")
    assert log.last_error(before) == "OSError: now"
    assert log.last_error(10**9) == "OSError: now", "the file was cut meanwhile"
    log.close()
    assert log.last_error(0) == ""
