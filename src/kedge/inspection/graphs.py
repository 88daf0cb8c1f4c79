"""The walk over an ONNX graph: its operators, read from the bytes, before or after loading.

The file is read as protocol buffers by the few relevant fields, so that no library is needed. The
walk trusts none of them. An operator that `operators` does not list, or a size that callers decide,
is not proven plain.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

from kedge.core.values import Plainness
from kedge.inspection.estimators import RULE
from kedge.inspection.operators import (
    CONSTANT_INPUTS,
    KEEP_WIDTH,
    KNOWN,
    LINEAR,
    MODES_BRANCH,
    TREES,
)

MOST = 100_000
"""Maximum number of operators in one graph."""
LARGEST = 1 << 31
"""Maximum size of a file in bytes: the limit of protocol buffers."""


class _Unproven(Exception):
    """Unknown part that the walk met."""


@dataclass
class _Node:
    kind: str = ""
    domain: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    attributes: dict[str, dict[int, list[Any]]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return its operator, with the domain unless that is ONNX's own."""
        return self.kind if self.domain in ("", "ai.onnx") else f"{self.domain}.{self.kind}"


@dataclass
class _Graph:
    nodes: list[_Node] = field(default_factory=list)
    constants: dict[str, list[int]] = field(default_factory=dict)
    """Weights, with their dimensions."""
    inputs: dict[str, list[int | None]] = field(default_factory=dict)
    """The axes of each input, each with its length where it is fixed."""


def judge(file: Path) -> Plainness:
    """Walk an ONNX file operator by operator, and return whether it is plain."""
    try:
        if file.stat().st_size > LARGEST:
            raise _Unproven("the file is larger than the walk goes")
        with file.open("rb") as opened:
            # The file is mapped, not read: the walk skips weights, which may be most of its bytes.
            found = _walk(_model(memoryview(mmap(opened.fileno(), 0, access=ACCESS_READ))))
    except _Unproven as error:
        return Plainness(proven=False, rule=RULE, why=str(error))
    except (ValueError, IndexError, KeyError, TypeError, struct.error) as error:
        return Plainness(proven=False, rule=RULE, why=f"its bytes cannot be followed: {error}")
    return Plainness(proven=True, rule=RULE, found=tuple(sorted(found)))


def _walk(graph: _Graph) -> set[str]:
    if len(graph.nodes) > MOST:
        raise _Unproven(f"{len(graph.nodes):,} operators are more than the walk goes")
    known = dict(graph.constants)
    widths = {name: dims[-1] for name, dims in known.items() if dims}
    for name, axes in graph.inputs.items():
        if name not in known and None in axes[1:]:
            raise _Unproven(f"input {name}: callers decide how long an axis beside that of rows is")
        if len(axes) > 1 and axes[-1] is not None:
            widths[name] = axes[-1]
    found = set()
    for node in graph.nodes:
        _look(node, known, widths)
        found.add(node.name)
    return found


def _look(node: _Node, known: dict[str, list[int]], widths: dict[str, int]) -> None:
    """Judge one operator, and record what it implies for later operators."""
    name = node.name
    if name not in KNOWN:
        raise _Unproven(f"operator {name}: it is not known to end in a time and size of its own")
    for attribute, parts in node.attributes.items():
        if parts.get(6) or parts.get(11):
            raise _Unproven(f"operator {name}: {attribute} is a graph within it")
    for place in CONSTANT_INPUTS.get(name, ()):
        if place < len(node.inputs) and node.inputs[place] and node.inputs[place] not in known:
            raise _Unproven(f"operator {name}: its size depends on what callers send")
    if name == "Constant":
        known[node.outputs[0]] = []
    width = widths.get(node.inputs[0]) if node.inputs else None
    if name in TREES:
        _trees(node, width)
    if name in LINEAR:
        weights = len(_floats(node, "coefficients"))
        if not width or weights % width or weights // width != len(_floats(node, "intercepts")):
            raise _Unproven(f"operator {name}: its weights are not as many as its rows are wide")
    if name in KEEP_WIDTH and width is not None and node.outputs:
        widths[node.outputs[0]] = width
    if name == "Concat" and _integers(node, "axis") in ([1], [-1]):
        wide = [widths[each] for each in node.inputs if each in widths]
        if len(wide) == len(node.inputs):
            widths[node.outputs[0]] = sum(wide)


# ---------------------------------------------------------------- trees


