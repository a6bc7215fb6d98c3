"""Chooses a model's preprocessing: from the user's options, then its manifest, then its graph, then ImageNet's."""

from dataclasses import dataclass, fields
from math import floor
from pathlib import Path
from typing import Any

from emca_deploy.artifacts import TensorSpec, read_manifest
from emca_deploy.errors import InputError, ModelError
from emca_deploy.onnx_file.file import OnnxFile
from emca_deploy.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing, PreprocessingOptions, Size, sides

__all__ = [
    "InputFacts",
    "assumed_for",
    "assumed_note",
    "choose_preprocessing",
    "file_facts",
    "network_preprocessing",
    "normalised_twice",
    "preprocessing_of_file",
]

LETTERBOX_PAD_VALUE = 114.0
"""The gray of YOLO's letterbox."""

PLAIN = 1e-3
"""Share of the largest pixel value that counts as rounding."""

NOTED = ("resize", "interpolation", "channels", "mean", "std")
"""Fields that cost nearly every network accuracy where they are wrong; an assumption of others alone needs no note."""


@dataclass(frozen=True)
class InputFacts:
    """A model's own information about its input; None where it has none.

    Attributes:
        channels: Number of channels, 1 or 3.
        pixel_range: Largest pixel value that the graph expects, 1.0 or 255.0, where it normalizes its input itself.
    """

    channels: int | None = None
    height: int | None = None
    width: int | None = None
    pixel_range: float | None = None

    @classmethod
    def of(cls, spec: TensorSpec, pixel_range: float | None = None) -> "InputFacts":
        """Return the facts of an input (N, C, H, W)."""
        known = [size if isinstance(size, int) else None for size in spec.shape[1:]]
        channels, height, width = known if len(known) == 3 else (None, None, None)
        return cls(channels, height, width, pixel_range)


def file_facts(path: Path) -> InputFacts:
    """Return the information of an ONNX file about its input; none for other files.

    Raises:
        ModelError: an .onnx file is missing, cannot be read or does not take images.
    """
    if path.suffix.lower() != ".onnx":
        return InputFacts()
    model = OnnxFile.open(path)
    image = model.image
    own = 255.0 if image.dtype == "uint8" else model.pixel_range  # a uint8 input can only take pixels as they are
    return InputFacts(image.channels, image.height, image.width, own)


def normalised_twice(path: Path, used: Preprocessing) -> str | None:
    """Return a warning where a graph that normalizes its input itself is given normalized pixels, else None.

    Raises:
        ModelError: an .onnx file cannot be read or does not take images.
    """
    own = file_facts(path).pixel_range if path.is_file() else None
    if own is None:
        return None
    ends = [((0 - mean) / std, (255 / used.scale - mean) / std) for mean, std in zip(used.mean, used.std, strict=True)]
    if all(abs(low) < PLAIN * own and abs(high - own) < PLAIN * own for low, high in ends):
        return None
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    return (
        f"{path}: normalizes pixels of 0 to {own:g} itself, but is given values of {low:.3g} to {high:.3g}; "
        f"for plain pixels: --mean 0 --std 1 --scale {round(255 / own)}"
    )


def assumed_for(spec: TensorSpec, _logits: TensorSpec) -> Preprocessing:
    """Return ImageNet's preprocessing for a model with an input (N, C, H, W).

    Raises:
        ModelError: the height or width is dynamic.
    """
    return choose_preprocessing(spec.name, PreprocessingOptions(), None, InputFacts.of(spec))


def network_preprocessing(said: PreprocessingOptions | Preprocessing) -> Preprocessing:
    """Return the preprocessing of a checkpoint's network: the user's options, and ImageNet's for the rest.

    Raises:
        InputError: a value is out of range, or does not fit another one.
    """
    if isinstance(said, Preprocessing):
        return said
    facts = InputFacts(3, *sides(said.image_size or Preprocessing().image_size))
    return choose_preprocessing("the network", said, None, facts)


def preprocessing_of_file(
    path: Path, asked: PreprocessingOptions, fallback: Preprocessing | None = None, facts: InputFacts | None = None
) -> Preprocessing:
    """Return the preprocessing of an ONNX file, an engine or a checkpoint.

    `fallback` is used where its manifest has none, without the statistics where the model normalizes its input itself. `facts`
    about its input are read from the file where None.

    Raises:
        InputError: an option is wrong, or does not fit the model.
        ModelError: the model or its manifest cannot be read, or nothing gives the size of its images.
    """
    manifest = read_manifest(path, verify=False)
    facts = facts or file_facts(path)
    known = manifest.preprocessing if manifest is not None else None
    if known is None and fallback is not None:
        known = fallback if facts.pixel_range is None else fallback.plain(round(255 / facts.pixel_range))
    return choose_preprocessing(str(path), asked, known, facts)


