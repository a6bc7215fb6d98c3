"""Exports a checkpoint, or fresh weights, to a checked ONNX file with its manifest."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emca_deploy._optional import import_optional, installed_version
from emca_deploy.artifacts import Manifest, Precision, atomic_write, sha256_file, this_command, write_artifact
from emca_deploy.data.choosing import network_preprocessing
from emca_deploy.errors import InputError
from emca_deploy.exporting.detectors import (
    DetectorExport,
    Part,
    Roi,
    check_detector,
    configure_module,
    detector_preprocessing,
    export_detector,
)
from emca_deploy.exporting.exporter import OPSET, export_onnx
from emca_deploy.exporting.half import HalfConversion, convert_to_half
from emca_deploy.exporting.parity import Parity, check_parity, parity_images, real_images
from emca_deploy.networks.registry import find_architecture
from emca_deploy.preprocessing import Preprocessing, PreprocessingOptions
from emca_deploy.results.codec import to_json
from emca_deploy.tasks.host_part import heads_path

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from emca_deploy.networks.checkpoints import CheckpointSource, ModelSpec, Weights

__all__ = ["CheckpointExport", "ExportOptions", "export_checkpoint"]

RECORDED_VERSIONS = ("torch", "onnx_ir", "onnx", "onnxruntime", "numpy")
SEED = 0
IMAGENET_CLASSES, COCO_CLASSES = 1000, 80


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Options of an export.

    Attributes:
        arch: Architecture; None infers it from the checkpoint.
        num_classes: Width of the logits; None reads it from the checkpoint.
        preprocessing: Preprocessing or options for it; its image size is the model's.
        batch: Fixed number of images, or None for a dynamic batch.
        precision: "fp32", or "fp16" for weights and activations; input and logits are float32 either way.
        weights: Weights of the checkpoint, "ema" or "plain"; None takes the moving average where there is one.
        prefix: Beginning of the network's names, where the checkpoint has several networks.
        part: Part of a detector to export: "full", or "dense" for what comes before all selection of boxes.
        roi: Form of RoiAlign in a detector's file; None takes "roialign".
        prefer_grid: Whether None takes "gridsample" instead where the detector has this form, as TensorRT-RTX needs it.
        max_detections: Rows of a detector's outputs; None takes the checkpoint's.
    """

    arch: str | None = None
    num_classes: int | None = None
    preprocessing: PreprocessingOptions | Preprocessing = field(default_factory=Preprocessing)
    batch: int | None = None
    opset: int = OPSET
    precision: Precision = "fp32"
    weights: "Weights | None" = None
    prefix: str | None = None
    part: Part = "full"
    roi: Roi | None = None
    prefer_grid: bool = False
    max_detections: int | None = None


