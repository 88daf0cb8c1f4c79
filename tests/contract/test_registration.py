"""Registration: a real file, a real process that tests it, and every refusal."""

from __future__ import annotations

import functools
import json
import os
import resource
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import numpy as np
import onnx
import pytest
import skops.io
from onnx import TensorProto, helper
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from kedge.adapters import process
from kedge.adapters.artifacts.directory import DirectoryArtifacts
from kedge.adapters.models.onnx import OnnxLoader
from kedge.adapters.models.sklearn import SklearnLoader
from kedge.columns import check_proof
from kedge.core import codec
from kedge.core.errors import CorruptArtifact, KedgeError, Refused, UnfitModel
from kedge.core.golden import MADE
from kedge.core.values import Bundle, Field, ModelVersion, Release, Signature
from kedge.engine.registration import Golden, register
from kedge.ports import Loader
from kedge.tabular.statistics import SAMPLE, read_training
from models import LOADER, SIGNATURE, TestLoader, environment, misbehaving, quantised

LOADERS: dict[str, Loader] = {
    "onnx": OnnxLoader(),
    "sklearn": SklearnLoader(),
    "test": TestLoader(),
}
X: Any = np.random.default_rng(3).normal(size=(60, 3))
Y: Any = (X[:, 0] > 0).astype(int)


class Numbers:
    """The registry's rule, in memory: the same digest is the same version."""

    def __init__(self) -> None:
        self.kept: list[ModelVersion] = []

    def add(self, version: ModelVersion) -> ModelVersion:
        self.kept.append(msgspec.structs.replace(version, number=len(self.kept) + 1))
        return self.kept[-1]

    def versions(self, model: str) -> tuple[ModelVersion, ...]:
        return tuple(version for version in self.kept if version.model == model)

    def release(
        self, bundle: Bundle, *, raw: tuple[Field, ...] = (), code: str | None = None
    ) -> Release:
        raise NotImplementedError

    def remove(self, model: str, number: int, *, now: float) -> None:
        raise NotImplementedError


@dataclass
class Desk:
    """Where a test registers."""

    root: Path
    timeout_s: float = 20.0
    memory_mb: int = 2000
    registry: Numbers = field(default_factory=Numbers)

    @property
    def store(self) -> DirectoryArtifacts:
        return DirectoryArtifacts(self.root / "store")

    def register(self, source: Path, **more: Any) -> tuple[ModelVersion, bool]:
        given = {
            "model": "m",
            "flavours": LOADERS,
            "golden": None,
            "training": None,
            "trusted": (),
            "by": "ada",
            "at": "2026-01-01T00:00:00Z",
            **more,
        }
        loader = LOADER if (source / "behave.json").exists() else None
        probe = functools.partial(
            process.probe,
            artifacts=self.root / "store",
            timeout_s=self.timeout_s,
            memory_mb=self.memory_mb,
            loader=loader,
        )
        return register(source, registry=self.registry, artifacts=self.store, probe=probe, **given)

    def refused(self, source: Path, **more: Any) -> KedgeError:
        with pytest.raises((Refused, UnfitModel)) as caught:
            self.register(source, **more)
        assert self.registry.kept == []
        return caught.value

    def write(self, name: str, value: Any) -> Path:
        file = self.root / name
        file.write_text(value if isinstance(value, str) else json.dumps(value))
        return file


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    return Desk(tmp_path)


@pytest.fixture
def onnx_file(tmp_path: Path) -> Path:
    file = tmp_path / "model.onnx"
    estimator = LogisticRegression().fit(X, Y)
    converted = to_onnx(estimator, X[:1].astype(np.float32), options={"zipmap": False})
    file.write_bytes(converted.SerializeToString())
    return file


def skops_directory(root: Path, estimator: Any, names: str = "abc") -> Path:
    directory = root / "sklearn-model"
    directory.mkdir()
    skops.io.dump(estimator, directory / "model.skops")
    declared = {"inputs": [{"name": name} for name in names]}
    (directory / "signature.json").write_text(json.dumps(declared))
    return directory


GOLDEN = {
    "inputs": {"x": [1.0, -2.0], "word": ["a", None]},
    "outputs": {"score": [2.0, -4.0], "label": ["a", "none"]},
}