def choose_preprocessing(name: str, asked: PreprocessingOptions, known: Preprocessing | None, facts: InputFacts) -> Preprocessing:
    """Return the user's options, then what is known, then what the model shows, then ImageNet's, which is `assumed`.

    `name` is the model's, for errors.

    Raises:
        InputError: a value is out of range, or does not fit the model or another value.
        ModelError: nothing gives the height and width, or the model takes neither 1 nor 3 channels.
    """
    choice = _Choice(name, asked, known, facts)
    image_size = choice.image_size()
    channels = choice.channels()
    plain = {
        "resize": choice.pick("resize", "shortest"),
        "interpolation": choice.pick("interpolation", "bilinear"),
        "exif": choice.pick("exif", "ignore"),
    }
    letterbox = plain["resize"] == "letterbox"
    same_kind = known is not None and known.resize == plain["resize"]
    padding = {
        "pad": choice.pick("pad", "center", matters=letterbox),
        "pad_value": choice.pick("pad_value", LETTERBOX_PAD_VALUE if letterbox else 0.0, matters=letterbox, inherit=same_kind),
    }
    resize_size = choice.resize_size(image_size, plain["resize"], same_kind)
    scale = choice.scale(channels)
    mean, std = choice.statistics("mean", channels), choice.statistics("std", channels)
    choice.check_range(mean, std, scale)
    order = [field.name for field in fields(Preprocessing)]
    assumed = tuple(sorted(choice.assumed, key=order.index))
    rest = {**plain, **padding, "channels": channels, "scale": scale, "assumed": assumed}
    try:
        return Preprocessing(image_size, resize_size, mean, std, **rest)
    except ValueError as exc:
        raise InputError(f"{name}: preprocessing: {exc}", "give values in the ranges that --help names") from exc


class _Choice:
    """The choice of each value, with the fields that are assumed."""

    def __init__(self, name: str, asked: PreprocessingOptions, known: Preprocessing | None, facts: InputFacts) -> None:
        self.assumed: set[str] = set()
        self._name, self._asked, self._known, self._facts = name, asked, known, facts

    def pick(self, field: str, default: Any, *, matters: bool = True, inherit: bool = True) -> Any:
        """Return the user's value, else the known one, else the default, which is an assumption where it `matters`."""
        said = getattr(self._asked, field)
        if said is not None:
            return said
        if self._known is not None and inherit:
            if matters and field in self._known.assumed:
                self.assumed.add(field)
            return getattr(self._known, field)
        if matters:
            self.assumed.add(field)
        return default

    def image_size(self) -> tuple[int, int]:
        fixed = (self._facts.height, self._facts.width)
        asked = None if self._asked.image_size is None else sides(self._asked.image_size)
        usual = None if self._known is None else sides(self._known.image_size)
        found = []
        for index in range(2):
            if asked is not None and fixed[index] is not None and asked[index] != fixed[index]:
                takes = "x".join("any" if size is None else str(size) for size in fixed)
                problem = f"{self._asked.words('image_size')} {asked[0]}x{asked[1]}: {self._name} takes {takes}"
                wanted = [size or side for size, side in zip(fixed, asked, strict=True)]
                raise InputError(problem, f"--image-size {wanted[0]}x{wanted[1]}")
            size = fixed[index] or (asked and asked[index]) or (usual and usual[index])
            if not size:
                raise ModelError(f"{self._name}: the height and width of its images are unknown", "give them with --image-size")
            found.append(size)
        return found[0], found[1]

    def channels(self) -> str:
        count = self._facts.channels
        if count not in (None, 1, 3):
            raise ModelError(f"{self._name}: takes {count} channels", "use a classifier of images with 1 or 3 channels")
        known = self._known is not None and (count is None or self._known.channel_count == count)
        if self._asked.channels is None and not known and count == 1:
            return "gray"
        channels = str(self.pick("channels", "rgb", inherit=known))
        if count is not None and (channels == "gray") != (count == 1):
            remedy = "--channels gray" if count == 1 else "--channels rgb or bgr"
            raise InputError(f"{self._asked.words('channels')} {channels}: {self._name} takes {count} channels", remedy)
        return channels

    def resize_size(self, image_size: tuple[int, int], resize: str, same_kind: bool) -> Size:
        asked, known = self._asked, self._known
        if resize not in ("shortest", "squash"):
            if asked.resize_size is not None or asked.crop_pct is not None:
                which = "resize_size" if asked.resize_size is not None else "crop_pct"
                raise InputError(f"{asked.words(which)} does not go with --resize {resize}", "leave one of the two out")
            return image_size
        if asked.resize_size is not None and asked.crop_pct is not None:
            raise InputError("--resize-size and --crop-pct both set the resize size", "give one of the two")
        if asked.resize_size is not None:
            return asked.resize_size
        if asked.crop_pct is not None:
            return floor(image_size[0] / asked.crop_pct), floor(image_size[1] / asked.crop_pct)
        if known is not None and same_kind:
            if "resize_size" in known.assumed:
                self.assumed.add("resize_size")
            return _in_proportion(known, image_size)
        if resize == "squash":
            return image_size
        self.assumed.add("resize_size")
        return _in_proportion(Preprocessing(), image_size)

    def scale(self, channels: str) -> int:
        asked, own = self._asked, self._facts.pixel_range
        in_units = asked.mean is not None or asked.std is not None  # without --scale, these are for values in [0, 1]
        default = 255 if own is None or in_units else round(255 / own)
        before = default if self._known is None else self._known.scale
        complete = asked.mean is not None and asked.std is not None
        if asked.scale is not None and asked.scale != before and not complete and (self._known or own is None):
            factor = 255 // asked.scale
            usual = (_reordered(numbers, "rgb", channels) for numbers in (IMAGENET_MEAN, IMAGENET_STD))
            mean, std = ([factor * number for number in numbers] for numbers in usual)
            remedy = f"for plain pixels add --mean 0 --std 1, for ImageNet's --mean {_text(mean)} --std {_text(std)}"
            raise InputError(f"{asked.words('scale')} {asked.scale} without --mean and --std", remedy)
        return int(self.pick("scale", default, matters=own is None))

    def statistics(self, field: str, channels: str) -> tuple[float, ...]:
        count = 1 if channels == "gray" else 3
        said: tuple[float, ...] | None = getattr(self._asked, field)
        if said is not None:
            if len(said) not in (1, count):
                raise InputError(
                    f"{self._asked.words(field)} {_text(said)}: {len(said)} numbers for {count} channels", f"give 1 or {count}"
                )
            if field == "std" and min(said) <= 0:
                problem = f"{self._asked.words(field)} {_text(said)}: must be positive"
                raise InputError(problem, "for example --std 0.229,0.224,0.225")
            return said * count if len(said) == 1 else said
        if self._known is not None:
            if field in self._known.assumed:
                self.assumed.add(field)
            return _reordered(getattr(self._known, field), self._known.channels, channels)
        if self._facts.pixel_range is not None:
            return (0.0 if field == "mean" else 1.0,) * count
        self.assumed.add(field)
        return _reordered(IMAGENET_MEAN if field == "mean" else IMAGENET_STD, "rgb", channels)

    def check_range(self, mean: tuple[float, ...], std: tuple[float, ...], scale: int) -> None:
        """Refuse statistics of values in [0, 255] for values in [0, 1]."""
        asked = self._asked
        said = [(name, values) for name, values in (("mean", asked.mean), ("std", asked.std)) if values is not None]
        if scale != 255 or not said or max(*map(abs, mean), *std) <= 1:
            return
        given = " ".join(f"{asked.words(name)} {_text(values)}" for name, values in said)
        divided = " ".join(f"--{name} {_text([number / 255 for number in values])}" for name, values in said)
        whole = "" if len(said) == 2 else f" and --{'std' if said[0][0] == 'mean' else 'mean'} in the same unit"
        raise InputError(
            f"{given}: is above 1, but pixels are divided by 255 first, to [0, 1]",
            f"divide by 255: {divided}; or keep the numbers and add --scale 1{whole}",
        )


