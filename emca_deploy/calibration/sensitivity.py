"""Sensitivity: simulating how quantizing each layer and block, alone and among the others, changes the logits."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from glob import escape
from pathlib import Path
from typing import Any

import onnx_ir as ir

from emca_deploy._optional import installed_version
from emca_deploy._progress import Counter, Progress, silent
from emca_deploy._version import __version__
from emca_deploy.arrays import Float32Array
from emca_deploy.calibration.graphs.attention_path import find_attention
from emca_deploy.calibration.graphs.graph import load_graph
from emca_deploy.calibration.graphs.regions import measured_model
from emca_deploy.calibration.graphs.simulation import Simulation
from emca_deploy.calibration.graphs.weighted_layers import image_multiply_adds
from emca_deploy.calibration.options import CalibrationOptions
from emca_deploy.calibration.placement.place import Placement, place
from emca_deploy.calibration.placement.qdq import insert_qdq
from emca_deploy.calibration.placement.quantize import QuantizedWeight
from emca_deploy.calibration.placement.recipe import Recipe
from emca_deploy.calibration.ranges.drawing import Images
from emca_deploy.calibration.ranges.table import RangeTable, read_table, table_path
from emca_deploy.calibration.recovery.weights import Rounding, nearest_weights, rounded_path
from emca_deploy.calibration.resume import SideFile
from emca_deploy.canonical.marks import label_of
from emca_deploy.data.sources import ImageSource, choose_indices
from emca_deploy.errors import ModelError
from emca_deploy.onnx_file.file import OnnxFile
from emca_deploy.results.sensitivity import Cost, SensitivityReport, UnitKind, UnitSensitivity

__all__ = ["SensitivityOptions", "Unit", "find_units", "measure_sensitivity", "options_on_file", "weights_on_file"]

SEPARATORS = "./"
"""Separators of the parts of a node's name, from this package's exporter and TorchScript's."""


@dataclass(frozen=True)
class SensitivityOptions:
    """Options of a sensitivity measurement.

    Attributes:
        samples: number of images whose logits are compared; all where the data set has fewer.
        seed: random seed of the choice of images.
        keep_float: patterns of nodes that always stay in float.
        side_file: file that keeps results so far; None keeps none.
        output_name: name of the output with the logits, where the model has several.
    """

    recipe: Recipe
    samples: int = 64
    seed: int = 0
    threads: int = 1
    keep_float: Sequence[str] = ()
    side_file: Path | None = None
    output_name: str | None = None


def options_on_file(model: Path, source: ImageSource, options: CalibrationOptions) -> CalibrationOptions:
    """Return the options with method, samples and seed of the range table's file, where that is of this model and data set.

    Raises:
        InputError: the table is damaged.
    """
    path = options.table or table_path(model)
    if not path.is_file():
        return options
    key = read_table(path).key
    wanted = (OnnxFile.open(model).sha256, source.identity(), source.preprocessing)
    if (key.model_sha256, key.data_sha256, key.preprocessing) != wanted:
        return options
    return replace(options, method=key.method, samples=key.samples, seed=key.seed)


def weights_on_file(
    model: Path, source: ImageSource, table: RangeTable, table_file: Path, options: SensitivityOptions
) -> dict[str, QuantizedWeight]:
    """Return the rounded weights next to a range table, rounded again if they are of other images; none without that file.

    Raises:
        EmcaError: an error of `Rounding`.
    """
    file = (table_file, options.recipe.largest_weight)
    if not rounded_path(*file).is_file():
        return {}
    images = Images.of(source, table.key.samples, table.key.seed)
    floating = measured_model(load_graph(model, source.preprocessing, options.output_name))
    rounding = Rounding(floating, table.key, file, len(images.looked_at))
    return rounding.weights(source, images.first(table.drawing), options.threads, silent)


