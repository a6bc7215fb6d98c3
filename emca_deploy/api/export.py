"""`export`: a checkpoint to a checked ONNX file."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, TypeGuard

from emca_deploy.atomic import atomic_write
from emca_deploy.data.choosing import assumed_note
from emca_deploy.data.label_files import read_class_map
from emca_deploy.errors import InputError, UnknownNameError
from emca_deploy.exporting.checkpoint import CheckpointExport, ExportOptions, export_checkpoint
from emca_deploy.exporting.detectors import DetectorExport
from emca_deploy.exporting.dla_convert import DlaConversion, convert_for_dla
from emca_deploy.exporting.model_output import ModelOutput, complete_output
from emca_deploy.exporting.pixel_convert import PixelConversion, convert_to_pixels
from emca_deploy.preprocessing import INPUT_FORMS, Preprocessing, PreprocessingOptions
from emca_deploy.tasks.host_part import heads_path

if TYPE_CHECKING:
    from emca_deploy.networks.checkpoints import CheckpointSource, ModelSpec

__all__ = ["CheckpointExport", "DetectorExport", "ExportReport", "ExportRequest", "PixelConversion", "export"]

Found = Callable[["CheckpointSource"], None]
"""A callback that gets the network's place in the checkpoint before the export."""


@dataclass(frozen=True)
class ExportRequest(ExportOptions):
    """Options of an export; see also `ExportOptions`.

    Attributes:
        checkpoint: .pth, .pt, .pth.tar, .ckpt, .safetensors or the .index.json of shards; None for random weights. The form
            "dla" and `input_form` also take an .onnx file.
        output: ONNX file to write; its manifest is written next to it.
        form: "plain", or "dla" for forms that a Jetson's DLA runs, with the same results.
        input_form: one of `INPUT_FORMS` for a graph that takes plain pixels and normalizes them itself; None for a normalized
            float32 input.
        softmax: whether a classifier's output holds probabilities instead of logits.
        labels_in_model: file with the name of each class, which the file's metadata then has; None for none.
    """

    checkpoint: Path | None
    output: Path
    preprocessing: PreprocessingOptions | Preprocessing = field(default_factory=PreprocessingOptions, kw_only=True)
    form: Literal["plain", "dla"] = "plain"
    input_form: str | None = None
    softmax: bool = False
    labels_in_model: Path | None = None


@dataclass(frozen=True)
class ExportReport:
    """Result of an export.

    Attributes:
        exported: export of the checkpoint; None if the file was made from an .onnx file.
        dla: conversion to the forms for a DLA; None for a plain export.
        pixels: conversion to an input of pixels; None for a normalized input.
        output: what was added to the output; None for plain logits.
        checkpoint: source of the weights; None for random ones.
        notes: facts for the user, one line each.
    """

    exported: CheckpointExport | None
    dla: DlaConversion | None = None
    pixels: PixelConversion | None = None
    output: ModelOutput | None = None
    checkpoint: Path | None = None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of `export`."""
        exported = {} if self.exported is None else self.exported.to_dict()
        source = str(self.checkpoint) if self.checkpoint is not None else None
        if self.dla is not None:
            exported |= {**self.dla.to_dict(), "source": source}
        if self.pixels is not None:
            exported |= {"schema_version": 1, "source": source, "onnx": str(self.pixels.onnx), "in_graph": self.pixels.record()}
        if self.output is not None:
            exported |= {"schema_version": 1, "source": source, "onnx": str(self.output.onnx), "output": self.output.record()}
        return exported


def export(request: ExportRequest, found: Found | None = None) -> ExportReport:
    """Export a checkpoint, or random weights, to ONNX; the file is checked against PyTorch before it appears.

    `found` gets the network's place in the checkpoint.

    Raises:
        CheckpointError: the checkpoint cannot be read, or fits no architecture.
        ModelError: the exporter or ONNX Runtime refuses the options.
        GateError: the logits differ too much from PyTorch's; no file is left.
        InputError: there is neither a checkpoint nor an architecture, or options exclude each other.
        MissingError: torch is not installed.
        OutputError: `output` cannot be written.
    """
    if request.softmax or request.labels_in_model is not None:
        return _with_output(request, found)
    if request.input_form is not None:
        return _of_pixels(request, request.input_form, found)
    if request.form == "dla":
        return _for_dla(request, found)
    exported = export_checkpoint(request.checkpoint, request.output, request, found)
    return _noted(ExportReport(exported, checkpoint=request.checkpoint), str(request.output), exported.preprocessing)


def _for_dla(request: ExportRequest, found: Found | None) -> ExportReport:
    """Write the forms for a DLA of an ONNX file, or of a checkpoint's export."""
    if request.precision != "fp32":
        raise InputError("--form dla with --precision fp16", "leave --precision out: TensorRT makes a DLA's fp16 from fp32")
    if _is_onnx(request.checkpoint):
        return ExportReport(None, convert_for_dla(request.checkpoint, request.output), checkpoint=request.checkpoint)
    with TemporaryDirectory() as folder:
        plain = Path(folder) / request.output.name
        exported = export_checkpoint(request.checkpoint, plain, request, found, lambda spec: _check_dense(spec, request.part))
        _copy_heads(plain, request.output)
        return ExportReport(exported, convert_for_dla(plain, request.output), checkpoint=request.checkpoint)


