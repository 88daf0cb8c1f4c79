"""Features files in their own process: whatever their code does, a command gets an answer in bounded time."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contract.test_fence import without_landlock
from kedge.adapters.process import FeaturesProcess, fence
from kedge.core import codec
from kedge.core.errors import BadConfig, KedgeError, ModelFailure, Refused, UnfitModel
from kedge.core.features.schema import FeatureLimits, Spec, View
from kedge.core.values import Field as Column
from kedge.system.interpreter import module_command
from kedge.transforms.authoring import SPEC, Declared, Field, materialise, schema, transform
from kedge.transforms.bundle import Transform
from support.waiting import wait_until

HEAD = "import kedge\nimport numpy as np\nimport os, re, sys, time\n"
VIEW = schema(
    "view/1", fields={"x": Field("float64", range=(0, 24)), "word": Field("string", null=True)}
)
DECLARED = """
view = kedge.schema("view/1", fields={
    "x": kedge.Field("float64", range=(0, 24)), "word": kedge.Field("string", null=True),
})
"""
RAW = (Column("n", "float64"), Column("w", "string", nullable=True))
LIMITS = FeatureLimits(timeout_s=3.0, memory_mb=1024)
WITHIN_S = 15.0
"""For what has a limit of 3 s, on a machine that does other things as well."""

WAYS = {
    "exits": ("sys.exit('no')", "transform_raised"),
    "ends": ("os._exit(0)", "features_died"),
    "loops": ("while True: pass", "features_hung"),
    "sleeps": ("time.sleep(3600)", "features_hung"),
    "regex": ("re.match(r'^(a+)+$', 'a' * 40 + '!')", "features_hung"),
    "memory": ("np.ones(1 << 28)", "transform_raised"),
    "recursion": ("exec('def f(): f()\\nf()', {})", "transform_raised"),
    "segfault": ("__import__('ctypes').string_at(0)", "features_died"),
    "raises": ("raise KeyboardInterrupt", "transform_raised"),
}


def bundle(folder: Path, source: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "features.py").write_text(HEAD + source)
    spec = Spec(schema=VIEW, entry="features:columns", raw=RAW)
    (folder / SPEC).write_bytes(codec.encode(spec))
    return folder


def rows(*numbers: float) -> dict[str, Any]:
    return {"n": np.array(numbers), "w": np.array(["a"] * len(numbers), dtype=object)}


@pytest.mark.parametrize("statement, code", WAYS.values(), ids=WAYS)
def test_whatever_the_file_does_when_it_is_run_is_one_error_in_time(
    tmp_path: Path, statement: str, code: str
) -> None:
    began = time.monotonic()
    with FeaturesProcess(bundle(tmp_path, statement + "\n"), LIMITS) as work:
        with pytest.raises(KedgeError) as raised:
            work.declared("features")
        assert raised.value.code == code
    assert time.monotonic() - began < WITHIN_S


@pytest.mark.parametrize("statement, code", WAYS.values(), ids=WAYS)
def test_whatever_the_function_does_is_one_error_in_time(
    tmp_path: Path, statement: str, code: str
) -> None:
    source = f"def columns(raw):\n    {statement}\n"
    began = time.monotonic()
    with FeaturesProcess(bundle(tmp_path, source), LIMITS) as work:
        at_work = Transform(tmp_path, function=work.transformation())
        with pytest.raises(KedgeError) as raised:
            at_work.applied(rows(1.0), ())
        assert raised.value.code == code
    assert time.monotonic() - began < WITHIN_S


def test_nothing_of_it_is_left_when_it_hung(tmp_path: Path) -> None:
    with FeaturesProcess(bundle(tmp_path, "while True: pass\n"), FeatureLimits(1.0)) as work:
        child = work._child.pid
        with pytest.raises(Refused, match="did not come to an end within 1 s"):
            work.declared("features")
    assert not Path(f"/proc/{child}").exists()
    assert not Path(work._own.name).exists()


def test_its_printed_output_is_neither_data_nor_an_answer(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = (
        DECLARED
        + "print('{\"declared\": {}}')\nos.write(1, b'0' * 100_000)\nos.write(2, b'words')\n"
    )
    source += (
        "@kedge.transform(view, raw={'n': kedge.Field('float64')})\ndef columns(raw): return raw\n"
    )
    with FeaturesProcess(bundle(tmp_path, source), LIMITS) as work:
        assert list(work.declared("features")) == ["features:columns"]
    assert capfd.readouterr() == ("", "")


def test_what_it_writes_where_answers_are_read_is_refused(tmp_path: Path) -> None:
    """Eight bytes of a length, and no answer: a frame that decodes to nothing known."""
    source = (
        "import socket, stat\n"
        "for n in range(3, 1024):\n"
        "    try:\n"
        "        if stat.S_ISSOCK(os.fstat(n).st_mode): os.write(n, (5).to_bytes(8) + b'xxxxx')\n"
        "    except OSError: pass\n"
    )
    with (
        FeaturesProcess(bundle(tmp_path, source), LIMITS) as work,
        pytest.raises(Refused) as raised,
    ):
        work.declared("features")
    assert raised.value.code == "features_garbled"


def test_a_line_that_is_closed_is_an_end(tmp_path: Path) -> None:
    source = "os.closerange(3, 64)\ntime.sleep(3600)\n"
    began = time.monotonic()
    with (
        FeaturesProcess(bundle(tmp_path, source), LIMITS) as work,
        pytest.raises(Refused) as raised,
    ):
        work.declared("features")
    assert raised.value.code == "features_hung"
    assert time.monotonic() - began < WITHIN_S


def test_declarations_are_those_of_the_file_to_the_last_number(tmp_path: Path) -> None:
    """A digest is taken of how a number is written: 0 is not 0.0."""
    source = """
