"""Calibration: making an INT8 model for one backend from an fp32 ONNX model and images."""

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import onnx_ir as ir

from emca_deploy._optional import installed_version
from emca_deploy._progress import Stage, silent
from emca_deploy._text import shell_word
from emca_deploy.artifacts import Manifest, read_manifest, sha256_file, this_command, write_artifact
from emca_deploy.atomic import check_writable
from emca_deploy.calibration.choice import AUTO, CANDIDATES, Choice, ChoiceInput, choose, kept_out
from emca_deploy.calibration.explaining.explainer import refuse_quantized
from emca_deploy.calibration.finetuning.finetune import Lessons, Start, checked_teacher, fine_tune
from emca_deploy.calibration.float_part import FloatPart, check_float_precision, halve_float_part, peaks_of
from emca_deploy.calibration.graphs.graph import canonical_graph, load_graph
from emca_deploy.calibration.graphs.products import products_on_one_thread
from emca_deploy.calibration.graphs.regions import measured_model
from emca_deploy.calibration.graphs.weighted_layers import add_to_biases
from emca_deploy.calibration.left_out import LeftOut
from emca_deploy.calibration.options import CalibrationOptions
from emca_deploy.calibration.placement.coverage import Coverage, recipe_coverage
from emca_deploy.calibration.placement.place import place, quantizable
from emca_deploy.calibration.placement.qdq import InsertionCount, insert_qdq
from emca_deploy.calibration.placement.recipe import Recipe
from emca_deploy.calibration.placement.weight_only import in_place_of
from emca_deploy.calibration.ranges.collect import Passenger, TensorPass, collect_observations, counted_batch
from emca_deploy.calibration.ranges.collect_drawn import collect_drawn
from emca_deploy.calibration.ranges.drawing import AUTO as AUTO_SAMPLES
from emca_deploy.calibration.ranges.drawing import Images
from emca_deploy.calibration.ranges.methods.base import Method
from emca_deploy.calibration.ranges.methods.registry import METHODS, parse_method
from emca_deploy.calibration.ranges.observers import Observation, TensorRange
from emca_deploy.calibration.ranges.table import (
    ELSEWHERE,
    MethodRanges,
    RangeTable,
    TableKey,
    by_another_method,
    read_table,
    table_path,
    write_table,
)
from emca_deploy.calibration.recovery.weights import LEVELS, Rounding, nearest_weights, rounds_weights
from emca_deploy.canonical.canonicalize import CanonicalModel
from emca_deploy.data.decoded import kept_in_memory
from emca_deploy.data.image_checks import calibration_warnings, image_digests
from emca_deploy.data.sources import ImageSource
from emca_deploy.errors import InputError, OutputError, UnknownNameError
from emca_deploy.exporting.half_layers import float_beside_int8
from emca_deploy.onnx_file.file import OnnxFile
from emca_deploy.results.codec import to_json
from emca_deploy.results.drawing import Drawing
from emca_deploy.results.finetuning import FineTuned

__all__ = ["METHODS", "Calibration", "calibrate_model", "ensure_ranges"]

WITH_HISTOGRAMS = "mse"
"""Method whose table suffices for every candidate of "auto"."""


