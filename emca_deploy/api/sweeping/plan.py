"""A plan whose files, names and combinations are checked: the cells of a sweep, and what runs them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from typing import Any

from emca_deploy.api.parts import find_parts
from emca_deploy.api.sweeping.models import Model, find_model
from emca_deploy.api.sweeping.plan_file import MATRIX, Measure, PlanFile, read_plan_file
from emca_deploy.backends.records import BACKENDS, names_where
from emca_deploy.data.choosing import assumed_note, network_preprocessing, preprocessing_of_file
from emca_deploy.data.sources import ImageSource, open_source
from emca_deploy.errors import EmcaError, InputError, UnknownNameError
from emca_deploy.networks.registry import find_architecture
from emca_deploy.preprocessing import Labelling, Preprocessing, PreprocessingOptions, parse_size
from emca_deploy.results.latency import Scenario
from emca_deploy.results.sweep import SweepCell
from emca_deploy.targets.base import Part, Target
from emca_deploy.targets.deployment import BuildStep
from emca_deploy.targets.named_machines import open_target

__all__ = ["Place", "Plan", "read_plan"]

OFFLINE_BATCH = 8
FLOAT = ("fp32", "bf16")

Find = Callable[[Sequence[str], Sequence[str]], Sequence[Part]]
"""Returns targets with what `deploy` builds on them, given the names of the targets and of backends; see `find_parts`."""


@dataclass(frozen=True)
class Place:
    """A target of a plan.

    Attributes:
        target: The target.
        steps: What `deploy` builds on it, by backend and precision.
    """

    target: Target
    steps: Mapping[tuple[str, str], BuildStep] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """A checked plan.

    Attributes:
        cells: All cells, in the order of the plan.
        models: Models by the name that the plan gives them.
        places: Targets by the name that the plan gives them.
        data: Calibration images; None if no cell needs them.
        validation: Labelled images; None measures no accuracy.
        preprocessing: Known facts about the preprocessing, without an image size.
        notes: Combinations that were left out and assumptions about preprocessing, one line each.
    """

    file: PlanFile
    cells: tuple[SweepCell, ...]
    models: Mapping[str, Model]
    places: Mapping[str, Place]
    data: Path | None
    validation: Path | None
    annotations: Path | None
    preprocessing: PreprocessingOptions
    labelling: Labelling
    notes: tuple[str, ...] = ()

    @property
    def measure(self) -> Measure:
        """The options of the measurement."""
        return self.file.measure

    def option(self, name: str, default: Any = None) -> Any:
        """Return another option of the plan."""
        return self.file.options.get(name, default)

    def step(self, cell: SweepCell) -> BuildStep:
        """Return what `deploy` builds for a cell of a model with a file."""
        return self.places[cell.target].steps[cell.backend, _built(cell.precision)]

    def sized(self, cell: SweepCell) -> PreprocessingOptions:
        """Return the facts about the preprocessing of a cell."""
        size = None if cell.image_size is None else parse_size(cell.image_size)
        return replace(self.preprocessing, image_size=size)


def read_plan(path: Path, find: Find = find_parts) -> Plan:
    """Return the plan in a file. Everything it names is looked up, its targets by `find`, and nothing is run.

    Raises:
        InputError: a key, a value, a file or a combination is wrong.
        UnknownNameError: a name of a model, a backend, a target or a value is unknown.
        MissingError: a target or a backend's library is missing.
    """
    file = read_plan_file(path)
    tables = [file.matrix, *({**file.matrix, **more} for more in file.include)]
    models = {name: find_model(file, name) for table in tables for name in table["models"]}
    places = _places(file, tables, models, find)
    cells, left_out = _cells(file, tables, models, places)
    if not cells:
        raise InputError(f"{path}: no cell is left", "; ".join(left_out) or "exclude less")
    options = file.options
    data, validation, annotations, labels, class_map = (
        file.place(options[name]) if name in options else None for name in ("data", "val", "annotations", "labels", "class_map")
    )
    labelling = Labelling(labels, class_map, options.get("label_offset", 0), options.get("class_order"))
    known = _preprocessing(file)
    plan = Plan(file, cells, models, places, data, validation, annotations, known, labelling, tuple(left_out))
    needs_preprocessing = _check_images(plan)
    if "arch" in options:
        find_architecture(options["arch"])
    return replace(plan, notes=(*plan.notes, *dict.fromkeys(_assumed(plan)))) if needs_preprocessing else plan


def _preprocessing(file: PlanFile) -> PreprocessingOptions:
    known = dict(file.preprocessing)
    for name in ("mean", "std"):
        if isinstance(known.get(name), int | float):
            known[name] = (known[name],)
    found = PreprocessingOptions(**known)
    if known:
        try:
            network_preprocessing(found)
        except (EmcaError, TypeError, ValueError) as exc:
            problem = exc.problem if isinstance(exc, EmcaError) else exc
            raise InputError(
                f"{file.path}, [preprocessing]: {problem}", "see the options of `emca-deploy validate --help`"
            ) from exc
    return found


def _check_images(plan: Plan) -> bool:
    """Open the data sets, and return whether one has images to preprocess; refuse INT8 cells without calibration images."""
    where = plan.file.path
    int8 = [cell for cell in plan.cells if cell.precision == "int8" and plan.models[cell.model].precision == "fp32"]
    if int8 and plan.data is None:
        raise InputError(f"{where}: precision int8 needs calibration images: data", 'add data = "calibration/"')
    if plan.annotations is not None and not plan.annotations.is_file():
        raise InputError(f"{where}: annotations {plan.annotations}: no such file", "name a .json file in COCO's format")
    given = [(key, place) for key, place in (("data", plan.data), ("val", plan.validation)) if place is not None]
    sources = [_open(f"{where}: {key}", place) for key, place in given]
    return not all(source.finished for source in sources)


def _assumed(plan: Plan) -> Iterator[str]:
    """Yield what is assumed about the preprocessing of each model; the checkpoint of a detector is not read for it."""
    for cell in plan.cells:
        model = plan.models[cell.model]
        if model.kind == "onnx" and model.path is not None:
            used = preprocessing_of_file(model.path, plan.sized(cell))
        elif model.path is not None and plan.annotations is None:
            used = network_preprocessing(plan.sized(cell))
        else:
            continue
        note = assumed_note(str(model.path), used)
        if note is not None:
            yield note


def _open(where: str, place: Path) -> ImageSource:
    try:
        return open_source(place, Preprocessing())
    except InputError as exc:
        raise type(exc)(f"{where}: {exc.problem}", exc.remedy) from exc


def _places(file: PlanFile, tables: Sequence[Mapping[str, Any]], models: Mapping[str, Model], find: Find) -> dict[str, Place]:
    """Return the targets with what `deploy` builds on them; a backend must run on one of them."""
    targets = tuple(dict.fromkeys(name for table in tables for name in table.get("targets", ("cpu",))))
    backends = tuple(dict.fromkeys(name for table in tables for name in table.get("backends", ())))
    for name in backends:
        if name not in BACKENDS:
            raise UnknownNameError.of(f"backend ({file.path})", name, names_where(), f"backends: {', '.join(names_where())}")
    real = tuple(name for name in backends if not BACKENDS[name].hidden)
    try:
        opened = {name: Place(open_target(name)[0]) for name in targets}
        if all(model.is_fake for model in models.values()):
            return opened
        parts = find(targets, real)
    except InputError as exc:
        raise type(exc)(f"{file.path}: {exc.problem}", exc.remedy) from exc
    steps: Iterator[dict[tuple[str, str], BuildStep]] = (
        {(step.backend, step.precision or ""): step for step in part.deployment.steps} for part in parts
    )
    return {name: Place(part.target, found) for name, part, found in zip(targets, parts, steps, strict=True)}


def _check_excludes(file: PlanFile, cells: Sequence[SweepCell]) -> None:
    """Refuse an exclude whose value no cell has, which is a typing error."""
    for index, table in enumerate(file.exclude, 1):
        for key, values in table.items():
            known = {str(_value(cell, key)) for cell in cells}
            for value in values:
                if not any(fnmatchcase(one, str(value)) for one in known):
                    where = f"{file.path}, [[exclude]] {index}"
                    raise UnknownNameError.of(
                        f"value of {key} in the plan ({where})", str(value), known, "exclude a value that the plan has"
                    )


def _cells(
    file: PlanFile, tables: Sequence[Mapping[str, Any]], models: Mapping[str, Model], places: Mapping[str, Place]
) -> tuple[tuple[SweepCell, ...], list[str]]:
    """Return the cells, and why combinations of the matrix are none."""
    found: dict[SweepCell, None] = {}
    left_out: dict[str, int] = {}
    every = [cell for table in tables for cell in _matrix(table, models, places, has_data="data" in file.options)]
    _check_excludes(file, every)
    for cell in every:
        if any(_matches(cell, table) for table in file.exclude):
            continue
        reason = _misfit(cell, models[cell.model], places[cell.target])
        if reason:
            left_out[reason] = left_out.get(reason, 0) + 1
        else:
            found[cell] = None
    _refuse_unused(file, tuple(found), left_out)
    return tuple(found), [
        f"left out, {count} {'cell' if count == 1 else 'cells'}: {reason}" for reason, count in left_out.items()
    ]


def _matrix(
    table: Mapping[str, Any], models: Mapping[str, Model], places: Mapping[str, Place], *, has_data: bool
) -> Iterator[SweepCell]:
    for name, target in product(table["models"], table.get("targets", ("cpu",))):
        model, place = models[name], places[target]
        own = dict.fromkeys(backend for backend, _ in place.steps) if not model.is_fake else (model.backend,)
        precisions = table.get("precision") or (("fp32", "int8") if has_data and not model.is_fake else (model.precision,))
        backends = table.get("backends") or tuple(own)
        rest = (table.get(key, (None,)) for key in ("image_size", "scenario", "batch", "threads"))
        for precision, backend, size, wanted, batch, threads in product(precisions, backends, *rest):
            scenario: Scenario = wanted or "single-stream"
            images = batch or (OFFLINE_BATCH if scenario == "offline" else 1)
            yield SweepCell(name, None if model.is_fake else size, precision, backend, target, scenario, images, threads)


def _matches(cell: SweepCell, table: Mapping[str, Any]) -> bool:
    """Return whether a cell has a value of every key of an exclude."""
    return all(any(fnmatchcase(str(_value(cell, key)), str(value)) for value in values) for key, values in table.items())


def _value(cell: SweepCell, key: str) -> Any:
    assert key in MATRIX
    return getattr(cell, key.removesuffix("s") if key in ("models", "backends", "targets") else key)


def _misfit(cell: SweepCell, model: Model, place: Place) -> str:
    """Return why a cell cannot be measured, or ""."""
    if model.is_fake or BACKENDS[cell.backend].hidden:
        return "" if model.is_fake and cell.backend == model.backend else f"{cell.model} does not run on backend '{cell.backend}'"
    if wrong := model.misfit(cell.precision, cell.image_size):
        return wrong
    if (cell.backend, _built(cell.precision)) not in place.steps or (cell.precision == "bf16" and place.target.kind == "gpu"):
        return f"backend '{cell.backend}' has no {cell.precision} on target {cell.target}"
    return ""


def _built(precision: str) -> str:
    """Return the precision of the model that is built: bf16 computes with one in fp32."""
    return "fp32" if precision == "bf16" else precision


def _refuse_unused(file: PlanFile, cells: Sequence[SweepCell], left_out: Mapping[str, int]) -> None:
    """Refuse a model, precision, backend or target that the plan names and no cell has, unless it is excluded."""
    reasons = "; ".join(left_out)
    if not left_out:
        return
    for key in ("image_size", "precision", "backends", "targets", "models"):
        used = {_value(cell, key) for cell in cells}
        for value in file.matrix.get(key, ()):
            if value not in used:
                raise InputError(f"{file.path}: {key} '{value}' is in no cell: {reasons[:300]}", "leave it out of the plan")
