"""Everything about a detector that its tensors do not show."""

import math
from dataclasses import dataclass
from typing import Literal

__all__ = [
    "DETECTOR_KINDS",
    "LARGEST_LOG",
    "RETINANET_LEVELS",
    "ROI_LEVELS",
    "RPN_LEVELS",
    "DetectorConfig",
    "DetectorKind",
    "default_config",
]

DetectorKind = Literal["retinanet", "faster_rcnn", "mask_rcnn"]
DETECTOR_KINDS: tuple[DetectorKind, ...] = ("retinanet", "faster_rcnn", "mask_rcnn")

RPN_LEVELS = ("p2", "p3", "p4", "p5", "p6")
RETINANET_LEVELS = ("p3", "p4", "p5", "p6", "p7")

ROI_LEVELS = 4
"""Number of levels that regions are cropped from, the first of `RPN_LEVELS`."""

LARGEST_LOG = math.log(1000 / 16)
"""Largest delta of a logarithm of a side, as in Detectron, torchvision and mmdetection."""

Rounding = Literal["none", "nearest", "legacy"]

RCNN_SIZES = ((32.0,), (64.0,), (128.0,), (256.0,), (512.0,))
RETINANET_SIZES = tuple((size, int(size * 2 ** (1 / 3)), int(size * 2 ** (2 / 3))) for size in (32.0, 64.0, 128.0, 256.0, 512.0))


@dataclass(frozen=True)
class DetectorConfig:
    """The conventions of a detector. The defaults of fields are those of Faster R-CNN and Mask R-CNN.

    A checkpoint of this package has it as JSON in its safetensors metadata, under the key "detector".

    Attributes:
        num_classes: Number of classes without background.
        class_names: Names of the classes, label 0 first; empty where they are unknown.
        fpn_channels: Channels of each level of the feature pyramid, of the RPN and of the convolutions of the other heads.
        box_head_width: Width of `fc6` and `fc7`.
        anchor_sizes: Sides of the square anchors in pixels, for each level, finest first.
        anchor_ratios: Heights divided by widths. The anchors of a place are those of the first ratio, then of the second.
        anchor_centre: Centre of the first anchor, in strides: 0 is the corner of its cell and 0.5 the middle.
        anchor_rounding: Rounding of the anchors' corners around the centre 0: "none", or "nearest" as in torchvision. "legacy" is
            that of mmdetection 1.x, whose centre is (stride - 1) / 2 and whose corners are the anchor's outermost pixels.
        anchor_strides: "nominal" for strides that are powers of two, or "divided" for the image's side divided by the level's,
            rounded down, as in torchvision. They differ where a side is not a multiple of the coarsest stride.
        rpn_weights: Factors of the RPN's deltas (dx, dy, dw, dh); mmdetection's standard deviations are their inverses.
        box_weights: Factors of the deltas of the box head, or of RetinaNet's deltas.
        plus_one: Whether a box reaches to the end of its last pixel, so that its width is x2 - x1 + 1 (mmdetection 1.x).
        roi_plus_one: Whether RoiAlign too takes such a box to the end of its last pixel; nothing where `plus_one` is false.
        roi_aligned: Whether RoiAlign shifts boxes by half a pixel of the level, so that samples are at pixels' centres.
        roi_sampling_ratio: Samples of a RoI's bin along each axis; 0 is the adaptive number of mmdetection 2.x and 3.x.
        roi_finest_scale: Scale f in pixels: a box of area a is taken from level P2 + floor(log2(sqrt(a) / f)), within P2 to P5.
        box_bins: Bins of a RoI along each axis for the box head.
        mask_bins: Bins of a RoI along each axis for the mask head.
        p6_from: Source of RetinaNet's P6: "p5" or "c5".
        relu_before_p7: Whether RetinaNet's P7 is computed from relu(P6).
        pre_nms: Most candidates of each level before suppression.
        post_nms: Most proposals of the RPN after suppression, and most candidates of the last suppression.
        rpn_nms_threshold: IoU above which the RPN suppresses the lower score.
        nms_threshold: IoU above which the last step suppresses the lower score of the same class.
        nms_rounds: Rounds of the suppression's arithmetic; exact where no chain of suppressions in a block is longer.
        rpn_min_size: Sides in pixels below which a proposal is dropped.
        box_min_size: Sides in pixels below which a detection is dropped.
        score_threshold: Score that a detection must exceed.
        max_detections: Rows of the outputs.
    """

    num_classes: int
    class_names: tuple[str, ...] = ()
    fpn_channels: int = 256
    box_head_width: int = 1024
    anchor_sizes: tuple[tuple[float, ...], ...] = RCNN_SIZES
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    anchor_centre: float = 0.0
    anchor_rounding: Rounding = "none"
    anchor_strides: Literal["nominal", "divided"] = "nominal"
    rpn_weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    box_weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
    plus_one: bool = False
    roi_plus_one: bool = True
    roi_aligned: bool = True
    roi_sampling_ratio: int = 2
    roi_finest_scale: float = 56.0
    box_bins: int = 7
    mask_bins: int = 14
    p6_from: Literal["p5", "c5"] = "p5"
    relu_before_p7: bool = True
    pre_nms: int = 1000
    post_nms: int = 1000
    rpn_nms_threshold: float = 0.7
    nms_threshold: float = 0.5
    nms_rounds: int = 20
    rpn_min_size: float = 0.001
    box_min_size: float = 0.01
    score_threshold: float = 0.05
    max_detections: int = 100

    def contradiction(self) -> str:
        """Return why no detector has these values, or ""."""
        positive = (
            "num_classes", "fpn_channels", "box_head_width", "roi_finest_scale", "box_bins", "mask_bins", "pre_nms", "post_nms",
            "nms_rounds", "max_detections",
        )  # fmt: skip
        sizes, thresholds = self.anchor_sizes, (self.rpn_nms_threshold, self.nms_threshold, self.score_threshold)
        levels = len(sizes) == 5 and len({len(level) for level in sizes}) == 1 and bool(sizes[0])
        rules = [
            *((getattr(self, name) <= 0, f"{name} is not positive") for name in positive),
            (len(self.class_names) not in (0, self.num_classes), "class_names has not a name for each class"),
            (not levels, "anchor_sizes has not the same number of sizes for each of five levels"),
            (min(self.anchor_ratios, default=0.0) <= 0, "an anchor's ratio is not positive"),
            (any(size <= 0 for level in sizes for size in level), "an anchor's size is not positive"),
            (min(*self.rpn_weights, *self.box_weights) <= 0, "a factor of deltas is not positive"),
            (not all(0 <= threshold <= 1 for threshold in thresholds), "a threshold is outside 0 to 1"),
            (self.roi_sampling_ratio < 0, "roi_sampling_ratio is negative"),
        ]
        return next((text for wrong, text in rules if wrong), "")

    @property
    def mask_size(self) -> int:
        """The side of a mask in pixels: the mask head doubles its bins."""
        return 2 * self.mask_bins

    @property
    def anchors_per_place(self) -> int:
        """The number of anchors at each place of a level."""
        return len(self.anchor_sizes[0]) * len(self.anchor_ratios)


def default_config(kind: DetectorKind, num_classes: int, class_names: tuple[str, ...] = ()) -> DetectorConfig:
    """Return the published configuration of a detector for COCO's image sizes."""
    if kind == "retinanet":
        sizes, factors = RETINANET_SIZES, (1.0, 1.0, 1.0, 1.0)
        return DetectorConfig(num_classes, class_names, anchor_sizes=sizes, box_weights=factors)
    return DetectorConfig(num_classes, class_names)
