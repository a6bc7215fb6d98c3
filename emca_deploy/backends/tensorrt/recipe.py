"""The recipes of TensorRT and TensorRT-RTX, and the check of what they compute in INT8 in any model."""

from dataclasses import replace

import onnx_ir as ir

from emca_deploy.calibration.explaining.explainer import Explainer, QdqPair, pair_of
from emca_deploy.calibration.placement.recipe import Recipe
from emca_deploy.exporting.half_layers import HEAVY_WEIGHTS

__all__ = ["TENSORRT", "TENSORRT_RTX", "TrtExplainer"]

FEWEST_CHANNELS = 16
"""The first convolution reads three channels, which INT8 kernels pad to many; in float it needs no extra kernel, and the image is
not rounded to seven bits. NVIDIA's Model Optimizer has the same limit of 16 channels (benchmarks/LOG.md)."""


class TrtExplainer(Explainer):
    """Explains TensorRT, which accepts only symmetric int8, and no INT32 biases."""

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


# TensorRT fuses Conv+Add+ReLU into one INT8 kernel where the convolution's operand is float and the other INT8. A reader of the
# kernel's result in float, such as the last global pooling, keeps the kernel from returning INT8, as NVIDIA's engines show
# (benchmarks/LOG.md).
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

# TensorRT-RTX 1.7 never fuses the Add into INT8 convolutions: identity operands in INT8 save memory traffic where another
# operator reads them in INT8 anyway, and a shortcut convolution's result in INT8 only loses accuracy (benchmarks/LOG.md).
# Float products can read INT8 weights: se_resnet50's engine is 15 % smaller then, with as many kernels.
TENSORRT_RTX = replace(TENSORRT, backend="tensorrt-rtx", readers=frozenset(), residual="none", fewest_stored=HEAVY_WEIGHTS)
