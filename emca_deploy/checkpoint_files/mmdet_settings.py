"""What an mmdetection configuration says about a detector, in the words of `DetectorConfig`; see `mmdet_config`."""

import reprlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from emca_deploy.checkpoint_files.mmdet_config import Unread, read_config
from emca_deploy.preprocessing import PreprocessingOptions

__all__ = ["MmdetSettings", "read_settings"]

STRIDES = {"rcnn": (4, 8, 16, 32, 64), "retinanet": (8, 16, 32, 64, 128)}
ROI_STRIDES = (4, 8, 16, 32)
CODERS = ("DeltaXYWHBBoxCoder", "LegacyDeltaXYWHBBoxCoder")
MAX_PIPELINE = 100
SHOWN = 80
MISSING = object()


@dataclass
class MmdetSettings:
    """The facts of a configuration; those that it does not have are absent or None.

    Attributes:
        fields: Fields of `DetectorConfig`.
        sizes: Sizes that the tensors show too, by their path in the configuration, with the name of the size.
        stride_first: Whether a bottleneck has its stride on the first convolution, as in Caffe.
        masks: Whether it describes a mask head.
        preprocessing: Normalization and resize of images.
        variant: Part of the detector that is not supported, and that no tensor shows; "" where there is none.
        unread: Paths in the configuration whose values could not be read, with their text.
    """

    fields: dict[str, Any] = field(default_factory=dict)
    sizes: dict[str, tuple[str, int]] = field(default_factory=dict)
    stride_first: bool | None = None
    masks: bool | None = None
    preprocessing: PreprocessingOptions | None = None
    variant: str = ""
    unread: tuple[str, ...] = ()


class _Config:
    """A configuration whose values are found by their path ("model.neck.type")."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values
        self.unread: dict[str, str] = {}

    def get(self, path: str) -> Any:
        """Return the value at a path; None where there is none or it could not be read."""
        value: Any = self.values
        for place, name in enumerate(names := path.split(".")):
            value = value.get(name, MISSING) if isinstance(value, dict) else MISSING
            if isinstance(value, Unread):
                self.unread[".".join(names[: place + 1])] = value.text
            if value is MISSING or isinstance(value, Unread):
                return None
        return value

    def first(self, *paths: str) -> Any:
        """Return the first value there is."""
        return next((value for path in paths if (value := self.get(path)) is not None), None)

    def number(self, *paths: str) -> Any:
        """Return the first number there is; what is not a number is noted as unread."""
        for path in paths:
            value = self.get(path)
            if isinstance(value, int | float) and not isinstance(value, bool):
                return value
            if value is not None:
                self.unread[path] = reprlib.repr(value)[:SHOWN]
        return None

    def numbers(self, *paths: str) -> tuple[float, ...] | None:
        """Return the first list of numbers there is; what is not one is noted as unread."""
        for path in paths:
            value = self.get(path)
            flat = [item for item in value if isinstance(item, int | float)] if isinstance(value, list | tuple) else []
            if flat and len(flat) == len(value):
                return tuple(flat)
            if value is not None:
                self.unread[path] = reprlib.repr(value)[:SHOWN]
        return None

    def type(self, path: str) -> str:
        """Return the class that a path names, without its module; "" where there is none."""
        value = self.get(f"{path}.type")
        return value.rpartition(".")[2] if isinstance(value, str) else ""


def read_settings(text: str, *, retinanet: bool, legacy: bool) -> MmdetSettings:
    """Return what a configuration's text says.

    Args:
        text: Python text, which is parsed and not run.
        retinanet: Whether the tensors are those of RetinaNet.
        legacy: Whether they are those of mmdetection 1.x.
    """
    values = read_config(text)
    if values is None:
        return MmdetSettings(unread=("the whole text, which is not Python",))
    config, settings = _Config(values), MmdetSettings()
    if "_base_" in values and not isinstance(config.get("model.backbone.type"), str):
        config.unread["_base_"] = "files that are not in the checkpoint"
    heads = "model." if legacy or retinanet else "model.roi_head."
    settings.masks = None if retinanet or config.get("model") is None else config.get(f"{heads}mask_head") is not None
    _backbone(config, settings)
    _anchors(config, settings, retinanet)
    _boxes(config, settings, heads, retinanet)
    if not retinanet:
        _rois(config, settings, heads)
    _suppression(config, settings, retinanet)
    _sizes(config, settings, heads, retinanet, legacy)
    settings.preprocessing = _preprocessing(config)
    settings.variant = next(_variants(config, heads, retinanet), "")
    settings.unread = tuple(f"{path} = {shown}" for path, shown in config.unread.items())
    return settings


def _backbone(config: _Config, settings: MmdetSettings) -> None:
    style = config.get("model.backbone.style")
    settings.stride_first = None if style not in ("caffe", "pytorch") else style == "caffe"


def _anchors(config: _Config, settings: MmdetSettings, retinanet: bool) -> None:
    """Read the anchors of the RPN or of RetinaNet's head; mmdetection 1.x has them in the head itself."""
    head = "model.bbox_head" if retinanet else "model.rpn_head"
    made = f"{head}.anchor_generator"
    strides = STRIDES["retinanet" if retinanet else "rcnn"]
    scales = config.numbers(f"{made}.scales", f"{head}.anchor_scales")
    base = config.number(f"{made}.octave_base_scale", f"{head}.octave_base_scale")
    octaves = config.number(f"{made}.scales_per_octave", f"{head}.scales_per_octave")
    if scales is None and base and octaves and 0 < octaves <= 100:
        scales = tuple(base * 2 ** (step / octaves) for step in range(int(octaves)))
    bases = config.numbers(f"{made}.base_sizes", f"{head}.anchor_base_sizes") or strides
    if scales:
        settings.fields["anchor_sizes"] = tuple(tuple(float(size * scale) for scale in scales) for size in bases)
    ratios = config.numbers(f"{made}.ratios", f"{head}.anchor_ratios")
    if ratios:
        settings.fields["anchor_ratios"] = ratios
    if config.get(made) is None:
        return
    legacy = config.type(made) == "LegacyAnchorGenerator"
    settings.fields["anchor_rounding"] = "legacy" if legacy else "none"
    offset = config.number(f"{made}.center_offset")
    settings.fields["anchor_centre"] = float(offset or 0) if not legacy else 0.5