view = kedge.schema("view/1", fields={
    "x": kedge.Field("float64", range=(0, 24)), "word": kedge.Field("string", null=True),
})
mean = kedge.schema("mean/1", keys=["word"], fields={
    "m": kedge.Field("float32", range=(0.0, 5), default=1), "n": kedge.Field("float32", (2,), default=0.5),
})


@kedge.materialise(mean, source="rows.csv", time="at", every="1h")
def means(rows, at):
    return rows


@kedge.transform(view, raw={"n": kedge.Field("float64", range=(1, 2))}, reads=mean)
def columns(raw, mean):
    return raw
"""
    mean = schema(
        "mean/1",
        keys=["word"],
        fields={
            "m": Field("float32", range=(0.0, 5), default=1),
            "n": Field("float32", (2,), default=0.5),
        },
    )

    @materialise(mean, source="rows.csv", time="at", every="1h")
    def means(rows: Any, at: float) -> Any:
        return rows

    @transform(VIEW, raw={"n": Field("float64", range=(1, 2))}, reads=mean)
    def columns(raw: Any, mean: Any) -> Any:
        return raw

    own: dict[str, Declared] = {
        "features:means": vars(means)["__kedge_transform__"],
        "features:columns": vars(columns)["__kedge_transform__"],
    }
    with FeaturesProcess(bundle(tmp_path, source), LIMITS) as work:
        found = work.declared("features")
    assert found == own
    for entry, one in own.items():
        for schema_, other in ((one.schema, found[entry].schema),):
            assert schema_.digest == other.digest
            assert codec.encode(schema_) == codec.encode(other)


UNKNOWN = """
@kedge.transform(kedge.schema('view/1', fields={'x': kedge.Field('float99')}))
def columns(raw): return raw
"""


@pytest.mark.parametrize("source", ["kedge.schema('Bad', fields={})\n", UNKNOWN])
def test_a_declaration_with_faults_is_refused_with_all_of_them(tmp_path: Path, source: str) -> None:
    with (
        FeaturesProcess(bundle(tmp_path, source), LIMITS) as work,
        pytest.raises(BadConfig) as raised,
    ):
        work.declared("features")
    assert raised.value.faults


def test_features_come_back_as_they_would_in_one_process(tmp_path: Path) -> None:
    source = """
LOOKED = 0.1


def columns(raw):
    return {'x': raw['n'] / 3 + LOOKED, 'word': raw['w']}
