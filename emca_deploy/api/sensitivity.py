"""`sensitivity`: what INT8 costs each layer and block, and what leaving it in float gains."""

from dataclasses import dataclass, field
from pathlib import Path

from emca_deploy._machine import default_threads
from emca_deploy._progress import Stage, silent
from emca_deploy.api.images import few_images, image_notes, image_warnings
from emca_deploy.backends.registry import all_recipes, find_recipe
from emca_deploy.calibration.calibrate import ensure_ranges
from emca_deploy.calibration.options import CalibrationOptions
from emca_deploy.calibration.resume import side_path
from emca_deploy.calibration.sensitivity import SensitivityOptions, measure_sensitivity, options_on_file, weights_on_file
from emca_deploy.data.choosing import preprocessing_of_file
from emca_deploy.data.sources import open_source
from emca_deploy.preprocessing import PreprocessingOptions
from emca_deploy.results.sensitivity import SensitivityReport

__all__ = ["Sensitivity", "SensitivityRequest", "sensitivity"]


@dataclass(frozen=True)
class SensitivityRequest:
    """Options of a sensitivity analysis.

    Attributes:
        model: the fp32 .onnx file.
        data: calibration images: a folder, a zip or an npz file.
        backend: backend whose recipe places the Q/DQ pairs.
        samples: number of images to compare logits on.
        table: range table to reuse or write; None keeps it next to `model`.
        threads: threads of ONNX Runtime; None is one per physical core.
        preprocessing: known facts about the preprocessing; the manifest has the rest.
        output_name: output with the logits, if the model has several.
    """

    model: Path
    data: Path
    backend: str
    samples: int = 64
    table: Path | None = None
    threads: int | None = None
    preprocessing: PreprocessingOptions = field(default_factory=PreprocessingOptions)
    output_name: str | None = None


@dataclass(frozen=True)
class Sensitivity:
    """The report, and the file that keeps its results for the next run."""

    report: SensitivityReport
    side_file: Path
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def sensitivity(request: SensitivityRequest, stage: Stage = silent) -> Sensitivity:
    """Simulate each layer and block quantized alone, and left in float alone.

    ONNX Runtime computes the backend's placement in float arithmetic, not with that backend's kernels. Ranges and rounded weights
    come from the last calibration of the model on the same data; missing ranges are measured.

    Raises:
        InputError: an option is wrong, or the range table is of another model or data set.
        ModelError: the model cannot be read, run or quantized.
        DataError: an image cannot be read.
    """
    recipe = find_recipe(request.backend)
    source = open_source(request.data, preprocessing_of_file(request.model, request.preprocessing))
    threads = request.threads or default_threads()
    options = CalibrationOptions(recipe, all_recipes(), threads=threads, table=request.table, output_name=request.output_name)
    options = options_on_file(request.model, source, options)
    ranges, table, _ = ensure_ranges(request.model, source, options, stage)
    side_file = side_path(table, request.backend, "sensitivity")
    simulated = SensitivityOptions(
        recipe, request.samples, options.seed, threads, side_file=side_file, output_name=request.output_name
    )
    weights = weights_on_file(request.model, source, ranges, table, simulated)
    with stage("quantizing each part") as progress:
        report = measure_sensitivity(request.model, source, ranges, simulated, weights, progress)
    return Sensitivity(
        report,
        side_file,
        tuple(image_warnings(request.model, request.data, source, request.preprocessing)),
        (*few_images(request.data, report.samples, request.samples), *image_notes(str(request.model), source)),
    )
