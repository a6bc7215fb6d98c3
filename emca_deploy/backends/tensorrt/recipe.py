"""What TensorRT and TensorRT-RTX want quantized, and what they compute in INT8 of anybody's model."""

import onnx_ir as ir

from emca_deploy.calibration.explaining.explainer import Explainer, QdqPair, pair_of
from emca_deploy.calibration.placement.recipe import Recipe
from emca_deploy.exporting.half_layers import HEAVY_WEIGHTS

__all__ = ["TENSORRT", "TENSORRT_RTX", "TrtExplainer"]

FEWEST_CHANNELS = 16
"""The first convolution reads three channels, which INT8 kernels pad to many; left in float it costs no kernel more and saves the
image its seven bits (benchmarks/LOG.md). Model Optimizer draws the line at 16 channels, too."""


class TrtExplainer(Explainer):
    """TensorRT takes symmetric int8 only, and no INT32 biases."""

    def fits(self, node: ir.Node, weight: QdqPair) -> bool:
        """Return whether there is an INT8 kernel for a layer whose operands are quantized to 8 bits."""
        activation = pair_of(node.inputs[0])
        bias = pair_of(node.inputs[2]) if len(node.inputs) > 2 else None
        if bias is not None:
            self.tell("integer_bias", node)
        if weight.dtype == ir.DataType.UINT8 or weight.zero_points.any():
            return self.tell("asymmetric_weights", node)
        if activation is not None and (activation.dtype == ir.DataType.UINT8 or activation.zero_points.any()):
            return self.tell("asymmetric_activations", node)
        return bias is None


# TensorRT fuses Conv+Add+ReLU into one INT8 kernel where the convolution's operand is float and the other INT8. Whoever reads
# such a kernel's result in float keeps it from returning INT8, the last global pooling too: NVIDIA's own inspected engines show
# that (benchmarks/LOG.md).
TENSORRT = Recipe(
    "tensorrt",
    True,
    False,
    frozenset({"GlobalAveragePool"}),
    "identity",
    every_reader=True,
    fewest_channels=FEWEST_CHANNELS,
    explainer=TrtExplainer,
    half_float_part=True,
)

# TensorRT-RTX 1.7 leaves the Add out of INT8 convolutions whatever its operands: identity operands that something reads in INT8
# anyway save memory traffic, a shortcut convolution's result only loses accuracy (benchmarks/LOG.md).
# It reads INT8 weights within a float product: se_resnet50's engine gets 15% smaller, for no kernel more.
TENSORRT_RTX = Recipe(
    "tensorrt-rtx",
    True,
    False,
    frozenset(),
    "none",
    every_reader=True,
    fewest_channels=FEWEST_CHANNELS,
    fewest_stored=HEAVY_WEIGHTS,
    explainer=TrtExplainer,
    half_float_part=True,
)