# ---------------------------------------------------------------- it works


def test_a_process_with_many_descriptors_tries_a_model_out(desk: Desk, onnx_file: Path) -> None:
    """A gateway under load has them; select() takes none beyond 1,023."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4_096)), hard))
    held: list[int] = []
    try:
        while not held or held[-1] < 1_024:
            held.append(os.open(os.devnull, os.O_RDONLY))
        assert desk.register(onnx_file)[1]
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_an_onnx_file_becomes_a_version_whose_proof_holds(desk: Desk, onnx_file: Path) -> None:
    version, new = desk.register(onnx_file)
    assert new
    assert (version.number, version.flavour, version.golden) == (1, "onnx", "made")
    assert version.signature.inputs == (Field("X", "float32", (3,)),)
    assert version.registered_by == "ada"
    assert version.size == onnx_file.stat().st_size
    assert not version.stalls
    model = OnnxLoader().load(desk.store.verify(version.digest))
    assert check_proof(model, desk.store.proof(version.digest)) is None


def test_the_same_bytes_are_the_same_version_and_are_not_tried_out_again(
    desk: Desk, onnx_file: Path
) -> None:
    version, _ = desk.register(onnx_file)
    again, new = desk.register(onnx_file, model="m")
    assert (again, new) == (version, False)
    other, new = desk.register(onnx_file, model="other")
    assert new
    assert other.digest == version.digest


def test_the_verdict_of_the_walk_is_kept_with_the_bytes_and_found_again(
    desk: Desk, onnx_file: Path
) -> None:
    """Where an earlier kedge registered it, or other tables judged it, it is judged again."""
    version, _ = desk.register(onnx_file)
    kept = desk.store.proof(version.digest)
    assert kept.plain is not None
    assert kept.plain.proven, kept.plain.why
    desk.store.write_proof(version.digest, msgspec.structs.replace(kept, plain=None))
    assert desk.register(onnx_file) == (version, False)
    assert desk.store.proof(version.digest).plain == kept.plain


def test_the_operator_who_lets_a_version_run_inline_is_recorded_also_for_known_bytes(
    desk: Desk,
) -> None:
    source = misbehaving(desk.root / "good")
    version, _ = desk.register(source)
    kept = desk.store.proof(version.digest)
    assert kept.plain is not None
    assert not kept.plain.proven
    assert kept.inline == ""
    assert desk.register(source, inline="ada: ours") == (version, False)
    desk.register(source, golden=desk.write("g.json", GOLDEN))
    assert desk.store.proof(version.digest).inline == "ada: ours"


def test_shapes_that_multiply_with_the_rows_are_not_plain(desk: Desk) -> None:
    """[n] and [n, 1] are added: [n, n]; each step squares it, and no operator shows it."""
    nodes, at = [], "x"
    for step in range(3):
        nodes += [
            helper.make_node("ReduceMax", [at], [f"m{step}"], axes=[1], keepdims=0),
            helper.make_node("Add", [f"m{step}", at], [f"s{step}"]),
            helper.make_node("Reshape", [f"s{step}", "flat"], [f"f{step}"]),
        ]
        at = f"f{step}"
    nodes += [
        helper.make_node("ReduceMax", [at], ["most"], axes=[0], keepdims=1),
        helper.make_node("Add", ["x", "most"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])],
        [onnx.numpy_helper.from_array(np.array([-1, 1], np.int64), "flat")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    file = desk.root / "model.onnx"
    onnx.save(model, str(file))
    version, _ = desk.register(file, golden=desk.write("g.json", {"inputs": {"x": [1.0, 2.0]}}))
    found = desk.store.proof(version.digest).plain
    assert found is not None
    assert not found.proven
    assert "1024 rows at once" in found.why


def test_given_golden_rows_are_kept_with_the_models_own_answers(desk: Desk) -> None:
    source = misbehaving(desk.root / "good")
    version, _ = desk.register(source, golden=desk.write("g.json", GOLDEN))
    proof = desk.store.proof(version.digest)
    assert version.golden == "given"
    assert proof.inputs == GOLDEN["inputs"]
    assert proof.outputs == {"score": [2.0, -4.0], "label": ["a", "none"]}


def test_golden_json_in_the_directory_is_used_unasked(desk: Desk) -> None:
    source = misbehaving(desk.root / "good")
    (source / "golden.json").write_text(json.dumps({**GOLDEN, "rtol": 0.5}))
    version, _ = desk.register(source)
    assert version.golden == "given"
    assert desk.store.proof(version.digest).rtol == 0.5


def test_nan_answers_to_golden_rows_are_recorded_and_hold(desk: Desk) -> None:
    source = misbehaving(desk.root / "nan", "nan", trigger="a")
    expected = {**GOLDEN, "outputs": {"score": [None, None]}}
    version, _ = desk.register(source, golden=desk.write("g.json", expected))
    model = TestLoader().load(desk.store.verify(version.digest))
    assert check_proof(model, desk.store.proof(version.digest)) is None


def test_a_load_that_stalls_the_interpreter_for_long_is_marked(desk: Desk) -> None:
    quick, _ = desk.register(misbehaving(desk.root / "quick"))
    slow, _ = desk.register(misbehaving(desk.root / "slow", sleep_load_s=0.3))
    assert (quick.stalls, slow.stalls) == (False, True)
    assert slow.load_s >= 0.3


def test_the_training_set_gives_statistics_and_rows_that_the_model_answers(desk: Desk) -> None:
    source = skops_directory(desk.root, LogisticRegression().fit(X, Y))
    lines = ["label,a,b,c"] + [f"x,{i},{i / 2},{'' if i % 2 else -i}" for i in range(10)]
    version, _ = desk.register(source, training=desk.write("t.csv", "\n".join(lines)))
    proof = desk.store.proof(version.digest)
    assert proof.statistics["a"].mean == 4.5
    assert proof.statistics["c"].nulls == 5
    assert proof.statistics["a"].maximum == 9
    assert "label" not in proof.statistics
    assert (version.golden, proof.origin) == ("training", "training")
    assert proof.inputs["a"] == [
        0.0,
        2.0,
        4.0,
        6.0,
        8.0,
    ]  # the others have a null, which it refuses
    assert proof.inputs["c"] == [0.0, -2.0, -4.0, -6.0, -8.0]


def test_rows_of_a_long_training_set_are_spread_over_all_of_it(desk: Desk) -> None:
    lines = "\n".join(json.dumps({"x": float(n), "word": "ab"[n % 2]}) for n in range(25_000))
    kept = read_training(desk.write("t.jsonl", lines), SIGNATURE).rows
    assert len(kept["x"]) == SAMPLE
    assert kept["x"] == sorted(set(kept["x"]))
    assert (kept["x"][0], kept["x"][-1] > 24_000) == (0.0, True)


def test_raw_columns_of_a_training_set_are_kept_where_all_of_them_are_there(desk: Desk) -> None:
    file = desk.write("t.csv", "x,word,minutes\n1,a,60\n2,b,\n3,c,180\n")
    kept = read_training(file, SIGNATURE, [Field("minutes", "int64")])
    assert kept.rows["x"] == [1.0, 2.0, 3.0]
    assert kept.raw == {"minutes": [60, 180]}
    assert read_training(file, SIGNATURE, [Field("hours", "float64")]).raw == {}


# ---------------------------------------------------------------- rows that depend on each other


def test_a_model_that_scales_by_its_whole_batch_is_marked(desk: Desk) -> None:
    """Quantised dynamically, as ONNX Runtime's own tool does it."""
    version, _ = desk.register(quantised(desk.root / "q.onnx"))
    proof = desk.store.proof(version.digest)
    assert proof.rows == "dependent"
    assert "p is" in proof.why
    assert "alone it is" in proof.why
    assert version.golden == "made"
    assert check_proof(OnnxLoader().load(desk.store.verify(version.digest)), proof) is None