"""
    given = rows(1.0, 2.0, 70.0)
    here = Transform(bundle(tmp_path, source)).applied(dict(given), ())
    with FeaturesProcess(tmp_path, LIMITS) as work:
        at_work = Transform(tmp_path, function=work.transformation())
        apart = at_work.applied(dict(given), ())
        assert at_work.checks.violations == {}
        more = at_work.applied(rows(*[90.0] * 40_000), ())
    assert {name: column.dtype for name, column in apart.items()} == {
        "x": np.dtype("float64"),
        "word": np.dtype("O"),
    }
    assert apart["x"].tobytes() == here["x"].tobytes()
    assert apart["word"].tolist() == here["word"].tolist()
    assert len(more["x"]) == 40_000
    assert at_work.checks.violations == {"x.range": 40_000}


@pytest.mark.parametrize(
    "body, match",
    [
        ("return {'x': raw['n']}", "word"),
        ("return {'x': raw['n'].tolist(), 'word': raw['w']}", "mapping"),
        ("return None", "mapping"),
        ("raw['n'][0] = 9.0", "read-only"),
        ("return {'x': raw['n'], 'word': np.array([3, 4], dtype=object)}", "among its strings"),
    ],
)
def test_what_is_no_answer_in_one_process_is_none_from_the_other(
    tmp_path: Path, body: str, match: str
) -> None:
    with FeaturesProcess(bundle(tmp_path, f"def columns(raw):\n    {body}\n"), LIMITS) as work:
        at_work = Transform(tmp_path, function=work.transformation())
        with pytest.raises(ModelFailure, match=match):
            at_work.applied(rows(1.0, 2.0), ())
        with pytest.raises(ModelFailure, match=match):  # it answers on
            at_work.applied(rows(1.0, 2.0), ())


def test_a_bundle_that_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    with (
        FeaturesProcess(bundle(tmp_path, "sys.exit(3)\n"), LIMITS) as work,
        pytest.raises(UnfitModel, match="SystemExit: 3"),
    ):
        work.transformation()


def test_a_view_is_given_rows_and_gives_columns(tmp_path: Path) -> None:
    mean = schema("mean/1", keys=["word"], fields={"m": Field("float32", null=True)})
    source = (
        "def means(rows, at):\n"
        "    return {'word': rows['day'], 'm': [at, None], 'more': object()}\n"
    )
    bundle(tmp_path, source)
    spec = Spec(schema=mean, entry="features:means", raw=(), view=View(source="x.csv", time="day"))
    (tmp_path / SPEC).write_bytes(codec.encode(spec))
    days = np.array(["2026-01-01", "2026-01-02"], dtype="datetime64[us]")
    with FeaturesProcess(tmp_path, LIMITS) as work:
        found = work.view("features:means")({"day": days}, 5.0)
    assert list(found) == ["word", "m"]
    assert found["word"].tolist() == days.tolist()
    assert found["m"].tolist() == [5.0, None]


@pytest.mark.skipif(bool(fence.missing()), reason=f"no {', '.join(fence.missing())}")
def test_it_reads_its_own_files_and_no_others(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hunter2")
    source = f"print(open(__file__).read())\nopen({str(secret)!r})\n"
    with (
        FeaturesProcess(bundle(tmp_path / "b", source), LIMITS) as work,
        pytest.raises(ModelFailure, match="PermissionError"),
    ):
        work.declared("features")


def test_passwords_of_this_machine_are_not_in_its_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEDGE_SMTP_URL", "smtp://ada:hunter2@mail")
    source = "assert 'hunter2' not in str(os.environ), 'seen'\n"
    with FeaturesProcess(bundle(tmp_path, source), LIMITS) as work:
        assert work.declared("features") == {}


def test_it_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    bundle(tmp_path, "while True: pass\n")
    script = (
        "from pathlib import Path\n"
        "from kedge.adapters.process import FeaturesProcess\n"
        "from kedge.core.features.schema import FeatureLimits\n"
        f"work = FeaturesProcess(Path({str(tmp_path)!r}), FeatureLimits())\n"
        "print(work._child.pid, flush=True)\n"
        "work.declared('features')\n"
    )
    asking = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert asking.stdout is not None
    child = Path(f"/proc/{int(asking.stdout.readline())}/stat")
    time.sleep(1.0)
    asking.kill()
    asking.wait()
    asking.stdout.close()
    wait_until(lambda: not child.exists() or ") Z " in child.read_text(), "the end of the child")


def test_no_features_file_runs_where_the_fence_is_required_and_a_part_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(*words: str) -> list[str]:
        return without_landlock(module_command(*words))

    monkeypatch.setattr("kedge.adapters.process.features.module_command", start)
    ran = tmp_path / "ran"
    where = bundle(tmp_path / "files", f"open({str(ran)!r}, 'w')\n")
    with (
        FeaturesProcess(where, LIMITS, fence="require") as work,
        pytest.raises(UnfitModel, match="lacks landlock") as caught,
    ):
        work.declared("features")
    assert caught.value.code == "not_fenced"
    assert not ran.exists()
