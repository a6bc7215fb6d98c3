"""Recognizes detectors by the names of their tensors, and translates these names to ours.

They are those of mmdetection 1.x (bbox_head next to rpn_head), mmdetection 2.x and 3.x (bbox_head inside roi_head), torchvision's
detection models, and ours. RetinaNet has the same names in all versions of mmdetection.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Literal

from emca_deploy.tasks.detector_config import DetectorKind

__all__ = [
    "BODY",
    "DetectorLayout",
    "detector_prefixes",
    "find_kind",
    "find_layout",
    "our_name",
    "refused_part",
    "with_extra_levels",
]

DetectorLayout = Literal["native", "mmdetection-1", "mmdetection", "torchvision-detection"]

BODY: dict[DetectorLayout, str] = {
    "native": "backbone.", "mmdetection-1": "backbone.", "mmdetection": "backbone.", "torchvision-detection": "backbone.body.",
}  # fmt: skip
"""Beginning of the names of the ResNet inside a detector."""

_MARK = re.compile(
    r"(?P<prefix>(?:[^.]+\.)*?)"
    r"(?:roi_head|rpn_head|bbox_head|roi_heads|rpn\.head|proposal_generator|head\.classification_head|fpn\.lateral|query_embed"
    r"|neck\.lateral_convs|backbone\.fpn)\."
)
"""Names that only detectors have; `prefix` is what stands in front of the detector's own names."""

_END = r"(?P<end>weight|bias)"
_MMDETECTION: tuple[tuple[str, str], ...] = (
    (r"neck\.lateral_convs\.(?P<n>\d+)\.conv\.", "fpn.lateral.{n}."),
    (r"neck\.fpn_convs\.(?P<n>\d+)\.conv\.", "fpn.output.{n}."),
    (r"rpn_head\.rpn_conv\.", "rpn.conv."),
    (r"rpn_head\.rpn_cls\.", "rpn.objectness."),
    (r"rpn_head\.rpn_reg\.", "rpn.deltas."),
    (r"(?:roi_head\.)?bbox_head\.shared_fcs\.0\.", "roi.box.fc6."),
    (r"(?:roi_head\.)?bbox_head\.shared_fcs\.1\.", "roi.box.fc7."),
    (r"(?:roi_head\.)?bbox_head\.fc_cls\.", "roi.box.scores."),
    (r"(?:roi_head\.)?bbox_head\.fc_reg\.", "roi.box.deltas."),
    (r"(?:roi_head\.)?mask_head\.convs\.(?P<n>\d+)\.conv\.", "roi.mask.convs.{n}."),
    (r"(?:roi_head\.)?mask_head\.upsample\.", "roi.mask.upsample."),
    (r"(?:roi_head\.)?mask_head\.conv_logits\.", "roi.mask.logits."),
    (r"bbox_head\.cls_convs\.(?P<n>\d+)\.(?:conv\.)?", "head.class_convs.{n}."),
    (r"bbox_head\.reg_convs\.(?P<n>\d+)\.(?:conv\.)?", "head.box_convs.{n}."),
    (r"bbox_head\.retina_cls\.", "head.scores."),
    (r"bbox_head\.retina_reg\.", "head.deltas."),
)
# torchvision before 0.13 had a plain convolution (inner_blocks.0, conv.2 after a ReLU, mask_fcn1) where it has a block since.
_TORCHVISION: tuple[tuple[str, str], ...] = (
    (r"backbone\.fpn\.inner_blocks\.(?P<n>\d+)\.(?:0\.)?", "fpn.lateral.{n}."),
    (r"backbone\.fpn\.layer_blocks\.(?P<n>\d+)\.(?:0\.)?", "fpn.output.{n}."),
    (r"backbone\.fpn\.extra_blocks\.p6\.", "fpn.extra.0."),
    (r"backbone\.fpn\.extra_blocks\.p7\.", "fpn.extra.1."),
    (r"rpn\.head\.conv\.(?:0\.0\.)?", "rpn.conv."),
    (r"rpn\.head\.cls_logits\.", "rpn.objectness."),
    (r"rpn\.head\.bbox_pred\.", "rpn.deltas."),
    (r"roi_heads\.box_head\.fc(?P<n>[67])\.", "roi.box.fc{n}."),
    (r"roi_heads\.box_predictor\.cls_score\.", "roi.box.scores."),
    (r"roi_heads\.box_predictor\.bbox_pred\.", "roi.box.deltas."),
    (r"roi_heads\.mask_head\.(?P<n>\d+)\.0\.", "roi.mask.convs.{n}."),
    (r"roi_heads\.mask_head\.mask_fcn(?P<after>\d+)\.", "roi.mask.convs.{n}."),
    (r"roi_heads\.mask_predictor\.conv5_mask\.", "roi.mask.upsample."),
    (r"roi_heads\.mask_predictor\.mask_fcn_logits\.", "roi.mask.logits."),
    (r"head\.classification_head\.conv\.(?P<n>\d+)\.0\.", "head.class_convs.{n}."),
    (r"head\.regression_head\.conv\.(?P<n>\d+)\.0\.", "head.box_convs.{n}."),
    (r"head\.classification_head\.conv\.(?P<twice>\d+)\.", "head.class_convs.{n}."),
    (r"head\.regression_head\.conv\.(?P<twice>\d+)\.", "head.box_convs.{n}."),
    (r"head\.classification_head\.cls_logits\.", "head.scores."),
    (r"head\.regression_head\.bbox_reg\.", "head.deltas."),
)
_NAMES: dict[DetectorLayout, tuple[tuple[str, str], ...]] = {
    "native": ((r"(?P<own>(?:fpn|rpn|roi|head)\..+)\.", "{own}."),),
    "mmdetection-1": _MMDETECTION,
    "mmdetection": _MMDETECTION,
    "torchvision-detection": _TORCHVISION,
}
_RULES = {layout: [(re.compile(pattern + _END), ours + "{end}") for pattern, ours in rules] for layout, rules in _NAMES.items()}