def _boxes(config: _Config, settings: MmdetSettings, heads: str, retinanet: bool) -> None:
    head = f"{heads}bbox_head"
    for name, part in (("box_weights", head), ("rpn_weights", "model.rpn_head")):
        spread = config.numbers(f"{part}.bbox_coder.target_stds", f"{part}.target_stds")
        if spread and len(spread) == 4 and min(spread) > 0 and (name == "box_weights" or not retinanet):
            settings.fields[name] = tuple(1 / one for one in spread)
    coder = config.type(f"{head}.bbox_coder")
    if coder in CODERS and config.get(f"{head}.bbox_coder") is not None:
        settings.fields["plus_one"] = coder.startswith("Legacy")


def _rois(config: _Config, settings: MmdetSettings, heads: str) -> None:
    extractor = f"{heads}bbox_roi_extractor"
    layer = config.get(f"{extractor}.roi_layer")
    if not isinstance(layer, dict):
        return
    samples = config.number(f"{extractor}.roi_layer.sampling_ratio", f"{extractor}.roi_layer.sample_num")
    settings.fields["roi_sampling_ratio"] = int(samples or 0)
    aligned = config.get(f"{extractor}.roi_layer.aligned")
    settings.fields["roi_aligned"] = aligned if isinstance(aligned, bool) else heads != "model."
    # Only the kernel of mmdetection 1.x itself takes a RoI to the end of its last pixel.
    other = settings.fields["roi_aligned"] or config.get(f"{extractor}.roi_layer.use_torchvision") is True
    settings.fields["roi_plus_one"] = heads == "model." and not other
    if (scale := config.number(f"{extractor}.finest_scale")) is not None:
        settings.fields["roi_finest_scale"] = float(scale)
    mask = f"{heads}mask_roi_extractor.roi_layer"
    if (bins := config.number(f"{mask}.output_size", f"{mask}.out_size")) is not None:
        settings.fields["mask_bins"] = int(bins)