@dataclass(frozen=True)
class Calibration:
    """The result of a calibration.

    Attributes:
        onnx: file of the INT8 model.
        key: key of its range table.
        table: file of the range table.
        reused: whether the ranges came from the file.
        samples: number of images that the ranges come from.
        drawing: how these were drawn, where their number was "auto".
        float_part: float part where it is fp16.
        image_warnings: warnings about the calibration images, one line each.
        fine_tuned: how the model was fine-tuned; None where it was not.
    """

    onnx: Path
    key: TableKey
    table: Path
    reused: bool
    samples: int
    drawing: Drawing | None
    counts: InsertionCount
    choice: Choice
    coverage: Coverage
    float_part: FloatPart | None
    recipe: Recipe
    canonical: CanonicalModel
    image_warnings: tuple[str, ...]
    fine_tuned: FineTuned | None = None

    @property
    def method(self) -> str:
        """Calibration method with its parameter."""
        return self.key.method

    @property
    def warnings(self) -> tuple[str, ...]:
        """All warnings, one line each."""
        return (*self.canonical.warnings, *self.coverage.warnings, *self.image_warnings)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of `calibrate`."""
        return {
            "schema_version": 1,
            "onnx": str(self.onnx),
            "backend": self.recipe.backend,
            "method": self.method,
            "table": str(self.table),
            "table_reused": self.reused,
            "samples": self.samples,
            "drawing": to_json(self.drawing) if self.drawing else None,
            "sqnr_db": {name: round(value, 2) for name, value in self.choice.sqnr_db.items()},
            "quantized": {
                "activations": self.counts.activations,
                "weighted_operators": self.counts.weighted,
                "float_operators": self.counts.weighted_float,
                "weight_only_operators": self.counts.weight_only,
            },
            "weight_bits": self.recipe.weight_bits,
            "coverage": self.coverage.to_dict(),
            "warnings": list(self.warnings),
            "canonical": self.canonical.to_dict(),
            "float_precision": "fp16" if self.float_part else "fp32",
            **({"float_part": to_json(self.float_part)} if self.float_part else {}),
            **({"finetune": to_json(self.fine_tuned)} if self.fine_tuned else {}),
        }


def calibrate_model(
    model: Path, source: ImageSource, output: Path, options: CalibrationOptions, stage: Stage = silent
) -> Calibration:
    """Quantize an fp32 ONNX model for one backend, and write it to `output` with its manifest next to it.

    The source preprocesses its images for the model; `stage` opens each stage of the work, for progress.

    Raises:
        InputError: a named table is of another model or data set, a choice is not valid, or no node matches a pattern.
        ModelError: the model cannot be read, run or quantized.
        GateError: the fp16 float part is worse than rounding explains.
        DataError: an image cannot be read, or makes an activation infinite.
        OutputError: `output` cannot be written.
    """
    recipe = options.recipe
    if options.recover not in LEVELS:
        raise UnknownNameError.of("level of recovery", options.recover, LEVELS, f"one of: {', '.join(LEVELS)}")
    check_float_precision(options.float_precision, recipe)
    if not output.parent.is_dir():
        raise OutputError(f"{output.parent}: no such folder", f"make it first: mkdir -p {shell_word(str(output.parent))}")
    refuse_quantized(model, recipe)
    canonical = canonical_graph(model, source.preprocessing, options.output_name)
    graph_model, studied = canonical.model, measured_model(canonical.model)
    coverage = recipe_coverage(model, graph_model.graph, recipe, options.keep_float)  # errors come before the long pass
    images = Images.of(source, options.samples, options.seed)
    source = kept_in_memory(source)
    key, path = _key(model, source, options), options.table or table_path(model)
    lessons = Lessons(source, images.looked_at, options.threads, options.seed)
    teaching = checked_teacher(graph_model, options.teacher, lessons) if options.teacher else None
    rounding = (
        Rounding(studied, key, (path, recipe.largest_weight), len(images.looked_at)) if rounds_weights(options.recover) else None
    )
    passenger = rounding.rows if rounding is not None else None
    table, reused = _ensure_table(key, path, options, lambda: _observe(studied, source, options, stage, passenger))
    indices = images.first(table.drawing)
    weights = nearest_weights(graph_model.graph, recipe.largest_weight)
    if rounding is not None:
        weights |= rounding.weights(source, indices, options.threads, stage)

    def quantize(floating: ir.Model, ranges: Mapping[str, TensorRange]) -> InsertionCount:
        return insert_qdq(floating, place(floating.graph, recipe, options.keep_float), ranges, weights)

    trial = ChoiceInput(studied, quantize, source, indices, options.threads, images.left_out)
    choice, chosen = _choose(trial, table, options, stage)
    if chosen.key != table.key:
        table = chosen
        write_table(path, table)
    floating = graph_model.clone() if options.float_precision == "fp16" or teaching is not None else graph_model
    add_to_biases(graph_model.graph, choice.shifts)
    ranges, tuned = table.ranges, None
    if teaching is not None:
        start = Start(floating, graph_model, lambda graph: place(graph, recipe, options.keep_float), ranges, weights)
        tuned, ranges = fine_tune(start, teaching, replace(lessons, indices=indices), stage)
    keep = float_beside_int8(graph_model.graph, peaks_of(table)) if options.float_precision == "fp16" else None
    counts = quantize(graph_model, ranges)
    for rewrite in recipe.rewrites:
        rewrite(graph_model.graph)
    float_part = None
    if keep is not None:
        keep = in_place_of(keep, counts.replaced)
        float_part = halve_float_part(graph_model, keep, (floating, source, indices, options.threads), stage)
    how = (table.key, path, reused, table.samples, table.drawing)
    warnings = calibration_warnings(source, indices)
    made = Calibration(output, *how, counts, choice, coverage, float_part, recipe, canonical, warnings, tuned)
    with write_artifact(output) as draft:
        ir.save(graph_model, draft.path)
        draft.manifest = _manifest(model, made, options, image_digests(source, [*indices, *trial.kept_out]))
    return made


def _choose(trial: ChoiceInput, table: RangeTable, options: CalibrationOptions, stage: Stage) -> tuple[Choice, RangeTable]:
    """Return the choice among the methods to try, and the chosen method's table; a given method is the only one."""
    correct_biases = options.recover != "none"
    if options.method != AUTO:
        return choose(trial, {table.key.method: table.ranges}, stage, correct_biases=correct_biases), table

    @cache
    def of_all_images(method: str) -> RangeTable:
        found = by_another_method(table, replace(table.key, method=method))
        assert found is not None  # `ensure_ranges` measured histograms
        return found

    seen = {name: found.trial for name, found in table.observations.items() if found.trial is not None}
    if len(seen) < len(table.observations):  # drawn images, none of them kept out, or fewer than `KEPT_OUT_TURN` batches
        seen = dict(table.observations)
    elif not trial.kept_out:
        trial = replace(trial, kept_out=kept_out(trial.indices, counted_batch(trial.model.graph)))
    if trial.kept_out:
        trial = replace(trial, final=lambda method: of_all_images(method).ranges)
    ranges = {str(method): MethodRanges(method, seen) for method in map(parse_method, CANDIDATES)}
    choice = choose(trial, ranges, stage, correct_biases=correct_biases)
    return choice, of_all_images(choice.method)


