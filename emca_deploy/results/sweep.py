"""Results of `sweep`: immutable records that convert to JSON and back. Units are in the names."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from emca_deploy.results.accuracy import AccuracyReport
from emca_deploy.results.codec import left_out, read_json, version
from emca_deploy.results.detection import DetectionReport
from emca_deploy.results.latency import Failure, LatencyResult, Scenario

__all__ = [
    "CellResult",
    "Status",
    "SweepCell",
    "SweepReport",
    "SweepRow",
    "dominates",
    "front_group",
    "front_of",
    "ms_per_image",
    "name_on",
    "read_cell",
    "row_of",
    "with_front",
]

SCHEMA_VERSION = 1

Status = Literal["done", "failed", "pending"]


@dataclass(frozen=True)
class SweepCell:
    """One combination of a plan's values.

    Attributes:
        model: Checkpoint, architecture or ONNX file, as the plan names it.
        image_size: Input size in pixels, "224" or "256x128"; None is the model's own.
        precision: "fp32", "fp16", "bf16" or "int8".
        batch: Images per call.
        threads: Threads of the runtime; None is one per physical core.
    """

    model: str
    image_size: str | None
    precision: str
    backend: str
    target: str
    scenario: Scenario
    batch: int
    threads: int | None

    @property
    def name(self) -> str:
        """Its values in one line: "model.pth@64 openvino int8 cpu single-stream batch=1 threads=2"."""
        size = f"@{self.image_size}" if self.image_size else ""
        threads = f" threads={self.threads}" if self.threads else ""
        what = f"{self.model}{size} {self.backend} {self.precision} {self.target} {self.scenario}"
        return f"{what} batch={self.batch}{threads}"


@dataclass(frozen=True)
class CellResult:
    """The file of a finished cell, cells/KEY.json.

    Attributes:
        key: First 16 hexadecimal digits of the sha256 of `inputs`.
        inputs: Everything that the result depends on: the cell, digests of its files, options, versions, the machine.
        status: "done", or "failed" with a `failure`.
        artifact: File that was measured; paths in the folder of the sweep are relative to it.
        files: Files of the cell by role: "model" (the ONNX file), "logits" and "reference_logits" (answers of it and of its fp32
            form); those that do not exist are left out.
        file_mib: Size of that file.
        latency: Latency with its samples; None for a failed cell.
        accuracy: Accuracy; None without validation images.
        environment: Facts about the machine, as in a profile.
        machine: Hardware and fingerprint of the machine that measured, where that is another kind than the sweep's own.
        worker: Name and host of the worker of a fleet that measured.
        created: Time of the result, ISO 8601 in UTC.
        seconds: Duration of the cell, without shared work that was already done.
    """

    key: str
    cell: SweepCell
    inputs: dict[str, Any]
    status: Literal["done", "failed"]
    created: str
    seconds: float
    artifact: str | None = None
    files: dict[str, str] = left_out(dict)
    file_mib: float | None = None
    latency: LatencyResult | None = None
    accuracy: AccuracyReport | DetectionReport | None = None
    environment: dict[str, Any] = field(default_factory=dict)
    failure: Failure | None = None
    machine: str | None = left_out()
    worker: str | None = left_out()
    schema_version: int = version(SCHEMA_VERSION)

    def contradiction(self) -> str:
        """Return why its values cannot be true, or ""."""
        if (self.status == "done") != (self.latency is not None) or (self.status == "failed") != (self.failure is not None):
            return f"'{self.key}' is {self.status}, which its latency and failure contradict"
        return ""


@dataclass(frozen=True)
class SweepRow:
    """One cell in the index of a sweep: its figures without samples.

    Attributes:
        name: Values of the cell in one line, with the `machine`.
        machine: Hardware and fingerprint of the machine, where that is another kind than the sweep's own; cells of different
            machines are not compared.
        worker: Name and host of the worker of a fleet that measured.
        status: "done", "failed", or "pending" for one that was not measured.
        reason: Error of a failed cell, or why a cell was not measured; empty for a finished one.
        estimate_s: Expected duration of a pending cell with its shared work; None for the others.
        predicted_ms: Predicted time of a call of a cell that was not measured within a budget.
        predicted_ci95_ms: 95 % interval of that prediction.
        front_chance: Predicted chance to be on the Pareto front, 0 to 1.
        p50_ms, p50_ci95_ms, p90_ms, p99_ms: Latency of a call.
        p99_upper95_ms: Upper bound of p99 with 95 % confidence; None where there are too few calls.
        images_per_s: Throughput.
        exit_code: Exit code of a failed cell's error; 0 for the others.
        stable: False where a warning casts doubt on the latency.
        metric: "top-1" or "AP"; None without labels.
        accuracy: Value of the metric, in percent.
        drop: Drop of the metric against the fp32 model on ONNX Runtime, in points.
        drop_ci95: Paired 95 % interval of the drop.
        pareto: Whether no other finished cell of the target is both faster per image and more accurate.
    """

    key: str
    name: str
    cell: SweepCell
    status: Status = "pending"
    reason: str = ""
    exit_code: int = 0
    estimate_s: float | None = None
    predicted_ms: float | None = None
    predicted_ci95_ms: tuple[float, float] | None = None
    front_chance: float | None = None
    p50_ms: float | None = None
    p50_ci95_ms: tuple[float, float] | None = None
    p90_ms: float | None = None
    p99_ms: float | None = None
    p99_upper95_ms: float | None = None
    images_per_s: float | None = None
    stable: bool | None = None
    metric: Literal["top-1", "AP"] | None = None
    accuracy: float | None = None
    drop: float | None = None
    drop_ci95: tuple[float, float] | None = None
    file_mib: float | None = None
    seconds: float | None = None
    pareto: bool = False
    machine: str | None = left_out()
    worker: str | None = left_out()


@dataclass(frozen=True)
class SweepReport:
    """The index of a sweep, sweep.json, and the output of `sweep --json`.

    Attributes:
        plan: File of the plan.
        plan_sha256: sha256 of that file.
        cells: All cells of the plan, in the order of the measurement.
        fingerprint: Fingerprint of this machine.
        command: Command line of the last run.
        created: Time of the index, ISO 8601 in UTC.
        complete: Whether every cell is done or failed.
        notes: Combinations that were left out, one line each.
    """

    plan: str
    plan_sha256: str
    cells: tuple[SweepRow, ...]
    fingerprint: str
    command: str
    created: str
    complete: bool
    notes: tuple[str, ...] = ()
    schema_version: int = version(SCHEMA_VERSION)


def read_cell(path: Path) -> CellResult:
    """Return the result in a cell's file.

    Raises:
        InputError: the file cannot be read, is damaged, or is of a newer schema version.
    """
    return read_json(CellResult, path, "a cell of a sweep", f"delete {path.name} and run the sweep again")


def name_on(cell: SweepCell, machine: str | None) -> str:
    """Return a cell's name, with the machine if there is one."""
    return cell.name if machine is None else f"{cell.name} on {machine}"


