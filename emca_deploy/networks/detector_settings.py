"""The conventions of a detector that its tensors do not show: from the file's own record, else from its layout."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

from emca_deploy.checkpoint_files.mmdet_settings import MmdetSettings, read_settings
from emca_deploy.checkpoint_files.opening import CheckpointFile
from emca_deploy.errors import CheckpointError, DataError
from emca_deploy.networks.detector_layouts import DetectorLayout
from emca_deploy.preprocessing import IMAGENET_MEAN, IMAGENET_STD, PreprocessingOptions
from emca_deploy.results.codec import from_json
from emca_deploy.tasks.detector_config import DetectorConfig, DetectorKind, default_config

__all__ = ["DETECTOR_KEY", "PREPROCESSING_KEY", "DetectorFacts", "Sizes", "read_facts"]

_Record = TypeVar("_Record")

DETECTOR_KEY = "detector"
"""Key of a safetensors file's metadata under which a checkpoint of ours has its `DetectorConfig` as JSON."""
PREPROCESSING_KEY = "preprocessing"
"""The same for `PreprocessingOptions`: the image size and normalization that the detector was trained with."""

OCTAVES = tuple(4 * 2 ** (step / 3) for step in range(3))
_MMDETECTION = {"relu_before_p7": False, "p6_from": "c5"}
_LAYOUT_FIELDS: dict[DetectorLayout, dict[str, Any]] = {
    "native": {},
    "mmdetection": {**_MMDETECTION, "roi_aligned": True, "roi_sampling_ratio": 0},
    "mmdetection-1": {
        **_MMDETECTION, "roi_aligned": False, "roi_sampling_ratio": 2, "anchor_rounding": "legacy", "plus_one": True,
    },
    "torchvision-detection": {
        "roi_aligned": False, "roi_sampling_ratio": 2, "anchor_rounding": "nearest", "anchor_strides": "divided",
        "rpn_min_size": 1e-3, "box_min_size": 1e-2,
    },
}  # fmt: skip
"""Fields of `DetectorConfig` that each project's published detectors have."""

_PIXELS = (tuple(255 * mean for mean in IMAGENET_MEAN), tuple(255 * std for std in IMAGENET_STD), 1)
_LAYOUT_PIXELS: dict[DetectorLayout, tuple[tuple[float, ...], tuple[float, ...], int]] = {
    "native": (IMAGENET_MEAN, IMAGENET_STD, 255),
    "mmdetection": _PIXELS,
    "mmdetection-1": _PIXELS,
    "torchvision-detection": (IMAGENET_MEAN, IMAGENET_STD, 255),
}
"""Mean and standard deviation of each channel (R, G, B), and the divisor of pixel values in front of them."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of a detector that its tensors show.

    Attributes:
        depth: Depth of the ResNet; 0 where it is not recognized.
        anchors: Anchors of a place.
        fields: Fields of `DetectorConfig`.
        names: Name in the file of the tensor that shows a size.
    """

    depth: int
    anchors: int
    fields: Mapping[str, Any]
    names: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class DetectorFacts:
    """The conventions of a detector.

    Attributes:
        layout: Origin of its names.
        options: Options of `create_model` that differ from the published detector's: fields of `DetectorConfig`, and of the
            backbone.
        preprocessing: Normalization and resize of images that it was trained with.
        assumed: Facts that the file does not state, as its project's published detectors have them.
        unread: Parts of its configuration that could not be read.
        no_epsilon: Whether its batch norm adds nothing to the variance.
    """

    layout: DetectorLayout
    options: Mapping[str, Any] = field(default_factory=dict)
    preprocessing: PreprocessingOptions = field(default_factory=PreprocessingOptions)
    assumed: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    no_epsilon: bool = False


