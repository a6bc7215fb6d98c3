"""The cells of a plan on one kind of machine, and what measures them."""

import time
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from emca_deploy._progress import Stage
from emca_deploy.api.profile import profile
from emca_deploy.api.sweeping.folder import SweepFolder
from emca_deploy.api.sweeping.keys import Keys, digest_of
from emca_deploy.api.sweeping.places import Places
from emca_deploy.api.sweeping.plan import Plan
from emca_deploy.api.sweeping.shared_work import SharedWork
from emca_deploy.errors import EmcaError, OutputError
from emca_deploy.fleet.errors import ClusterLostError
from emca_deploy.interrupts import was_interrupted
from emca_deploy.requests import ProfileRequest
from emca_deploy.results.latency import Failure, ProfileReport
from emca_deploy.results.sweep import CellResult, SweepCell, SweepRow, name_on

if TYPE_CHECKING:
    from emca_deploy.api.sweeping.machines import FleetMachine

__all__ = ["Cells", "now"]

WORK_S, START_S = {"export": 15.0, "int8": 40.0, "engine": 2.0, "accuracy": 20.0}, 2.0
"""Rough seconds of shared work, and of the start of a process, for estimates."""


class Cells:
    """The cells of a plan by key, in the order of the plan.

    Attributes:
        by_key: The cells; of several that are equal, the first.
        notes: Models with two names, one line each.
        work: The work that cells share.
    """

    def __init__(self, plan: Plan, keys: Keys, folder: SweepFolder, stage: Stage, machine: "FleetMachine | None" = None) -> None:
        self.plan, self.keys, self.folder, self.machine = plan, keys, folder, machine
        self._stage = stage
        self.places = Places(plan, keys, folder.shared)
        self.work = SharedWork(plan, self.places, stage, machine)
        self._counted: set[Path] = set()
        self.by_key: dict[str, SweepCell] = {}
        same: dict[str, None] = {}
        for cell in plan.cells:
            first = self.by_key.setdefault(digest_of(keys.cell(cell)), cell)
            if first is not cell:
                same[f"{cell.model} is the same file as {first.model}, which is measured"] = None
        self.notes = tuple(same)

    def row(self, key: str) -> SweepRow:
        """Return the row of a cell, which may be pending.

        Raises:
            InputError: the cell's file is damaged.
        """
        cell, found = self.by_key[key], self.folder.row(key)
        label = self._label(cell)
        if found is None:
            return self._pending(key, cell, label)
        # Its model may have another name now, and another machine may be the sweep's own.
        return replace(found, cell=cell, name=name_on(cell, label), machine=label)

    def _label(self, cell: SweepCell) -> str | None:
        """Return the name of the machine of a cell; a remote target names its own."""
        return None if self.machine is None or self.plan.places[cell.target].target.is_remote else self.machine.label

    def _pending(self, key: str, cell: SweepCell, label: str | None) -> SweepRow:
        """Return the row of a cell without a result, with its expected time; shared work counts for the first that needs it."""
        measure, missing = self.plan.measure, self.places.missing(cell)
        seconds = measure.processes * (START_S + min(measure.warmup, 1.0)) + measure.duration
        seconds += sum(WORK_S[kind] for path, kind in missing.items() if path not in self._counted)
        self._counted |= missing.keys()
        return SweepRow(key, name_on(cell, label), cell, estimate_s=round(seconds, 1), machine=label)

    def measured(self, key: str) -> CellResult:
        """Return the result of a cell, also if it fails.

        Raises:
            OutputError: a file cannot be written.
            ClusterLostError: the fleet is lost.
            KeyboardInterrupt: the measurement was interrupted.
        """
        cell = self.by_key[key]
        started, inputs = time.monotonic(), self.keys.cell(cell)
        failure = Failure(cell.name, "not measured")
        result = CellResult(key, cell, inputs, "failed", now(), 0.0, failure=failure, machine=self._label(cell))
        try:
            with nullcontext() if self.machine is None else self.machine.fleet.here():
                result = self._done(result)
        except (OutputError, ClusterLostError):
            raise
        except EmcaError as exc:
            result = replace(result, failure=Failure(cell.name, exc.problem, exc.remedy, exc.exit_code))
        except Exception as exc:  # a defect in one cell must not stop the others
            if was_interrupted(exc):
                raise KeyboardInterrupt from exc
            result = replace(result, failure=Failure(cell.name, f"{type(exc).__name__}: {exc}", "report this as a defect"))
        return replace(result, created=now(), seconds=round(time.monotonic() - started, 2))

    def _done(self, result: CellResult) -> CellResult:
        cell = result.cell
        artifact = self.work.artifact(cell)
        accuracy = self.work.accuracy(cell)
        report, worker = self._profile(cell, artifact)
        if not report.results or not report.complete:
            raise KeyboardInterrupt  # `profile` keeps what an interrupted run measured, a sweep does not
        (latency,) = report.results
        path = Path(artifact)
        size = round(path.stat().st_size / 2**20, 3) if path.is_file() else None
        return replace(
            result,
            status="done",
            artifact=self.places.within(path),
            files=self.places.files(cell),
            file_mib=size,
            latency=latency,
            accuracy=accuracy,
            environment=report.environment,
            failure=None,
            worker=worker,
        )

    def _profile(self, cell: SweepCell, artifact: str) -> tuple[ProfileReport, str | None]:
        """Return the latency of a cell, and the worker of a fleet that measured it."""
        measure = self.plan.measure
        request = ProfileRequest(
            (artifact,),
            (cell.backend,),
            cell.target,
            cell.scenario,
            cell.batch,
            cell.threads,
            "bf16" if cell.precision == "bf16" else "f32",
            measure.duration,
            measure.duration if measure.max_duration is None else measure.max_duration,
            measure.processes,
            measure.warmup,
            measure.seed,
            measure.telemetry,
            untuned=True,
            io=self.work.io(cell),
        )
        if self.machine is not None:
            report, worker = self.machine.target(cell.target).profile(request, cell.name)
            return report, f"{worker.name} on {worker.host}"
        with self._stage(f"measuring {cell.name}") as progress:
            return profile(request, progress), None


def now() -> str:
    """Return the time, ISO 8601 in UTC."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
