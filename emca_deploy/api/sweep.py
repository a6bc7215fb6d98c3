"""`sweep`: every cell of a plan is measured once; a second run goes on where the first ended."""

import hashlib
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from emca_deploy._progress import Stage, silent
from emca_deploy.api.profile import profile
from emca_deploy.api.sweeping.folder import SweepFolder
from emca_deploy.api.sweeping.keys import Keys, digest_of
from emca_deploy.api.sweeping.places import Places
from emca_deploy.api.sweeping.plan import Plan, read_plan
from emca_deploy.api.sweeping.shared_work import SharedWork
from emca_deploy.artifacts import this_command
from emca_deploy.errors import EmcaError, InputError, OutputError, UnknownNameError
from emca_deploy.requests import ProfileRequest
from emca_deploy.results.latency import Failure
from emca_deploy.results.sweep import CellResult, SweepCell, SweepReport, SweepRow, with_front

if TYPE_CHECKING:
    from emca_deploy.api.sweeping.ranking import Ranking

__all__ = ["SweepRequest", "sweep"]

WORK_S, START_S = {"export": 15.0, "int8": 40.0, "engine": 2.0, "accuracy": 20.0}, 2.0
"""Rough seconds of shared work, and of the start of a process, for estimates."""

SHORTEST_RANKED_S = 10.0
"""Shortest budget whose cells are ranked."""

Finished = Callable[[SweepRow, int, int], None]
"""Gets a finished cell, the number of finished cells, and that of all selected ones."""


@dataclass(frozen=True)
class SweepRequest:
    """Options of a sweep.

    Attributes:
        plan: TOML file of the plan.
        output: folder for everything that is made; its parent must exist.
        dry_run: whether to list the cells without running any; nothing is written.
        only: cells to run: patterns of names such as "*int8*", or values such as "backend=openvino". Each must match.
        retry_failed: whether to run failed cells again.
        budget_s: seconds after which no further cell is started; cells that are likely to be on the Pareto front come first. None
            runs all.
    """

    plan: Path
    output: Path
    dry_run: bool = False
    only: tuple[str, ...] = ()
    retry_failed: bool = False
    budget_s: float | None = None


def sweep(request: SweepRequest, stage: Stage = silent, finished: Finished | None = None) -> SweepReport:
    """Measure the cells of a plan that have no result yet.

    Each result is a file, whole or not at all. A cell that fails is kept with its error and stops nothing.

    Returns:
        The index of all cells, also written as sweep.json.

    Raises:
        InputError: the plan or an option is wrong, or another sweep runs in the folder.
        MissingError: a target or a backend's library is missing.
        OutputError: a file cannot be written.
        KeyboardInterrupt: interrupted; all finished cells are kept.
    """
    plan = read_plan(request.plan)
    folder = SweepFolder(request.output)
    keys = Keys(plan, folder.digests)
    cells, same = _in_order(plan, keys)
    plan = replace(plan, notes=(*plan.notes, *same))
    chosen = _chosen(request.only, cells)
    if request.dry_run:
        return _Sweep(request, plan, folder, keys, cells, stage).report(chosen)
    with folder.locked():
        keys.save()
        return _Sweep(request, plan, folder, keys, cells, stage).run(chosen, finished)


def _in_order(plan: Plan, keys: Keys) -> tuple[dict[str, SweepCell], tuple[str, ...]]:
    """Return the cells by key in random order, which spreads similar cells over time, and notes on models with two names."""
    found: dict[str, SweepCell] = {}
    same: dict[str, None] = {}
    for cell in plan.cells:
        first = found.setdefault(digest_of(keys.cell(cell)), cell)
        if first is not cell:
            same[f"{cell.model} is the same file as {first.model}, which is measured"] = None
    order = sorted(found)
    random.Random(plan.measure.seed).shuffle(order)
    return {key: found[key] for key in order}, tuple(same)


def _chosen(only: Sequence[str], cells: dict[str, SweepCell]) -> frozenset[str]:
    """Return the keys of the cells that every condition matches."""
    found = frozenset(cells)
    for text in only:
        matching = frozenset(key for key, cell in cells.items() if _matches(text, key, cell))
        if not matching:
            raise InputError(f"--only {text}: no cell of the plan matches", "`--dry-run` lists the names of all cells")
        found &= matching
    if not found:
        raise InputError(f"--only {' --only '.join(only)}: no cell matches all of them", "leave one out")
    return found


def _matches(text: str, key: str, cell: SweepCell) -> bool:
    name, equals, value = text.partition("=")
    name = name.removesuffix("s") if name in ("models", "backends", "targets") else name  # the keys of a plan
    known = list(SweepCell.__dataclass_fields__)
    if equals and name in known:
        return fnmatchcase(str(getattr(cell, name)), value)
    if equals and name.isidentifier() and not fnmatchcase(cell.name, text) and " " not in text and "*" not in name:
        raise UnknownNameError.of("value of a cell", name, known, f"values: {', '.join(known)}")
    return key == text or fnmatchcase(cell.name, text)


