"""Calibration with a gate: leave the most harmful parts in float, one after the other, until the gate is reached."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from emca_deploy._optional import installed_version
from emca_deploy._progress import Stage, silent
from emca_deploy._version import __version__
from emca_deploy.api.gate_search.ranking import float_macs_percent, next_kept
from emca_deploy.api.gate_search.validation import Validation, step_from_file
from emca_deploy.artifacts import read_manifest, write_artifact
from emca_deploy.atomic import check_writable, hidden_folder
from emca_deploy.calibration.calibrate import Calibration, calibrate_model, ensure_ranges
from emca_deploy.calibration.options import CalibrationOptions
from emca_deploy.calibration.ranges.drawing import possible_images
from emca_deploy.calibration.ranges.table import table_path
from emca_deploy.calibration.recovery.weights import FINETUNE, WEIGHTS
from emca_deploy.calibration.resume import SideFile, side_path
from emca_deploy.calibration.sensitivity import SensitivityOptions, measure_sensitivity, weights_on_file
from emca_deploy.data.decoded import room_for_decoded
from emca_deploy.data.image_checks import image_digests, shared_images
from emca_deploy.data.sources import ImageSource
from emca_deploy.errors import DataError
from emca_deploy.harness.accuracy.evaluation import Evaluation, Wishes
from emca_deploy.onnx_file.file import OnnxFile
from emca_deploy.preprocessing import Labelling
from emca_deploy.results.codec import to_json
from emca_deploy.results.gate import Gate, GateReport, GateStep
from emca_deploy.results.sensitivity import SensitivityReport

__all__ = ["AccuracyGate", "calibrate_within"]

MOST_SHARED = 0.01
"""Share of the validation images that may be calibration images, since data sets have a few duplicates."""


@dataclass(frozen=True)
class AccuracyGate:
    """The limit on the drop, and how it is checked.

    Attributes:
        max_drop: limit on the upper end of the 95% interval of each drop, in points.
        validation: images with labels or annotations, none of them used in calibration.
        annotations: annotations of these images in COCO's format, for a detector.
        samples: number of calibration images to rank layers and blocks on.
        duration_s: measuring time of each model in the final comparison of latencies, in seconds.
        labelling: known facts about the labels of `validation`.
    """

    max_drop: float
    validation: Path
    annotations: Path | None = None
    samples: int = 64
    duration_s: float = 3.0
    labelling: Labelling = field(default_factory=Labelling)


def calibrate_within(
    model: Path, source: ImageSource, output: Path, options: CalibrationOptions, gate: AccuracyGate, stage: Stage = silent
) -> tuple[Calibration, GateReport]:
    """Quantize a model for one backend, with as few parts in float as the gate requires.

    `output` gets the first INT8 model inside the gate, or the best one. The nodes of `options.keep_float` always stay in float.
    The recovery "finetune" is tried only where no model is inside the gate.
    Measurements are kept in files next to the range table, from which an interrupted search continues.

    Raises:
        DataError: the validation images have no labels, are used in calibration, or cannot be read.
        EmcaError: calibration or the backend failed.
    """
    check_writable(output)
    wishes = Wishes("INT8", gate.validation, "fp32", gate.max_drop, gate.annotations, gate.labelling, needs_truth=True)
    validation = Validation.of(model, source.preprocessing, wishes, options)
    images = validation.images
    _refuse_overlap(source, images, gate.validation, options)
    room = room_for_decoded(output.parent, len(images.source), source.preprocessing)
    with hidden_folder(output.parent) as folder, room as validation.decoded:  # on the same disk as the result
        untrained = replace(options, recover=WEIGHTS) if options.recover == FINETUNE else options
        models = _Models(model, source, untrained, folder, stage)
        calibration, report = _search(models, validation, gate)
        return _publish(calibration, output, report), replace(report, warnings=tuple(images.warnings))


def _refuse_overlap(source: ImageSource, evaluation: Evaluation, path: Path, options: CalibrationOptions) -> None:
    """Refuse validation images that are used in calibration: a gate on them says nothing about new images."""
    chosen = possible_images(source, options.samples, options.seed)
    images = evaluation.source
    shared = shared_images(images, range(len(images)), image_digests(source, chosen))
    if shared > MOST_SHARED * len(images):
        problem = f"{path}: {shared:,} of its {len(images):,} images are among the {len(chosen):,} calibration images"
        raise DataError(problem, "give --val other images, or leave --max-drop and --val out")
    if shared:
        evaluation.warnings.append(f"{shared:,} of {len(images):,} validation images are used in calibration")


@dataclass
class _Models:
    """The INT8 models of a search, made when needed; only the one wholly in INT8 and the latest are kept."""

    model: Path
    source: ImageSource
    options: CalibrationOptions
    folder: Path
    stage: Stage
    _made: dict[tuple[str, ...], Calibration] = field(default_factory=dict)
    _fine_tuned: dict[tuple[str, ...], Calibration] = field(default_factory=dict)

    def get(self, kept: tuple[str, ...]) -> Calibration:
        """Return the model with these patterns and the user's own in float."""
        if kept not in self._made:
            for other in [other for other in self._made if other and kept]:
                self._made.pop(other).onnx.unlink()
            path = self.folder / f"{len(kept)}-{'float' if kept else 'int8'}.onnx"
            self._made[kept] = self._calibrated(kept, path, self.options.recover)
            # The method is chosen once, for the model wholly in INT8.
            self.options = replace(self.options, method=self._made[kept].method)
        return self._made[kept]

    def fine_tuned(self, kept: tuple[str, ...]) -> Calibration:
        """Return the fine-tuned model with these patterns and the user's own in float."""
        if kept not in self._fine_tuned:
            path = self.folder / f"{len(kept)}-tuned.onnx"
            self._fine_tuned[kept] = self._calibrated(kept, path, FINETUNE)
        return self._fine_tuned[kept]

    def of(self, step: GateStep) -> Calibration:
        """Return the model of a step."""
        return self.fine_tuned(step.kept_float) if step.fine_tuned else self.get(step.kept_float)

    def _calibrated(self, kept: tuple[str, ...], path: Path, recover: str) -> Calibration:
        options = replace(self.options, keep_float=(*self.options.keep_float, *kept), recover=recover)
        return calibrate_model(self.model, self.source, path, options, self.stage)

    def rank(self, samples: int) -> SensitivityReport:
        """Measure what each layer and block costs."""
        table, path, _ = ensure_ranges(self.model, self.source, self.options)
        chosen, side_file = self.options, side_path(path, self.options.backend, "sensitivity")
        options = SensitivityOptions(
            chosen.recipe, samples, chosen.seed, chosen.threads, chosen.keep_float, side_file, chosen.output_name
        )
        weights = weights_on_file(self.model, self.source, table, path, options) if chosen.recover == WEIGHTS else {}
        with self.stage("ranking layers and blocks") as progress:
            return measure_sensitivity(self.model, self.source, table, options, weights, progress)


