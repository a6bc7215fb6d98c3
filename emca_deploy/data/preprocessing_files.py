"""Preprocessing from files: timm's config.json, Hugging Face's preprocessor_config.json, and manifests."""

import json
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from emca_deploy.data.files import printable, read_text
from emca_deploy.errors import DataError, InputError
from emca_deploy.preprocessing import Preprocessing, PreprocessingOptions, Size
from emca_deploy.results.codec import from_json

__all__ = ["read_preprocessing_file"]

LARGEST_MIB = 16
RESAMPLES = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
"""Pillow's numbers in Hugging Face's files; 4 and 5, box and hamming, are not supported."""

HUGGING_FACE_KEYS = ("image_mean", "do_normalize", "do_resize", "image_processor_type", "feature_extractor_type")
CONVNEXT_SQUASHES_FROM = 384
"""Size in pixels from which ConvNeXt's processor stretches instead of cropping."""


def read_preprocessing_file(path: Path) -> PreprocessingOptions:
    """Return the preprocessing that a file specifies.

    Raises:
        InputError: it cannot be read, is of an unknown kind, or specifies something that this package does not do.
    """
    shown = printable(str(path))
    text = read_text(path, LARGEST_MIB, "a config.json or a manifest", InputError)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise InputError(f"{shown}: is not JSON, or is damaged", "name a config.json or a manifest") from exc
    try:
        return _read(document, str(path))
    except (DataError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as exc:
        said = f"it has no {exc}" if isinstance(exc, KeyError) else printable(str(exc))[:200]
        raise InputError(f"{shown}: its preprocessing cannot be used: {said}", "give the values as options instead") from exc


def _read(document: Any, source: str) -> PreprocessingOptions:
    if not isinstance(document, Mapping):
        raise TypeError("it is not a JSON object")
    if "manifest_version" in document:
        return _ours(document, source)
    timm = document.get("pretrained_cfg", document)
    if isinstance(timm, Mapping) and "mean" in timm and ("input_size" in timm or "crop_pct" in timm):
        return _timm(timm, source)
    if any(key in document for key in HUGGING_FACE_KEYS):
        return _hugging_face(document, source)
    raise ValueError("it is neither timm's config.json, nor Hugging Face's preprocessor_config.json, nor a manifest")


def _ours(document: Mapping[str, Any], source: str) -> PreprocessingOptions:
    if document.get("preprocessing") is None:
        raise ValueError("the manifest has none")
    known = from_json(Preprocessing, document["preprocessing"])
    read = ("resize", "resize_size") if known.resize in ("shortest", "squash") else ("resize",)
    names = ("image_size", "mean", "std", "interpolation", "pad", "pad_value", "channels", "scale", "exif", *read)
    said = {name: getattr(known, name) for name in names if name not in known.assumed}
    return PreprocessingOptions(**said, source=source)


def _timm(values: Mapping[str, Any], source: str) -> PreprocessingOptions:
    mode = values.get("crop_mode", "center")
    if mode not in ("center", "squash"):
        raise ValueError(f"crop_mode {mode!r}")
    size = values.get("input_size")
    channels, height, width = size if size is not None else (3, None, None)
    interpolation = str(values.get("interpolation", "bilinear"))
    return PreprocessingOptions(
        image_size=None if height is None else (_side(height), _side(width)),
        crop_pct=_part(values.get("crop_pct", 0.875)),
        mean=_numbers(values["mean"]),
        std=_numbers(values["std"]),
        resize="squash" if mode == "squash" else "shortest",
        interpolation="bilinear" if interpolation == "random" else _interpolation(interpolation),
        channels="gray" if channels == 1 else "rgb",
        scale=255,
        source=source,
    )


def _hugging_face(values: Mapping[str, Any], source: str) -> PreprocessingOptions:
    mean, std = _normalisation(values)
    resample = values.get("resample", 2)
    return PreprocessingOptions(
        **_geometry(values),
        mean=mean,
        std=std,
        interpolation=RESAMPLES[resample] if resample in RESAMPLES else _interpolation(str(resample)),
        channels="bgr" if values.get("do_flip_channel_order") else "rgb",
        scale=255,
        source=source,
    )


def _geometry(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sizes and the kind of resize."""
    size, crop = _hugging_face_size(values.get("size")), _hugging_face_size(values.get("crop_size"))
    if not values.get("do_resize", True):
        return {"resize": "none", "image_size": crop if values.get("do_center_crop") else None}
    if size is None:
        raise ValueError("no size")
    kind = str(values.get("image_processor_type", values.get("feature_extractor_type", "")))
    given = values.get("size")
    short = _side(given["shortest_edge"]) if isinstance(given, Mapping) and "shortest_edge" in given else None
    if kind.startswith("ConvNext") and short is not None:
        if short >= CONVNEXT_SQUASHES_FROM:
            return {"resize": "squash", "resize_size": short, "image_size": short}
        return {"resize": "shortest", "image_size": short, "resize_size": int(short / _part(values.get("crop_pct", 224 / 256)))}
    resize = "squash" if short is None else "shortest"
    if not values.get("do_center_crop", False):
        if resize == "shortest":
            raise ValueError("images are resized by the short side and not cropped, which gives each its own size")
        return {"resize": resize, "resize_size": size, "image_size": size}
    return {"resize": resize, "resize_size": size, "image_size": crop or size}


def _hugging_face_size(value: Any) -> Size | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        return _side(value)
    if "shortest_edge" in value:
        return _side(value["shortest_edge"])
    if "height" not in value or "width" not in value:
        raise ValueError(f"size by {', '.join(map(str, value))}")
    return _side(value["height"]), _side(value["width"])


def _normalisation(values: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and std for values in [0, 1]: all steps on a pixel are linear and amount to one mean and one std."""
    factor = float(values.get("rescale_factor", 1 / 255)) if values.get("do_rescale", True) else 1.0
    if not 0 < factor < 1e6:
        raise ValueError(f"rescale_factor {factor!r}")
    offset = -1.0 if values.get("rescale_offset") else 0.0
    mean, std = _numbers(0.0), _numbers(1.0)
    if values.get("do_normalize", True):
        mean, std = _numbers(values["image_mean"]), _numbers(values["image_std"])
    if values.get("include_top"):  # EfficientNet's processor divides by the std once more
        std = tuple(number * number for number in std)
    unit = 255 * factor
    if abs(unit - 1) < 1e-6 and not offset:
        return mean, std
    return tuple((number - offset) / unit for number in mean), tuple(number / unit for number in std)


def _interpolation(name: str) -> str:
    if name not in RESAMPLES.values():
        raise ValueError(f"interpolation {name!r}")
    return name


def _numbers(values: Any) -> tuple[float, ...]:
    numbers = tuple(float(value) for value in (values if isinstance(values, list) else [values]))
    if len(numbers) not in (1, 3) or not all(map(isfinite, numbers)):
        raise ValueError(f"{values!r} is neither one finite number nor three")
    return numbers


def _part(value: Any) -> float:
    if not 0 < float(value) <= 1:
        raise ValueError(f"crop_pct {value!r}")
    return float(value)


def _side(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"size {value!r}")
    return value
