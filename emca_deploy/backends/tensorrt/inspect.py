"""An engine's layers, read from the builder's verbose log, which needs no GPU."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

__all__ = ["EngineLayer", "EngineTensor", "int8_convolutions", "moved_bytes_by_type", "read_layers"]

DTYPES = {
    "int8": "int8", "uint8": "uint8", "bool": "bool", "fp8": "float8", "half": "float16", "fp16": "float16", "bf16": "bfloat16",
    "bfloat16": "bfloat16", "float": "float32", "fp32": "float32", "int32": "int32", "int64": "int64",
}  # fmt: skip
BYTES = {"int8": 1, "uint8": 1, "bool": 1, "float8": 1, "float16": 2, "bfloat16": 2, "int64": 8}

# TensorRT-RTX and TensorRT from 10 list a layer's fields; TensorRT 8 writes `Layer(Kind): name, Tactic: x, in -> out`.
# No pattern has two repetitions in a row: reading a line takes time linear in its length, whoever wrote it.
FIELDS = re.compile(r", LayerType: (?P<kind>\w*), Inputs: \[")
OUTPUTS_END = re.compile(r"\}\](?:, |$)")
ARROW = re.compile(r"Layer\((?P<kind>\w+)\): ")
TACTIC = re.compile(r", Tactic: (?P<rest>-?\w+), ")
DIMENSIONS = re.compile(r",(?: Location: \w+,)? Dimensions: \[(?P<shape>[-\d,]*)\]")
DATATYPE = re.compile(r"Datatype: (?P<type>[^,}]*)")
BRACKETED = re.compile(r"[\[(](?P<type>[A-Z]\w*)[\[(](?P<shape>[-\d,]*)[\])][\])]")
SIZE = re.compile(r"-?\d{1,9}", re.ASCII)
TYPE = re.compile(rf"\b({'|'.join(DTYPES)})\b", re.IGNORECASE)
NODE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")


@dataclass(frozen=True)
class EngineTensor:
    """An activation between layers.

    Attributes:
        name: Name in the engine.
        dtype: NumPy's name where it has one ("int8", "float32"); "unknown" where the log has none.
        shape: Sizes of the dimensions; -1 for a dynamic one.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def image_bytes(self) -> int:
        """Bytes for one image if the batch is dynamic, for the whole batch if it is fixed."""
        return prod(abs(size) for size in self.shape) * BYTES.get(self.dtype, 4)


@dataclass(frozen=True)
class EngineLayer:
    """One layer of an engine, which usually runs as one kernel.

    Attributes:
        name: Name in the engine.
        kind: TensorRT's word for it: "correlation" or "CaskConvolution" for a convolution, "kgen" for generated code.
        inputs: Activations read, without weights.
        outputs: Activations written.
        nodes: Names of the ONNX nodes it came from, where the log has them.
    """

    name: str
    kind: str
    inputs: tuple[EngineTensor, ...]
    outputs: tuple[EngineTensor, ...]
    nodes: tuple[str, ...] = ()

    @property
    def is_convolution(self) -> bool:
        """Whether it is a convolution, with or without other operators fused into it."""
        kind = self.kind.lower()
        return kind == "correlation" or ("conv" in kind and "deconv" not in kind)

    @property
    def is_int8(self) -> bool:
        """Whether it computes in INT8, that is, its first input is INT8."""
        return bool(self.inputs) and self.inputs[0].dtype == "int8"

    @property
    def moved_bytes(self) -> int:
        """Bytes of activations read and written for one image."""
        return sum(tensor.image_bytes for tensor in (*self.inputs, *self.outputs))


def read_layers(lines: Iterable[str]) -> list[EngineLayer]:
    """Return the layers in the lines of a builder's verbose log, in the order of execution; other lines are skipped."""
    texts = (line.strip() for line in lines)
    found = (_by_fields(text) if text.startswith("Name: ") else _by_arrow(text) for text in texts)
    return [layer for layer in found if layer is not None]


def _by_fields(text: str) -> EngineLayer | None:
    """Read `Name: N, LayerType: K, Inputs: [...], Constants: [...], Outputs: [...], ...`; constants may be missing."""
    match = FIELDS.search(text)
    if match is None:
        return None
    first = "], Constants: ["
    end, outputs = text.find("], Outputs: [", match.end()), "], Outputs: ["
    constants = text.find(first, match.end(), max(end, 0))
    if end < 0:
        return None
    begin = end + len(outputs)
    if text.startswith("]", begin):
        stop, rest = begin, begin + 1
    else:
        found = OUTPUTS_END.search(text, begin)
        if found is None:
            return None
        stop, rest = found.start() + 1, found.end()
    inputs = text[match.end() : end if constants < 0 else constants]
    nodes = tuple(NODE.findall(text, rest))
    return EngineLayer(text[len("Name: ") : match.start()], match["kind"], _listed(inputs), _listed(text[begin:stop]), nodes)


def _by_arrow(text: str) -> EngineLayer | None:
    """Read `Layer(K): N, Tactic: T, inputs -> outputs`."""
    match = ARROW.match(text)
    tactic = TACTIC.search(text, match.end()) if match else None
    if match is None or tactic is None:
        return None
    inputs, arrow, outputs = text[tactic.end() :].partition(" -> ")
    if not arrow:
        return None
    return EngineLayer(text[match.end() : tactic.start()], match["kind"], _bracketed(inputs), _bracketed(outputs))


def int8_convolutions(layers: Iterable[EngineLayer]) -> int:
    """Return the number of convolutions that compute in INT8."""
    return sum(layer.is_convolution and layer.is_int8 for layer in layers)


def moved_bytes_by_type(layers: Iterable[EngineLayer]) -> dict[str, int]:
    """Return the bytes of activations that the layers read and write, by type, for one image if the batch is dynamic."""
    moved: dict[str, int] = {}
    for layer in layers:
        for tensor in (*layer.inputs, *layer.outputs):
            moved[tensor.dtype] = moved.get(tensor.dtype, 0) + tensor.image_bytes
    return moved


def _listed(text: str) -> tuple[EngineTensor, ...]:
    found = []
    for piece in text.split("{ Name: ")[1:]:
        dimensions = DIMENSIONS.search(piece)
        kind = DATATYPE.search(piece, dimensions.end()) if dimensions else None
        if dimensions is not None and kind is not None:
            found.append(_tensor(piece[: dimensions.start()], kind["type"], dimensions["shape"]))
    return tuple(found)


def _bracketed(text: str) -> tuple[EngineTensor, ...]:
    found, end = [], 0
    for match in BRACKETED.finditer(text):
        words = text[end : match.start()].split()
        end = match.end()
        if words:
            found.append(_tensor(words[-1], match["type"], match["shape"]))
    return tuple(found)


def _tensor(name: str, described: str, shape: str) -> EngineTensor:
    kind = TYPE.search(described)
    sizes = [size for size in shape.split(",") if size]
    known = all(SIZE.fullmatch(size) for size in sizes)
    return EngineTensor(name, DTYPES[kind[1].lower()] if kind else "unknown", tuple(map(int, sizes)) if known else ())
