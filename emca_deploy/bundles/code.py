"""Programs that classify images with a bundle's models, generated with its sizes, numbers and names from the templates here."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from emca_deploy.bundles.contents import Contents
from emca_deploy.bundles.templating import ENDING, TEMPLATES, environment
from emca_deploy.errors import BundleError, EmcaError
from emca_deploy.onnx_file.file import OnnxFile
from emca_deploy.onnx_file.header import dtype_name
from emca_deploy.preprocessing import MAX_PIXELS, PILLOW_INTERPOLATIONS, Preprocessing, sides
from emca_deploy.results.bundle import BundleVariant

__all__ = ["LANGUAGES", "programs"]

LANGUAGES = ("python", "cpp")
RUNTIMES = ("openvino", "onnxruntime")
"""Backends whose libraries the programs can use; the first one that a bundle has a model for is the default."""

_FOLDER = "code"
_REMEDY = "bundle the ONNX file of a classifier that takes one image, or any number, or leave --code out"


@dataclass(frozen=True)
class _Model:
    """A model as a program runs it.

    Attributes:
        runtime: One of `RUNTIMES`.
        file: File in the bundle.
        input: Name of its input.
        output: Name of its output.
        dtype: Type of its input.
        layout: Order of the axes of its input.
        classes: Number of classes.
        probabilities: Whether its output holds probabilities, not logits.
        temperature: Number to divide the logits by before the softmax.
        exact_sums: Whether ONNX Runtime must be asked for exact sums on processors without VNNI.
    """

    runtime: str
    file: str
    input: str
    output: str
    dtype: str
    layout: Literal["NCHW", "NHWC"]
    classes: int | None
    probabilities: bool
    temperature: float
    exact_sums: bool


def programs(contents: Contents, classes: Sequence[str], languages: Sequence[str]) -> dict[str, str]:
    """Return the text of each file of the programs by its name in the bundle.

    Args:
        contents: What the bundle holds.
        classes: Names of the classes; their numbers are printed where this is empty.
        languages: Some of `LANGUAGES`.

    Raises:
        BundleError: no model of the bundle can run in such a program.
        MissingError: Jinja2 is not installed.
    """
    made = environment()
    made.filters["c_text"] = _c_text
    models = _models(contents)
    values = {**_values(_preprocessing(contents), models, classes), "languages": languages}
    found = {}
    for template in sorted(_templates(languages, [model.runtime for model in models])):
        name = template.relative_to(TEMPLATES).as_posix()
        found[f"{_FOLDER}/{name.removesuffix(ENDING)}"] = made.get_template(name).render(values)
    return found


def _templates(languages: Sequence[str], runtimes: Sequence[str]) -> Iterator[Path]:
    """Yield the templates for these languages, without those for other runtimes."""
    yield TEMPLATES / f"README.md{ENDING}"
    for language in languages:
        for path in (TEMPLATES / language).iterdir():
            if path.name.partition(".")[0] not in set(RUNTIMES) - set(runtimes):
                yield path


def _preprocessing(contents: Contents) -> Preprocessing:
    used = contents.preprocessing
    if used is None:
        raise BundleError(
            "--code: nobody stated the preprocessing of these models", "state it when you export them, or leave --code out"
        )
    if used.interpolation not in PILLOW_INTERPOLATIONS:
        raise BundleError(f"--code: the programs cannot resize by '{used.interpolation}'", "leave --code out")
    return used


def _models(contents: Contents) -> list[_Model]:
    """Return the fastest model for each runtime that has one; one made for this runtime comes before others."""
    found, reasons = [], list[str]()
    for runtime in RUNTIMES:
        fitting = [each for each in contents.variants if each.kind == "onnx" and each.backend in (None, runtime)]
        for variant in sorted(fitting, key=lambda each: each.backend is None):
            model, reason = _model(contents, variant, runtime)
            if model is not None:
                found.append(model)
                break
            reasons.append(f"{variant.file} {reason}")
    if not found:
        raise BundleError(f"--code: {reasons[0] if reasons else 'there is no ONNX file for a CPU in the bundle'}", _REMEDY)
    return found


def _model(contents: Contents, variant: BundleVariant, runtime: str) -> tuple[_Model | None, str]:
    """Return a model, or None and why a program cannot run it."""
    manifest = contents.manifests[variant.name]
    try:
        file = OnnxFile.open(contents.files[variant.file])
        image, logits = file.image, file.find_logits(manifest.details.get("io", {}).get("output_name"))
    except EmcaError as exc:
        return None, f"cannot be read: {exc.problem}"
    types = {value.name: dtype_name(value.type.tensor_type.elem_type) for value in file.graph.output}
    if image.dtype == "float16" or types[logits.name] != "float32":
        return None, f"takes {image.dtype} and returns {types[logits.name]}"
    if image.batch not in (None, 1):
        return None, f"takes {image.batch} images at a time"
    exact_sums = runtime == "onnxruntime" and manifest.precision == "int8" and manifest.details.get("weight_bits") != 7
    classes = logits.classes or manifest.num_classes
    made = (image.dtype, image.layout, classes, logits.softmax, manifest.temperature or 1.0, exact_sums)
    return _Model(runtime, variant.file, image.name, logits.name, *made), ""


def _values(used: Preprocessing, models: Sequence[_Model], classes: Sequence[str]) -> dict[str, Any]:
    """Return what the templates show.

    Raises:
        BundleError: the number of classes is unknown.
    """
    count = models[0].classes
    if not classes and count is None:
        raise BundleError("--code: the number of classes is unknown", "name the classes with --labels, or leave --code out")
    height, width = sides(used.resize_size)
    covers = used.resize in ("shortest", "squash") and height >= used.height and width >= used.width
    return {
        "models": models,
        "runtimes": [model.runtime for model in models],
        "classes": classes or [str(number) for number in range(count or 0)],
        "used": used,
        "resize_height": height,
        "resize_width": width,
        "square": isinstance(used.resize_size, int),
        "fills": not covers,
        "normalizes": any(used.mean) or any(value != 1 for value in used.std),
        "at_end": used.resize == "letterbox" and used.pad == "end",
        "exact_sums": any(model.exact_sums for model in models),
        "max_pixels": MAX_PIXELS,
        **{name: list(map(_c_float, getattr(used, name))) for name in ("mean", "std", "filling")},
    }


def _c_text(text: str) -> str:
    """Return a text as a literal of C++, whose bytes are UTF-8."""
    plain = (chr(byte) if 32 <= byte < 127 and chr(byte) not in '"\\?' else f"\\{byte:03o}" for byte in text.encode())
    return f'"{"".join(plain)}"'


def _c_float(value: float) -> str:
    return f"{value!r}f"