def test_the_same_model_without_quantisation_is_not(desk: Desk) -> None:
    version, _ = desk.register(quantised(desk.root / "f.onnx", dynamic=False))
    proof = desk.store.proof(version.digest)
    assert (proof.rows, proof.why) == ("independent", "")
    assert proof.tested >= MADE


@pytest.mark.parametrize(
    "golden",
    [
        None,
        {"inputs": {"x": [3.0, 1.0], "word": ["a", "b"]}},
        {"inputs": {"x": [3.0], "word": ["a"]}},
    ],
)
@pytest.mark.parametrize(
    "kind, mark",
    [
        ("good", "independent"),
        ("centred", "dependent"),
        ("filled", "dependent"),
        ("running", "dependent"),
    ],
)
def test_whatever_rows_there_are_the_mark_is_found(
    desk: Desk, kind: str, mark: str, golden: Any
) -> None:
    """Less the batch's mean; gaps filled with it; sums so far."""
    given = None if golden is None else desk.write("g.json", golden)
    version, _ = desk.register(misbehaving(desk.root / kind, kind), golden=given)
    assert desk.store.proof(version.digest).rows == mark


def test_a_model_that_refuses_a_single_row_depends_on_its_batch(desk: Desk) -> None:
    source = misbehaving(desk.root / "two", "needs_two")
    version, _ = desk.register(source, golden=desk.write("g.json", {"inputs": GOLDEN["inputs"]}))
    proof = desk.store.proof(version.digest)
    assert (proof.rows, "two rows at least" in proof.why) == ("dependent", True)