def read_facts(
    file: CheckpointFile, layout: DetectorLayout, kind: DetectorKind, sizes: Sizes, *, no_epsilon: bool = False
) -> DetectorFacts:
    """Return the conventions of a detector of this layout; `no_epsilon` is known from its names.

    Raises:
        CheckpointError: the file's own record contradicts its tensors, or describes a detector that is not supported.
    """
    if layout == "native":
        return _ours(file, kind, sizes)
    assumed: list[str] = []
    settings = MmdetSettings()
    if layout.startswith("mmdetection"):
        layout, settings = _mmdetection(file, layout, kind, sizes, assumed)
    own = dict(_LAYOUT_FIELDS[layout])
    if kind == "retinanet" and layout.startswith("mmdetection"):
        levels = (8, 16, 32, 64, 128)
        own["anchor_sizes"] = tuple(tuple(stride * scale for scale in OCTAVES) for stride in levels)
    config = _config(file, kind, {**own, **settings.fields}, sizes)
    names, unread = _class_names(file.metadata, config.num_classes)
    if no_epsilon:
        assumed.append("batch norm without an epsilon, as in torchvision's published weights of this age")
    return DetectorFacts(
        layout,
        _differing(kind, replace(config, class_names=names)) | ({"caffe": "stride"} if settings.stride_first else {}),
        _preprocessing(layout, settings.preprocessing),
        tuple(assumed),
        (*settings.unread, *unread),
        no_epsilon,
    )


def _ours(file: CheckpointFile, kind: DetectorKind, sizes: Sizes) -> DetectorFacts:
    text = file.metadata.get(DETECTOR_KEY)
    if not isinstance(text, str):
        config = _config(file, kind, {}, sizes)
        assumed = ("the published detector's anchors, boxes and thresholds: the file does not have its configuration",)
        return DetectorFacts("native", _differing(kind, config), _preprocessing("native"), assumed)
    config = _record(file, DETECTOR_KEY, DetectorConfig)
    for name, value in sizes.fields.items():
        if getattr(config, name) != value:
            _contradiction(file, f"{DETECTOR_KEY} in its metadata", name, getattr(config, name), value, sizes)
    config = _config(file, kind, {own.name: getattr(config, own.name) for own in fields(config)}, sizes)
    own = _record(file, PREPROCESSING_KEY, PreprocessingOptions) if PREPROCESSING_KEY in file.metadata else None
    return DetectorFacts("native", _differing(kind, config), own or _preprocessing("native"))


def _record(file: CheckpointFile, key: str, kind: type[_Record]) -> _Record:
    """Return a record that the file's metadata has as JSON."""
    try:
        return from_json(kind, json.loads(file.metadata[key]))
    except (TypeError, ValueError, RecursionError, DataError) as exc:
        reason = exc.problem if isinstance(exc, DataError) else "not JSON"
        raise CheckpointError(
            f"{file.path}: '{key}' in its metadata is not understood: {reason}",
            "save the checkpoint again with this emca-deploy",
        ) from exc


def _config(file: CheckpointFile, kind: DetectorKind, values: Mapping[str, Any], sizes: Sizes) -> DetectorConfig:
    """Return the configuration with these values and the tensors' sizes; an error where they contradict each other."""
    config = replace(default_config(kind, sizes.fields["num_classes"]), **{**values, **sizes.fields})
    if config.anchors_per_place != sizes.anchors:
        where = sizes.names.get("anchors", "its head")
        raise CheckpointError(
            f"{file.path}: {where} has {sizes.anchors} anchors at each place, not {config.anchors_per_place} "
            f"({len(config.anchor_sizes[0])} sizes of {len(config.anchor_ratios)} ratios)",
            "give the checkpoint with the configuration that it was trained with (meta['config'] or 'detector')",
        )
    if wrong := config.contradiction():
        raise CheckpointError(
            f"{file.path}: no detector has its configuration: {wrong}", "correct the configuration that the file was saved with"
        )
    return config


def _differing(kind: DetectorKind, config: DetectorConfig) -> dict[str, Any]:
    published = default_config(kind, config.num_classes)
    names = [own.name for own in fields(config) if own.name != "num_classes"]
    return {name: getattr(config, name) for name in names if getattr(config, name) != getattr(published, name)}


