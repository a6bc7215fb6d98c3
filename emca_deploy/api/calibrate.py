"""`calibrate`: an INT8 model for one backend from an fp32 ONNX model and images, within an accuracy gate if one is given."""

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from emca_deploy._machine import default_threads
from emca_deploy._progress import Stage, silent
from emca_deploy.api.gate_search.search import AccuracyGate, calibrate_within
from emca_deploy.api.images import few_images, image_notes, image_warnings
from emca_deploy.api.names import FINETUNE_BUDGET_S
from emca_deploy.api.placing.runs import check_measurable
from emca_deploy.api.placing.search import PlacementSearch, measure_placement
from emca_deploy.api.teacher import load_teacher
from emca_deploy.atomic import check_writable
from emca_deploy.backends.records import names_where, one_of
from emca_deploy.backends.registry import all_recipes, find_recipe
from emca_deploy.calibration.calibrate import Calibration, calibrate_model
from emca_deploy.calibration.finetuning.finetune import FineTuning
from emca_deploy.calibration.options import CalibrationChoices, CalibrationOptions
from emca_deploy.calibration.placement.calibration_cache import cache_version, write_model_cache
from emca_deploy.calibration.ranges.table import table_path
from emca_deploy.calibration.recovery.weights import FINETUNE
from emca_deploy.data.choosing import assumed_note, preprocessing_of_file
from emca_deploy.data.sources import open_source
from emca_deploy.errors import InputError, UnknownNameError
from emca_deploy.exporting.pixel_convert import convert_to_pixels
from emca_deploy.onnx_file.file import OnnxFile
from emca_deploy.preprocessing import Labelling, PreprocessingOptions
from emca_deploy.results.gate import GateReport
from emca_deploy.results.placement import MeasuredPlacement
from emca_deploy.tasks.registry import TASKS

__all__ = ["CalibrateReport", "CalibrateRequest", "CalibrationCache", "calibrate"]

RECIPE, MEASURED = PLACEMENTS = ("recipe", "measured")
"""Ways to place Q/DQ pairs."""

SEVEN_BITS = "weights have 7 bits, since the processor has no VNNI and saturates with 8; for one with VNNI use --weight-bits 8"


@dataclass(frozen=True)
class CalibrateRequest(CalibrationChoices):
    """Options of a calibration; see also `CalibrationChoices`.

    Attributes:
        model: the fp32 .onnx file.
        data: calibration images: a folder, a zip or an npz file.
        output: the INT8 .onnx file; its manifest is written next to it.
        backend: backend whose recipe places the Q/DQ pairs.
        weight_bits: bits of weights, 7 or 8; None decides by the processor of this machine, or of `target`.
        max_drop: limit of the gate in points; None calibrates without a gate. Requires `validation`.
        validation: labelled images to measure the drop on, none of them used in calibration.
        annotations: annotations of these images in COCO's format, for a detector.
        labelling: known facts about the labels of `validation`.
        cache: file for TensorRT's calibration cache; None writes none. Requires `tensorrt_version`.
        tensorrt_version: version of the TensorRT that will read the cache.
        threads: threads of the fp32 pass; None is one per physical core.
        placement: "recipe" places the Q/DQ pairs by the backend's recipe, "measured" by what is fastest on `target`.
        placement_budget_s: approximate seconds of the search for a measured placement.
        target: machine that a placement is measured on: "cpu", "ssh://[user@]host[:port]" or a named machine.
        checkpoint: file of the network that `model` was exported from, for the recovery "finetune".
        finetune_budget_s: most seconds of fine-tuning.
        input_form: one of `INPUT_FORMS` for an INT8 model that takes plain pixels; None for the model's own input.
        preprocessing: known facts about the preprocessing; the manifest has the rest.
    """

    model: Path
    data: Path
    output: Path
    backend: str
    weight_bits: int | None = None
    max_drop: float | None = None
    validation: Path | None = None
    annotations: Path | None = None
    labelling: Labelling = field(default_factory=Labelling)
    cache: Path | None = None
    tensorrt_version: str | None = None
    threads: int | None = None
    placement: str = RECIPE
    placement_budget_s: float = 240.0
    target: str = "cpu"
    checkpoint: Path | None = None
    finetune_budget_s: float = FINETUNE_BUDGET_S
    input_form: str | None = None
    preprocessing: PreprocessingOptions = field(default_factory=PreprocessingOptions)

    def calibration(self, fine_tuning: FineTuning | None = None) -> CalibrationOptions:
        """Return the options of the calibration itself, with the teacher of its fine-tuning.

        Raises:
            InputError: fine-tuning has no teacher.
        """
        chosen = {one.name: getattr(self, one.name) for one in fields(CalibrationChoices)}
        recipe = find_recipe(self.backend, self.weight_bits)
        return CalibrationOptions(recipe, all_recipes(), self.threads or default_threads(), fine_tuning=fine_tuning, **chosen)