def measure_sensitivity(
    model: Path,
    source: ImageSource,
    table: RangeTable,
    options: SensitivityOptions,
    weights: Mapping[str, QuantizedWeight] | None = None,
    progress: Progress | None = None,
) -> SensitivityReport:
    """Quantize every layer and block alone, keep each alone in float, and compare the logits with fp32's.

    `weights` are rounded weights by layer; other layers get the nearest integers. `progress` is called with (images run, all
    images to run).

    Raises:
        InputError: a pattern matches no node, or the table is of another model.
        ModelError: the model cannot be run, or the placement quantizes no layer with a name.
        OutputError: the side file cannot be written.
    """
    recipe = options.recipe
    floating = measured_model(load_graph(model, source.preprocessing, options.output_name))
    graph = floating.graph
    placement = place(graph, recipe, options.keep_float)
    units = find_units(graph, placement)
    if not units:
        raise ModelError(
            f"{model}: the placement for {recipe.backend} quantizes no layer that has a name",
            "give its nodes names, or keep fewer of them in float",
        )
    indices = choose_indices(len(source), options.samples, source.labels, options.seed)
    rounded = weights or {}
    integers = nearest_weights(graph, recipe.largest_weight) | dict(rounded)  # once, not for every variant
    study = _Study(floating, table, options, integers, Simulation(graph, source, indices, options.threads))
    costs = study.costs(units, _key(table, _fingerprint(placement, table, rounded), options, len(indices)), progress)
    total = sum(unit.macs for unit in units if unit.kind == "layer")
    rows = [_row(unit, costs, total) for unit in units]
    return SensitivityReport(
        artifact=str(model),
        backend=recipe.backend,
        simulated_with=f"onnxruntime {installed_version('onnxruntime')}",
        method=table.key.method,
        range_samples=table.samples,
        samples=len(indices),
        seed=options.seed,
        int8=costs["int8"],
        units=tuple(sorted(rows, key=lambda row: (-row.noise_removed_percent, -row.noise_made_percent))),
    )


@dataclass(frozen=True)
class Unit:
    """A layer or a block.

    Attributes:
        name: name of the layer's node, or the common prefix of the block's nodes without the separator.
        pattern: pattern for `--keep-float`.
        layers: names of its quantized layers with weights.
        macs: multiply-adds of these layers for one image.
    """

    name: str
    kind: UnitKind
    pattern: str
    layers: tuple[str, ...]
    macs: int


@dataclass(frozen=True)
class _Study:
    floating: ir.Model
    table: RangeTable
    options: SensitivityOptions
    weights: Mapping[str, QuantizedWeight]
    simulation: Simulation

    def costs(self, units: Sequence[Unit], key: dict[str, Any], progress: Progress | None) -> dict[str, Cost]:
        """Return the cost of every variant by name, from the side file where it has one."""
        side = SideFile(self.options.side_file, key) if self.options.side_file else None
        variants = dict(_variants(units))
        costs = {name: cost for name in variants if side and (cost := _cost_on_file(side.get(name)))}
        missing = [name for name in variants if name not in costs]
        if not missing:
            return costs
        count = Counter(progress, self.simulation.samples * (len(missing) + 1))
        reference = self.simulation.logits(self.floating, count)
        for name in missing:
            costs[name] = _compare(
                self.simulation, reference, self._quantized(variants[name], count), label_of(self.floating.graph)
            )
            if side:
                side.put(name, asdict(costs[name]))
        return costs

    def _quantized(self, stays_float: "_Selector", step: Callable[[int], None]) -> Float32Array:
        model = self.floating.clone()
        placement = place(model.graph, self.options.recipe, self.options.keep_float)
        placement.keep_float({node for node in model.graph if stays_float(node.name or "")})
        insert_qdq(model, placement, self.table.ranges, self.weights)
        return self.simulation.logits(model, step)


_Selector = Callable[[str], bool]
"""Whether the node of a name stays in float."""


def _variants(units: Sequence[Unit]) -> Iterator[tuple[str, _Selector]]:
    yield "int8", lambda name: False
    for unit in units:
        yield f"alone {unit.pattern}", partial(_matches, unit.pattern, False)
        yield f"float {unit.pattern}", partial(_matches, unit.pattern, True)


