"""`calibrate --placement measured`: tries the choices that a recipe leaves open, on the machine that will run the model.

The search is that of `tune`, with the choices as settings. Speed alone does not decide: a placement has to gain a percent for
each `DB_FOR_A_PERCENT` that its logits give up, and the last round must show it to be faster than the recipe.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from emca_deploy._machine import CpuInfo
from emca_deploy._progress import Progress, Stage
from emca_deploy._version import __version__
from emca_deploy.api.placing.runs import Runs
from emca_deploy.api.placing.variants import Fidelity, Variants
from emca_deploy.atomic import hidden_folder
from emca_deploy.backends.registry import all_recipes
from emca_deploy.calibration.calibrate import ensure_ranges
from emca_deploy.calibration.graphs.graph import canonical_graph
from emca_deploy.calibration.options import CalibrationOptions
from emca_deploy.calibration.placement.choices import SPACE_VERSION, chosen_recipe, single_choices
from emca_deploy.calibration.placement.place import quantizable
from emca_deploy.calibration.placement.recipe import Recipe
from emca_deploy.calibration.recovery.weights import nearest_weights
from emca_deploy.calibration.resume import SideFile, side_path
from emca_deploy.data.sources import ImageSource
from emca_deploy.harness.measure.tuning import Found, Search, search
from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.onnx_file.file import OnnxFile
from emca_deploy.results.codec import from_json, to_json
from emca_deploy.results.placement import MeasuredPlacement
from emca_deploy.results.tuning import Trial, Value, Values

__all__ = ["DB_FOR_A_PERCENT", "PlacementSearch", "measure_placement"]

DB_FOR_A_PERCENT = 0.1
"""Decibels of the logits that a percent of speed may cost: 1 dB for a tenth of the time."""

NOTICED = 1.005
"""Ratio from which a trial's logits are looked at: smaller gains are within the noise of a short trial."""

PROCESSES = 8
"""Processes of the recipe and of the winner in the last round: those of one file differ by some percent."""


@dataclass(frozen=True)
class PlacementSearch:
    """How to search.

    Attributes:
        data: Path of the calibration images.
        target: Machine to measure on, as `--target` takes it.
        budget_s: Approximate duration in seconds.
        weight_bits: Bits of weights, 7 or 8; None decides by the processor of the target.
    """

    data: Path
    target: str = "cpu"
    budget_s: float = 240.0
    weight_bits: int | None = None


def measure_placement(
    model: Path, source: ImageSource, options: CalibrationOptions, how: PlacementSearch, stage: Stage
) -> CalibrationOptions:
    """Find the fastest placement of a model on a machine, and return the options with it and its recipe.

    A result of the same model, images, machine and versions is reused from a file next to the range table.

    Raises:
        InputError: the backend runs no .onnx file on the target, or the budget is too small.
        MissingError: the backend or the machine is missing.
        EmcaError: a model cannot be quantized, or the recipe's does not run.
        KeyboardInterrupt: the user interrupted; nothing is kept.
    """
    runs = Runs.on(how.target, options, how.data, source.preprocessing)
    conditions = runs.conditions(model)
    if how.weight_bits is None:
        options = replace(options, recipe=options.recipe.with_weight_bits(_bits_for(options.recipe, conditions["machine"])))
    rewrites = tuple(dict.fromkeys(rewrite for recipe in all_recipes() for rewrite in recipe.rewrites))
    graph_model = canonical_graph(model, source.preprocessing, options.output_name).model
    tried = tuple(single_choices(options.recipe, rewrites, graph_model.graph))
    options = replace(options, measured_for=(*options.measured_for, *tried))
    table, path, _ = ensure_ranges(model, source, options, stage, set(quantizable(graph_model.graph, tried)))
    side = SideFile(side_path(path, options.backend, "placement"), _key(model, source, options, how))
    with stage("measuring placements") as progress, hidden_folder(path.parent) as folder:
        name = hashlib.sha256(json.dumps(conditions, sort_keys=True).encode()).hexdigest()[:16]
        kept = side.get(name)
        if kept is None:
            weights = nearest_weights(graph_model.graph, options.recipe.largest_weight)
            variants = Variants(graph_model, options.recipe, rewrites, tuple(options.keep_float), table.ranges, weights)
            placement = replace(_searched(variants, runs, folder, (model, how), progress), **conditions)
            if placement.is_settled:
                side.put(name, to_json(placement))
        else:
            placement = replace(from_json(MeasuredPlacement, kept), reused=True)
    return replace(options, recipe=chosen_recipe(options.recipe, rewrites, placement.choices), placement=placement)