def ensure_ranges(
    model: Path,
    source: ImageSource,
    options: CalibrationOptions,
    stage: Stage = silent,
    needed: AbstractSet[str] = frozenset(),
) -> tuple[RangeTable, Path, bool]:
    """Return the table of a model's ranges on a data set, its file, and whether the file already had it.

    Ranges are measured where the file has none, or lacks one of the tensors `needed`. For the method "auto" they are those of the
    smallest squared error, and the table suffices for any other method.

    Raises:
        InputError: `options.table` names a table of another model, data set or method.
    """
    path = options.table or table_path(model)
    key = _key(model, source, options)

    def measure() -> tuple[dict[str, Observation], Drawing | None]:
        studied = measured_model(load_graph(model, source.preprocessing, options.output_name))
        return _observe(studied, source, options, stage)

    table, reused = _ensure_table(key, path, options, measure, needed)
    return table, path, reused


def _observe(
    graph_model: ir.Model, source: ImageSource, options: CalibrationOptions, stage: Stage, passenger: Passenger | None = None
) -> tuple[dict[str, Observation], Drawing | None]:
    """Return the observations of every tensor that some backend quantizes, and how the images were drawn."""
    images, method, threads = Images.of(source, options.samples, options.seed), _method(options), options.threads
    with stage("measuring ranges") as progress, products_on_one_thread():
        names = quantizable(graph_model.graph, options.measured_for)
        if not images.drawn:
            count = len(images.looked_at)
            found = collect_observations(graph_model, names, source, images.looked_at, threads, progress, method, passenger)
            return found, Drawing(count, count, 0, "no more images") if options.samples == AUTO_SAMPLES else None
        work = TensorPass(graph_model.clone(), names, threads, passenger, counts=method.reads_histogram, single=True)
        left_out = LeftOut(graph_model, names, source, images.left_out, threads)
        return collect_drawn(work, method, source, images, left_out.clipped_db, progress)