# (pattern, what a detector with such a name has); the first that any name matches says what the detector is.
_REFUSED: tuple[tuple[str, str], ...] = (
    (r"backbone\.bottom_up\.|proposal_generator\.", "a detector of detectron2, whose names are not known here"),
    (r"query_embed|transformer\.|encoder\.layers\.|decoder\.layers\.|bbox_head\.transformer\.", "a DETR, with a transformer"),
    (r"rpn_head\.init_proposal_", "a Sparse R-CNN or QueryInst, with learned proposals"),
    (r"(roi_head\.)?semantic_head\.", "a Hybrid Task Cascade (HTC), with a semantic head"),
    (
        r"(roi_head\.)?(bbox_head|mask_head)\.\d+\.(fc_|shared_|convs\.|conv_)",
        "a cascade (Cascade R-CNN), with several box heads",
    ),
    (r"(roi_head\.)?(point_head|mask_head\.point_head)\.", "a PointRend, with a point head"),
    (r"(roi_head\.)?grid_head\.", "a Grid R-CNN, with a grid head"),
    (r"(roi_head\.)?mask_iou_head\.", "a Mask Scoring R-CNN, with a mask IoU head"),
    (r"(roi_heads?\.)?keypoint_(head|predictor)\.", "a Keypoint R-CNN, with a keypoint head"),
    (r"(roi_head\.)?shared_head\.|roi_heads\.res5\.", "a C4 detector, whose box head is the last stage of the ResNet"),
    (r"(roi_head\.)?bbox_head\.(conv_branch|fc_branch|res_block)\.", "a Double-Head R-CNN"),
    (r"bbox_head\.(conv_)?centerness|head\.regression_head\.bbox_ctrness|bbox_head\.fcos_|bbox_head\.conv_cls\.", "an FCOS"),
    (r"bbox_head\.(atss|gfl|vfnet|rtm|tood|paa)_", "a detector of the ATSS family (ATSS, GFL, VFNet, RTMDet)"),
    (r"bbox_head\.(reppoints_|moment_transfer)", "a RepPoints"),
    (r"bbox_head\.(convs_pred|convs_bridge|multi_level_)|model\.\d+\.(cv\d|dfl|m)\.", "a YOLO"),
    (r"bbox_head\.(conv_loc|conv_shape|feature_adaption)|rpn_head\.(conv_loc|conv_shape)", "a detector with guided anchors"),
    (r"mask_head\.(mask_convs|kernel_convs|feature_convs|conv_mask_list)|mask_feat_head\.", "a SOLO"),
    (
        r"neck\.l2_norm|neck\.extra_layers|head\.\w+_head\.module_list\.|backbone\.(features|extra)\.",
        "an SSD or another VGG detector",
    ),
    (r"bbox_head\.(tl|br)_|bbox_head\.heatmap_head", "a CornerNet or CenterNet"),
    (r"neck\.(downsample_convs|pafpn_convs)", "a PAFPN in place of the feature pyramid"),
    (r"neck\.(\d+\.|reduction_conv|fpn_stages|stack)", "another neck in place of the feature pyramid (BFP, HRFPN, NAS-FPN)"),
    (
        r"backbone\..*\.conv\d_offset|backbone\..*conv_offset|backbone\..*conv2\.mask",
        "deformable convolutions (DCN) in the backbone",
    ),
    (
        r"backbone\.(layers|patch_embed|stages|stem\.\d|transition\d)\.|backbone\.conv1\.conv\.|backbone\.body\.\d",
        "another backbone than a ResNet with a 7x7 stem",
    ),
    (r"backbone\.(gn1|layer\d\.\d+\.gn\d)", "group norm (GN) in the backbone"),
    (r"neck\.\w+\.\d+\.(gn|bn|norm)|.*(bbox_head|mask_head)\..*\.(gn|bn)\.", "group or batch norm in the pyramid or the heads"),
    (
        r"backbone\.fpn\.\w+\.\d+\.1\.|rpn\.head\.conv\.1\.|roi_heads\.box_head\.\d",
        "torchvision's v2 of the model, with norm layers",
    ),
    (r"head\.(classification|regression)_head\.conv\.\d+\.1\.", "torchvision's v2 of RetinaNet, with group norm in the head"),
    (r"(roi_head\.)?bbox_head\.(shared_convs|cls_fcs|reg_fcs)\.", "a box head with convolutions or separate branches"),
    (r"rpn_head\.rpn_conv\.\d", "an RPN with several convolutions"),
    (r"bbox_head\.(cls|reg)_convs\.\d+\.\d+\.", "RetinaNet's head with layers of its own for each level (SepBN) or an SSD"),
)


