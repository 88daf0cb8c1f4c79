"""Formats of models that kedge does not load: their names, and the commands that convert them.

A format is recognised by file names and first bytes, without loading anything. A pickle is read as
a list of instructions, of which none is executed.
"""

from __future__ import annotations

import bz2
import lzma
import pickletools
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

HEAD_BYTES = 65_536
"""Bytes read of each file: a pickle names its library well within them."""
GUIDE = "kedge help register-a-model"
GENERAL = f"write the model as ONNX, or with skops.io.dump, where it was trained; {GUIDE}"
"""The way for a source of an unknown format."""


class Piece(NamedTuple):
    """A file of a source.

    Attributes:
        name: its path within the source, with /.
        head: its first bytes, at most `HEAD_BYTES`.
        inside: the first names in it, if it is a zip archive.
    """

    name: str
    head: bytes
    inside: tuple[str, ...] = ()


class Format(NamedTuple):
    """The format of a source, and how to convert it.

    Attributes:
        what: the format, to follow "is".
        hint: the command to type.
        is_pickle: whether loading it would execute its content.
    """

    what: str
    hint: str
    is_pickle: bool = False


def recognise(pieces: Sequence[Piece]) -> Format | None:
    """Return the format of a source that no loader accepts; None if it looks like no model."""
    by_name: dict[str, Piece] = {}
    for piece in sorted(pieces, key=lambda one: len(one.name.split("/"))):
        by_name.setdefault(piece.name.rpartition("/")[2], piece)
    for look in (_mlflow, _hugging_face, _saved_model):
        found = look(by_name)
        if found is not None:
            return found
    of_files = (found for look in (_of_piece, _beside) for piece in pieces for found in look(piece))
    return next(of_files, None)


def kind_of(piece: Piece) -> str:
    """Return the format of one file that is a model, such as "xgboost"; empty: none of these."""
    return next((kind for kind, is_it in _FILES if is_it(piece)), "")


def is_pickle(piece: Piece) -> bool:
    """Return whether a file is a pickle, also a compressed one; nothing of it is executed."""
    name = piece.name.removesuffix(".gz").removesuffix(".bz2").removesuffix(".xz")
    named = name.endswith(PICKLES)
    return not kind_of(piece) and (
        named or _starts_pickle(piece.head) or _starts_pickle(inflated(piece.head))
    )


def is_pointer(head: bytes) -> bool:
    """Return whether a file is the pointer that Git LFS leaves in the place of a file."""
    return head.startswith(b"version https://git-lfs.github.com/")


def _of_piece(piece: Piece) -> Iterator[Format]:
    for kind, is_it in _FILES:
        if is_it(piece):
            yield _FORMATS[kind]
            return
    if is_pickle(piece):
        yield _pickle(piece)


def _beside(piece: Piece) -> Iterator[Format]:
    """Yield the format of a file that often lies beside a model, if no file is a model."""
    for kind, is_it in _FILES_BESIDE:
        if is_it(piece):
            yield _FORMATS[kind]
            return


# ---------------------------------------------------------------- single files


def _starts(*marks: bytes) -> Callable[[Piece], bool]:
    return lambda piece: piece.head.startswith(marks)


def _has(*names: str) -> Callable[[Piece], bool]:
    """Return a test whether an archive holds files with each of these endings."""
    return lambda piece: all(any(each.endswith(name) for each in piece.inside) for name in names)


def _is_xgboost(piece: Piece) -> bool:
    head = piece.head[:4096]
    if head.startswith(b"{L") and b"learner" in head[:64]:  # its binary JSON, whatever the ending
        return True
    if piece.name.endswith((".json", ".ubj")):
        return b'"learner"' in head or b"learner" in head[:64] or b"gradient_booster" in head
    return head.startswith(b"binf")


def _is_catboost_json(piece: Piece) -> bool:
    return piece.name.endswith(".json") and (
        b'"oblivious_trees"' in piece.head or b'"catboost_version_info"' in piece.head
    )