@dataclass
class _Sweep:
    """A sweep in progress."""

    request: SweepRequest
    plan: Plan
    folder: SweepFolder
    keys: Keys
    cells: dict[str, SweepCell]
    stage: Stage
    rows: dict[str, SweepRow] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.places = Places(self.plan, self.keys, self.folder.shared)
        self.work = SharedWork(self.plan, self.places, self.stage)
        self._counted: set[Path] = set()
        self.rows = {key: self._row(key, cell) for key, cell in self.cells.items()}

    def _row(self, key: str, cell: SweepCell) -> SweepRow:
        found = self.folder.row(key)
        if found is None:
            return self._pending(key, cell)
        return replace(found, cell=cell, name=cell.name)  # its model may have another name now

    def run(self, chosen: frozenset[str], finished: Finished | None) -> SweepReport:
        """Measure the chosen cells that have no result."""
        started = time.monotonic()
        again = ("pending", "failed") if self.request.retry_failed else ("pending",)
        todo = [key for key in self.cells if key in chosen and self.rows[key].status in again]
        budget = float("inf") if self.request.budget_s is None else self.request.budget_s
        self.folder.write_index(self.report(chosen))
        ranking, left = self._ranking(), list(todo)
        while left and time.monotonic() - started < budget:
            key = left[0] if ranking is None else ranking.first(left, self.rows)
            left.remove(key)
            self.rows[key] = self.folder.keep(self._measured(key, self.cells[key]))
            self.folder.write_index(self.report(chosen))
            if finished is not None:
                finished(self.rows[key], len(todo) - len(left), len(todo))
        self._spent(left, ranking)
        report = self.report(chosen)
        self.folder.write_index(report)
        return report

    def _ranking(self) -> "Ranking | None":
        """Return what ranks the cells within a budget; None for a budget that is shorter than the probes."""
        budget = self.request.budget_s
        if budget is None or budget < SHORTEST_RANKED_S:
            return None
        from emca_deploy.api.sweeping.ranking import Ranking

        return Ranking(self.plan, self.keys, self.work, self.folder.shared, self.stage, budget)

    def _spent(self, keys: Sequence[str], ranking: "Ranking | None") -> None:
        """Note on each cell that is left why it was not measured, and what is predicted of it."""
        found = ranking.predictions(self.rows) if ranking is not None and keys else {}
        for key in (key for key in keys if self.rows[key].status == "pending"):
            row = replace(self.rows[key], reason="the budget was spent")
            if key in found:
                one = found[key]
                low, high = (round(value, 4) for value in one.interval_ms)
                row = replace(
                    row, predicted_ms=round(one.ms, 4), predicted_ci95_ms=(low, high), front_chance=round(one.chance, 3)
                )
            self.rows[key] = row

    def _pending(self, key: str, cell: SweepCell) -> SweepRow:
        """Return the row of a cell without a result, with its expected time; shared work counts for the first that needs it."""
        measure, missing = self.plan.measure, self.places.missing(cell)
        seconds = measure.processes * (START_S + min(measure.warmup, 1.0)) + measure.duration
        seconds += sum(WORK_S[kind] for path, kind in missing.items() if path not in self._counted)
        self._counted |= missing.keys()
        return SweepRow(key, cell.name, cell, estimate_s=round(seconds, 1))

    def _measured(self, key: str, cell: SweepCell) -> CellResult:
        """Return the result of a cell, also if it fails."""
        started, inputs = time.monotonic(), self.keys.cell(cell)
        result = CellResult(key, cell, inputs, "failed", _now(), 0.0, failure=Failure(cell.name, "not measured"))
        try:
            result = self._done(result)
        except OutputError:
            raise
        except EmcaError as exc:
            result = replace(result, failure=Failure(cell.name, exc.problem, exc.remedy, exc.exit_code))
        except Exception as exc:  # a defect in one cell must not stop the others
            result = replace(result, failure=Failure(cell.name, f"{type(exc).__name__}: {exc}", "report this as a defect"))
        return replace(result, created=_now(), seconds=round(time.monotonic() - started, 2))

    def _done(self, result: CellResult) -> CellResult:
        cell, measure = result.cell, self.plan.measure
        artifact = self.work.artifact(cell)
        accuracy = self.work.accuracy(cell)
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
        with self.stage(f"measuring {cell.name}") as progress:
            report = profile(request, progress)
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
        )

    def report(self, chosen: frozenset[str]) -> SweepReport:
        """Return the index."""
        rows = with_front(tuple(self.rows.values()))
        rows = tuple(replace(row, reason="not chosen by --only") if _left(row, chosen) else row for row in rows)
        return SweepReport(
            plan=str(self.request.plan),
            plan_sha256=hashlib.sha256(self.plan.file.text.encode()).hexdigest(),
            cells=rows,
            fingerprint=self.keys.fingerprint,
            command=this_command(),
            created=_now(),
            complete=all(row.status != "pending" for row in rows),
            notes=self.plan.notes,
        )


def _left(row: SweepRow, chosen: frozenset[str]) -> bool:
    return row.status == "pending" and row.key not in chosen


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
