"""Measures the error of fp16 logits, and the error that rounding explains.

The CPU runtimes do not compute an fp16 model in fp16: on x86-64 ONNX Runtime has no fp16 convolutions and keeps everything
between them in float32 too, and OpenVINO converts the model to float32. Therefore the model is run *emulated*: operators compute
in float32, like the accumulators of GPUs, and each result that is fp16 in the model is rounded to fp16, infinities included. GPUs
round less often, because they fuse operators.
"""

import math

import numpy as np
import onnx_ir as ir

from emca_deploy.arrays import Float32Array
from emca_deploy.exporting.parity import Parity, gated_parity, run_onnx

__all__ = ["HALF_ROUNDOFF", "check_half", "emulated", "half_tolerance", "peaks_and_outputs", "roundings"]

HALF_ROUNDOFF = 2.0**-11
"""Largest relative error of rounding a number above 2**-14 to the nearest fp16 number."""

FAILURE = 1e-3
"""Probability that a sound conversion is refused, by the estimate of `half_tolerance`."""

EXACT = frozenset({"Relu", "MaxPool", "Reshape", "Flatten", "Squeeze", "Transpose", "Concat", "Slice", "Identity"})
"""Operators that return numbers of their inputs, which need no further rounding."""

FLOAT, HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16


def roundings(graph: ir.Graph) -> int:
    """Return the most roundings to fp16 on a path from input to output: one per inexact result, one per fp16 weight."""
    depth: dict[ir.Value, int] = {}
    for node in graph:
        before = max((depth.get(value, 0) for value in node.inputs if value is not None), default=0)
        weights = any(value is not None and value.const_value is not None and value.dtype == HALF for value in node.inputs)
        for value in node.outputs:
            own = value.dtype == HALF and node.op_type not in EXACT
            depth[value] = before + own + weights
    return max((depth.get(value, 0) for value in graph.outputs), default=0)


def half_tolerance(count: int, logits: int) -> float:
    """Return the largest expected error of a logit, relative to the largest logit.

    `count` successive roundings, each by at most u = 2**-11, independent and with mean zero, have a total error of at most
    lambda * sqrt(count) * u, to first order, with probability 1 - 2 exp(-lambda**2 (1 - u)**2 / 2): Higham and Mary, "A new
    approach to probabilistic rounding error analysis", SIAM J. Sci. Comput. 41(5), 2019, theorem 2.4. lambda is chosen such that
    the probability of a larger error in any of the `logits` compared is 0.001.

    This is an estimate, not a bound: a layer is assumed to pass on a relative error without enlarging it. Networks stay far below
    it, because errors average over the sums of a layer, and a shortcut has fewer roundings than its branch.
    """
    factor = math.sqrt(2 * math.log(2 * max(logits, 1) / FAILURE)) / (1 - HALF_ROUNDOFF)
    return math.expm1(factor * math.sqrt(count) * HALF_ROUNDOFF + count * HALF_ROUNDOFF**2 / (1 - HALF_ROUNDOFF))


def emulated(model: ir.Model) -> ir.Model:
    """Return a model that computes in float32 on any runtime, and rounds to fp16 what is fp16 in a converted `model`."""
    twin = ir.from_proto(ir.to_proto(model))
    graph = twin.graph
    for value in graph.initializers.values():
        if value.dtype == HALF and value.const_value is not None:
            value.const_value = ir.tensor(value.const_value.numpy().astype(np.float32), name=value.name)
            value.type = ir.TensorType(FLOAT)
    for node in list(graph):
        if node.op_type == "Cast" and node.attributes.get_int("to") == int(HALF):
            node.attributes["to"] = ir.AttrInt64("to", int(FLOAT))
        for value in node.outputs:
            if value.dtype == HALF:
                value.type = ir.TensorType(FLOAT)
                _round(graph, node, value)
    return twin


def _round(graph: ir.Graph, node: ir.Node, value: ir.Value) -> None:
    """Round a float32 value to fp16 for all its readers."""
    uses = list(value.uses())
    down = ir.node("Cast", [value], attributes={"to": int(HALF)}, name=f"{value.name}.rounding")
    up = ir.node("Cast", [down.outputs[0]], attributes={"to": int(FLOAT)}, name=f"{value.name}.rounded")
    for step, dtype in ((down, HALF), (up, FLOAT)):
        step.outputs[0].name, step.outputs[0].type = step.name, ir.TensorType(dtype)
    graph.insert_after(node, [down, up])
    for use in uses:
        use.node.replace_input_with(use.idx, up.outputs[0])


def peaks_and_outputs(model: ir.Model, images: Float32Array) -> tuple[dict[str, float], dict[str, Float32Array]]:
    """Run an fp32 model on images (N, 3, H, W); return each activation's largest absolute value and each output, by name.

    Raises:
        ModelError: ONNX Runtime does not run it.
    """
    twin = ir.from_proto(ir.to_proto(model))
    graph = twin.graph
    own = [str(value.name) for value in graph.outputs]
    values = [value for node in graph for value in node.outputs if value.dtype == FLOAT]
    for value in values:
        size = ir.node("Abs", [value])
        peak = ir.node("ReduceMax", [size.outputs[0]], attributes={"keepdims": 0})
        for step, suffix in ((size, "size"), (peak, "peak")):
            step.name = step.outputs[0].name = f"{value.name}.{suffix}"
            step.outputs[0].type = ir.TensorType(FLOAT)
        graph.extend([size, peak])
        graph.outputs.append(peak.outputs[0])
    found = run_onnx(ir.to_proto(twin).SerializeToString(), images)
    outputs = [output[: len(images)] for output in found[: len(own)]]
    peaks = {str(value.name): float(peak.max()) for value, peak in zip(values, found[len(own) :], strict=True)}
    return peaks, dict(zip(own, outputs, strict=True))


def check_half(model: ir.Model, images: Float32Array, expected: Float32Array, gate: float | None = None) -> tuple[Parity, float]:
    """Run a converted model emulated on images (N, 3, S, S) float32 and compare its logits with fp32 ones, (N, classes).

    Returns the parity, and the gate: the largest relative error allowed, by default `half_tolerance`.

    Raises:
        GateError: the error is larger, or not a number.
        ModelError: ONNX Runtime refuses the model.
    """
    gate = half_tolerance(roundings(model.graph), expected.size) if gate is None else gate
    logits = run_onnx(ir.to_proto(emulated(model)).SerializeToString(), images)[0]
    remedy = "use --precision fp32; if the weights are a trained network's, report the architecture and versions"
    return gated_parity(expected, logits, gate, "the fp16 logits differ from the fp32 ones", remedy), gate