def test_a_model_that_takes_single_rows_only_is_registered_and_marked(desk: Desk) -> None:
    version, _ = desk.register(misbehaving(desk.root / "one", "one_only"))
    proof = desk.store.proof(version.digest)
    assert (proof.rows, "fail together" in proof.why) == ("dependent", True)
    assert len(proof.inputs["x"]) == 1


def test_noise_within_the_tolerance_is_no_dependence_and_beyond_it_is_refused(desk: Desk) -> None:
    wide = {"inputs": GOLDEN["inputs"], "atol": 2.0}
    version, _ = desk.register(
        misbehaving(desk.root / "r", "random"), golden=desk.write("g.json", wide)
    )
    assert desk.store.proof(version.digest).rows == "independent"
    seldom = misbehaving(desk.root / "s", "seldom_random")
    with pytest.raises(Refused) as caught:
        desk.register(seldom, golden=desk.write("h.json", {"inputs": GOLDEN["inputs"]}))
    assert caught.value.code == "not_deterministic"


def test_a_slow_model_is_tested_on_fewer_rows_and_not_refused(desk: Desk) -> None:
    rows = {"inputs": {"x": [float(n) for n in range(200)], "word": ["a"] * 200}}
    version, _ = desk.register(
        misbehaving(desk.root / "slow", sleep_s=0.2), golden=desk.write("g.json", rows)
    )
    proof = desk.store.proof(version.digest)
    assert proof.rows == "independent"
    assert 2 <= proof.tested < 100


def test_made_rows_that_crash_a_model_are_dropped(desk: Desk) -> None:
    version, _ = desk.register(misbehaving(desk.root / "exit", "exit", trigger="b"))
    proof = desk.store.proof(version.digest)
    assert version.golden == "made"
    assert proof.inputs == {"x": [0.0] * 4, "word": ["", "", "", None]}
    again, new = desk.register(desk.root / "exit")
    assert (again.label, new) == ("v1", False), "what is registered stays so"


def test_made_rows_that_a_model_dies_of_do_not_refuse_its_golden_rows(desk: Desk) -> None:
    rows = {"inputs": {"x": [1.0], "word": [None]}}
    source = misbehaving(desk.root / "exit", "exit", trigger="b")
    version, _ = desk.register(source, golden=desk.write("g.json", rows))
    assert (version.golden, desk.store.proof(version.digest).rows) == ("given", "unknown")