def _trees(node: _Node, width: int | None) -> None:
    """Follow the indices of a tree ensemble: the runtime follows them unchecked."""
    name = node.name
    if width is None:
        raise _Unproven(f"operator {name}: nothing says how wide its rows are")
    trees, ids = _integers(node, "nodes_treeids"), _integers(node, "nodes_nodeids")
    yes, no = _integers(node, "nodes_truenodeids"), _integers(node, "nodes_falsenodeids")
    features, modes = _integers(node, "nodes_featureids"), _words(node, "nodes_modes")
    if not trees or len({len(trees), len(ids), len(yes), len(no), len(features), len(modes)}) != 1:
        raise _Unproven(f"operator {name}: its lists of nodes differ in length")
    at = {pair: n for n, pair in enumerate(zip(trees, ids, strict=True))}
    if len(at) != len(trees):
        raise _Unproven(f"operator {name}: a node comes twice")
    for n, mode in enumerate(modes):
        if mode == "LEAF":
            continue
        if mode not in MODES_BRANCH:
            raise _Unproven(f"operator {name}: a node of the kind {mode!r:.40}")
        if not 0 <= features[n] < width:
            raise _Unproven(f"operator {name}: a node asks for feature {features[n]} of {width}")
        for child in (yes[n], no[n]):
            place = at.get((trees[n], child))
            if place is None or place <= n:
                raise _Unproven(
                    f"operator {name}: node {ids[n]} of tree {trees[n]} has child {child}"
                )
    targets = [*_integers(node, "target_treeids"), *_integers(node, "class_treeids")]
    nodes = [*_integers(node, "target_nodeids"), *_integers(node, "class_nodeids")]
    if len(targets) != len(nodes) or any(p not in at for p in zip(targets, nodes, strict=True)):
        raise _Unproven(f"operator {name}: a weight is for a node that is not there")


def _integers(node: _Node, name: str) -> list[int]:
    parts = node.attributes.get(name, {})
    found = [_signed(value) for value in parts.get(3, ()) if isinstance(value, int)]
    for value in parts.get(8, ()):
        found += [_signed(value)] if isinstance(value, int) else list(_packed(value))
    return found


def _floats(node: _Node, name: str) -> list[float]:
    found: list[float] = []
    for value in node.attributes.get(name, {}).get(7, ()):
        found += struct.unpack(f"<{len(value) // 4}f", value)
    return found


def _words(node: _Node, name: str) -> list[str]:
    return [bytes(value).decode() for value in node.attributes.get(name, {}).get(9, ())]


# ---------------------------------------------------------------- bytes


def _model(raw: memoryview) -> _Graph:
    graph = _Graph()
    for number, value in _fields(raw):
        if number in (20, 25):
            raise _Unproven("it holds functions of its own, or a way to train it")
        if number == 7:
            _read_graph(value, graph)
    return graph


def _read_graph(raw: memoryview, graph: _Graph) -> None:
    for number, value in _fields(raw):
        if number == 1:
            graph.nodes.append(_node(value))
        elif number == 5:
            name, dims = _tensor(value)
            graph.constants[name] = dims
        elif number == 11:
            name, axes = _input(value)
            graph.inputs[name] = axes
        elif number == 15:
            raise _Unproven("it holds sparse weights")


def _node(raw: memoryview) -> _Node:
    node = _Node()
    for number, value in _fields(raw):
        if number == 1:
            node.inputs.append(_text(value))
        elif number == 2:
            node.outputs.append(_text(value))
        elif number == 4:
            node.kind = _text(value)
        elif number == 7:
            node.domain = _text(value)
        elif number == 5:
            parts: dict[int, list[Any]] = {}
            for part, inner in _fields(value):
                parts.setdefault(part, []).append(inner)
            node.attributes[_text(parts[1][0]) if 1 in parts else ""] = parts
    return node


def _tensor(raw: memoryview) -> tuple[str, list[int]]:
    """Return the name and dimensions of weights."""
    name, dims = "", list[int]()
    for number, value in _fields(raw):
        if number == 8:
            name = _text(value)
        elif number == 1:
            dims += [_signed(value)] if isinstance(value, int) else list(_packed(value))
        elif number in (13, 14) and value:
            raise _Unproven("its weights lie in another file")
    return name, dims


def _input(raw: memoryview) -> tuple[str, list[int | None]]:
    """Return an input's name and axes: `ValueInfoProto` > type > tensor > shape > dim."""
    name, axes = "", list[int | None]()
    for number, value in _fields(raw):
        if number == 1:
            name = _text(value)
        elif number == 2:
            tensors = [inner for part, inner in _fields(value) if part == 1]
            shapes = [inner for tensor in tensors for part, inner in _fields(tensor) if part == 2]
            for shape in shapes:
                for _, axis in _fields(shape):
                    sizes = [size for part, size in _fields(axis) if part == 1]
                    axes.append(_signed(sizes[0]) if sizes and _signed(sizes[0]) >= 0 else None)
    return name, axes


def _fields(raw: Any) -> Iterator[tuple[int, Any]]:
    """Yield the fields of a message: numbers as values, all else as a view of its bytes.

    Raises:
        TypeError, ValueError, IndexError: it is not a message.
    """
    if not isinstance(raw, memoryview):
        raise TypeError("a number where a message should be")
    at, end = 0, len(raw)
    while at < end:
        key, at = _varint(raw, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = _varint(raw, at)
            yield number, value
            continue
        if kind == 2:
            size, at = _varint(raw, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if size > end - at:
            raise ValueError("a field that is longer than what holds it")
        yield number, raw[at : at + size]
        at += size


def _varint(raw: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than ten bytes")


def _packed(raw: memoryview) -> Iterator[int]:
    at = 0
    while at < len(raw):
        value, at = _varint(raw, at)
        yield _signed(value)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _text(raw: Any) -> str:
    return bytes(raw).decode()