def _search(models: _Models, validation: Validation, gate: AccuracyGate) -> tuple[Calibration, GateReport]:
    side = _side_file(models, validation)
    kept: tuple[str, ...] | None = ()
    steps: list[GateStep] = []
    ranking: SensitivityReport | None = None
    limit, images, reached = Gate(gate.max_drop), len(validation.images.source), False
    while kept is not None:
        step = step_from_file(side.get(json.dumps(kept)))
        if step is None:
            share = float_macs_percent(ranking, kept) if ranking else 0.0
            step = validation.measure(models.get(kept).onnx, kept, share, models.stage)
            side.put(json.dumps(kept), to_json(step))
        steps.append(step)
        reached = limit.judge_step(step, images).reached
        if reached or not _decidable(step, limit, images):
            break
        ranking = ranking or models.rank(gate.samples)
        kept = next_kept(ranking, kept)
    if not reached and _decidable(steps[-1], limit, images) and models.options.fine_tuning is not None:
        reached = _fine_tune(models, validation, steps, limit)
    chosen = len(steps) - 1 if reached else _best(steps)
    report = _report(steps, chosen, validation, limit)
    if not reached and models.options.fine_tuning is not None:
        report = replace(report, reason=f"{report.reason}; fine-tuning did not suffice")
    return _with_latency(models, report, validation, gate)


