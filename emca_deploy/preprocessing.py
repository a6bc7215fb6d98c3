"""Preprocessing: how an image becomes the network's input, and the user's facts about images and labels."""

from dataclasses import asdict, dataclass, field, fields, replace
from math import isfinite
from pathlib import Path
from typing import Any, Literal

__all__ = [
    "CHANNEL_ORDERS",
    "EXIF_MODES",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "INPUT_FORMS",
    "INTERPOLATIONS",
    "MAX_PIXELS",
    "OPENCV_INTERPOLATIONS",
    "PADS",
    "PILLOW_INTERPOLATIONS",
    "RESIZES",
    "SCALES",
    "ClassOrder",
    "Labelling",
    "PadValue",
    "Preprocessing",
    "PreprocessingOptions",
    "Size",
    "model_io",
    "sides",
]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

RESIZES = ("shortest", "squash", "letterbox", "none")
PILLOW_INTERPOLATIONS = ("bilinear", "bicubic", "nearest", "lanczos")
OPENCV_INTERPOLATIONS = ("opencv-linear", "opencv-cubic", "opencv-area", "opencv-nearest")
INTERPOLATIONS = (*PILLOW_INTERPOLATIONS, *OPENCV_INTERPOLATIONS)
CHANNEL_ORDERS = ("rgb", "bgr", "gray")
PADS = ("center", "end")
EXIF_MODES = ("apply", "ignore")
SCALES = (255, 1)

INPUT_FORMS = ("uint8-nhwc", "uint8-nchw", "float32-nchw")
"""Inputs of plain pixels, 0 to 255, that a graph normalizes itself: type and order of the axes."""

MAX_PIXELS = 89_478_485
"""Most pixels of one image: Pillow's own limit, a quarter of a GiB as RGB."""

LARGEST_SIDE = 4096
"""Most pixels of a side that an option takes."""

ClassOrder = Literal["number", "string", "index"]

Size = int | tuple[int, int]
"""Size in pixels: the side of a square, or (height, width)."""

PadValue = float | Literal["mean"]
"""Value of filled pixels: one of 0 to 255, or the mean of each channel."""

_EARLIER = {"exif": "apply"}
"""Values of fields that earlier records do not have, where they differ from the defaults."""


def sides(size: Size) -> tuple[int, int]:
    """Return (height, width) in pixels."""
    return (size, size) if isinstance(size, int) else size


def parse_size(text: str) -> Size | None:
    """Return the size of "224", or of "256x128" (height, width); None where a side is not a number from 1 to 4096."""
    parts = text.lower().split("x")
    numbers = [int(part) if part.isascii() and part.isdigit() and len(part) < 6 else 0 for part in parts]
    if len(numbers) > 2 or not all(1 <= number <= LARGEST_SIDE for number in numbers):
        return None
    return numbers[0] if len(set(numbers)) == 1 else (numbers[0], numbers[1])


