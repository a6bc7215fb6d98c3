"""`export`: a checkpoint to a checked ONNX file."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

from emca_deploy.atomic import atomic_write
from emca_deploy.data.choosing import assumed_note
from emca_deploy.errors import InputError
from emca_deploy.exporting.checkpoint import CheckpointExport, ExportOptions, export_checkpoint
from emca_deploy.exporting.detectors import DetectorExport
from emca_deploy.exporting.dla_convert import DlaConversion, convert_for_dla
from emca_deploy.preprocessing import Preprocessing, PreprocessingOptions
from emca_deploy.tasks.host_part import heads_path

if TYPE_CHECKING:
    from emca_deploy.networks.checkpoints import CheckpointSource, ModelSpec

__all__ = ["DetectorExport", "ExportReport", "ExportRequest", "export"]

Found = Callable[["CheckpointSource"], None]
"""A callback that gets the network's place in the checkpoint before the export."""


@dataclass(frozen=True)
class ExportRequest(ExportOptions):
    """Options of an export; see also `ExportOptions`.

    Attributes:
        checkpoint: .pth, .pt, .pth.tar, .ckpt, .safetensors or the .index.json of shards; None for random weights. The form
            "dla" also takes an .onnx file.
        output: ONNX file to write; its manifest is written next to it.
        form: "plain", or "dla" for forms that a Jetson's DLA runs, with the same results.
    """

    checkpoint: Path | None
    output: Path
    preprocessing: PreprocessingOptions | Preprocessing = field(default_factory=PreprocessingOptions, kw_only=True)
    form: Literal["plain", "dla"] = "plain"


@dataclass(frozen=True)
class ExportReport:
    """Result of an export.

    Attributes:
        exported: export of the checkpoint; None if the form for a DLA was made from an .onnx file.
        dla: conversion to the forms for a DLA; None for a plain export.
        checkpoint: source of the weights; None for random ones.
        notes: facts for the user, one line each.
    """

    exported: CheckpointExport | None
    dla: DlaConversion | None = None
    checkpoint: Path | None = None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of `export`."""
        exported = {} if self.exported is None else self.exported.to_dict()
        if self.dla is None:
            return exported
        source = str(self.checkpoint) if self.checkpoint is not None else None
        return {**exported, **self.dla.to_dict(), "source": source}


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
    if request.form == "dla":
        return _for_dla(request, found)
    exported = export_checkpoint(request.checkpoint, request.output, request, found)
    note = assumed_note(str(request.output), exported.preprocessing)
    return ExportReport(exported, checkpoint=request.checkpoint, notes=() if note is None else (note,))


def _for_dla(request: ExportRequest, found: Found | None) -> ExportReport:
    """Write the forms for a DLA of an ONNX file, or of a checkpoint's export."""
    if request.precision != "fp32":
        raise InputError("--form dla with --precision fp16", "leave --precision out: TensorRT makes a DLA's fp16 from fp32")
    if request.checkpoint is not None and request.checkpoint.suffix.lower() == ".onnx":
        return ExportReport(None, convert_for_dla(request.checkpoint, request.output), request.checkpoint)
    with TemporaryDirectory() as folder:
        plain = Path(folder) / request.output.name
        exported = export_checkpoint(request.checkpoint, plain, request, found, lambda spec: _check_dense(spec, request.part))
        if (heads := heads_path(plain)).is_file():
            with atomic_write(heads_path(request.output)) as place:
                copyfile(heads, place)
        return ExportReport(exported, convert_for_dla(plain, request.output), request.checkpoint)


def _check_dense(spec: "ModelSpec", part: str) -> None:
    if spec.detector is not None and part != "dense":
        raise InputError(f"--form dla: {spec.arch} is a detector, and no DLA selects boxes", "add --part dense")