def _best(steps: Sequence[GateStep]) -> int:
    return min(range(len(steps)), key=lambda index: steps[index].upper_end)


def _decidable(step: GateStep, limit: Gate, images: int) -> bool:
    """Return whether this number of images can show a model to be within the gate; a bootstrap interval can be of any width."""
    return bool(step.figures) or limit.decidable(images)


def _fine_tune(models: _Models, validation: Validation, steps: list[GateStep], limit: Gate) -> bool:
    """Fine-tune the model wholly in INT8 and then the best one, until one is inside the gate; return whether one is.

    What fine-tuning makes no better is not measured again.
    """
    first, best = steps[0], steps[_best(steps)]
    for step in dict.fromkeys((first, best)):
        made = models.fine_tuned(step.kept_float)
        if made.fine_tuned is None or not made.fine_tuned.kept:
            continue
        found = validation.measure(made.onnx, step.kept_float, step.float_macs_percent, models.stage)
        steps.append(replace(found, fine_tuned=True))
        if limit.judge_step(steps[-1], len(validation.images.source)).reached:
            return True
    return False


def _report(steps: list[GateStep], chosen: int, validation: Validation, gate: Gate) -> GateReport:
    best, images = steps[chosen], len(validation.images.source)
    verdict = gate.judge_step(best, images)
    exhausted = not verdict.reached and _decidable(best, gate, images)
    ending = "; leaving another layer in float would help too little, or leave too little in INT8"
    return GateReport(
        max_drop=gate.max_drop,
        images=images,
        top1_fp32=None if best.top1 is None or best.top1_drop is None else best.top1 + best.top1_drop,
        measured_with=validation.runs_on,
        simulated=validation.simulated,
        steps=tuple(steps),
        chosen=chosen,
        reached=verdict.reached,
        reason=verdict.reason + (ending if exhausted else ""),
        images_needed=verdict.images_needed,
    )


def _with_latency(
    models: _Models, report: GateReport, validation: Validation, gate: AccuracyGate
) -> tuple[Calibration, GateReport]:
    """Return the chosen model, and the report with the latency that its float parts cost."""
    calibration = models.of(report.best)
    if not report.best.kept_float or validation.simulated:
        return calibration, report
    ratio, interval = validation.slowdown(calibration.onnx, models.get(()).onnx, gate.duration_s, models.stage)
    return calibration, replace(report, slowdown=ratio, slowdown_ci95=interval)


def _side_file(models: _Models, validation: Validation) -> SideFile:
    options = models.options
    key = {
        "model_sha256": OnnxFile.open(models.model).sha256,
        "data_sha256": models.source.identity(),
        "validation_sha256": validation.images.source.identity(),
        "labels_sha256": validation.images.truth_sha256(),
        "preprocessing": models.source.preprocessing.identity(),
        "options": [options.backend, options.method, options.samples, options.seed, options.recover, list(options.keep_float)],
        "versions": {"emca_deploy": __version__, "runtime": installed_version(validation.runs_on)},
        **({"placement": options.placement.choices} if options.placement else {}),
    }
    return SideFile(side_path(options.table or table_path(models.model), options.backend, "search"), key)


def _publish(calibration: Calibration, output: Path, report: GateReport) -> Calibration:
    """Copy the chosen model to `output`, with the gate in its manifest."""
    manifest = read_manifest(calibration.onnx)
    assert manifest is not None  # calibrate_model wrote it
    best = report.best
    gate = {
        "max_drop": report.max_drop,
        "reached": report.reached,
        **_drops(best),
        "images": report.images,
        "measured_with": report.measured_with,
    }
    with write_artifact(output) as draft:
        shutil.copyfile(calibration.onnx, draft.path)
        draft.manifest = replace(manifest, details={**manifest.details, "gate": gate})
    return replace(calibration, onnx=output)


def _drops(step: GateStep) -> dict[str, Any]:
    """Return what a manifest has of a step's drops."""
    if step.top1_drop_ci95 is not None:
        return {"top1_drop": step.top1_drop, "top1_drop_ci95": list(step.top1_drop_ci95)}
    return {"figures": to_json(step.figures)}