def model_io(image_size: Size | None, output_name: str | None) -> dict[str, Any]:
    """Return the `io` of a request, without what is None."""
    given = {"image_size": None if image_size is None else list(sides(image_size)), "output_name": output_name}
    return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the network's input, (channels, height, width) float32.

    The image is resized, its centre cropped or its border filled, its channels put in order, and then each value becomes
    (value / scale - mean) / std.

    Attributes:
        image_size: size of the input in pixels.
        resize_size: size in pixels before the centre crop. With "shortest", a number is the short side, and (height, width) is
            the area that the image must cover; with "squash", the image is stretched to it. "letterbox" and "none" ignore it.
        mean: mean of each channel, in the order of `channels`, of values divided by `scale`.
        std: standard deviation of each channel, in the same order and unit.
        resize: "shortest" (keeps the aspect ratio, then crops), "squash" (does not keep it), "letterbox" (keeps it, and fills
            the border), or "none" (crops or fills only).
        interpolation: "bilinear", "bicubic", "nearest" or "lanczos", as in Pillow: all but nearest are antialiased. Or one of
            `OPENCV_INTERPOLATIONS`, as cv2.resize with INTER_LINEAR, and so on: none but opencv-area is antialiased.
        pad: position of the image in a letterbox: "center", or at the top left with the filling at the "end".
        pad_value: value of filled pixels, 0 to 255, before `scale`, `mean` and `std`; "mean" is the mean of each channel, which
            makes them 0 in the input.
        channels: "rgb", "bgr", or "gray" for one channel.
        scale: divisor of pixel values: 255 gives values in [0, 1], 1 leaves them in [0, 255].
        exif: "apply" rotates an image by its EXIF orientation; "ignore" takes the stored pixels.
        assumed: names of the fields that neither a user nor a file gave.

    Raises:
        ValueError: a value is out of range, or the number of means or deviations is not that of channels.
    """

    image_size: Size = 224
    resize_size: Size = 256
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    resize: str = "shortest"
    interpolation: str = "bilinear"
    pad: str = "center"
    pad_value: PadValue = 0.0
    channels: str = "rgb"
    scale: int = 255
    exif: str = "ignore"
    assumed: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        for name in ("image_size", "resize_size"):
            object.__setattr__(self, name, _checked_size(name, getattr(self, name)))
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} {getattr(self, name)!r} is not one of {', '.join(map(str, known))}")
        for name in ("mean", "std"):
            numbers = tuple(float(number) for number in getattr(self, name))
            if len(numbers) != self.channel_count or not all(map(isfinite, numbers)):
                raise ValueError(f"{name} {numbers} for {self.channel_count} channels")
            object.__setattr__(self, name, numbers)
        if min(self.std) <= 0:
            raise ValueError(f"std {self.std} is not positive")
        if self.pad_value == "mean":
            return
        if isinstance(self.pad_value, str) or not 0 <= self.pad_value <= 255:
            raise ValueError(f"pad_value {self.pad_value} is neither a pixel value nor 'mean'")
        object.__setattr__(self, "pad_value", float(self.pad_value))

    @property
    def height(self) -> int:
        """Height of the input in pixels."""
        return sides(self.image_size)[0]

    @property
    def width(self) -> int:
        """Width of the input in pixels."""
        return sides(self.image_size)[1]

    @property
    def channel_count(self) -> int:
        """Number of channels of the input: 1 or 3."""
        return 1 if self.channels == "gray" else 3

    @property
    def filling(self) -> tuple[float, ...]:
        """Value of filled pixels in each channel, before `scale`, `mean` and `std`."""
        if self.pad_value == "mean":
            return tuple(self.scale * number for number in self.mean)
        return (float(self.pad_value),) * self.channel_count

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the input: (channels, height, width)."""
        return (self.channel_count, self.height, self.width)

    @classmethod
    def for_size(cls, image_size: Size) -> "Preprocessing":
        """Return ImageNet's preprocessing for another image size, with the usual resize of 256/224."""
        height, width = sides(image_size)
        return cls(image_size, (round(height * 256 / 224), round(width * 256 / 224)))

    def of_pixels(self, form: str) -> "Preprocessing":
        """Return the preprocessing of a graph that takes RGB or gray pixels in one of `INPUT_FORMS`, and does the rest itself.

        Raises:
            ValueError: the value of filled pixels is not one number, or is no integer where the form is uint8.
        """
        filling = set(self.filling)
        covers = min(sides(self.resize_size)) >= max(self.height, self.width)
        fills = self.resize in ("letterbox", "none") or not covers
        if fills and (len(filling) > 1 or (form.startswith("uint8") and not min(filling).is_integer())):
            raise ValueError(f"filled pixels of {', '.join(f'{value:.6g}' for value in self.filling)} do not fit {form}")
        assumed = tuple(name for name in self.assumed if name not in ("mean", "std", "scale", "channels"))
        channels, pad_value = "gray" if self.channel_count == 1 else "rgb", min(filling) if fills else 0.0
        return replace(self.plain(1), channels=channels, pad_value=pad_value, assumed=assumed)

    def plain(self, scale: int) -> "Preprocessing":
        """Return the same preprocessing with pixels that are only divided by `scale`."""
        return replace(self, mean=(0.0,) * self.channel_count, std=(1.0,) * self.channel_count, scale=scale)

    @staticmethod
    def older(values: dict[str, Any]) -> dict[str, Any]:
        """Return an earlier record with the values of the fields that it does not have."""
        return {**_EARLIER, **{name: values[name] for name in ("image_size", "resize_size", "mean", "std")}, **values}

    def identity(self) -> dict[str, Any]:
        """Return everything that pixels depend on, as JSON values."""
        values = asdict(self)
        del values["assumed"]
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


