"""Rewrites that change an ONNX file and not the function it computes: how other exporters and tools write the same network.

Each takes a model as `networks.to_onnx` makes it and a seeded generator, and returns a new one.
"""

from zoo.editing import MEAN, REWRITES, STD, Rewrite
from zoo.form_rewrites import a_branch_left

__all__ = ["MEAN", "REWRITES", "STD", "Rewrite", "a_branch_left"]