def _suppression(config: _Config, settings: MmdetSettings, retinanet: bool) -> None:
    """Read the settings of post-processing, which newer configurations have in the model."""

    def paths(*names: str) -> list[str]:
        return [f"{top}test_cfg.{name}" for name in names for top in ("model.", "")]

    last = "" if retinanet else "rcnn."
    found = {
        "score_threshold": config.number(*paths(f"{last}score_thr")),
        "max_detections": config.number(*paths(f"{last}max_per_img")),
        "nms_threshold": config.number(*paths(f"{last}nms.iou_threshold", f"{last}nms.iou_thr")),
        "pre_nms": config.number(*paths("nms_pre" if retinanet else "rpn.nms_pre")),
    }
    if not retinanet:
        found["post_nms"] = config.number(*paths("rpn.max_per_img", "rpn.max_num"))
        found["rpn_nms_threshold"] = config.number(*paths("rpn.nms.iou_threshold", "rpn.nms_thr"))
        found["rpn_min_size"] = config.number(*paths("rpn.min_bbox_size"))
    for name, value in found.items():
        if value is not None and (value > 0 or name.endswith(("size", "threshold"))):
            settings.fields[name] = value
        elif value is not None:
            config.unread[f"test_cfg ({name})"] = f"{value}, a number without limit"
    kind = config.first(*paths(f"{last}nms.type"))
    if kind not in (None, "nms"):
        config.unread[f"test_cfg.{last}nms.type"] = f"{kind!r}, in place of which ordinary suppression runs"


def _sizes(config: _Config, settings: MmdetSettings, heads: str, retinanet: bool, legacy: bool) -> None:
    head = f"{heads}bbox_head"
    places = [
        ("depth", "model.backbone.depth"),
        ("fpn_channels", "model.neck.out_channels"),
        ("num_classes", f"{head}.num_classes"),
    ]
    if not retinanet:
        layer = f"{heads}bbox_roi_extractor.roi_layer"
        places += [("box_bins", f"{layer}.output_size"), ("box_bins", f"{layer}.out_size")]
        places += [("box_head_width", f"{head}.fc_out_channels"), ("num_classes", f"{heads}mask_head.num_classes")]
    for name, path in places:
        value = config.number(path)
        if isinstance(value, int):
            # mmdetection 1.x counts the background.
            settings.sizes[path] = (name, value - 1 if name == "num_classes" and legacy else value)
    if retinanet:
        source = config.get("model.neck.add_extra_convs")
        on_input = source in (True, "on_input") and config.get("model.neck.extra_convs_on_inputs") is not False
        if source:
            settings.fields["p6_from"] = "c5" if on_input else "p5"
        settings.fields["relu_before_p7"] = config.get("model.neck.relu_before_extra_convs") is True


def _preprocessing(config: _Config) -> PreprocessingOptions | None:
    """Return the normalization: that of the data preprocessor (3.x) or of the test pipeline (1.x, 2.x)."""
    own = config.get("model.data_preprocessor")
    steps = [*_steps(config.get("test_pipeline")), *_steps(config.get("data.test.pipeline"))]
    steps += _steps(config.get("test_dataloader.dataset.pipeline"))
    normalizations = [step for step in steps if step.get("type") == "Normalize"]
    normalizations += [one for path in ("img_norm_cfg", "data.test.img_norm_cfg") if isinstance(one := config.get(path), dict)]
    found = own if isinstance(own, dict) and "mean" in own else next(iter(normalizations), None)
    if found is None:
        return None
    inner = _Config(found)
    mean, spread = inner.numbers("mean"), inner.numbers("std")
    if mean is None or spread is None or len(mean) != 3 or len(spread) != 3 or min(spread) <= 0:
        config.unread["mean and std of images"] = reprlib.repr((found.get("mean"), found.get("std")))[:SHOWN]
        return None
    swapped = found.get("bgr_to_rgb", found.get("to_rgb", found is not own)) is True
    ratio = next((step.get("keep_ratio") for step in steps if str(step.get("type")).endswith("Resize")), None)
    resize = {True: "letterbox", False: "squash"}.get(ratio) if isinstance(ratio, bool) else None
    pad = "end" if resize == "letterbox" else None
    return PreprocessingOptions(mean=mean, std=spread, channels="rgb" if swapped else "bgr", scale=1, resize=resize, pad=pad)