_FILES: tuple[tuple[str, Callable[[Piece], bool]], ...] = (
    ("catboost", _starts(b"CBM1")),
    ("catboost", _is_catboost_json),
    ("xgboost", _is_xgboost),
    ("lightgbm", _starts(b"tree\nversion=", b"tree\r\nversion=")),
    ("lightgbm", lambda piece: piece.head.startswith(b"{") and b'"tree_info"' in piece.head),
    ("keras", _has("config.json", "model.weights.h5")),
    ("keras", lambda piece: piece.head.startswith(b"\x89HDF") and not piece.name.endswith(".nc")),
    ("torch.export", _has("archive_format", "model.json")),
    ("torch.export", lambda piece: piece.name.endswith(".pt2")),
    ("torchscript", _has("constants.pkl", "data.pkl")),
    ("torch", _has("data.pkl", "version")),
    ("safetensors", lambda piece: piece.name.endswith(".safetensors")),
    ("gguf", _starts(b"GGUF")),
    ("tflite", lambda piece: piece.head[4:8] == b"TFL3"),
    ("pmml", lambda piece: b"<PMML" in piece.head[:1024]),
    ("coreml", lambda piece: piece.name.endswith((".mlmodel", ".mlpackage"))),
    ("tensorrt", lambda piece: piece.name.endswith((".plan", ".engine"))),
    ("r", lambda piece: piece.name.lower().endswith((".rds", ".rdata"))),
    ("openvino", lambda piece: piece.name.endswith(".xml") and b"<net " in piece.head[:1024]),
    ("ort", lambda piece: piece.head[4:8] == b"ORTM"),
    ("frozen", lambda piece: piece.name.endswith(".pb")),
    ("torchserve", lambda piece: piece.name.endswith(".mar")),
)
_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip", ".7z")
_TABLES = (".csv", ".tsv", ".parquet", ".jsonl", ".arrow", ".feather")
_FILES_BESIDE: tuple[tuple[str, Callable[[Piece], bool]], ...] = (
    ("archive", lambda piece: piece.name.lower().endswith(_ARCHIVES)),
    ("archive", lambda piece: piece.name.lower().endswith(".onnx.gz")),
    ("code", lambda piece: piece.name.endswith((".py", ".ipynb"))),
    ("table", lambda piece: piece.name.lower().endswith(_TABLES) or piece.head[:4] == b"PAR1"),
    ("arrays", lambda piece: piece.name.endswith((".npy", ".npz"))),
)

_TORCH = (
    "in the code that has the model: torch.onnx.export(model.eval(), (x,), 'model.onnx',"
    " dynamo=True, dynamic_shapes=({0: torch.export.Dim('rows')},), input_names=['x'],"
    " output_names=['score']); x has two rows or more"
)
_KERAS = (
    "python -c \"import keras; keras.saving.load_model('MODEL').export('model.onnx',"
    " format='onnx')\", then kedge register ENDPOINT model.onnx"
)
_FORMATS = {
    "xgboost": Format(
        "an XGBoost model",
        "pip install 'kedge[xgboost]', and save it with save_model as .ubj; a binary file of an old"
        f" XGBoost is loaded and saved again by XGBoost before 3.1; {GUIDE}#xgboost",
    ),
    "lightgbm": Format(
        "a LightGBM model",
        "pip install 'kedge[lightgbm]', and save it as text with booster.save_model, not as JSON;"
        f" {GUIDE}#lightgbm",
    ),
    "catboost": Format(
        "a CatBoost model",
        "pip install 'kedge[catboost]', and save it with model.save_model('model.cbm'), not as"
        f" JSON; {GUIDE}#catboost",
    ),
    "keras": Format("a Keras model", _KERAS),
    "torch.export": Format("a PyTorch program (torch.export)", _TORCH),
    "torchscript": Format("a TorchScript model", _TORCH),
    "torch": Format("a PyTorch checkpoint (weights, without the model's code)", _TORCH),
    "safetensors": Format(
        "weights in safetensors, without the model's code",
        f"export the model as ONNX; {GUIDE}#hugging-face",
    ),
    "gguf": Format(
        "a language model for llama.cpp (GGUF)",
        "kedge releases models that answer with tensors; it loads no language models",
    ),
    "tflite": Format(
        "a TensorFlow Lite model", "python -m tf2onnx.convert --tflite MODEL --output model.onnx"
    ),
    "pmml": Format("a PMML model", "write the model as ONNX where it was trained"),
    "coreml": Format("a Core ML model", "write the model as ONNX where it was trained"),
    "tensorrt": Format(
        "a TensorRT engine, which fits one kind of GPU",
        "register the ONNX file that it was built from",
    ),
    "r": Format("an R object", "write the model as ONNX where it was trained"),
    "openvino": Format("an OpenVINO model", "register the ONNX file that it was converted from"),
    "ort": Format(
        "a model in ONNX Runtime's own format", "register the ONNX file that it was converted from"
    ),
    "frozen": Format(
        "a TensorFlow graph",
        "python -m tf2onnx.convert --graphdef MODEL --output model.onnx --inputs NAME:0"
        " --outputs NAME:0",
    ),
    "torchserve": Format("an archive of TorchServe", f"unzip it; {_TORCH}"),
    "archive": Format(
        "a packed file, whose model kedge does not unpack",
        "unpack it, then: kedge register ENDPOINT DIRECTORY",
    ),
    "code": Format(
        "Python code, which kedge never runs as a model",
        "write the fitted model as ONNX or with skops.io.dump; code around it can be a loader of"
        " your own (CONTRIBUTING.md, A loader of your own)",
    ),
    "table": Format(
        "data, not a model",
        "the training set of a model: kedge register ENDPOINT MODEL --training FILE",
    ),
    "arrays": Format("arrays of numpy, without the model's code", GENERAL),
}