def detector_prefixes(names: Iterable[str]) -> set[str]:
    """Return the prefixes of detectors among names ("" for one without a prefix)."""
    return {match["prefix"] for name in names if (match := _MARK.match(name))}


def find_layout(names: Iterable[str]) -> DetectorLayout:
    """Return the layout of a detector's names, without their prefix; RetinaNet of mmdetection counts as the newer one."""
    tops = {".".join(name.split(".")[:2]) for name in names}
    firsts = {name.partition(".")[0] for name in tops}
    if "fpn.lateral" in tops:
        return "native"
    if "roi_heads" in firsts or tops & {"rpn.head", "head.classification_head", "backbone.fpn", "backbone.body"}:
        return "torchvision-detection"
    plain = any(re.match(r"bbox_head\.(cls|reg)_convs\.\d+\.weight", name) for name in names)
    return "mmdetection-1" if plain or ("roi_head" not in firsts and {"rpn_head", "bbox_head"} <= firsts) else "mmdetection"


def our_name(name: str, layout: DetectorLayout) -> str | None:
    """Return our name of a tensor outside the backbone, or None where there is none."""
    for pattern, ours in _RULES[layout]:
        match = pattern.fullmatch(name)
        if match:
            groups = match.groupdict()
            if "after" in groups:
                groups["n"] = str(int(groups["after"]) - 1)
            if "twice" in groups:
                groups["n"] = str(int(groups["twice"]) // 2)
            return ours.format(**groups)
    return None


def with_extra_levels(names: Mapping[str, str]) -> dict[str, str]:
    """Give the last convolutions of mmdetection's pyramid our name: those without a lateral one make P6 and P7."""
    laterals = sum(name.startswith("fpn.lateral.") and name.endswith(".weight") for name in names)
    found = {}
    for name, value in names.items():
        match = re.fullmatch(r"fpn\.output\.(\d+)\.(\w+)", name)
        extra = int(match[1]) - laterals if match else -1
        found[f"fpn.extra.{extra}.{match[2]}" if match and extra >= 0 else name] = value
    return found


def find_kind(names: Iterable[str]) -> DetectorKind | None:
    """Return which detector has our `names`; None where it is none of the three."""
    tops = {".".join(name.split(".")[:2]) for name in names}
    if {"head.scores", "head.deltas"} & tops:
        return "retinanet"
    if "roi.box" not in tops or "rpn.conv" not in tops:
        return None
    return "mask_rcnn" if "roi.mask" in tops else "faster_rcnn"


def refused_part(names: Iterable[str]) -> str | None:
    """Return what a detector with these names is or has that is not supported, or None."""
    known = list(names)
    for pattern, what in _REFUSED:
        compiled = re.compile(pattern)
        found = next((name for name in known if compiled.match(name)), None)
        if found:
            return f"{what} ({found})"
    return None