def _in_proportion(known: Preprocessing, image_size: tuple[int, int]) -> Size:
    """Return the resize size in the same proportion to another image size."""
    if sides(known.image_size) == image_size:
        return known.resize_size
    pairs = zip(image_size, sides(known.image_size), sides(known.resize_size), strict=True)
    height, width = (round(new * resized / old) for new, old, resized in pairs)
    return max(height, 1), max(width, 1)


def _reordered(numbers: tuple[float, ...], have: str, want: str) -> tuple[float, ...]:
    """Return a statistic of channels in another order; for gray it is the mean of the three."""
    if have == want:
        return numbers
    if want == "gray":
        return (round(sum(numbers) / len(numbers), 6),)
    return numbers * 3 if have == "gray" else numbers[::-1]


def _text(numbers: Any) -> str:
    return ",".join(f"{number:.6g}" for number in numbers)


def assumed_note(name: str, used: Preprocessing) -> str | None:
    """Return a line with the assumed parts of a model's preprocessing; None where none of them changes accuracy much."""
    if not set(used.assumed) & set(NOTED):
        return None
    parts = {
        "resize": _resize_words(used),
        "interpolation": used.interpolation,
        "channels": used.channels,
        "mean": f"mean {_text(used.mean)}",
        "std": f"std {_text(used.std)}",
        "exif": f"EXIF orientation {'applied' if used.exif == 'apply' else 'ignored'}",
    }
    guessed = ", ".join(words for field, words in parts.items() if field in used.assumed)
    options = ", ".join(f"--{field}" for field in parts if field in used.assumed)
    remedy = f"set {options}, or --preprocessing FILE"
    return f"{name}: its preprocessing is not specified; assuming {guessed}; {remedy}"


def _resize_words(used: Preprocessing) -> str:
    if used.resize == "shortest":
        pair = used.resize_size
        resized = f"short side to {pair}" if isinstance(pair, int) else f"resized to cover {pair[0]}x{pair[1]}"
        return f"{resized} and centre crop of {used.height}x{used.width}"
    return f"{used.resize} to {used.height}x{used.width}"
