"""What OpenVINO wants quantized."""

from emca_deploy.calibration.placement.recipe import Recipe
from emca_deploy.calibration.rewrites.aggregation import add_scales, broadcast_repeats
from emca_deploy.calibration.rewrites.functions import clip_hard_sigmoids, split_poolings
from emca_deploy.calibration.rewrites.shortcuts import free_shortcuts

__all__ = ["RECIPE"]

# The oneDNN kernels take u8 input and fuse what follows a convolution in float, so INT8 at the inputs of what moves much memory
# is enough. Poolings that read INT8 move a quarter of it. A convolution whose output one operator reads in INT8 and another in
# float (SRM's deviations from the mean) comes out wrong in OpenVINO 2026.4, by 25 dB where its bias is zero.
# Its kernel for the gate multiplies faster without a zero point: of the 8 points that scaling costs an eca_resnet50 over the
# plain network, 5 (docs/placement.md).
RECIPE = Recipe(
    "openvino",
    False,
    False,
    frozenset({"AttentionPool", "Gate", "MaxPool"}),
    "both",
    every_reader=True,
    symmetric_gate=True,
    on_cpu=True,
    rewrites=(clip_hard_sigmoids, free_shortcuts, split_poolings, add_scales, broadcast_repeats),
)
