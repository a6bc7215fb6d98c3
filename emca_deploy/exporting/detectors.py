"""Exports a detector to one ONNX file of fixed shapes: all of it, or its dense part."""

from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes import common

from emca_deploy._optional import import_optional
from emca_deploy.arrays import Float32Array
from emca_deploy.errors import InputError
from emca_deploy.exporting.detection_parity import DetectionParity, check_dense, check_detections
from emca_deploy.exporting.exporter import export_onnx
from emca_deploy.exporting.half_detector import HalfDetector, convert_detector
from emca_deploy.exporting.parity import run_onnx
from emca_deploy.preprocessing import Preprocessing, PreprocessingOptions, Size, sides
from emca_deploy.results.codec import to_json
from emca_deploy.tasks.host_part import HEADS
from emca_deploy.tasks.outputs import DETECTOR, MASKS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from emca_deploy.networks.detectors.detector import Detector

__all__ = [
    "DetectorExport",
    "Part",
    "Roi",
    "check_detector",
    "configure_module",
    "detector_preprocessing",
    "export_detector",
    "set_rounds",
    "settled",
]

Part = Literal["full", "dense"]
Roi = Literal["roialign", "gridsample"]

FORBIDDEN = frozenset({"Shape", "If", "Loop", "Scan", "BatchNormalization", "Constant", "NonZero", "NonMaxSuppression"})
"""Operators that no exported detector has: each needs shapes that depend on data, or should have been folded."""

DETECTIONS = (*DETECTOR, MASKS)
"""Outputs of a detector; the others are dense."""


