"""TensorRT's network from an ONNX file, with the parser's errors as this package's errors."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emca_deploy.artifacts import TensorSpec
from emca_deploy.backends.base import ModelIo, named_shape, shape_text
from emca_deploy.backends.boundary import Boundary, graph_facts
from emca_deploy.backends.tensorrt.log import BuildLog
from emca_deploy.backends.tensorrt.versions import Rules
from emca_deploy.errors import ModelError

__all__ = ["ParsedModel", "engine_boundary", "parse_model"]

NO_PLUGIN = "Plugin not found"
IMAGES, OUTPUTS = ("float32", "uint8"), ("float32", "int32")
MISREAD_REMEDY = "calibrate the fp32 model with --backend {backend}: symmetric int8 with zero point 0"


@dataclass(frozen=True)
class ParsedModel:
    """A parsed model.

    Attributes:
        quantized_convolutions: Number of those whose weights come from a DequantizeLinear.
        parser: TensorRT's parser, which owns the weights and so must stay alive.
    """

    network: Any
    input: TensorSpec
    convolutions: int
    quantized_convolutions: int
    parser: Any


def parse_model(trt: Any, builder: Any, logger: Any, log: BuildLog, source: tuple[Path, str, Rules], io: ModelIo) -> ParsedModel:
    """Parse an ONNX file (`source`: the file, the backend's name, its rules); the parser's warnings go through `logger` to `log`.

    Raises:
        ModelError: the parser does not accept the file or would misread its types, or the model's input or outputs do not fit.
        UnknownNameError: there is no output of the name in `io`.
    """
    path, backend, rules = source
    network = builder.create_network(_flags(trt, rules))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(path)):
        raise ModelError(f"{path}: {backend}'s parser refuses it: {_complaint(parser, log)}", _remedy(log, backend))
    if log.misreadings():
        raise ModelError(f"{path}: {backend} would misread it: {log.misreadings()[0]}", MISREAD_REMEDY.format(backend=backend))
    inputs = [_spec(trt, network.get_input(index)) for index in range(network.num_inputs)]
    outputs = [_spec(trt, network.get_output(index)) for index in range(network.num_outputs)]
    spec = engine_boundary(path, inputs, outputs, graph_facts(path, io)).native
    if any(isinstance(size, str) for size in spec.shape[1:]):
        raise ModelError(f"{path}: its images have no fixed size: {shape_text(spec.shape)}", "export it with --image-size")
    layers = (network.get_layer(index) for index in range(network.num_layers))
    convolutions = [layer for layer in layers if layer.type == trt.LayerType.CONVOLUTION]
    quantized = sum(layer.num_inputs > 1 and layer.get_input(1) is not None for layer in convolutions)
    return ParsedModel(network, spec, len(convolutions), quantized, parser)


def engine_boundary(path: Path, inputs: list[TensorSpec], outputs: list[TensorSpec], io: ModelIo) -> Boundary:
    """Return the boundary of a network whose input is float32 or uint8, and whose outputs hold 32-bit numbers.

    Raises:
        ModelError: the input or an output is something else, or no output fits a task.
        UnknownNameError: there is no output of the name in `io`.
    """
    found = Boundary.of(path, inputs, outputs, io)
    if found.native.dtype not in IMAGES:
        spec = found.native
        raise ModelError(
            f"{path}: input is {spec.dtype} {shape_text(spec.shape)}, and TensorRT takes {' or '.join(IMAGES)} here",
            "export it again with a float32 input",
        )
    other = next((spec for spec in outputs if spec.dtype not in OUTPUTS), None)
    if other is not None:
        raise ModelError(
            f"{path}: output '{other.name}' is {other.dtype}, and TensorRT returns {' or '.join(OUTPUTS)} here",
            "export it again with float32 outputs",
        )
    return found


def _flags(trt: Any, rules: Rules) -> int:
    flags = 0
    if rules.explicit_batch:
        flags |= 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)
    if rules.strong_flag:
        flags |= 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    return flags


def _complaint(parser: Any, log: BuildLog) -> str:
    """Return the parser's first error in one line, with the node it is about."""
    if not parser.num_errors:
        return log.reason()
    error = parser.get_error(0)
    name = error.node_name() if hasattr(error, "node_name") else ""  # TensorRT 8 has only the node's number
    kind = error.node_operator() if hasattr(error, "node_operator") else ""
    node = f"node '{name}' ({kind})" if name else f"node number {error.node()} {kind}".rstrip()
    if NO_PLUGIN in error.desc():
        return f"{node}: the operator is unknown, and no plugin for it is registered"
    return f"{node}: {' '.join(error.desc().split())[:240]}"


def _remedy(log: BuildLog, backend: str) -> str:
    if log.misreadings() or any("zero" in text.lower() or "DequantizeLinear" in text for text in log.errors):
        return MISREAD_REMEDY.format(backend=backend)
    if any(NO_PLUGIN in text for text in log.errors):
        return "export it with ONNX's own operators only: plugins are not loaded"
    return "check it with onnx.checker, or export it again"


def _spec(trt: Any, tensor: Any) -> TensorSpec:
    try:
        dtype = np.dtype(trt.nptype(tensor.dtype)).name
    except TypeError:  # numpy has no such type
        dtype = str(tensor.dtype).rpartition(".")[2].lower()
    return TensorSpec(tensor.name, dtype, named_shape(map(int, tensor.shape)))