@dataclass(frozen=True)
class CheckpointExport:
    """The result of an export.

    Attributes:
        num_classes: Width of the logits.
        parity: Parity of the file with PyTorch; for an fp16 file, run emulated, with the fp32 model it was made from.
        fp32_parity: Parity of the fp32 model with PyTorch.
        half: Conversion to fp16; None for an fp32 file.
        source: Place of the network in the checkpoint; None for fresh weights.
        detector: What only the export of a detector has; None for a classifier.
        preprocessing: Preprocessing in the manifest.
    """

    onnx: Path
    arch: str
    num_classes: int
    params: int
    parity: Parity
    fp32_parity: Parity
    half: HalfConversion | None = None
    source: "CheckpointSource | None" = None
    detector: DetectorExport | None = None
    preprocessing: Preprocessing = field(default_factory=Preprocessing)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of `export`."""
        return {
            "schema_version": 1,
            "onnx": str(self.onnx),
            "arch": self.arch,
            "num_classes": self.num_classes,
            "params": self.params,
            "precision": "fp16" if self.half else "fp32",
            "parity": to_json(self.parity),
            **self.details(),
        }

    def details(self) -> dict[str, Any]:
        """Return what the JSON document and the manifest both have of the fp16 conversion and the checkpoint."""
        half = {"fp16": {**self.half.to_dict(), "fp32_parity": to_json(self.fp32_parity)}} if self.half else {}
        detector: dict[str, Any] = {}
        if self.detector is not None:
            heads = {"heads": heads_path(self.onnx).name} if self.detector.heads else {}
            detector = {"task": "detection", "detector": {**self.detector.to_dict(), **heads}}
        return half | detector | ({"checkpoint": to_json(self.source)} if self.source else {})


def export_checkpoint(
    checkpoint: Path | None,
    output: Path,
    options: ExportOptions,
    found: "Callable[[CheckpointSource], None] | None" = None,
    loaded: "Callable[[ModelSpec], None] | None" = None,
) -> CheckpointExport:
    """Export a checkpoint, or fresh weights where it is None, and compare the file with PyTorch before it appears.

    Before the export begins `found` is called with the network's place in the checkpoint, and `loaded` with its description.

    Raises:
        CheckpointError: the checkpoint cannot be read or fits no architecture.
        ModelError: the exporter or ONNX Runtime refuses the options, or memory does not suffice.
        GateError: the file's logits differ from PyTorch's by more than the gate; no file is left.
        InputError: there is neither a checkpoint nor an architecture, or the number of classes differs.
        MissingError: torch is not installed.
        OutputError: `output` cannot be written.
    """
    import_optional("onnx_ir")
    network_preprocessing(options.preprocessing)  # refuses values out of range before the work
    with write_artifact(output) as draft:  # first, because a place that cannot be written to is refused before the work
        module, spec = _module(checkpoint, options)
        if found is not None and spec.source is not None:
            found(spec.source)
        if loaded is not None:
            loaded(spec)
        write = _write_classifier if spec.detector is None else _write_detector
        result = replace(write(module, spec, options, draft.path), onnx=output)
        if result.detector is not None and result.detector.heads:
            with atomic_write(heads_path(output)) as place, place.open("wb") as stream:
                np.savez(stream, **result.detector.heads)  # type: ignore[arg-type]  # numpy's own option has a bool
        draft.manifest = _manifest(checkpoint, spec, options, result)
    return result


def _write_classifier(module: "nn.Module", spec: "ModelSpec", options: ExportOptions, path: Path) -> CheckpointExport:
    ir = import_optional("onnx_ir")
    given = {"--part": options.part == "dense", "--roi": options.roi, "--max-detections": options.max_detections}
    if names := [name for name, value in given.items() if value]:
        raise InputError(f"{names[0]}: {spec.arch} is a classifier", f"leave {names[0]} out, or export a detector")
    preprocessing = network_preprocessing(options.preprocessing)
    images = parity_images(preprocessing.image_size, real_images(preprocessing))
    model = export_onnx(module, preprocessing.image_size, options.batch, options.opset)
    ir.save(model, path)
    parity = check_parity(module, path, images)
    half = convert_to_half(model, images) if options.precision == "fp16" else None
    if half is not None:
        ir.save(model, path)
    final = half.parity if half else parity
    return CheckpointExport(
        path, spec.arch, spec.num_classes, spec.params, final, parity, half, spec.source, preprocessing=preprocessing
    )


def _write_detector(module: Any, spec: "ModelSpec", options: ExportOptions, path: Path) -> CheckpointExport:
    preprocessing = network_preprocessing(detector_preprocessing(options.preprocessing, spec.preprocessing))
    check_detector(module, preprocessing.image_size, options.part, options.roi)
    if options.max_detections is not None:
        configure_module(module, max_detections=options.max_detections)
    images = parity_images(preprocessing.image_size, real_images(preprocessing))
    crops = module.has_regions and options.part == "full" and module.config.roi_sampling_ratio > 0
    made = export_detector(
        module,
        images,
        path,
        batch=options.batch or 1,
        opset=options.opset,
        part=options.part,
        roi=options.roi or ("gridsample" if options.prefer_grid and crops else None),
        half=options.precision == "fp16",
    )
    final = made.parity if made.half is None else made.half.parity
    return CheckpointExport(
        path, spec.arch, spec.num_classes, spec.params, final, made.parity, made.half, spec.source, made, preprocessing
    )


def _manifest(checkpoint: Path | None, spec: "ModelSpec", options: ExportOptions, result: CheckpointExport) -> Manifest:
    from emca_deploy.checkpoint_files.opening import list_shards

    shards = [] if checkpoint is None else list_shards(checkpoint)
    digests = {} if checkpoint is None else {"checkpoint": sha256_file(checkpoint)}
    digests |= {f"checkpoint/{shard.name}": sha256_file(shard) for shard in shards}
    return Manifest(
        kind="onnx",
        sha256="",
        precision=options.precision,
        arch=spec.arch,
        num_classes=spec.num_classes,
        preprocessing=result.preprocessing,
        inputs=digests,
        versions={name: version for name in RECORDED_VERSIONS if (version := installed_version(name))},
        command=this_command(),
        details={
            "parity": to_json(result.parity),
            "opset": options.opset,
            "batch": options.batch or ("dynamic" if result.detector is None else 1),
            "layout": spec.layout,
            "options": spec.options,
            **result.details(),
        },
    )


def _module(checkpoint: Path | None, options: ExportOptions) -> "tuple[nn.Module, ModelSpec]":
    torch = import_optional("torch")  # first: the modules below import it, and only this call names the extra
    from emca_deploy.networks.checkpoints import ModelSpec, load_checkpoint
    from emca_deploy.networks.detectors.detector import Detector
    from emca_deploy.networks.registry import count_parameters, create_model

    if checkpoint is None:
        if options.arch is None:
            raise InputError("neither a checkpoint nor --arch with --random-init was given", "name one of them")
        torch.manual_seed(SEED)
        usual = IMAGENET_CLASSES if find_architecture(options.arch).detector is None else COCO_CLASSES
        num_classes = options.num_classes or usual
        module = create_model(options.arch, num_classes).eval()
        detector = module.config if isinstance(module, Detector) else None
        return module, ModelSpec(options.arch, num_classes, {}, "random", count_parameters(module), detector=detector)
    module, spec = load_checkpoint(checkpoint, options.arch, weights=options.weights, prefix=options.prefix)
    if options.num_classes not in {None, spec.num_classes}:
        raise InputError(
            f"{checkpoint}: has {spec.num_classes} classes, --num-classes says {options.num_classes}",
            "leave --num-classes out: it is read from the checkpoint",
        )
    return module, spec
