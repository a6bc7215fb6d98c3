"""`sweep`: every cell of a plan is measured once; a second run goes on where the first ended."""

import hashlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from emca_deploy._progress import Stage, silent
from emca_deploy.api.sweeping.cells import Cells, now
from emca_deploy.api.sweeping.folder import SweepFolder
from emca_deploy.api.sweeping.keys import Keys
from emca_deploy.api.sweeping.plan import read_plan
from emca_deploy.api.sweeping.plan_file import read_plan_file
from emca_deploy.artifacts import this_command
from emca_deploy.errors import InputError, UnknownNameError
from emca_deploy.machines.fingerprint import fingerprint_of, machine_parts
from emca_deploy.results.sweep import CellResult, SweepCell, SweepReport, SweepRow, with_front

if TYPE_CHECKING:
    from emca_deploy.api.sweeping.ranking import Ranking
    from emca_deploy.fleet.cluster import ClusterOptions
    from emca_deploy.fleet.fleet import Fleet

__all__ = ["SweepRequest", "sweep"]

MOST_AT_ONCE = 256
"""Most cells that are in progress on a fleet."""

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
        cluster: Dask cluster to run the cells on; None runs them on this machine.
    """

    plan: Path
    output: Path
    dry_run: bool = False
    only: tuple[str, ...] = ()
    retry_failed: bool = False
    budget_s: float | None = None
    cluster: "ClusterOptions | None" = None


def sweep(request: SweepRequest, stage: Stage = silent, finished: Finished | None = None) -> SweepReport:
    """Measure the cells of a plan that have no result yet.

    Each result is a file, whole or not at all. A cell that fails is kept with its error and stops nothing.

    Returns:
        The index of all cells, also written as sweep.json.

    Raises:
        InputError: the plan or an option is wrong, or another sweep runs in the folder.
        MissingError: a target or a backend's library is missing, or the cluster is lost.
        OutputError: a file cannot be written.
        KeyboardInterrupt: interrupted; all finished cells are kept.
    """
    folder = SweepFolder(request.output)
    if request.cluster is not None:
        return _on_fleet(request, folder, stage, finished)
    plan = read_plan(request.plan)
    cells = Cells(plan, Keys(plan, folder.digests), folder, stage)
    return _finish(_Sweep(request, folder, (cells,), stage), finished)


def _finish(found: "_Sweep", finished: Finished | None) -> SweepReport:
    chosen = _chosen(found.request.only, {key: cells.by_key[key] for key, cells in found.cells.items()})
    if found.request.dry_run:
        return found.report(chosen)
    with found.folder.locked():
        for cells in found.machines:
            cells.keys.save()
        return found.run(chosen, finished)


def _on_fleet(request: SweepRequest, folder: SweepFolder, stage: Stage, finished: Finished | None) -> SweepReport:
    """Measure the cells on each kind of machine of a cluster."""
    from emca_deploy.api.sweeping.machines import kinds_of
    from emca_deploy.fleet.cluster import connected
    from emca_deploy.fleet.fleet import Fleet

    assert request.cluster is not None
    read_plan_file(request.plan)  # a wrong plan is refused before a cluster is started
    own = fingerprint_of(machine_parts())
    with TemporaryDirectory(prefix="emca-deploy-") as shards, connected(request.cluster) as client:
        with stage("asking the workers what they are"):
            fleet = Fleet(client, pin=request.cluster.pin)
        with fleet:
            machines = []
            for machine in kinds_of(fleet, Path(shards), own):
                plan = read_plan(request.plan, machine.parts)
                keys = Keys(plan, folder.digests, machine.like.fingerprint, machine.like.backends)
                machines.append(Cells(plan, keys, folder, silent, machine))
            return _finish(_Sweep(request, folder, tuple(machines), stage, fleet), finished)


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
    """A sweep in progress on some kinds of machines; `cells` has by key those of a cell, in the order of measurement."""

    request: SweepRequest
    folder: SweepFolder
    machines: tuple[Cells, ...]
    stage: Stage
    fleet: "Fleet | None" = None
    cells: dict[str, Cells] = field(default_factory=dict)
    rows: dict[str, SweepRow] = field(default_factory=dict)

    def __post_init__(self) -> None:
        found: dict[str, Cells] = {}
        for cells in self.machines:
            for key in cells.by_key:
                found.setdefault(key, cells)  # a remote target is the same from every machine
        order = sorted(found)
        random.Random(self.machines[0].plan.measure.seed).shuffle(order)  # which spreads similar cells over time
        self.cells = {key: found[key] for key in order}
        self.rows = {key: cells.row(key) for key, cells in self.cells.items()}

    def run(self, chosen: frozenset[str], finished: Finished | None) -> SweepReport:
        """Measure the chosen cells that have no result."""
        again = ("pending", "failed") if self.request.retry_failed else ("pending",)
        todo = [key for key in self.cells if key in chosen and self.rows[key].status in again]
        self.folder.write_index(self.report(chosen))
        ranking, left = self._ranking(), list(todo)
        results = self._in_turn(left, ranking) if self.fleet is None else self._at_once(left, self.fleet)
        for number, result in enumerate(results, 1):
            self.rows[result.key] = self.folder.keep(result)
            self.folder.write_index(self.report(chosen))
            if finished is not None:
                finished(self.rows[result.key], number, len(todo))
        self._spent(left, ranking)
        report = self.report(chosen)
        self.folder.write_index(report)
        return report

    def _in_turn(self, left: list[str], ranking: "Ranking | None") -> Iterator[CellResult]:
        """Yield the results of cells, which are taken from `left`, until the budget is spent."""
        started, budget = time.monotonic(), self._budget_s()
        while left and time.monotonic() - started < budget:
            key = left[0] if ranking is None else ranking.first(left, self.rows)
            left.remove(key)
            yield self.cells[key].measured(key)

    def _at_once(self, left: list[str], fleet: "Fleet") -> Iterator[CellResult]:
        """Yield the results of cells as workers finish them; cells are taken from `left` until the budget is spent."""
        started, budget = time.monotonic(), self._budget_s()
        running: dict[Future[CellResult], str] = {}
        pool, waits = ThreadPoolExecutor(MOST_AT_ONCE), True
        try:
            while running or left:
                while left and len(running) <= len(fleet.latency_workers) and time.monotonic() - started < budget:
                    key = left.pop(0)
                    running[pool.submit(self.cells[key].measured, key)] = key
                if not running:
                    return
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    running.pop(done)
                    yield done.result()
        except (KeyboardInterrupt, GeneratorExit):
            waits = False  # a thread may calibrate for minutes
            raise
        finally:
            fleet.stop()
            pool.shutdown(wait=waits, cancel_futures=True)

    def _budget_s(self) -> float:
        return float("inf") if self.request.budget_s is None else self.request.budget_s

    def _ranking(self) -> "Ranking | None":
        """Return what ranks the cells within a budget; None for a budget that is shorter than the probes, and for a fleet."""
        budget = self.request.budget_s
        if budget is None or budget < SHORTEST_RANKED_S or self.fleet is not None:
            return None
        from emca_deploy.api.sweeping.ranking import Ranking

        (cells,) = self.machines
        return Ranking(cells.plan, cells.keys, cells.work, self.folder.shared, self.stage, budget)

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

    def report(self, chosen: frozenset[str]) -> SweepReport:
        """Return the index."""
        rows = with_front(tuple(self.rows.values()))
        rows = tuple(replace(row, reason="not chosen by --only") if _left(row, chosen) else row for row in rows)
        return SweepReport(
            plan=str(self.request.plan),
            plan_sha256=hashlib.sha256(self.machines[0].plan.file.text.encode()).hexdigest(),
            cells=rows,
            fingerprint=self.machines[0].keys.own_fingerprint,
            command=this_command(),
            created=now(),
            complete=all(row.status != "pending" for row in rows),
            notes=self._notes(),
        )

    def _notes(self) -> tuple[str, ...]:
        unusable = () if self.fleet is None else self.fleet.unusable.values()
        notes = [note for cells in self.machines for note in (*cells.plan.notes, *cells.notes)]
        return tuple(dict.fromkeys((*notes, *unusable)))


def _left(row: SweepRow, chosen: frozenset[str]) -> bool:
    return row.status == "pending" and row.key not in chosen