_CHOICES: dict[str, tuple[Any, ...]] = {
    "resize": RESIZES,
    "interpolation": INTERPOLATIONS,
    "pad": PADS,
    "channels": CHANNEL_ORDERS,
    "scale": SCALES,
    "exif": EXIF_MODES,
}


def _checked_size(name: str, size: Any) -> Size:
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or not all(isinstance(side, int) and not isinstance(side, bool) and side >= 1 for side in pair):
        raise ValueError(f"{name} {size!r} is neither a number of pixels nor (height, width)")
    if pair[0] * pair[1] > MAX_PIXELS:
        raise ValueError(f"{name} {size!r} has more than {MAX_PIXELS} pixels")
    return int(pair[0]) if pair[0] == pair[1] else (int(pair[0]), int(pair[1]))


@dataclass(frozen=True)
class PreprocessingOptions:
    """Facts about preprocessing from a user or a file; None means unspecified. Other fields are as in `Preprocessing`.

    Attributes:
        crop_pct: share of the resized image that the crop keeps, instead of `resize_size`.
        mean: one number for all channels, or one per channel.
        std: one number for all channels, or one per channel.
        source: file that the values come from, for errors; "" for none.
        from_source: names of the fields that come from this file.
    """

    image_size: Size | None = None
    resize_size: Size | None = None
    crop_pct: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    resize: str | None = None
    interpolation: str | None = None
    pad: str | None = None
    pad_value: PadValue | None = None
    channels: str | None = None
    scale: int | None = None
    exif: str | None = None
    source: str = ""
    from_source: tuple[str, ...] = ()

    def over(self, file: "PreprocessingOptions") -> "PreprocessingOptions":
        """Return the options of a file, with these options in their place."""
        said = self._said()
        if "resize_size" in said or "crop_pct" in said:  # the two are one choice
            said = {"resize_size": None, "crop_pct": None, **said}
        return replace(file, **said, from_source=tuple(name for name in file._said() if name not in said))

    def _said(self) -> dict[str, Any]:
        names = [own.name for own in fields(self) if own.name not in ("source", "from_source")]
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    @property
    def says_something(self) -> bool:
        """Whether anything but the size of the input is given."""
        return bool(set(self._said()) - {"image_size"})

    def words(self, name: str) -> str:
        """Return the name of a field for an error."""
        return f"{self.source}: {name}" if name in self.from_source else f"--{name.replace('_', '-')}"


@dataclass(frozen=True)
class Labelling:
    """The user's facts about labels.

    Attributes:
        labels: file with the label of each image, instead of folders.
        class_map: file with the output index of each class.
        offset: number added to every label; 1 skips a background class.
        order: order of class folders named by numbers: "number", "string", or "index" (the number is the output index).
    """

    labels: Path | None = None
    class_map: Path | None = None
    offset: int = 0
    order: ClassOrder | None = None

    @property
    def says_something(self) -> bool:
        """Whether the user gave anything."""
        return self != Labelling()

    @property
    def says_outputs(self) -> bool:
        """Whether the user gave the output index of classes."""
        return self.class_map is not None or self.offset != 0 or self.order == "index"
