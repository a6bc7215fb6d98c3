"""The facts of an ONNX file that TensorRT depends on: its types, its Q/DQ nodes, and nodes that TensorRT or a DLA refuses."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emca_deploy.artifacts import Precision, TensorSpec, read_manifest
from emca_deploy.errors import ModelError
from emca_deploy.multiply_adds import known_shapes, proto_multiply_adds
from emca_deploy.onnx_file.file import OnnxFile

if TYPE_CHECKING:
    import onnx

__all__ = ["ModelFacts", "count_convolutions", "half_refusal", "node_macs", "qdq_refusal", "read_facts"]

QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
OFF_DLA = ("GlobalAveragePool", "ReduceMean")


@dataclass(frozen=True)
class ModelFacts:
    """The facts of an ONNX model that a plan depends on.

    Attributes:
        precision: "int8" for a model with Q/DQ nodes, else the precision of most weights.
        input: Image batch; a dynamic dimension has a name.
        uint8: Names of the Q/DQ nodes whose zero point is uint8, as the default one is.
        asymmetric: Names of the Q/DQ nodes with a zero point other than 0.
        int32: Names of the DequantizeLinear nodes of INT32 values, which are biases.
        off_dla: Number of global poolings, which are not offered to a DLA.
        half_scales: Whether Q/DQ nodes have fp16 scales, which makes the float part fp16.
        selections: Number of TopK nodes, with which a detector selects boxes.
        export_options: Options of `export` for the form of a detector, as its manifest has them.
    """

    path: Path
    precision: Precision
    opset: int
    input: TensorSpec
    uint8: tuple[str, ...] = ()
    asymmetric: tuple[str, ...] = ()
    int32: tuple[str, ...] = ()
    off_dla: int = 0
    half_scales: bool = False
    selections: int = 0
    export_options: tuple[str, ...] = ()

    @property
    def dynamic(self) -> bool:
        """Whether the batch is dynamic."""
        return isinstance(self.input.shape[0], str)


def qdq_refusal(path: Path, other: str) -> ModelError:
    """Return the error for a model with Q/DQ together with `other`, a DLA or a calibration cache, which excludes it."""
    return ModelError(f"{path}: has Q/DQ, which cannot be used with {other}", "name the fp32 model it was made from")


def half_refusal(path: Path) -> ModelError:
    """Return the error for a model with fp16 Q/DQ where builder flags choose the types."""
    return ModelError(
        f"{path}: its Q/DQ is fp16, which needs a strongly typed network: TensorRT 10 or newer",
        "calibrate it with --float-precision fp32",
    )


def read_facts(path: Path) -> ModelFacts:
    """Read the facts of an ONNX file.

    Raises:
        ModelError: it cannot be read, is not ONNX, or has other inputs than one batch of images of a fixed size.
    """
    import onnx

    file = OnnxFile.open(path)
    model = file.proto
    constants = dict(_constants(model.graph))
    quantizers = [node for node in model.graph.node if node.op_type in QUANTIZERS]
    scales = [constants.get(node.input[1]) for node in quantizers]
    uint8, asymmetric, int32 = _zero_points(quantizers, constants)
    return ModelFacts(
        path,
        "int8" if quantizers else _float_precision(model.graph.initializer),
        file.opset,
        _input(path, model.graph),
        uint8,
        asymmetric,
        int32,
        sum(node.op_type in OFF_DLA for node in model.graph.node),
        any(scale is not None and scale.data_type == onnx.TensorProto.FLOAT16 for scale in scales),
        sum(node.op_type == "TopK" for node in model.graph.node),
        _export_options(path),
    )


def _export_options(path: Path) -> tuple[str, ...]:
    manifest = read_manifest(path, verify=False)
    detector = manifest.details.get("detector") if manifest is not None else None
    if not isinstance(detector, dict):
        return ()
    dense = ("--part", "dense") if detector.get("part") == "dense" else ()
    return (*dense, "--roi", "gridsample") if detector.get("roi") == "gridsample" else dense


def count_convolutions(path: Path) -> tuple[int, int]:
    """Return the number of convolutions of an ONNX file, and of those whose weights come from a DequantizeLinear."""
    nodes = OnnxFile.open(path).graph.node
    dequantized = {node.output[0] for node in nodes if node.op_type == "DequantizeLinear"}
    convolutions = [node for node in nodes if node.op_type == "Conv"]
    return len(convolutions), sum(node.input[1] in dequantized for node in convolutions)


def _constants(graph: "onnx.GraphProto") -> Iterator[tuple[str, Any]]:
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for node in graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    yield node.output[0], attribute.t


def _float_precision(weights: Iterable["onnx.TensorProto"]) -> Precision:
    import onnx

    counts = {"fp16": 0, "fp32": 0}
    for tensor in weights:
        if len(tensor.dims) > 1:
            counts["fp16" if tensor.data_type == onnx.TensorProto.FLOAT16 else "fp32"] += 1
    return "fp16" if counts["fp16"] > counts["fp32"] else "fp32"


def _zero_points(nodes: Iterable["onnx.NodeProto"], constants: dict[str, Any]) -> tuple[tuple[str, ...], ...]:
    """Return the names of the nodes with uint8 zero points, with zero points other than 0, and with INT32 values."""
    import onnx

    uint8, asymmetric, int32 = [], [], []
    for node in nodes:
        name = node.name or node.output[0]
        value = constants.get(node.input[0])
        if value is not None and value.data_type == onnx.TensorProto.INT32:
            int32.append(name)
            continue
        zero = constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        if zero is None:
            typed = any(attribute.name == "output_dtype" and attribute.i for attribute in node.attribute)
            if node.op_type == "QuantizeLinear" and len(node.input) < 3 and not typed:
                uint8.append(name)
        elif zero.data_type == onnx.TensorProto.UINT8:
            uint8.append(name)
        elif zero.data_location != onnx.TensorProto.EXTERNAL and onnx.numpy_helper.to_array(zero).any():
            asymmetric.append(name)
    return tuple(uint8), tuple(asymmetric), tuple(int32)


def _input(path: Path, graph: "onnx.GraphProto") -> TensorSpec:
    import onnx

    stored = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in stored]
    remedy = "use an image classifier: one input (N, C, H, W)"
    if len(inputs) != 1:
        raise ModelError(f"{path}: has {len(inputs)} inputs, not one", remedy)
    kind = inputs[0].type.tensor_type
    shape: list[int | str] = [
        size.dim_value if size.HasField("dim_value") else (size.dim_param or f"dim{index}")
        for index, size in enumerate(kind.shape.dim)
    ]
    if len(shape) != 4 or any(isinstance(size, str) for size in shape[1:]):
        found = ", ".join(map(str, shape))
        raise ModelError(f"{path}: its input '{inputs[0].name}' is ({found}), not (N, C, H, W) of a fixed size", remedy)
    return TensorSpec(inputs[0].name, onnx.TensorProto.DataType.Name(kind.elem_type).lower(), tuple(shape))


def node_macs(path: Path) -> tuple[tuple[str, ...], dict[str, int]]:
    """Return the names of a model's nodes in topological order, and the multiply-adds for one image of those that have any.

    A node without a name gets that of its first output, as in TensorRT's parser. Products of unknown shapes are left out.

    Raises:
        ModelError: the model cannot be read.
    """
    import onnx

    model = OnnxFile.open(path).proto
    try:
        inferred = onnx.shape_inference.infer_shapes(model)
    except onnx.shape_inference.InferenceError as exc:
        raise ModelError(f"{path}: is not an ONNX file, or is damaged", "export or copy the model again") from exc
    shapes = known_shapes(inferred.graph)
    stored = {tensor.name for tensor in inferred.graph.initializer}
    batch = next((shapes[value.name][0] for value in inferred.graph.input if value.name not in stored), 1)
    names = tuple(node.name or node.output[0] for node in model.graph.node)
    counts = {name: proto_multiply_adds(node, shapes) for name, node in zip(names, model.graph.node, strict=True)}
    return names, {name: count // batch for name, count in counts.items() if count}