# ---------------------------------------------------------------- directories


def _mlflow(pieces: dict[str, Piece]) -> Format | None:
    piece = pieces.get("MLmodel")
    if piece is None:
        return None
    text = piece.head.decode("utf-8", "replace")
    flavours = re.findall(r"^  (\w+):\s*$", text.partition("flavors:")[2], re.MULTILINE)
    library = next((each for each in flavours if each != "python_function"), "python_function")
    way = _MLFLOW.get(
        library,
        f"log the model with mlflow.onnx.log_model, or write it as ONNX; {GUIDE}#mlflow",
    )
    return Format(f"an MLflow model of the flavour {library}", way)


_OWN_LOADER = (
    "it has no ONNX form: write a loader of your own (CONTRIBUTING.md, A loader of your own)"
)
_MLFLOW = {
    "sklearn": (
        "log it with mlflow.sklearn.log_model(model, name='model', serialization_format='skops', "
        "skops_trusted_types=['numpy.dtype']), then register that directory"
    ),
    "xgboost": f"register the model.ubj or model.json in it; {GUIDE}#xgboost",
    "lightgbm": f"register the model.lgb in it; {GUIDE}#lightgbm",
    "catboost": f"register the model.cb in it; {GUIDE}#catboost",
    "pytorch": _TORCH,
    "keras": f"export its data/model.keras; {_KERAS}",
    "tensorflow": (
        "python -m tf2onnx.convert --saved-model DIRECTORY/tf2model --output model.onnx, then kedge"
        " register ENDPOINT model.onnx"
    ),
    "transformers": (
        "optimum-cli export onnx --model DIRECTORY/model onnx/, then kedge register ENDPOINT"
        f" onnx/model.onnx; {GUIDE}#hugging-face"
    ),
    "statsmodels": _OWN_LOADER,
    "prophet": _OWN_LOADER,
    "onnx": "register the model.onnx in it: kedge register ENDPOINT DIRECTORY/model.onnx",
}


def _hugging_face(pieces: dict[str, Piece]) -> Format | None:
    config = pieces.get("config.json")
    if config is None or not re.search(rb'"(model_type|architectures)"\s*:', config.head):
        return None
    return Format(
        "a Hugging Face model",
        "optimum-cli export onnx --model DIRECTORY onnx/, then kedge register ENDPOINT"
        f" onnx/model.onnx; {GUIDE}#hugging-face",
    )


def _saved_model(pieces: dict[str, Piece]) -> Format | None:
    if "saved_model.pb" not in pieces:
        return None
    return Format(
        "a TensorFlow SavedModel",
        "python -m tf2onnx.convert --saved-model DIRECTORY --output model.onnx",
    )


# ---------------------------------------------------------------- pickles