@dataclass(frozen=True)
class CalibrationCache:
    """A calibration cache that was written, its number of scales, and the TensorRT version that reads it."""

    path: Path
    scales: int
    tensorrt_version: str


@dataclass(frozen=True)
class CalibrateReport:
    """Result of a calibration, and whether it keeps the gate.

    Attributes:
        calibration: the INT8 model and how it was made.
        gate: how the gate was reached, or why not; None without a gate. The best model found is written either way.
        cache: the calibration cache; None without one.
        placement: the measured placement; None where the recipe was not compared with others.
        warnings: possible faults of the model or the images, one line each.
        notes: other facts for the user, one line each.
    """

    calibration: Calibration
    gate: GateReport | None = None
    cache: CalibrationCache | None = None
    placement: MeasuredPlacement | None = None
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of `calibrate`."""
        return {
            **self.calibration.to_dict(),
            "warnings": self.warnings,
            "gate": self.gate,
            "cache": self.cache,
            "placement": self.placement and self.placement.document(),
        }


def calibrate(request: CalibrateRequest, stage: Stage = silent) -> CalibrateReport:
    """Quantize a model to INT8. Ranges are measured once and kept in a table, which the next calibration reuses.

    Raises:
        InputError: an option is wrong, or requires another one that is missing.
        ModelError: the model cannot be read, run or quantized.
        DataError: an image cannot be read; validation images have no labels, or are used in calibration.
        OutputError: a file cannot be written.
        CheckpointError: the checkpoint cannot be read, or fits no architecture.
        MissingError: fine-tuning is wanted, and torch is not installed.
    """
    _check_gate(request)
    _check_cache(request)
    _check_placement(request)
    _check_task(request)
    if request.input_form is not None:
        return _of_pixels(request, request.input_form, stage)
    options = request.calibration(_teacher(request))
    source = open_source(request.data, preprocessing_of_file(request.model, request.preprocessing))
    if request.placement == MEASURED:
        how = PlacementSearch(request.data, request.target, request.placement_budget_s, request.weight_bits)
        options = measure_placement(request.model, source, options, how, stage)
    gate: GateReport | None = None
    if request.max_drop is None or request.validation is None:
        result = calibrate_model(request.model, source, request.output, options, stage)
    else:
        wanted = AccuracyGate(request.max_drop, request.validation, request.annotations, labelling=request.labelling)
        result, gate = calibrate_within(request.model, source, request.output, options, wanted, stage)
    known = image_warnings(request.model, request.data, source, request.preprocessing)
    return CalibrateReport(
        result,
        gate,
        _write_cache(request, result.table),
        options.placement,
        warnings=(*result.warnings, *(gate.warnings if gate is not None else ()), *known),
        notes=(
            *few_images(request.data, len(source), request.samples),
            *image_notes(str(request.model), source),
            *((SEVEN_BITS,) if request.weight_bits is None and result.recipe.weight_bits == 7 else ()),
        ),
    )


def _of_pixels(request: CalibrateRequest, form: str, stage: Stage) -> CalibrateReport:
    """Calibrate a form of the model that takes pixels."""
    if option := "--cache" if request.cache else "--recover finetune" if request.recover == FINETUNE else "":
        raise InputError(f"{option} with --input", "leave one of the two out")
    with TemporaryDirectory(prefix="emca-pixels-") as folder:
        fold_mean = not find_recipe(request.backend).symmetric  # a signed integer holds centred pixels with one bit more
        pixels = Path(folder) / request.model.name
        made = convert_to_pixels(request.model, pixels, form, request.preprocessing, fold_mean=fold_mean)
        table = request.table or table_path(request.model.with_name(f"{request.model.stem}.{form}.onnx"))
        own = replace(request, model=pixels, table=table, preprocessing=PreprocessingOptions(), input_form=None)
        report = calibrate(own, stage)
    note = assumed_note(str(request.model), made.network)
    notes = [text for text in report.notes if not text.startswith(str(pixels))]
    return replace(report, notes=(*notes, *(() if note is None else (note,))))


def _check_gate(request: CalibrateRequest) -> None:
    """Refuse options of a gate that lack another one."""
    if (request.max_drop is None) != (request.validation is None):
        raise InputError(
            "--max-drop and --val require each other", "give the gate in points, and labelled images to measure it on"
        )
    if request.validation is None and request.annotations is not None:
        raise InputError("--annotations requires --val", "leave it out, or add --max-drop and --val")
    if request.validation is None and request.labelling.says_something:
        raise InputError("--labels, --class-map, --label-offset and --class-order require --val", "leave them out, or add --val")


def _check_placement(request: CalibrateRequest) -> None:
    """Refuse an unknown placement, and a target that nothing would be measured on."""
    if request.placement not in PLACEMENTS:
        raise UnknownNameError.of("placement", request.placement, PLACEMENTS, f"one of: {', '.join(PLACEMENTS)}")
    if request.placement == RECIPE and request.target != "cpu":
        raise InputError("--target requires --placement measured", "add it, or leave --target out")
    if request.placement == MEASURED:
        check_measurable(request.backend)
        check_writable(request.output)


def _check_task(request: CalibrateRequest) -> None:
    """Refuse what compares logits for a network that has none."""
    task = TASKS["classification" if request.output_name is not None else OnnxFile.open(request.model).task]
    if task.has_logits:
        return
    unable = {
        "--recover finetune": request.recover == FINETUNE,
        "--float-precision fp16": request.float_precision == "fp16",
        "--placement measured": request.placement == MEASURED,
    }
    for option, used in unable.items():
        if used:
            raise InputError(f"{option}: {request.model} is a {task.noun}, and this is for classifiers only", "leave it out")


def _teacher(request: CalibrateRequest) -> FineTuning | None:
    """Return the teacher of the recovery "finetune"; None for another recovery or without a checkpoint."""
    if request.recover != FINETUNE:
        if request.checkpoint is not None:
            raise InputError("--checkpoint requires --recover finetune", "add it, or leave --checkpoint out")
        return None
    if request.cache is not None:
        raise InputError("--cache with --recover finetune: a calibration cache has no weights", "leave one of them out")
    if request.checkpoint is None:
        return None
    return load_teacher(request.checkpoint, request.model, request.finetune_budget_s)


def _check_cache(request: CalibrateRequest) -> None:
    """Refuse a cache that cannot be written, before any work."""
    cache, version = request.cache, request.tensorrt_version
    if (cache is None) != (version is None):
        raise InputError(
            "--cache and --tensorrt-version require each other",
            "give the cache's file and the version of the TensorRT that reads it",
        )
    if cache is None or version is None:
        return
    able = names_where(calibration_cache=True)
    if request.backend not in able:
        raise InputError(f"--cache: backend '{request.backend}' reads no calibration cache", f"use --backend {one_of(able)}")
    if request.max_drop is not None or request.keep_float:
        problem = "--cache with --keep-float or --max-drop: a calibration cache cannot say which nodes stay in float"
        raise InputError(problem, "leave them out, or build from the Q/DQ model")
    cache_version(version)
    check_writable(cache)


def _write_cache(request: CalibrateRequest, table: Path) -> CalibrationCache | None:
    cache, version = request.cache, request.tensorrt_version
    if cache is None or version is None:
        return None
    recipe = find_recipe(request.backend)
    scales = write_model_cache(request.model, table, cache, version, recipe, request.output_name)
    return CalibrationCache(cache, scales, version)
