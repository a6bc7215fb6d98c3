"""The order of cells within a budget: first those that are most likely to be on the Pareto front."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from emca_deploy._progress import Stage
from emca_deploy.api.sweeping.keys import Keys, digest_of
from emca_deploy.api.sweeping.plan import Plan
from emca_deploy.api.sweeping.prediction import Prediction, predict
from emca_deploy.api.sweeping.probes import Runtime, features_of, probe_costs
from emca_deploy.api.sweeping.shared_work import SharedWork
from emca_deploy.arrays import Float64Array
from emca_deploy.errors import EmcaError, OutputError
from emca_deploy.preprocessing import parse_size, sides
from emca_deploy.results.sweep import SweepCell, SweepRow

__all__ = ["Ranking"]

LARGEST_SHARE = 0.25
"""Share of the budget after which no further probe or export is started for predictions."""

PROBED = ("fp32", "bf16", "int8")


class Ranking:
    """Predicts all cells of a plan from probes and from the cells that are done.

    Args:
        plan: the plan.
        keys: digests of what its cells depend on.
        work: exports, of which the features of models are read.
        place: folder for the probes.
        stage: opens each stage, for progress.
        budget_s: seconds of the whole sweep.
    """

    def __init__(self, plan: Plan, keys: Keys, work: SharedWork, place: Path, stage: Stage, budget_s: float) -> None:
        self._plan, self._work, self._stage = plan, work, stage
        self._place = place / f"probes-{digest_of(keys.probes())}"
        self._until = time.monotonic() + LARGEST_SHARE * budget_s
        self._costs: dict[Runtime, Float64Array | None] = {}
        self._models: dict[str, Path | None] = {}
        self._expected: dict[str, float | None] = {}

    def first(self, todo: Sequence[str], rows: Mapping[str, SweepRow]) -> str:
        """Return the cell of `todo` with the largest chance; the earliest of equal ones."""
        found = self.predictions(rows)
        return max(todo, key=lambda key: found[key].chance)

    def predictions(self, rows: Mapping[str, SweepRow]) -> dict[str, Prediction]:
        """Return what is known about each cell."""
        for key, row in rows.items():
            if key not in self._expected:
                self._expected[key] = self.expect(row.cell)
        accurate = self._plan.validation is not None
        found = predict(tuple(rows.values()), [self._expected[key] for key in rows], with_accuracy=accurate)
        return dict(zip(rows, found, strict=True))

    def expect(self, cell: SweepCell) -> float | None:
        """Return the latency of a cell by the probes, in ms; None without probes or a model to read."""
        model = self._plan.models[cell.model]
        local = self._plan.places[cell.target].target.kind == "cpu"
        if model.is_fake or not local or cell.precision not in PROBED:
            return None
        costs, path = self._cost(Runtime(cell.backend, cell.precision, cell.threads)), self._file(cell)
        if costs is None or path is None:
            return None
        size = None if cell.image_size is None else parse_size(cell.image_size)
        with suppress(EmcaError):
            ms = float(features_of(path, cell.batch, None if size is None else sides(size)) @ costs)
            return ms if ms > 0 else None
        return None

    def _file(self, cell: SweepCell) -> Path | None:
        """Return an ONNX file of a cell's model, at any image size."""
        if cell.model not in self._models:
            found = None
            if self._plan.models[cell.model].kind == "onnx" or time.monotonic() < self._until:
                with suppress(EmcaError):
                    found = self._work.exported(cell, "fp32")
            self._models[cell.model] = found
        return self._models[cell.model]

    def _cost(self, runtime: Runtime) -> Float64Array | None:
        if runtime not in self._costs:
            self._costs[runtime] = None
            if time.monotonic() < self._until:
                try:
                    with self._stage(f"probing {runtime.backend} in {runtime.precision}"):
                        self._costs[runtime] = probe_costs(runtime, self._place)
                except OutputError:
                    raise
                except EmcaError:
                    pass  # its cells will fail with the same error, which is then kept
        return self._costs[runtime]