def test_a_version_of_an_older_kedge_gets_its_mark_when_it_is_registered_again(desk: Desk) -> None:
    source = misbehaving(desk.root / "centred", "centred")
    version, _ = desk.register(
        source, golden=desk.write("g.json", {"inputs": GOLDEN["inputs"], "rtol": 0.01})
    )
    before = desk.store.proof(version.digest)
    old = msgspec.structs.replace(before, rows="unknown", tested=0, why="", origin="unknown")
    raw = msgspec.json.decode(msgspec.json.encode(old))
    for name in ("rows", "tested", "why", "origin", "raw"):
        del raw[name]
    file = desk.store.path(version.digest).parent / "proof.json"
    file.write_bytes(msgspec.json.encode(raw))
    assert desk.store.proof(version.digest).rows == "unknown"
    again, new = desk.register(source)
    after = desk.store.proof(version.digest)
    assert (again.number, new) == (version.number, False)
    assert (after.rows, after.rtol, after.inputs) == ("dependent", 0.01, before.inputs)


def test_registered_again_with_golden_rows_the_proof_is_new_and_the_version_is_not(
    desk: Desk,
) -> None:
    source = misbehaving(desk.root / "good")
    version, _ = desk.register(source)
    again, new = desk.register(source, golden=desk.write("g.json", GOLDEN))
    assert (again.number, new) == (version.number, False)
    assert desk.store.proof(version.digest).inputs == GOLDEN["inputs"]


# ---------------------------------------------------------------- it is refused


def test_a_source_that_no_loader_claims_is_refused_with_what_loaders_look_for(desk: Desk) -> None:
    (desk.root / "dir").mkdir()
    (desk.root / "dir" / "readme.md").write_text("hi")
    refused = desk.refused(desk.root / "dir")
    assert refused.code == "unknown_model"
    for loader in LOADERS.values():
        assert loader.looks_for in str(refused)


@pytest.mark.parametrize("name", ["m.pkl", "m.joblib", "deep/m.pickle"])
def test_a_pickle_is_refused_unread_with_a_conversion_hint(desk: Desk, name: str) -> None:
    file = desk.root / "dir" / name
    file.parent.mkdir(parents=True)
    file.write_bytes(b"cos\nsystem\n(S'touch /tmp/never'\ntR.")
    refused = desk.refused(desk.root / "dir")
    assert refused.code == "pickle"
    assert "never load by surprise" in str(refused)
    assert "skops.io.dump" in refused.hint
    assert "skl2onnx" in refused.hint


def test_a_source_that_two_loaders_claim_is_refused(desk: Desk, onnx_file: Path) -> None:
    both = misbehaving(desk.root / "both")
    shutil.copy(onnx_file, both)
    refused = desk.refused(both)
    assert refused.code == "ambiguous_model"
    assert "onnx or test" in str(refused)


@pytest.mark.parametrize(
    "golden, code, says",
    [
        ("{", "bad_golden", "g.json"),
        ({"inputs": {"x": [1.0]}}, "bad_golden", "word is missing"),
        ({"inputs": {"x": ["a"], "word": ["a"]}}, "bad_golden", "x[0] is 'a', not float64"),
        ({"inputs": {"x": [], "word": []}}, "bad_golden", "no golden rows"),
        ({"input": {}}, "bad_golden", "input"),
        ({**GOLDEN, "outputs": {"points": [1, 2]}}, "bad_golden", "points is not an output"),
        ({**GOLDEN, "outputs": {"score": [1.0]}}, "bad_golden", "1 answers for 2 rows"),
        ({**GOLDEN, "rtol": 1e300}, "bad_golden", "rtol must be 0 to 1, got 1e+300"),
        ({**GOLDEN, "atol": 1e300}, "bad_golden", "atol must be 0 to 1e+06, got 1e+300"),
        ({**GOLDEN, "atol": -1}, "bad_golden", "atol must be 0 to 1e+06, got -1"),
        (
            {**GOLDEN, "outputs": {"score": [2.0, -4.5]}},
            "golden_mismatch",
            "golden row 1: score is -4.0, expected -4.5",
        ),
    ],
)
def test_golden_rows_that_do_not_fit_are_refused_by_name(
    desk: Desk, golden: Any, code: str, says: str
) -> None:
    source = misbehaving(desk.root / "good")
    refused = desk.refused(source, golden=desk.write("g.json", golden))
    assert refused.code == code
    assert says in str(refused)