def _matches(pattern: str, wanted: bool, name: str) -> bool:
    return fnmatchcase(name, pattern) is wanted


def _row(unit: Unit, costs: dict[str, Cost], total_macs: int) -> UnitSensitivity:
    alone, kept, whole = costs[f"alone {unit.pattern}"], costs[f"float {unit.pattern}"], costs["int8"].noise
    return UnitSensitivity(
        name=unit.name,
        kind=unit.kind,
        pattern=unit.pattern,
        layers=len(unit.layers),
        macs_percent=100 * unit.macs / total_macs if total_macs else 0.0,
        alone=alone,
        kept_float=kept,
        noise_made_percent=100 * alone.noise / whole if whole else 0.0,
        noise_removed_percent=100 * (1 - kept.noise / whole) if whole else 0.0,
    )


def _compare(simulation: Simulation, reference: Float32Array, logits: Float32Array, label: str) -> Cost:
    if not reference.any():
        raise ModelError(f"{label}: all its logits are zero", "name a trained model")
    return Cost(simulation.noise(reference, logits).all_db, simulation.flips_percent(reference, logits))


def _cost_on_file(value: Any) -> Cost | None:
    """Return a cost from the side file; None where it has no valid one."""
    try:
        sqnr_db, flips = value["sqnr_db"], value["flips_percent"]
        return Cost(None if sqnr_db is None else float(sqnr_db), None if flips is None else float(flips))
    except (TypeError, KeyError, ValueError):
        return None


def _key(table: RangeTable, fingerprint: str, options: SensitivityOptions, samples: int) -> dict[str, Any]:
    """Return everything that the costs depend on."""
    return {
        "model_sha256": table.key.model_sha256,
        "data_sha256": table.key.data_sha256,
        "preprocessing": table.key.preprocessing.identity(),
        "placement_sha256": fingerprint,
        "samples": samples,
        "seed": options.seed,
        "versions": {"emca_deploy": __version__, "onnxruntime": installed_version("onnxruntime")},
    }


def _fingerprint(placement: Placement, table: RangeTable, weights: Mapping[str, QuantizedWeight]) -> str:
    """Return a hash of the quantized tensors, their readers and ranges, and the rounded weights."""
    lines = [repr(replace(placement.recipe, readers=frozenset())), repr(sorted(placement.recipe.readers))]
    for value, readers in placement.edges.items():
        edges = sorted((node.name or "", index) for node, index in readers)
        lines.append(f"{value.name} {edges} {table.ranges.get(value.name or '')}")
    total = hashlib.sha256("\n".join(lines).encode())
    for name, (integers, scales) in sorted(weights.items()):
        total.update(name.encode() + integers.tobytes() + scales.tobytes())
    return total.hexdigest()


def find_units(graph: ir.Graph, placement: Placement) -> list[Unit]:
    """Return the layers with weights that a placement quantizes, in the order they run, and then their blocks.

    A block consists of the nodes whose names share their beginning with a residual Add, with attention and shortcut. Layers
    without a name are left out, because no pattern matches only one of them.
    """
    macs = {node.name: image_multiply_adds(node) for node in placement.weighted if node.name}
    layers = [Unit(name, "layer", escape(name), (name,), count) for name, count in macs.items()]
    blocks = []
    for prefix in _block_prefixes(graph):
        members = tuple(name for name in macs if name.startswith(prefix))
        if len(members) > 1:
            blocks.append(Unit(prefix[:-1], "block", escape(prefix) + "*", members, sum(macs[name] for name in members)))
    return layers + blocks


def _block_prefixes(graph: ir.Graph) -> Iterable[str]:
    """Return the common beginning of the names in each block, with its separator."""
    attention = find_attention(graph)
    prefixes: dict[str, None] = {}
    for node in graph:
        computed = all(value is not None and value.const_value is None for value in node.inputs)
        if node.op_type == "Add" and node not in attention.nodes and computed:
            name = node.name or ""
            end = max(name.rfind(separator) for separator in SEPARATORS)
            if end > 0:
                prefixes[name[: end + 1]] = None
    return prefixes
