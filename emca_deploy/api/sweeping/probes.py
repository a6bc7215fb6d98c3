"""Probes: small networks that show how fast a backend computes convolutions of each kind and moves data on this machine."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from emca_deploy.api.calibrate import CalibrateRequest, calibrate
from emca_deploy.api.profile import profile
from emca_deploy.arrays import Float64Array
from emca_deploy.artifacts import write_json
from emca_deploy.atomic import atomic_write
from emca_deploy.multiply_adds import WEIGHT_INPUT, known_shapes, proto_multiply_adds
from emca_deploy.onnx_file.file import OnnxFile
from emca_deploy.onnx_file.refusal import graph_errors
from emca_deploy.requests import ProfileRequest

__all__ = ["FEATURES", "Runtime", "features_of", "fit_costs", "probe_costs", "write_probes"]

FEATURES = ("large maps", "small maps", "pointwise", "grouped", "weights", "elements", "nodes")
"""What the time of a call is a sum of: multiply-adds of convolutions and products by kind, elements of weights, elements that
nodes read and write, and the number of nodes."""

LARGE_MAP = 400
"""Pixels of a map from which a convolution counts as one on large maps."""

PROBE_S, WARMUP_S = 0.4, 0.2
_PASSES = 2000
_KINDS = {"Constant", "Identity", "Reshape", "Flatten", "Shape"}
"""Operators that take no time."""


@dataclass(frozen=True)
class Runtime:
    """What the costs belong to: a backend, a precision and a number of threads on this machine."""

    backend: str
    precision: str
    threads: int | None


@dataclass(frozen=True)
class _Probe:
    """A chain of equal layers: their kernel size, channels, groups, the side of their maps, and their number."""

    kernel: int
    channels: int
    groups: int
    side: int
    layers: int

    @property
    def name(self) -> str:
        return f"{self.kernel}x{self.kernel}-{self.channels}-{self.groups}-{self.side}-{self.layers}.onnx"


_PROBES = (
    _Probe(3, 32, 1, 56, 6),
    _Probe(3, 64, 1, 32, 6),
    _Probe(3, 128, 1, 28, 3),
    _Probe(3, 256, 1, 14, 3),
    _Probe(3, 512, 1, 7, 2),
    _Probe(3, 64, 1, 8, 12),
    _Probe(1, 256, 1, 28, 6),
    _Probe(1, 512, 1, 7, 8),
    _Probe(3, 128, 128, 28, 6),
    _Probe(0, 64, 1, 56, 12),
)


def features_of(path: Path, batch: int, size: tuple[int, int] | None = None) -> Float64Array:
    """Return the features of a model as float64 (7,), in the order of `FEATURES`.

    Args:
        path: fp32 .onnx file.
        batch: images per call.
        size: height and width of the images in pixels; None takes the file's.

    Raises:
        ModelError: the model cannot be read, or its shapes cannot be inferred.
    """
    import onnx

    model = OnnxFile.open(path).load_proto()
    dims = model.graph.input[0].type.tensor_type.shape.dim
    for index, value in enumerate((batch, None, *(size or (None, None)))):
        if value is not None and index < len(dims):
            dims[index].Clear()
            dims[index].dim_value = value
    del model.graph.value_info[:]
    with graph_errors(path):
        inferred = onnx.shape_inference.infer_shapes(model)
    shapes = known_shapes(inferred.graph)
    found = np.zeros(len(FEATURES))
    for node in inferred.graph.node:
        if node.op_type not in _KINDS:
            found += _node_features(node, shapes)
    return found


def _node_features(node: Any, shapes: Mapping[str, Any]) -> Float64Array:
    found = np.zeros(len(FEATURES))
    weight = shapes.get(node.input[WEIGHT_INPUT[node.op_type]], ()) if node.op_type in WEIGHT_INPUT else ()
    output = shapes.get(node.output[0], ())
    moved = sum(prod(shapes.get(name, (0,))) for name in (node.input[0], node.output[0]) if name)
    macs = proto_multiply_adds(node, shapes)
    if macs:
        found[_kind(node, weight, output)] = macs
        found[4] = prod(weight)
    found[5], found[6] = moved, 1
    return found


def _kind(node: Any, weight: Any, output: Any) -> int:
    groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
    if groups > 1:
        return 3
    if len(weight) < 4 or prod(weight[2:]) == 1:
        return 2
    return 0 if prod(output[2:]) >= LARGE_MAP else 1


def write_probes(folder: Path) -> list[Path]:
    """Write the probes into a folder unless it has them, and return their files."""
    import onnx

    folder.mkdir(exist_ok=True)
    for probe in _PROBES:
        path = folder / probe.name
        if not path.exists():
            with atomic_write(path) as temporary:
                onnx.save(_network(probe), temporary)
    return [folder / probe.name for probe in _PROBES]


def _network(probe: _Probe) -> Any:
    from onnx import TensorProto, helper, numpy_helper

    random, stored, nodes, last = np.random.default_rng(0), [], [], "input"

    def layer(name: str, op: str, *inputs: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, list(inputs), [name], name, **attributes))
        return name

    def weights(name: str, *shape: int) -> str:
        values = random.standard_normal(shape) / max(prod(shape[1:]), 1) ** 0.5
        stored.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    last = layer("stem", "Conv", last, weights("stem.w", probe.channels, 3, 1, 1))
    for index in range(probe.layers):
        if probe.kernel:
            shape = (probe.channels, probe.channels // probe.groups, probe.kernel, probe.kernel)
            pads = [probe.kernel // 2] * 4
            made = layer(f"c{index}", "Conv", last, weights(f"w{index}", *shape), group=probe.groups, pads=pads)
            last = layer(f"r{index}", "Relu", made)
        else:
            last = (
                layer(f"m{index}", "MaxPool", last, kernel_shape=[3, 3], pads=[1] * 4)
                if index % 3 == 0
                else layer(f"a{index}", "Add", last, "stem")
            )
    flat = layer("flat", "Flatten", layer("pool", "GlobalAveragePool", last))
    layer("logits", "Gemm", flat, weights("head.w", 10, probe.channels), transB=1)
    image = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, probe.side, probe.side])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])
    graph = helper.make_graph(nodes, "probe", [image], [logits], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def probe_costs(runtime: Runtime, folder: Path) -> Float64Array:
    """Measure the probes in some seconds unless the folder has their latencies; return the cost in ms of a unit of each feature.

    Raises:
        EmcaError: a probe cannot be quantized or run on this backend.
    """
    kept = folder / f"{runtime.backend}-{runtime.precision}-{runtime.threads}.json"
    plain = write_probes(folder)
    try:
        ms = [float(value) for value in json.loads(kept.read_text(encoding="utf-8"))["min_ms"]]
    except (OSError, ValueError, KeyError, TypeError):
        ms = []
    if len(ms) != len(plain):
        files = [_int8(path, runtime.backend) for path in plain] if runtime.precision == "int8" else plain
        request = ProfileRequest(
            tuple(map(str, files)),
            (runtime.backend,),
            threads=runtime.threads,
            precision="bf16" if runtime.precision == "bf16" else "f32",
            duration_s=PROBE_S,
            max_duration_s=PROBE_S,
            processes=1,
            warmup_s=WARMUP_S,
            telemetry=False,
            untuned=True,
        )
        report = profile(request)
        if not report.complete or len(report.results) != len(plain):
            raise KeyboardInterrupt
        ms = [result.latency_ms.min for result in report.results]
        write_json(kept, {"min_ms": ms})
    return fit_costs(np.array([features_of(path, 1) for path in plain]), np.array(ms))


def _int8(path: Path, backend: str) -> Path:
    output = path.with_name(f"{path.stem}.{backend}.int8.onnx")
    if not output.exists():
        side = int(path.stem.split("-")[3])
        data = path.with_suffix(".npz")
        with atomic_write(data) as temporary:
            np.savez(temporary, images=np.random.default_rng(0).standard_normal((2, 3, side, side)).astype(np.float32))
        calibrate(CalibrateRequest(path, data, output, backend, method="minmax", recover="none", samples=2))
    return output


def fit_costs(features: Float64Array, ms: Float64Array) -> Float64Array:
    """Return non-negative costs (F,) whose sums are nearest to the latencies, in relative terms.

    Args:
        features: (P, F), one row for each probe.
        ms: (P,) latencies in ms.
    """
    rows = features / ms[:, None]
    scale = np.maximum(rows.max(axis=0), 1e-12)
    rows = rows / scale
    gram, right = rows.T @ rows + 1e-6 * np.eye(rows.shape[1]), rows.sum(axis=0)
    costs = np.zeros(rows.shape[1])
    for _ in range(_PASSES):  # coordinate descent, which converges for a convex function with bounds
        for index in range(len(costs)):
            step = (right[index] - gram[index] @ costs) / gram[index, index]
            costs[index] = max(0.0, costs[index] + step)
    found: Float64Array = costs / scale
    return found
