"""Work that cells share, done once: exports, ranges, INT8 models, engines and accuracies.

The operations are imported when there is work for them: a sweep whose files all exist starts in half the time.
"""

import json
import threading
from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emca_deploy._progress import Stage
from emca_deploy.api.sweeping.places import Places
from emca_deploy.api.sweeping.plan import Plan
from emca_deploy.artifacts import read_manifest, write_json
from emca_deploy.backends.records import DEFAULT
from emca_deploy.errors import DataError, EmcaError, InputError, ModelError, OutputError
from emca_deploy.fleet.errors import ClusterLostError
from emca_deploy.preprocessing import PreprocessingOptions, model_io, parse_size
from emca_deploy.requests import BuildRequest, TrtChoices
from emca_deploy.results.accuracy import AccuracyReport
from emca_deploy.results.codec import from_json, to_json
from emca_deploy.results.detection import DetectionReport
from emca_deploy.results.sweep import SweepCell

if TYPE_CHECKING:
    from emca_deploy.api.sweeping.machines import FleetMachine

__all__ = ["Accuracy", "SharedWork"]

Accuracy = AccuracyReport | DetectionReport
DEFAULT_SAMPLES = 300
VALIDATION_BATCH = 16


class SharedWork:
    """Makes the files of cells, or finds those that an earlier cell or run made.

    Work that failed is not tried again for the other cells of the same run. Several threads may ask for the same file.

    Args:
        machine: machine of a fleet that builds and validates; None is this one.
    """

    def __init__(self, plan: Plan, places: Places, stage: Stage, machine: "FleetMachine | None" = None) -> None:
        self._plan, self._places, self._stage, self._machine = plan, places, stage, machine
        self._failed: dict[Path, EmcaError] = {}
        self._locks: defaultdict[Path, threading.Lock] = defaultdict(threading.Lock)

    def artifact(self, cell: SweepCell) -> str:
        """Return what a cell measures: its engine, or the ONNX file on a backend that has no engines.

        Raises:
            EmcaError: a step failed, now or for an earlier cell.
        """
        if self._plan.models[cell.model].is_fake:
            return cell.model
        source, engine = self.onnx(cell), self._places.engine(cell)
        if engine is None:
            return str(source)
        self._make(engine, f"building for {cell.backend}", lambda: self._build(cell, source, engine))
        return str(engine)

    def _build(self, cell: SweepCell, source: Path, engine: Path) -> None:
        from emca_deploy.api.build import build

        target = cell.target if self._plan.places[cell.target].target.builds else "cpu"
        request = BuildRequest(
            str(source),
            cell.backend,
            str(engine),
            target,
            threads=cell.threads,
            batch=cell.batch,
            choices=TrtChoices(targets=self._plan.step(cell).capabilities),
            io=self.io(cell),
        )
        if self._machine is not None:
            self._machine.target(target).build(request)
        else:
            build(request)

    def io(self, cell: SweepCell) -> dict[str, Any]:
        """Return what the user said about the input of an ONNX file, which an exported file says itself."""
        if self._plan.models[cell.model].kind != "onnx" or cell.image_size is None:
            return {}
        return model_io(parse_size(cell.image_size), None)

    def onnx(self, cell: SweepCell) -> Path:
        """Return the ONNX file that a cell runs or builds its engine from.

        Raises:
            EmcaError: a step failed, now or for an earlier cell.
        """
        if not self._places.quantizes(cell):
            return self.exported(cell, "fp16" if cell.precision == "fp16" else "fp32")
        source, output = self.exported(cell, "fp32"), self._places.onnx(cell)
        self._make(output, f"calibrating {cell.model} for {cell.backend}", lambda: self._calibrate(cell, source, output))
        return output

    def _calibrate(self, cell: SweepCell, source: Path, output: Path) -> None:
        from emca_deploy.api.calibrate import CalibrateRequest, calibrate

        plan, ranges = self._plan, self._places.ranges(cell)
        assert plan.data is not None  # the plan was checked
        ranges.parent.mkdir(exist_ok=True)
        request = CalibrateRequest(
            source,
            plan.data,
            output,
            cell.backend,
            samples=plan.option("samples", DEFAULT_SAMPLES),
            recover=plan.option("recover", "weights"),
            table=ranges,
            preprocessing=self._said(cell),
        )
        calibrate(request, self._stage)

    def accuracy(self, cell: SweepCell) -> Accuracy | None:
        """Return the accuracy of a cell, measured once for all batches and threads; None for random weights or a fake.

        Raises:
            EmcaError: a step failed, now or for an earlier cell.
        """
        if not self._places.validates(cell):
            return None
        place = self._places.accuracy(cell)
        stage = f"validating {cell.model} on {cell.backend} in {cell.precision}"
        self._make(place, stage, lambda: self._validate(cell, place), checked=False)
        return _read(place)

    def _validate(self, cell: SweepCell, place: Path) -> None:
        from emca_deploy.api.validate import ValidateRequest, validate

        plan, places = self._plan, self._places
        on_engine, kept = places.runs_engine(cell), places.reference_logits(cell)
        compared = plan.models[cell.model].precision != "int8"
        assert plan.validation is not None  # the cell is validated
        if kept is not None:
            kept.parent.mkdir(exist_ok=True)
        request = ValidateRequest(
            self.artifact(cell) if on_engine else str(self.onnx(cell)),
            plan.validation,
            None if on_engine else cell.backend,
            cell.target,
            str(self.exported(cell, "fp32")) if compared else None,
            reference_backend=DEFAULT if compared else None,
            limit=plan.option("limit"),
            batch=cell.batch if on_engine else VALIDATION_BATCH,
            precision="bf16" if cell.precision == "bf16" else "f32",
            logits=places.logits(cell),
            reference_logits=kept,
            preprocessing=self._said(cell),
            labelling=plan.labelling,
            annotations=plan.annotations,
        )
        runs = None if self._machine is None else self._machine.target(cell.target)
        write_json(place, to_json(validate(request, self._stage, runs).accuracy))

    def _said(self, cell: SweepCell) -> PreprocessingOptions:
        """Return the facts about the preprocessing that a file does not have; an exported file's manifest has all."""
        return self._plan.sized(cell) if self._plan.models[cell.model].kind == "onnx" else PreprocessingOptions()

    def exported(self, cell: SweepCell, precision: str) -> Path:
        """Return the ONNX file of a cell's model in "fp32" or "fp16"; an ONNX file of the plan as it is.

        Raises:
            EmcaError: the export failed, now or for an earlier cell.
        """
        output = self._places.exported(cell, precision)
        if self._plan.models[cell.model].kind != "onnx":
            size = f" at {cell.image_size}" if cell.image_size else ""
            self._make(output, f"exporting {cell.model}{size}", lambda: self._export(cell, precision, output))
        return output

    def _export(self, cell: SweepCell, precision: str, output: Path) -> None:
        from emca_deploy.api.export import ExportRequest, export

        plan, model = self._plan, self._plan.models[cell.model]
        request = ExportRequest(
            model.path,
            output,
            arch=model.name if model.path is None else plan.option("arch"),
            num_classes=plan.option("num_classes"),
            weights=plan.option("weights"),
            prefix=plan.option("prefix"),
            preprocessing=plan.sized(cell),
            precision="fp16" if precision == "fp16" else "fp32",
        )
        export(request)

    def _make(self, path: Path, title: str, work: Callable[[], object], *, checked: bool = True) -> None:
        """Do work that writes a file, unless the file exists; one that its manifest does not describe is made again."""
        lock = self._locks[path]
        with nullcontext() if self._machine is None else self._machine.fleet.idle():
            lock.acquire()
        try:
            self._make_once(path, title, work, checked=checked)
        finally:
            lock.release()

    def _make_once(self, path: Path, title: str, work: Callable[[], object], *, checked: bool) -> None:
        if path in self._failed:
            raise self._failed[path]
        if path.is_file() and (not checked or _is_whole(path)):
            return
        path.parent.mkdir(exist_ok=True)
        try:
            with self._stage(title):
                work()
        except (OutputError, ClusterLostError):
            raise
        except EmcaError as exc:
            self._failed[path] = exc
            raise


def _is_whole(path: Path) -> bool:
    """Return whether a file is the one that its manifest describes; a killed run may have written only the manifest."""
    try:
        return read_manifest(path) is not None
    except ModelError:
        return False


def _read(path: Path) -> Accuracy:
    """Return an accuracy that was written before.

    Raises:
        InputError: the file is damaged.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(value, dict) and value.get("task") == "detection":
            return from_json(DetectionReport, value)
        return from_json(AccuracyReport, value)
    except (OSError, ValueError, DataError) as exc:
        raise InputError(f"{path}: not an accuracy, or damaged: {exc}", "delete it and run the sweep again") from exc