def _mmdetection(
    file: CheckpointFile, layout: DetectorLayout, kind: DetectorKind, sizes: Sizes, assumed: list[str]
) -> tuple[DetectorLayout, MmdetSettings]:
    """Return the layout, which for RetinaNet only the record shows, and the settings of the configuration."""
    text = next((value for key in ("config", "cfg") if isinstance(value := file.metadata.get(key), str)), None)
    version = file.metadata.get("mmdet_version")
    first = version.partition(".")[0] if isinstance(version, str) else ""
    old = first in ("0", "1") or (not first and text is not None and "anchor_strides" in text and "anchor_generator" not in text)
    if kind != "retinanet" and layout == "mmdetection" and old:
        raise CheckpointError(
            f"{file.path}: is a checkpoint of mmdetection 1.x that upgrade_model_version.py converted; it moves the biases "
            "of box deltas and masks by one class",
            "give the checkpoint of mmdetection 1.x itself: it can be loaded",
        )
    if kind == "retinanet":
        layout = "mmdetection-1" if old or layout == "mmdetection-1" else "mmdetection"
        if not first and text is None and layout == "mmdetection":
            assumed.append(
                "boxes and anchors of mmdetection 2.x or 3.x: its version is not in the file, and 1.x has the same names"
            )
    if text is None:
        assumed.append("mmdetection's published anchors, RoIAlign, thresholds and normalization: the file has no configuration")
        return layout, MmdetSettings()
    settings = read_settings(text, retinanet=kind == "retinanet", legacy=layout == "mmdetection-1")
    _check(file, kind, settings, sizes)
    if settings.preprocessing is None:
        assumed.append("mmdetection's usual normalization: its configuration has none")
    if settings.stride_first is None and sizes.depth >= 50:
        assumed.append("backbone.style = 'pytorch': its configuration has no style")
    return layout, settings


def _check(file: CheckpointFile, kind: DetectorKind, settings: MmdetSettings, sizes: Sizes) -> None:
    """Refuse a configuration of another detector than the tensors'."""
    if settings.variant:
        raise CheckpointError(
            f"{file.path}: its configuration has what is not supported: {settings.variant}",
            "such a detector can be exported to ONNX where it was trained",
        )
    for path, (name, value) in settings.sizes.items():
        found = sizes.depth if name == "depth" else sizes.fields.get(name)
        if found and found != value:
            _contradiction(file, path, name, value, found, sizes)
    source = settings.fields.get("p6_from")
    if source and source != sizes.fields.get("p6_from", source):
        _contradiction(file, "model.neck.add_extra_convs", "p6_from", source, sizes.fields["p6_from"], sizes)
    if settings.masks is not None and settings.masks != (kind == "mask_rcnn"):
        has = "a mask head, and its tensors have none" if settings.masks else "no mask head, and its tensors have one"
        raise CheckpointError(
            f"{file.path}: its configuration has {has}",
            "give the whole state dict, with the configuration that it was trained with",
        )


def _contradiction(file: CheckpointFile, path: str, name: str, said: Any, found: Any, sizes: Sizes) -> None:
    where = sizes.names.get(name, "its tensors")
    raise CheckpointError(
        f"{file.path}: {path} says {name} {said}, but {where} shows {found}",
        "give the configuration that the checkpoint was trained with, or leave it out of the file",
    )


def _class_names(metadata: Mapping[str, Any], classes: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of the classes where the file has one for each, and what could not be read."""
    inner = metadata.get("dataset_meta")
    places = [metadata, inner if isinstance(inner, dict) else {}]
    found = next((place[key] for place in places for key in ("CLASSES", "classes") if place.get(key)), None)
    if found is None:
        return (), ()
    names = tuple(found) if isinstance(found, list | tuple) else (found,)
    if not all(isinstance(name, str) for name in names) or len(names) != classes:
        return (), (f"the names of {len(names)} classes, because the detector has {classes}",)
    return tuple(ascii(name)[1:-1][:100] for name in names), ()


def _preprocessing(layout: DetectorLayout, own: PreprocessingOptions | None = None) -> PreprocessingOptions:
    """Return a detector's own preprocessing, or its project's; the border is filled with the mean color."""
    mean, spread, scale = _LAYOUT_PIXELS[layout]
    used = own or PreprocessingOptions(mean=mean, std=spread, channels="rgb", scale=scale)
    color = round(sum(used.mean or mean) / 3 * (used.scale or scale), 3)
    return replace(used, resize=used.resize or "letterbox", pad="end", pad_value=min(max(color, 0.0), 255.0))