@pytest.mark.parametrize(
    "kind, code, says",
    [
        ("raise", "golden_raised", "ValueError: this row is poison"),
        ("inf", "bad_answer", "score is not finite"),
        ("wrong_shape", "bad_answer", "score has shape"),
        ("no_dict", "bad_answer", "not a mapping"),
        ("random", "not_deterministic", "gave two answers: golden row"),
        ("exit", "probe_died", "exit code 4"),
        ("load_raise", "no_such_thing", "this model cannot be loaded"),
        ("load_exit", "probe_died", "exit code 3"),
        ("scribble", "probe_garbled", "wrote 'Loading weights \ufffd' where its answers are read"),
        (
            "load_scribble",
            "probe_garbled",
            "wrote 'Loading weights \ufffd' where its answers are read",
        ),
    ],
)
def test_a_misbehaving_model_is_refused_in_words(
    desk: Desk, kind: str, code: str, says: str
) -> None:
    refused = desk.refused(misbehaving(desk.root / kind, kind))
    assert refused.code == code
    assert says in str(refused)


def test_a_model_that_prints_is_registered(desk: Desk) -> None:
    """What it prints goes to where its faults go, and not into its answers."""
    version, new = desk.register(misbehaving(desk.root / "print", "print"))
    assert (version.label, new) == ("v1", True)


