"""Computing scales, zero points and integers from ranges and weights, by the formulas of ONNX's QuantizeLinear."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from emca_deploy.arrays import Float32Array
from emca_deploy.calibration.ranges.observers import TensorRange

__all__ = [
    "LARGEST_WEIGHT", "QuantParams", "QuantizedWeight", "activation_params", "quantize_bias", "quantize_weight",
    "raise_scales_for_bias",
]  # fmt: skip

SMALLEST_SCALE = 1e-12
"""Scale below which 1 / scale overflows single precision in some kernels; a tensor that small counts as zero."""

LARGEST_WEIGHT = {8: 127, 7: 64}
"""Bits, and the largest magnitude of a weight. With 7, two products of uint8 and weight add up to at most 255 * 64 * 2 = 32,640,
which fits in 16 bits: processors without VNNI add such pairs in 16 bits and saturate."""

LARGEST_BIAS = 2**30
"""Largest magnitude of an INT32 bias: half the range, which leaves the other half to the products."""

QuantizedWeight = tuple[npt.NDArray[np.int8], Float32Array]
"""A layer's integers in the layout of its weights, and one scale for each output channel."""


@dataclass(frozen=True)
class QuantParams:
    """Parameters of real = (q - zero_point) * scale, where q is uint8, or int8 if signed."""

    scale: float
    zero_point: int
    signed: bool


def activation_params(values: TensorRange, *, symmetric: bool) -> QuantParams:
    """Return a tensor's scale and zero point.

    Symmetric is int8 in [-127, 127] with zero point 0, asymmetric uint8 in [0, 255]. Zero is exactly representable, as padding
    and ReLU need it. A tensor that is always zero gets scale 1.
    """
    if symmetric:
        scale = values.magnitude / 127
        return QuantParams(scale if scale > SMALLEST_SCALE else 1.0, 0, True)
    low, high = min(values.minimum, 0.0), max(values.maximum, 0.0)
    scale = float(np.float32((high - low) / 255))
    if scale <= SMALLEST_SCALE:
        return QuantParams(1.0, 0, False)
    return QuantParams(scale, int(np.clip(round(-low / scale), 0, 255)), False)


def quantize_weight(weight: Float32Array, axis: int, largest: int = 127) -> QuantizedWeight:
    """Quantize weights symmetrically to [-largest, largest], one scale for each index of `axis`, 1 for a channel of zeros."""
    axes = tuple(i for i in range(weight.ndim) if i != axis)
    scales = (np.abs(weight).max(axis=axes) / largest).astype(np.float32)
    scales[scales <= SMALLEST_SCALE] = 1.0
    return quantize_with(weight, scales, axis, largest), scales


def quantize_with(weight: Float32Array, scales: Float32Array, axis: int, largest: int = 127) -> npt.NDArray[np.int8]:
    """Quantize weights with given scales along `axis`."""
    shape = [1] * weight.ndim
    shape[axis] = -1
    quantized: npt.NDArray[np.int8] = np.clip(np.rint(weight / scales.reshape(shape)), -largest, largest).astype(np.int8)
    return quantized


def raise_scales_for_bias(scales: Float32Array, bias: Float32Array, input_scale: float) -> Float32Array:
    """Return weight scales that are large enough for every bias to fit INT32 at scale input_scale * weight_scale.

    A channel with tiny weights and a normal bias, such as a dead channel after folding batch norm, would overflow.
    """
    return np.maximum(scales, np.abs(bias) / (input_scale * LARGEST_BIAS)).astype(np.float32)


def quantize_bias(
    bias: Float32Array, weight_scales: Float32Array, input_scale: float
) -> tuple[npt.NDArray[np.int32], Float32Array]:
    """Return a bias in INT32 at the accumulator's scale, and its float32 scales for each channel."""
    scales = (weight_scales.astype(np.float64) * input_scale).astype(np.float32)
    return np.rint(bias.astype(np.float64) / scales).astype(np.int32), scales