def _bits_for(recipe: Recipe, machine: Mapping[str, Any]) -> int:
    """Return the bits of weights for a machine's processor, of which some add INT8 products in 16 bits."""
    cpu = CpuInfo(machine["cpu"], machine["architecture"], 1, 1, tuple(machine["instruction_sets"]))
    return 7 if recipe.on_cpu and cpu.saturates_int8 else 8


def _key(model: Path, source: ImageSource, options: CalibrationOptions, how: PlacementSearch) -> dict[str, Any]:
    """Return what a result depends on, other than the machine and the runtime."""
    recipe = options.recipe
    return {
        "model_sha256": OnnxFile.open(model).sha256,
        "data_sha256": source.identity(),
        "preprocessing": source.preprocessing.identity(),
        "recipe": repr(replace(recipe, readers=frozenset())),
        "readers": sorted(recipe.readers),
        "rewrites": [str(getattr(rewrite, "__name__", rewrite)) for rewrite in recipe.rewrites],
        "options": [options.threads, options.output_name, list(options.keep_float), how.target, how.budget_s],
        "versions": {"emca_deploy": __version__, "choices": SPACE_VERSION},
    }


@dataclass(frozen=True)
class _Trials:
    """The placements of a search, as files and by their worth."""

    variants: Variants
    runs: Runs
    folder: Path
    fidelity: Fidelity
    default: Values

    def make(self, name: str, values: Mapping[str, Value]) -> RunnerSpec:
        """Return the candidate of a name with choices; its file replaces that of an earlier one with the same name."""
        path = self.folder / f"{name.removeprefix('#')}.onnx"
        self.variants.write({key: value for key, value in values.items() if value != self.default[key]}, path)
        return self.runs.candidate(name, path)

    def worth(self, trial: Trial) -> float:
        """Return how many times faster a trial is than the recipe, less what its logits give up."""
        if trial.ratio < NOTICED:
            return min(trial.ratio, 1.0)
        return trial.ratio - max(0.0, self.fidelity.lost_db(trial.changed)) / DB_FOR_A_PERCENT / 100


def _searched(
    variants: Variants, runs: Runs, folder: Path, wanted: tuple[Path, PlacementSearch], progress: Progress | None
) -> MeasuredPlacement:
    """Search, and return the result without the facts about the machine."""
    model, how = wanted
    fidelity = Fidelity(runs.logits, model, variants.write, folder / "fidelity.onnx")
    space = variants.space()
    trials = _Trials(variants, runs, folder, fidelity, {tunable.name: tunable.default for tunable in space})
    wanted_search = Search(
        trials.make,
        budget_s=how.budget_s,
        worth=trials.worth,
        measure=runs.measure,
        processes=PROCESSES,
        budget_option="--placement-budget",
    )
    found = search(space, wanted_search, progress)
    if not found.complete:
        raise KeyboardInterrupt
    return _result(found, trials, how)


def _result(found: Found, trials: _Trials, how: PlacementSearch) -> MeasuredPlacement:
    """Return the result of a complete search: the winner where the last round shows it to be faster and worth what it costs."""
    confirmed, last = found.confirmed, found.last
    best_db = trials.fidelity.sqnr_db(found.best) if found.best else None
    return_recipe = not found.is_faster or trials.worth(found.rounds[-1].trials[0]) <= 1
    return MeasuredPlacement(
        backend=trials.runs.backend,
        target=how.target,
        choices={} if return_recipe else found.best,
        best=found.best,
        verdict=confirmed.verdict if confirmed else "no difference shown",
        ratio=confirmed.ratio_p50 if confirmed else None,
        ratio_ci95=confirmed.ratio_ci95 if confirmed else None,
        recipe_p50_ms=last.results[0].latency_ms.p50 if last else None,
        best_p50_ms=last.results[1].latency_ms.p50 if last else None,
        recipe_sqnr_db=trials.fidelity.sqnr_db({}),
        best_sqnr_db=best_db,
        trials=sum(len(done.trials) + len(done.refused) for done in found.rounds),
        seconds=round(found.seconds, 1),
        rounds=tuple(found.rounds),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