def test_what_prints_while_python_starts_is_shown(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = desk.root / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text('print(\'{"welcome": "to this host"}\')\n')
    monkeypatch.setenv("PYTHONPATH", f"{site}{os.pathsep}{os.environ['PYTHONPATH']}")
    refused = desk.refused(misbehaving(desk.root / "good"))
    assert refused.code == "probe_garbled"
    assert 'wrote \'{"welcome": "to this host"}\'' in str(refused)
    assert "sitecustomize" in refused.hint


@pytest.mark.parametrize("kind", ["load_hang", "hang", "spin"])
def test_a_hanging_model_is_refused_after_a_while(desk: Desk, kind: str) -> None:
    desk.timeout_s = 1.5
    refused = desk.refused(misbehaving(desk.root / kind, kind))
    assert refused.code == "probe_hung"


@pytest.mark.parametrize("kind, code", [("load_eat", "out_of_memory"), ("eat", "golden_raised")])
def test_a_memory_bomb_is_refused_and_does_no_harm(desk: Desk, kind: str, code: str) -> None:
    desk.memory_mb = 400
    refused = desk.refused(misbehaving(desk.root / kind, kind))
    assert refused.code == code


def test_untrusted_types_are_named_and_can_be_trusted(desk: Desk) -> None:
    source = skops_directory(desk.root, KNeighborsClassifier().fit(X, Y))
    refused = desk.refused(source)
    assert refused.code == "untrusted_types"
    types: Any = refused.details["types"]
    version, new = desk.register(source, trusted=types)
    assert new
    assert version.trusted == tuple(types)


def test_a_refused_model_leaves_no_version_and_no_proof(desk: Desk) -> None:
    desk.refused(misbehaving(desk.root / "random", "random"))
    (left,) = [path for path in (desk.root / "store").iterdir() if path.is_dir()]
    with pytest.raises(CorruptArtifact):
        desk.store.proof(f"sha256:{left.name}")


# ---------------------------------------------------------------- training sets


@pytest.mark.parametrize(
    "name, text, says",
    [
        ("t.csv", "x,other\n1,2\n", "no column word"),
        ("t.csv", "x,word\n1,a\noops,b\n", "t.csv:3: x is 'oops', not float64"),
        ("t.csv", "x,word\n", "holds no rows"),
        ("t.xlsx", "", "a training set is one of"),
        ("t.parquet", "PAR1", "t.parquet"),
        ("t.jsonl", '{"x": 1, "word": "a"}\n{"x": "b"}\n', "x[1] is 'b', not float64"),
        ("t.jsonl", '{"x": 1, "word"', "t.jsonl"),
    ],
)
def test_a_training_set_that_does_not_fit_is_refused_by_line_or_name(
    tmp_path: Path, name: str, text: str, says: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(Refused) as caught:
        read_training(tmp_path / name, SIGNATURE)
    assert caught.value.code == "bad_training"
    assert says in str(caught.value)


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_marks_are_passed_over_and_other_encodings_named(tmp_path: Path, name: str) -> None:
    text = "x,word\n1,NA\n" if name == "t.csv" else '{"x": 1, "word": "NA"}\n'
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_training(tmp_path / name, SIGNATURE).rows == {"x": [1.0], "word": ["NA"]}
    for raw in (text.encode("utf-16"), text.replace("NA", "\xe9").encode("latin-1")):
        (tmp_path / name).write_bytes(raw)
        with pytest.raises(Refused, match="is not UTF-8 text"):
            read_training(tmp_path / name, SIGNATURE)


@pytest.mark.parametrize(
    "literal",
    [
        "TIMESTAMPTZ '2026-01-05 08:00:00+00'",
        "TIME '10:00'",
        "INTERVAL 1 DAY",
        "{'a': 1}",
        "MAP {'a': 1}",
        "'x'::BLOB",
        "TIMESTAMP_NS '2026-01-05 08:00:00'",
        "7::HUGEINT",
        "0.5::DECIMAL(4, 2)",
        "NULL",
        "'6f9619ff-8b86-d011-b42d-00c04fc964ff'::UUID",
        "'a'::ENUM('a', 'b')",
        "[{'a': 1}]",
        "['a']",
        "DATE '2026-01-05'",
        "true",
        "1::UBIGINT",
        "'a'",
    ],
)
def test_no_type_of_a_parquet_column_is_a_traceback(tmp_path: Path, literal: str) -> None:
    """Beside the columns that are asked for it is not read; as one of them it is read, or refused."""
    file = tmp_path / "t.parquet"
    with duckdb.connect() as db:
        db.execute(f"COPY (SELECT 1.0 AS x, 'NA' AS word, {literal} AS other) TO '{file}'")
        assert read_training(file, SIGNATURE).rows == {"x": [1.0], "word": ["NA"]}
        for columns in (f"{literal} AS x, 'a' AS word", f"1.0 AS x, {literal} AS word"):
            db.execute(f"COPY (SELECT {columns}) TO '{file}'")
            assert outcome_of(file) in ("read", "bad_training")


def outcome_of(file: Path) -> str:
    try:
        read_training(file, SIGNATURE)
    except Refused as refused:
        return refused.code
    return "read"


def test_an_instant_of_a_training_set_is_unix_seconds(tmp_path: Path) -> None:
    file = tmp_path / "t.parquet"
    with duckdb.connect() as db:
        db.execute(
            f"COPY (SELECT TIMESTAMPTZ '2026-01-05 08:00:00+00' AS x, 'a' AS word) TO '{file}'"
        )
    assert read_training(file, SIGNATURE).rows["x"] == [1_767_600_000.0]


def test_golden_rows_with_a_mark_are_read_and_other_encodings_named(tmp_path: Path) -> None:
    text = '{"inputs": {"x": [1]}}'
    assert codec.read_written(b"\xef\xbb\xbf" + text.encode(), Golden).inputs == {"x": [1]}
    for raw in (text.encode("utf-16"), b'{"inputs": {"\xe9": [1]}}', b"[" * 100_000):
        with pytest.raises(msgspec.DecodeError):
            codec.read_written(raw, Golden)


def test_csv_and_json_lines_say_the_same(tmp_path: Path) -> None:
    signature = Signature(
        inputs=(
            Field("f", "float32"),
            Field("i", "int32"),
            Field("s", "string"),
            Field("b", "bool"),
        ),
        outputs=(),
    )
    rows = [
        {"f": 1.5, "i": 2, "s": "a", "b": True},
        {"f": None, "i": None, "s": None, "b": None},
        {"f": -1.0, "i": 4, "s": "a", "b": False},
    ]
    text = "\n".join(json.dumps(row) for row in rows)
    (tmp_path / "t.jsonl").write_text(text)
    (tmp_path / "t.csv").write_text("f,i,s,b\n1.5,2,a,true\n,NaN,,null\n-1,4,a,FALSE\n")
    kept = read_training(tmp_path / "t.jsonl", signature)
    assert kept == read_training(tmp_path / "t.csv", signature)
    found = kept.statistics
    assert [each.nulls for each in found.values()] == [1, 1, 1, 1]
    assert found["i"].mean == 3
    assert found["b"].values == {"false": 1, "true": 1}
