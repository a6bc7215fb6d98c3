"""Options of calibration by backend name, and ranges of the tensors that any backend quantizes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir

from emca_deploy.backends.registry import all_recipes, find_recipe
from emca_deploy.calibration.graphs.graph import load_graph
from emca_deploy.calibration.options import CalibrationOptions
from emca_deploy.calibration.placement.place import quantizable
from emca_deploy.calibration.ranges.collect import collect_observations
from emca_deploy.calibration.ranges.methods.registry import parse_method
from emca_deploy.calibration.ranges.observers import Observation, TensorRange
from emca_deploy.calibration.sensitivity import SensitivityOptions

RECIPES = {recipe.backend: recipe for recipe in all_recipes()}


def calibration_options(backend: str, *given: Any, weight_bits: int | None = None, **more: Any) -> CalibrationOptions:
    named = dict(zip(("method", "samples"), given, strict=False))
    return CalibrationOptions(find_recipe(backend, weight_bits), all_recipes(), **named, **more)


def sensitivity_options(backend: str, *given: Any, **more: Any) -> SensitivityOptions:
    return SensitivityOptions(find_recipe(backend), *given, **more)


def observe(model: ir.Model, *given: Any) -> dict[str, Observation]:
    return collect_observations(model, quantizable(model.graph, all_recipes()), *given)


def collect_ranges(
    path: Path,
    source: Any,
    indices: Sequence[int],
    threads: int,
    progress: Callable[[int, int], None] | None = None,
    method: str = "minmax",
) -> dict[str, TensorRange]:
    chosen = parse_method(method)
    seen = observe(load_graph(path, source.preprocessing), source, indices, threads, progress, chosen)
    return {name: chosen.range_of(observation) for name, observation in seen.items()}


def rewrite_for(graph: Any, backend: str) -> None:
    for rewrite in find_recipe(backend).rewrites:
        rewrite(graph)