def row_of(result: CellResult) -> SweepRow:
    """Return a finished cell's row of the index."""
    row = SweepRow(
        result.key,
        name_on(result.cell, result.machine),
        result.cell,
        result.status,
        seconds=result.seconds,
        file_mib=result.file_mib,
        machine=result.machine,
        worker=result.worker,
    )
    if result.failure is not None:
        return replace(row, reason=result.failure.error, exit_code=result.failure.exit_code)
    latency = result.latency
    assert latency is not None  # the record refuses it
    summary = latency.latency_ms
    row = replace(
        row,
        p50_ms=summary.p50,
        p50_ci95_ms=summary.p50_ci95,
        p90_ms=summary.p90,
        p99_ms=summary.p99,
        p99_upper95_ms=summary.p99_upper95,
        images_per_s=latency.throughput_images_per_s,
        stable=latency.stable,
    )
    return _with_accuracy(row, result.accuracy)


def _with_accuracy(row: SweepRow, report: AccuracyReport | DetectionReport | None) -> SweepRow:
    if isinstance(report, AccuracyReport) and report.top1 is not None:
        against = report.reference
        drop, interval = (against.top1_drop, against.top1_drop_ci95) if against else (None, None)
        return replace(row, metric="top-1", accuracy=report.top1, drop=drop, drop_ci95=interval)
    if isinstance(report, DetectionReport) and report.box is not None and report.box.ap is not None:
        compared = report.reference
        drop, interval = (compared.box_ap_drop, compared.box_ap_drop_ci95) if compared else (None, None)
        return replace(row, metric="AP", accuracy=report.box.ap, drop=drop, drop_ci95=interval)
    return row


def with_front(rows: tuple[SweepRow, ...]) -> tuple[SweepRow, ...]:
    """Return the rows with `pareto` set."""
    front = front_of(rows)
    return tuple(replace(row, pareto=row.key in front) for row in rows)


def front_of(rows: tuple[SweepRow, ...]) -> frozenset[str]:
    """Return the keys of the finished cells that no other one of the same machine, target and scenario dominates.

    A cell dominates another if it takes no more time per image and is no less accurate, and better in one of the two. Cells
    without an accuracy are compared only with cells of the same model, image size and precision.
    """
    groups: dict[tuple[Any, ...], list[SweepRow]] = {}
    for row in rows:
        if row.status == "done":
            groups.setdefault(_group(row), []).append(row)
    return frozenset(key for group in groups.values() for key in _front(group))


def _front(rows: list[SweepRow]) -> list[str]:
    """Return the keys of the cells that are more accurate than all faster ones; of equal cells, all."""
    found, best, fastest = [], float("-inf"), 0.0
    for row in sorted(rows, key=lambda row: (ms_per_image(row), -(row.accuracy or 0.0))):
        accuracy, ms = row.accuracy or 0.0, ms_per_image(row)
        if accuracy > best:
            best, fastest = accuracy, ms
        if accuracy == best and ms == fastest:
            found.append(row.key)
    return found


def dominates(one: SweepRow, other: SweepRow) -> bool:
    """Return whether a finished cell is better than another one that it can be compared with."""
    if _group(one) != _group(other):
        return False
    ours, theirs = (ms_per_image(one), -(one.accuracy or 0.0)), (ms_per_image(other), -(other.accuracy or 0.0))
    return ours[0] <= theirs[0] and ours[1] <= theirs[1] and ours != theirs


def _group(row: SweepRow) -> tuple[Any, ...]:
    return (row.metric, row.machine, *front_group(row.cell, accurate=row.accuracy is not None))


def front_group(cell: SweepCell, *, accurate: bool) -> tuple[Any, ...]:
    """Return what cells have in common that are compared with each other, with or without an accuracy."""
    own = () if accurate else (cell.model, cell.image_size, cell.precision)
    return (cell.target, cell.scenario, *own)


def ms_per_image(row: SweepRow) -> float:
    """Return the time of one image in ms: the median latency divided by the batch, offline by the throughput."""
    if row.cell.scenario == "offline":
        return 1e3 / row.images_per_s if row.images_per_s else float("inf")
    return (row.p50_ms or float("inf")) / row.cell.batch