def _steps(pipeline: Any) -> list[dict[str, Any]]:
    """Return the steps of a pipeline, with those inside steps that hold others."""
    found: list[dict[str, Any]] = []
    waiting = list(pipeline) if isinstance(pipeline, list | tuple) else []
    while waiting and len(found) < MAX_PIPELINE:
        step = waiting.pop(0)
        if isinstance(step, dict):
            found.append(step)
            inner = step.get("transforms")
            waiting += inner[:MAX_PIPELINE] if isinstance(inner, list | tuple) else []
    return found


def _variants(config: _Config, heads: str, retinanet: bool) -> Iterator[str]:
    """Yield what is not supported although the tensors are those of a supported detector."""
    head = f"{heads}bbox_head"
    parts = ["model.backbone", "model.neck", head, *([] if retinanet else ["model.rpn_head", f"{heads}mask_head"])]
    for part in parts:
        kind = config.type(f"{part}.conv_cfg")
        if kind not in ("", "Conv", "Conv2d"):
            yield f"{kind} convolutions ({part}.conv_cfg)"
        for predictor in ("cls_predictor_cfg", "reg_predictor_cfg", "predictor_cfg"):
            kind = config.type(f"{part}.{predictor}")
            if kind not in ("", "Linear", "Conv", "Conv2d"):
                yield f"{kind} as last layer ({part}.{predictor})"
        means = config.numbers(f"{part}.bbox_coder.target_means", f"{part}.target_means")
        if means and any(means):
            yield f"means of box deltas other than 0 ({part})"
        coder = config.type(f"{part}.bbox_coder")
        if coder not in ("", *CODERS) or config.get(f"{part}.bbox_coder.add_ctr_clamp") is True:
            yield f"boxes coded by {coder} ({part}.bbox_coder)"
    yield from _other_forms(config, heads, retinanet)


def _other_forms(config: _Config, heads: str, retinanet: bool) -> Iterator[str]:
    strides = STRIDES["retinanet" if retinanet else "rcnn"]
    dense = "model.bbox_head" if retinanet else "model.rpn_head"
    extractors = [] if retinanet else [f"{heads}bbox_roi_extractor", f"{heads}mask_roi_extractor"]
    fixed: list[tuple[str, Any]] = [
        ("model.backbone.strides", (1, 2, 2, 2)),
        ("model.backbone.dilations", (1, 1, 1, 1)),
        ("model.backbone.out_indices", (0, 1, 2, 3)),
        (f"{dense}.anchor_generator.strides", strides),
        (f"{dense}.anchor_strides", strides),
        *((f"{extractor}.featmap_strides", ROI_STRIDES) for extractor in extractors),
    ]
    for path, usual in fixed:
        if (value := config.numbers(path)) not in (None, usual):
            yield f"{path} = {list(value or ())}, not {list(usual)}"
    for extractor in extractors:
        for path, usual in ((extractor, "SingleRoIExtractor"), (f"{extractor}.roi_layer", "RoIAlign")):
            if config.type(path) not in ("", usual):
                yield f"{config.type(path)}, not {usual} ({path})"
    made = f"{dense}.anchor_generator"
    rules = [
        (config.get(f"{made}.scale_major") is False, f"anchors in another order ({made}.scale_major)"),
        (config.get(f"{made}.centers") is not None, f"anchors with centres of their own ({made}.centers)"),
        (config.get("model.neck.act_cfg") is not None, "activations in the feature pyramid (model.neck.act_cfg)"),
        (config.get("model.neck.add_extra_convs") == "on_lateral", "P6 from a lateral convolution (model.neck.add_extra_convs)"),
        (
            config.get("model.neck.upsample_cfg.mode") not in (None, "nearest"),
            "a feature pyramid that does not upsample by repetition (model.neck.upsample_cfg)",
        ),
        (
            config.type(f"{heads}bbox_head.loss_cls") == "SeesawLoss",
            f"scores of SeesawLoss, which are no softmax ({heads}bbox_head.loss_cls)",
        ),
    ]
    yield from (variant for found, variant in rules if found)
