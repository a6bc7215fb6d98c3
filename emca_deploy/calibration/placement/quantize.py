"""From ranges and weights to scales and zero points. Pure numpy; every formula is ONNX's QuantizeLinear's."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from emca_deploy.calibration.ranges.observers import TensorRange

__all__ = [
    "LARGEST_WEIGHT", "QuantParams", "QuantizedWeight", "activation_params", "quantize_bias", "quantize_weight",
    "raise_scales_for_bias",
]  # fmt: skip

SMALLEST_SCALE = 1e-12
"""Below it 1 / scale overflows single precision in some kernels; a tensor that small is zero for any purpose."""

LARGEST_WEIGHT = {8: 127, 7: 64}
"""Bits -> largest magnitude of a weight. With 7, two products of uint8 and weight add up to 255 * 64 * 2 = 32,640 at most, which
16 bits hold: processors without VNNI add such pairs in 16 bits and saturate."""

LARGEST_BIAS = 2**30
"""Largest magnitude of an INT32 bias: half the range, so that the accumulator has as much left."""


QuantizedWeight = tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]
"""A layer's integers, laid out as its weights, and one scale for each output channel."""


@dataclass(frozen=True)
class QuantParams:
    """How a tensor is quantized: real = (q - zero_point) * scale, q of uint8 or int8."""

    scale: float
    zero_point: int
    signed: bool


def activation_params(values: TensorRange, *, symmetric: bool) -> QuantParams:
    """Return a tensor's scale and zero point.

    Symmetric is int8 in [-127, 127] with zero point 0, asymmetric uint8 in [0, 255]. Zero is always exactly representable
    (padding and ReLU need it). A tensor that is always zero gets scale 1.
    """
    low, high = min(values.minimum, 0.0), max(values.maximum, 0.0)
    if symmetric:
        scale = values.magnitude / 127
        return QuantParams(scale if scale > SMALLEST_SCALE else 1.0, 0, True)
    scale = float(np.float32((high - low) / 255))
    if scale <= SMALLEST_SCALE:
        return QuantParams(1.0, 0, False)
    return QuantParams(scale, int(np.clip(round(-low / scale), 0, 255)), False)


def quantize_weight(weight: npt.NDArray[np.float32], axis: int, largest: int = 127) -> QuantizedWeight:
    """Quantize weights symmetrically to [-largest, largest], one scale for each index of `axis`; 1 for a channel of zeros."""
    axes = tuple(i for i in range(weight.ndim) if i != axis)
    scales = (np.abs(weight).max(axis=axes) / largest).astype(np.float32)
    scales[scales <= SMALLEST_SCALE] = 1.0
    return quantize_with(weight, scales, axis, largest), scales


def quantize_with(
    weight: npt.NDArray[np.float32], scales: npt.NDArray[np.float32], axis: int, largest: int = 127
) -> npt.NDArray[np.int8]:
    """Quantize weights with given scales along `axis`."""
    shape = [1] * weight.ndim
    shape[axis] = -1
    quantized: npt.NDArray[np.int8] = np.clip(np.rint(weight / scales.reshape(shape)), -largest, largest).astype(np.int8)
    return quantized


def raise_scales_for_bias(
    scales: npt.NDArray[np.float32], bias: npt.NDArray[np.float32], input_scale: float
) -> npt.NDArray[np.float32]:
    """Return weight scales large enough that every bias fits INT32 at scale input_scale * weight_scale.

    A channel with tiny weights and a normal bias (a dead channel after folding batch norm) would overflow otherwise.
    """
    return np.maximum(scales, np.abs(bias) / (input_scale * LARGEST_BIAS)).astype(np.float32)


def quantize_bias(
    bias: npt.NDArray[np.float32], weight_scales: npt.NDArray[np.float32], input_scale: float
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Quantize a bias to INT32 at the accumulator's scale; returns it and its float32 scales, per channel."""
    scales = (weight_scales.astype(np.float64) * input_scale).astype(np.float32)
    return np.rint(bias.astype(np.float64) / scales).astype(np.int32), scales