def _ensure_table(
    key: TableKey,
    path: Path,
    options: CalibrationOptions,
    measure: Callable[[], tuple[dict[str, Observation], Drawing | None]],
    needed: AbstractSet[str] = frozenset(),
) -> tuple[RangeTable, bool]:
    """Return the table for a key, and whether its file already had it with the tensors `needed`."""
    any_method = options.method == AUTO
    if path.is_file():
        table = read_table(path)
        if table.key == key and table.ranges.keys() >= needed:
            return replace(table, key=key), True  # equal keys may differ in assumed preprocessing
        other = by_another_method(table, key)
        if options.table is not None and (other is None or not any_method):
            raise InputError(f"{path}: {table.key.difference(key)}", "name another table, or leave out --table")
        if other is not None and other.ranges.keys() >= needed:
            write_table(path, other)
            return other, True
    check_writable(path, ELSEWHERE)
    seen, drawing = measure()
    method = _method(options)
    table = RangeTable(key, {name: method.range_of(values) for name, values in seen.items()}, seen, drawing)
    write_table(path, table)
    return table, False


def _method(options: CalibrationOptions) -> Method:
    """Return the method of the ranges that are measured."""
    return parse_method(WITH_HISTOGRAMS if options.method == AUTO else options.method)


def _key(model: Path, source: ImageSource, options: CalibrationOptions) -> TableKey:
    method = str(_method(options))
    samples = options.samples if isinstance(options.samples, str) else min(options.samples, len(source))
    return TableKey(OnnxFile.open(model).sha256, source.identity(), source.preprocessing, method, samples, options.seed)


def _manifest(model: Path, made: Calibration, options: CalibrationOptions, images: Any) -> Manifest:
    given, key, counts = read_manifest(model), made.key, made.counts
    return Manifest(
        kind="onnx",
        sha256="",
        precision="int8",
        backend=options.backend,
        arch=given.arch if given else None,
        num_classes=given.num_classes if given else None,
        preprocessing=key.preprocessing,
        inputs={"model": key.model_sha256, "calibration_table": sha256_file(made.table), "data": key.data_sha256},
        versions={name: version for name in ("onnx_ir", "onnxruntime", "numpy") if (version := installed_version(name))},
        command=this_command(),
        details={
            "method": key.method,
            "samples": made.samples,
            **({"drawing": to_json(made.drawing)} if made.drawing else {}),
            "recover": options.recover,
            "biases_corrected": bool(made.choice.shifts),
            "sqnr_db": {name: round(value, 2) for name, value in made.choice.sqnr_db.items()},
            "keep_float": list(options.keep_float),
            "quantized_activations": counts.activations,
            "int8_operators": counts.weighted,
            "float_operators": counts.weighted_float,
            "weight_only_operators": counts.weight_only,
            "float_precision": options.float_precision,
            "calibration_images": images,
            "coverage": made.coverage.to_dict(),
            "weight_bits": made.recipe.weight_bits,
            **{name: given.details[name] for name in ("detector", "in_graph") if given and name in given.details},
            **({"placement": options.placement.record()} if options.placement else {}),
            **({"float_part": to_json(made.float_part)} if made.float_part else {}),
            **({"finetune": to_json(made.fine_tuned)} if made.fine_tuned else {}),
        },
    )