PICKLES = (".pkl", ".pickle", ".joblib", ".cloudpickle", ".dill")
_LIBRARIES = {
    "sklearn": "scikit-learn",
    "xgboost": "XGBoost",
    "lightgbm": "LightGBM",
    "catboost": "CatBoost",
    "statsmodels": "statsmodels",
    "torch": "PyTorch",
    "keras": "Keras",
    "tensorflow": "TensorFlow",
    "transformers": "Transformers",
    "prophet": "Prophet",
    "imblearn": "imbalanced-learn",
}
_SKOPS = (
    "load it where you trust it, then write it with skops.io.dump(model, 'model.skops') or as ONNX"
    " with skl2onnx.to_onnx(model, X)"
)
_WAYS = {
    "XGBoost": f"load it where you trust it, then model.save_model('model.ubj'); {GUIDE}#xgboost",
    "LightGBM": (
        f"load it where you trust it, then model.booster_.save_model('model.txt'); {GUIDE}#lightgbm"
    ),
    "CatBoost": f"load it where you trust it, then model.save_model('model.cbm'); {GUIDE}#catboost",
    "PyTorch": _TORCH,
    "Keras": _KERAS,
    "TensorFlow": _KERAS,
    "statsmodels": (
        "statsmodels writes no ONNX: state its formula as an ONNX graph, or write a loader of your"
        " own (CONTRIBUTING.md, A loader of your own)"
    ),
    "Prophet": (
        "Prophet writes no ONNX: write a loader of your own (CONTRIBUTING.md, A loader of your own)"
    ),
}


def _starts_pickle(head: bytes) -> bool:
    """Return whether bytes begin like a pickle of protocol 2 or later."""
    return head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")


def _pickle(piece: Piece) -> Format:
    library = next(_libraries(piece.head), "")
    what = f"a pickle of {library}" if library else "a pickle"
    return Format(
        f"{what}: it can run any code when it is loaded, so pickles never load by surprise",
        _WAYS.get(library, _SKOPS),
        is_pickle=True,
    )


def _libraries(head: bytes) -> Iterator[str]:
    """Yield the libraries that a pickle names, in order; executes none of its instructions."""
    try:
        for _, argument, _ in pickletools.genops(inflated(head)):
            if isinstance(argument, str):
                name = re.split(r"[. ]", argument, maxsplit=1)[0]
                if name in _LIBRARIES:
                    yield _LIBRARIES[name]
    except Exception:  # noqa: BLE001 - it is cut off, or no pickle: what was found stands
        return


class _Inflater(Protocol):
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


_INFLATERS: tuple[Callable[[], _Inflater], ...] = (
    zlib.decompressobj,
    lambda: zlib.decompressobj(zlib.MAX_WBITS | 16),
    bz2.BZ2Decompressor,
    lzma.LZMADecompressor,
)


def inflated(data: bytes, most: int = HEAD_BYTES) -> bytes:
    """Return the first bytes of data that joblib or gzip compressed; else the data."""
    for begin in _INFLATERS:
        try:
            return begin().decompress(data, most)
        except (zlib.error, lzma.LZMAError, OSError, EOFError):
            continue
    return data


# ---------------------------------------------------------------- addresses

_SCHEMES = {
    "models": "mlflow artifacts download --artifact-uri '{0}' --dst-path model/",
    "mlflow-artifacts": "mlflow artifacts download --artifact-uri '{0}' --dst-path model/",
    "dbfs": "databricks fs cp --recursive '{0}' model/",
    "runs": "mlflow artifacts download --artifact-uri '{0}' --dst-path model/",
    "s3": "aws s3 cp --recursive '{0}' model/",
    "gs": "gcloud storage cp --recursive '{0}' model/",
    "wandb-artifact": "wandb artifact get '{0}' --root model/",
    "hf": "hf download '{0}' --local-dir model/",
    "oci": "oras pull '{0}' --output model/",
    "http": "curl --fail --output model.onnx '{0}'",
    "https": "curl --fail --output model.onnx '{0}'",
    "arn": (
        "aws sagemaker describe-model-package --model-package-name '{0}' shows where its"
        " artifact is"
    ),
}
_STRIPPED = {"wandb-artifact": "wandb-artifact://", "hf": "hf://", "oci": "oci://"}
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):\S")


def fetching(source: str) -> str | None:
    """Return the command that downloads an address to this machine; None if it is not one."""
    found = _ADDRESS.match(source)
    if found is None or found[1] not in _SCHEMES:
        return None
    address = source.removeprefix(_STRIPPED.get(found[1], "")).replace("'", "")
    return _SCHEMES[found[1]].format(address)
