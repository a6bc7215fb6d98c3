"""Converts the last layers of other projects' detectors to ours: background last, and deltas and masks for each class alone.

mmdetection 1.x and torchvision have background first, with deltas and masks of its own. mmdetection's own converter
(upgrade_model_version.py) drops the first rows of these weights, but the last rows of their biases; here both lose the first.
"""

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from emca_deploy.networks.detector_layouts import DetectorLayout
from emca_deploy.tasks.detector_config import DetectorKind

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["BACKGROUND_FIRST", "convert_heads", "count_detector_classes", "fold_epsilon", "mismatch"]

BACKGROUND_FIRST: tuple[DetectorLayout, ...] = ("mmdetection-1", "torchvision-detection")
EPSILON = 1e-5
"""Added to the variance in our batch norm."""

Shapes = Mapping[str, tuple[int, ...]]


def _rows(shapes: Shapes, name: str) -> int:
    return (*shapes.get(f"{name}.weight", ()), 0)[0]


def count_detector_classes(shapes: Shapes, layout: DetectorLayout, kind: DetectorKind) -> int:
    """Return the number of classes without background; 0 where the scores have no whole number of them."""
    if kind != "retinanet":
        return max(_rows(shapes, "roi.box.scores") - 1, 0)
    anchors = _rows(shapes, "head.deltas") // 4
    if not anchors or _rows(shapes, "head.scores") % anchors:
        return 0
    # torchvision's RetinaNet has a class 0 for background, which is never a label.
    return max(_rows(shapes, "head.scores") // anchors - (layout == "torchvision-detection"), 0)


def mismatch(shapes: Shapes, layout: DetectorLayout, kind: DetectorKind, theirs: Callable[[str], str]) -> str:
    """Return how the heads disagree about the number of classes, or ""; `theirs` gives the file's name of a tensor."""
    classes = count_detector_classes(shapes, layout, kind)
    if kind == "retinanet":
        scores, deltas = _rows(shapes, "head.scores"), _rows(shapes, "head.deltas")
        problem = f"{theirs('head.scores.weight')} has {scores} rows for {deltas // 4} anchors of {theirs('head.deltas.weight')}"
        return "" if classes else problem
    counted = classes + (layout in BACKGROUND_FIRST)
    wanted = {"roi.box.deltas": (4 * counted, 4), "roi.mask.logits": (counted, 1)}
    for name, allowed in wanted.items():
        rows = _rows(shapes, name)
        if f"{name}.weight" in shapes and rows not in allowed:
            per_class = 4 if name == "roi.box.deltas" else 1
            return (
                f"{theirs('roi.box.scores.weight')} is for {classes} classes and background, so {theirs(f'{name}.weight')} "
                f"should have {counted * per_class} rows, not {rows}"
            )
    return "" if classes else f"{theirs('roi.box.scores.weight')} has no class but background"


def convert_heads(tensors: Mapping[str, "Tensor"], layout: DetectorLayout, classes: int) -> dict[str, "Tensor"]:
    """Return the tensors with our names, whose last layers become those of our detectors.

    Deltas and masks that all classes share are repeated for each class, which computes the same.
    """
    converted = dict(tensors)
    for name, tensor in tensors.items():
        module = name.rpartition(".")[0]
        if not tensor.shape:
            continue
        if module == "roi.box.scores" and layout in BACKGROUND_FIRST:
            converted[name] = _join([tensor[1:], tensor[:1]])
        elif module in ("roi.box.deltas", "roi.mask.logits"):
            each = 4 if module == "roi.box.deltas" else 1
            converted[name] = _foreground(tensor, each, classes, layout in BACKGROUND_FIRST)
        elif module == "head.scores" and layout == "torchvision-detection" and tensor.shape[0] % (classes + 1) == 0:
            by_anchor = tensor.reshape(-1, classes + 1, *tensor.shape[1:])
            converted[name] = by_anchor[:, 1:].reshape(-1, *tensor.shape[1:])
    return converted


def _foreground(tensor: "Tensor", each: int, classes: int, background_first: bool) -> "Tensor":
    """Return the rows of the classes, `each` rows for one class."""
    if background_first and tensor.shape[0] == each * (classes + 1):
        return tensor[each:]
    return _join([tensor] * classes) if tensor.shape[0] == each else tensor


def _join(parts: list["Tensor"]) -> "Tensor":
    import torch

    return torch.cat(parts)


def fold_epsilon(tensors: Mapping[str, "Tensor"]) -> dict[str, "Tensor"]:
    """Return tensors whose batch norm adds nothing to the variance, as ones for our batch norm, which adds 1e-5.

    w / sqrt(v) = w' / sqrt(v + e) for w' = w * sqrt((v + e) / v).
    """
    folded = dict(tensors)
    for name, variance in tensors.items():
        weight = f"{name.removesuffix('running_var')}weight"
        if name.endswith(".running_var") and weight in tensors:
            wide = variance.double().clamp(min=math.ulp(0.0) ** 0.5)
            folded[weight] = (tensors[weight].double() * ((wide + EPSILON) / wide).sqrt()).to(variance.dtype)
    return folded