@dataclass(frozen=True)
class DetectorExport:
    """What an export makes of a detector.

    Attributes:
        parity: Parity of the file with PyTorch.
        part: "full", or "dense" for the part before all selection of boxes.
        roi: Form of RoiAlign in the file; None where it has none.
        nms_rounds: Rounds of suppression in the file: twice `longest_chain`, and at least those of the configuration. None in a
            dense part.
        longest_chain: Rounds after which nothing changed on the parity images; None in a dense part.
        config: Conventions of the detector, among them the names of its classes.
        half: Conversion to fp16; None for an fp32 file.
        heads: Weights of the box and mask heads by name, which the host needs beside a dense part; empty without them.
    """

    parity: DetectionParity
    part: Part
    roi: Roi | None
    nms_rounds: int | None
    longest_chain: int | None
    config: dict[str, Any]
    half: HalfDetector | None = None
    heads: dict[str, npt.NDArray[Any]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return what the JSON document and the manifest have of a detector."""
        names = ("part", "roi", "nms_rounds", "longest_chain", "config")
        return {name: getattr(self, name) for name in names}


def detector_preprocessing(
    said: PreprocessingOptions | Preprocessing, trained: PreprocessingOptions | None
) -> PreprocessingOptions | Preprocessing:
    """Return the user's options, then those of the checkpoint, then a letterbox of 640 pixels filled at its end."""
    if isinstance(said, Preprocessing):
        return said
    usual = PreprocessingOptions(image_size=640, resize="letterbox", pad="end", pad_value=0.0)
    for better in (trained, said):
        given = {name: value for name in usual.__dataclass_fields__ if (value := getattr(better, name, None)) is not None}
        usual = replace(usual, **given)
    return usual


def check_detector(module: "Detector", image_size: Size, part: Part, roi: Roi | None) -> None:
    """Refuse options that do not fit a detector.

    Raises:
        InputError: a side of the image is no multiple of the coarsest stride, or the form of RoiAlign does not fit.
    """
    height, width = sides(image_size)
    if height % module.multiple or width % module.multiple:
        near = "x".join(str(max(round(side / module.multiple), 1) * module.multiple) for side in (height, width))
        raise InputError(
            f"--image-size {height}x{width}: the sides of this detector's images are multiples of {module.multiple}",
            f"for example --image-size {near}",
        )
    if roi is not None and (part == "dense" or not module.has_regions):
        what = "a dense part has" if part == "dense" else "RetinaNet has"
        raise InputError(f"--roi {roi}: {what} no RoiAlign", "leave --roi out")
    if roi == "gridsample" and module.config.roi_sampling_ratio == 0:
        raise InputError(
            "--roi gridsample: this detector takes an adaptive number of samples (sampling ratio 0), which a grid cannot have",
            "use --roi roialign, which ONNX Runtime, OpenVINO and TensorRT 8.5 or newer run",
        )


def export_detector(
    module: "Detector",
    images: Float32Array,
    path: Path,
    *,
    batch: int,
    opset: int,
    part: Part,
    roi: Roi | None,
    half: bool = False,
) -> DetectorExport:
    """Write a detector to `path` and compare the file with PyTorch on images (N, 3, H, W) float32.

    With `half` the file is converted to fp16 afterwards, and compared with the fp32 one.

    Raises:
        ModelError: the exporter or ONNX Runtime refuses the module.
        GateError: outputs differ from PyTorch's, or those in fp16 from fp32.
    """
    from emca_deploy.exporting.roi_forms import roi_align_operator, using_roi_form
    from emca_deploy.networks.detectors.roi import sample_on_grid

    rounds = None
    used = (roi or "roialign") if part == "full" and module.has_regions else None
    size = (images.shape[2], images.shape[3])

    def outputs(given: "Tensor") -> "dict[str, Tensor]":
        dense = module.dense(given)
        return dense if part == "dense" else {**module.detect(dense, size), **dense}

    with using_roi_form(module, sample_on_grid if used == "gridsample" else roi_align_operator):
        with settled(module) as longest:
            expected = _reference(outputs, images)
        if part == "full":
            rounds = max(2 * max(longest), module.config.nms_rounds)
            set_rounds(module, rounds)
        model = export_onnx(module, size, batch, opset, call=outputs, forbidden=FORBIDDEN)
    threshold = module.config.score_threshold
    whole = ir.from_proto(ir.to_proto(model)) if half else None
    parity = _checked(model, images, expected, path, threshold)
    converted = None if whole is None else _in_half(whole, images, path, threshold)
    tensors = module.state_dict() if part == "dense" else {}
    heads = {name: tensor.numpy() for name, tensor in tensors.items() if name.startswith(HEADS)}
    config = to_json(replace(module.config, nms_rounds=rounds or module.config.nms_rounds))
    return DetectorExport(parity, part, used, rounds, max(longest) if part == "full" else None, config, converted, heads)


def _checked(
    model: ir.Model, images: Float32Array, expected: Mapping[str, npt.NDArray[Any]], path: Path, threshold: float
) -> DetectionParity:
    """Write the file, without the dense outputs where it has detections, and compare both kinds with PyTorch's.

    The first and the last image run with the dense outputs, and the others through the file: a run of each can take seconds.
    """
    names = [str(value.name) for value in model.graph.outputs]
    dense = [name for name in names if name not in DETECTIONS]
    found = [value for value in model.graph.outputs if value.name in DETECTIONS]
    ends = dict(zip(names, _run(ir.to_proto(model).SerializeToString(), images[[0, -1]]), strict=True))
    parity = check_dense(expected, ends, dense)
    if found:
        model.graph.outputs[:] = found
    ir.save(model, path)
    if not found:
        return parity
    between = _run(path, images[1:-1] if len(images) > 2 else images)
    written = {str(value.name): rows for value, rows in zip(found, between, strict=True)}
    if len(images) > 2:
        written = {name: np.concatenate([ends[name][:1], rows, ends[name][1:]]) for name, rows in written.items()}
    return replace(parity, found=check_detections(expected, written, threshold))


def _in_half(model: ir.Model, images: Float32Array, path: Path, threshold: float) -> HalfDetector:
    """Write the fp16 file, without the dense outputs where it has detections, and check that ONNX Runtime takes it."""
    dense = tuple(str(value.name) for value in model.graph.outputs if value.name not in DETECTIONS)
    made = convert_detector(model, images, dense, threshold)
    found = [value for value in model.graph.outputs if str(value.name) in DETECTIONS]
    if found:
        model.graph.outputs[:] = found
    common.RemoveUnusedNodesPass()(model)
    ir.save(model, path)
    _run(path, images[:1])
    return made


def _run(model: Path | bytes, images: Float32Array) -> list[npt.NDArray[Any]]:
    return [output[: len(images)] for output in run_onnx(model, images)]


def _reference(outputs: "Callable[[Tensor], dict[str, Tensor]]", images: Float32Array) -> dict[str, npt.NDArray[Any]]:
    """Return PyTorch's detections of images (N, 3, H, W), one after the other, and dense outputs of the first and the last."""
    torch = import_optional("torch")
    kept: dict[str, list[npt.NDArray[Any]]] = {}
    with torch.inference_mode():
        for index, image in enumerate(images):
            for name, value in outputs(torch.from_numpy(image[None])).items():
                if name in DETECTIONS or index in (0, len(images) - 1):
                    kept.setdefault(name, []).append(value.numpy())
    return {name: np.concatenate(arrays) for name, arrays in kept.items()}


@contextmanager
def settled(module: "Detector") -> "Iterator[list[int]]":
    """Let a detector suppress in as many rounds as there are changes; yield the number of rounds of each suppression."""
    from emca_deploy.networks.detectors.nms import Suppression

    rounds = [0]

    def settle(suppression: Suppression, given: "tuple[Tensor, ...]", _: "Tensor") -> "Tensor":
        keep, needed = suppression.settle(*given)
        rounds.append(needed)
        return keep

    hooks = [each.register_forward_hook(settle) for each in module.modules() if isinstance(each, Suppression)]
    try:
        yield rounds
    finally:
        for hook in hooks:
            hook.remove()


def configure_module(module: "Detector", **changes: Any) -> None:
    """Change fields of a detector's configuration that its weights do not depend on."""
    config = replace(module.config, **changes)
    for each in module.modules():
        if hasattr(each, "config"):
            each.config = config  # type: ignore[assignment]  # a module of a detector


def set_rounds(module: "Detector", rounds: int) -> None:
    """Set the rounds of every suppression of a detector."""
    from emca_deploy.networks.detectors.nms import Suppression

    for each in module.modules():
        if isinstance(each, Suppression):
            each.rounds = rounds
