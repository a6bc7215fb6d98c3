"""Rewrites that change an ONNX file but not its function, as other exporters and tools write the same network.

Each takes a model from `networks.to_onnx` and a seeded generator, and returns a new model.
"""

from zoo.editing import MEAN, REWRITES, STD, Rewrite
from zoo.form_rewrites import a_branch_left

__all__ = ["MEAN", "REWRITES", "STD", "Rewrite", "a_branch_left"]
