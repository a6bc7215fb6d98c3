"""The ways in which a preprocessing step is often done wrong, each as a change of the right steps."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import Any, Literal

from emca_deploy.data.checking.steps import Steps, Values
from emca_deploy.preprocessing import IMAGENET_MEAN, IMAGENET_STD, INTERPOLATIONS, PADS, Preprocessing, Size, sides
from emca_deploy.results.check_preprocess import WrongStep

__all__ = ["Candidate", "candidates"]

ANTIALIASED = {"bilinear": "opencv-linear", "bicubic": "opencv-cubic"}
"""Filters of Pillow, and the same without antialiasing; below their size both are the same."""

MAX_MISTAKES = 2


@dataclass(frozen=True)
class Candidate:
    """Steps with at most a few mistakes."""

    steps: Steps
    mistakes: tuple[WrongStep, ...] = ()


def candidates(right: Steps) -> list[Candidate]:
    """Return the right steps, those with each single mistake, with each pair of them, and without any normalization."""
    changes = [*_geometry_changes(right.geometry.used), *_value_changes(right.values)]
    found = [Candidate(right)]
    found += [Candidate(change.of(right), (change.mistake,)) for change in changes]
    found += [
        Candidate(second.of(first.of(right)), (first.mistake, second.mistake))
        for first, second in combinations(changes, 2)
        if not set(first.fields) & set(second.fields)
    ]
    return [*found, *_without_normalization(right)]


@dataclass(frozen=True)
class _Change:
    """A mistake, with the fields that it changes and their values."""

    mistake: WrongStep
    part: Literal["used", "rounding", "values"]
    fields: Mapping[str, Any]

    def of(self, steps: Steps) -> Steps:
        if self.part == "values":
            return replace(steps, values=replace(steps.values, **self.fields))
        changed: Any = replace(getattr(steps.geometry, self.part), **self.fields)
        return replace(steps, geometry=replace(steps.geometry, **{self.part: changed}))


def _geometry_changes(right: Preprocessing) -> Iterator[_Change]:
    def change(step: str, found: str, wanted: str, **fields: Any) -> _Change:
        return _Change(WrongStep(step, found, wanted), "rounding" if step == "crop rounding" else "used", fields)

    turned = {"apply": "turned upright by its EXIF orientation", "ignore": "taken as stored, its EXIF orientation ignored"}
    other = "ignore" if right.exif == "apply" else "apply"
    yield change("EXIF", turned[other], turned[right.exif], exif=other)
    for name in INTERPOLATIONS:
        if name == right.interpolation or right.resize == "none":
            continue
        if {name, right.interpolation} in map(set, ANTIALIASED.items()):
            off = "without (as OpenCV's INTER_LINEAR and INTER_CUBIC)"
            ends = (off, "with (as Pillow)") if name.startswith("opencv") else ("with (as Pillow)", off)
            yield change("antialiasing", *ends, interpolation=name)
        else:
            yield change("resize filter", name, right.interpolation, interpolation=name)
    yield from _of_aspect(right, change)
    yield from _of_crop(right, change)


def _of_aspect(right: Preprocessing, change: Callable[..., _Change]) -> Iterator[_Change]:
    """Yield other shapes that an image is resized to."""
    size = right.image_size
    shown = "x".join(map(str, sides(size)))
    words = {
        "shortest": "kept, the rest cropped",
        "squash": f"not kept, stretched to {shown}",
        "letterbox": "kept, the border filled",
        "none": "not resized",
    }
    for resize in ("shortest", "squash"):
        if resize != right.resize:
            yield change("aspect", words[resize], words[right.resize], resize=resize, resize_size=size)
    if right.resize == "shortest" and sides(right.resize_size) != sides(size):
        both = sides(right.resize_size)
        found = f"not kept, stretched to {both[0]}x{both[1]}, then cropped"
        yield change("aspect", found, words["shortest"], resize="squash", resize_size=both)
    if right.resize != "letterbox":
        for value in (0.0, 114.0):
            found = f"kept, the border filled with {value:g}"
            yield change("aspect", found, words[right.resize], resize="letterbox", pad_value=value)
        return
    pad = next(name for name in PADS if name != right.pad)
    yield change("padding", f"image at the {'top left' if pad == 'end' else 'center'}", f"pad {right.pad}", pad=pad)
    for value in (0.0, 114.0, 255.0):
        if right.filling != (value,) * len(right.filling):
            wanted = ", ".join(f"{number:g}" for number in right.filling)
            yield change("padding", f"filled with {value:g}", f"filled with {wanted}", pad_value=value)


def _of_crop(right: Preprocessing, change: Callable[..., _Change]) -> Iterator[_Change]:
    """Yield other sizes and roundings of the crop."""
    if right.resize != "shortest":
        return
    tall, wide = sides(right.image_size)
    wanted = "x".join(map(str, sides(right.resize_size)))
    for share in (1.0, 224 / 232, 0.95, 0.9, 224 / 256, 0.8):
        size = (round(tall / share), round(wide / share))
        if size != sides(right.resize_size):
            both: Size = size[0] if size[0] == size[1] else size
            yield change("crop size", f"cut from {size[0]}x{size[1]}", f"cut from {wanted}", resize_size=both)
    for rounding in ("floor", "ceil"):
        down = {"floor": "rounded down", "ceil": "rounded up"}[rounding]
        yield change("crop rounding", f"start of the crop {down}", "start of the crop rounded half to even", crop=rounding)
    yield change("crop rounding", "long side rounded", "long side rounded down", long_side="round")


def _value_changes(right: Values) -> Iterator[_Change]:
    def change(step: str, found: str, wanted: str, **fields: Any) -> _Change:
        return _Change(WrongStep(step, found, wanted), "values", fields)

    count, shown = len(right.mean), "value / {:g}".format
    if count == 3:
        order = {False: "RGB", True: "BGR"}
        yield change("channel order", order[not right.reversed], order[right.reversed], reversed=not right.reversed)
    for scale in (1.0, 255.0, 255.0**2):
        if scale != right.scale:
            yield change("scale", shown(scale) if scale != 1 else "pixels not divided", shown(right.scale), scale=scale)
    for name, usual, nothing in (("mean", IMAGENET_MEAN, 0.0), ("std", IMAGENET_STD, 1.0)):
        own: tuple[float, ...] = getattr(right, name)
        unit = 1.0 if right.scale == 255 else 255.0
        others = [(nothing,) * count, (0.5 * unit,) * count, own[::-1], tuple(255 * number for number in own)]
        others.append(tuple(number / 255 for number in own))
        if count == 3:
            others += [tuple(unit * number for number in usual), (unit * sum(usual) / 3,) * 3]
        for values in dict.fromkeys(others):
            if values != own:
                yield change(name, _numbers(values), _numbers(own), **{name: values})
    layout = {False: "(C, H, W)", True: "(H, W, C)"}
    yield change("layout", layout[not right.interleaved], layout[right.interleaved], interleaved=not right.interleaved)


def _without_normalization(right: Steps) -> Iterator[Candidate]:
    """Yield pixels as they are and divided by 255, in both orders of channels, where the model needs three steps more."""
    values, count = right.values, len(right.values.mean)
    for scale, order in product((1.0, 255.0), {values.reversed, count == 3 and not values.reversed}):
        plain = Values(order, scale, (0.0,) * count, (1.0,) * count, values.interleaved)
        mistakes = []
        if order != values.reversed:
            mistakes.append(WrongStep("channel order", "BGR" if order else "RGB", "RGB" if order else "BGR"))
        if scale != values.scale:
            mistakes.append(
                WrongStep("scale", "pixels not divided" if scale == 1 else "value / 255", f"value / {values.scale:g}")
            )
        if values.mean != plain.mean:
            mistakes.append(WrongStep("mean", "0", _numbers(values.mean)))
        if values.std != plain.std:
            mistakes.append(WrongStep("std", "1", _numbers(values.std)))
        if len(mistakes) > MAX_MISTAKES:
            yield Candidate(replace(right, values=plain), tuple(mistakes))


def _numbers(values: tuple[float, ...]) -> str:
    shown = [f"{value:.4g}" for value in values]
    return shown[0] if len(set(shown)) == 1 else ", ".join(shown)
