"""The recipe of OpenVINO."""

from emca_deploy.calibration.placement.recipe import Recipe
from emca_deploy.calibration.rewrites.aggregation import add_scales, broadcast_repeats
from emca_deploy.calibration.rewrites.deviations import add_deviations
from emca_deploy.calibration.rewrites.functions import clip_hard_sigmoids, split_poolings
from emca_deploy.calibration.rewrites.shortcuts import free_shortcuts

__all__ = ["RECIPE"]

# The oneDNN kernels read uint8 and fuse the operators after a convolution in float: only the inputs of operators that move much
# memory need INT8. Poolings that read INT8 move a quarter of the bytes. In OpenVINO 2026.4 a convolution is wrong, by 25 dB
# where its bias is zero, if one reader of its output reads INT8 and another float (SRM's deviations from the mean).
# The kernel that multiplies by the gate is faster without a zero point: that saves 5 of the 8 percentage points of latency that
# scaling adds to an eca_resnet50.
RECIPE = Recipe(
    "openvino",
    False,
    False,
    frozenset({"AttentionPool", "Gate", "MaxPool"}),
    "both",
    every_reader=True,
    symmetric_gate=True,
    on_cpu=True,
    rewrites=(clip_hard_sigmoids, free_shortcuts, split_poolings, add_deviations, add_scales, broadcast_repeats),
)