def _of_pixels(request: ExportRequest, form: str, found: Found | None) -> ExportReport:
    """Write an ONNX file, or a checkpoint's export, that takes pixels."""
    if form not in INPUT_FORMS:
        raise UnknownNameError.of("form of the input", form, INPUT_FORMS, f"one of: {', '.join(INPUT_FORMS)}")
    if request.form == "dla":
        raise InputError("--input with --form dla: a DLA takes no pixels", "leave one of the two out")
    said = request.preprocessing
    if _is_onnx(request.checkpoint):
        made = convert_to_pixels(request.checkpoint, request.output, form, said)
        return _noted(ExportReport(None, pixels=made, checkpoint=request.checkpoint), str(request.checkpoint), made.network)
    with TemporaryDirectory() as folder:
        plain = Path(folder) / request.output.name
        exported = export_checkpoint(request.checkpoint, plain, request, found)
        _copy_heads(plain, request.output)
        made = convert_to_pixels(plain, request.output, form)
    return _noted(ExportReport(exported, pixels=made, checkpoint=request.checkpoint), str(request.output), made.network)


def _with_output(request: ExportRequest, found: Found | None) -> ExportReport:
    """Write a file with probabilities or class names, made from an ONNX file or from what the other options make."""
    names = None if request.labels_in_model is None else read_class_map(request.labels_in_model)
    if _is_onnx(request.checkpoint) and request.input_form is None and request.form == "plain":
        made = complete_output(request.checkpoint, request.output, softmax=request.softmax, names=names)
        return ExportReport(None, output=made, checkpoint=request.checkpoint)
    with TemporaryDirectory() as folder:
        plain = Path(folder) / request.output.name
        report = export(replace(request, output=plain, softmax=False, labels_in_model=None), found)
        made = complete_output(plain, request.output, softmax=request.softmax, names=names)
    place = request.output
    return replace(
        report,
        output=made,
        exported=report.exported and replace(report.exported, onnx=place),
        pixels=report.pixels and replace(report.pixels, onnx=place),
        dla=report.dla and replace(report.dla, onnx=place),
        notes=tuple(text.replace(str(plain), str(place)) for text in report.notes),
    )


def _noted(report: ExportReport, name: str, used: Preprocessing) -> ExportReport:
    """Return a report with a note of what is assumed about a network's preprocessing."""
    note = assumed_note(name, used)
    return report if note is None else replace(report, notes=(note,))


def _is_onnx(path: Path | None) -> TypeGuard[Path]:
    return path is not None and path.suffix.lower() == ".onnx"


def _copy_heads(plain: Path, output: Path) -> None:
    """Copy the heads of a detector's dense part, if there are any."""
    if (heads := heads_path(plain)).is_file():
        with atomic_write(heads_path(output)) as place:
            copyfile(heads, place)


def _check_dense(spec: "ModelSpec", part: str) -> None:
    if spec.detector is not None and part != "dense":
        raise InputError(f"--form dla: {spec.arch} is a detector, and no DLA selects boxes", "add --part dense")
