"""The choices that a recipe leaves open: each is a change of the recipe, for the whole network or for maps of one height."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import onnx_ir as ir

from emca_deploy.calibration.graphs.trunk import find_trunk
from emca_deploy.calibration.placement.recipe import Recipe, Residual, map_height
from emca_deploy.results.tuning import Tunable, Value

__all__ = ["SPACE_VERSION", "Rewrite", "chosen_recipe", "open_choices", "region_heights", "single_choices"]

SPACE_VERSION = 1
"""Revision of the choices, raised where the same names mean another placement."""

FEWEST_CHANNELS = 16
"""Input channels below which a convolution stays in float where the first one does."""

READERS = ("MaxPool", "AveragePool", "GlobalAveragePool", "AttentionPool", "Gate")
FLOATS = ("Classifier", "AttentionPool", "Branch")
RESIDUAL: tuple[Residual, ...] = ("both", "identity", "none")
REGIONAL = ("residual", "read.AttentionPool", "read.Gate", "symmetric_gate", "float.AttentionPool", "float.Branch")
"""Choices that are also tried for the maps of one height alone."""

Rewrite = Callable[[ir.Graph], object]


@dataclass(frozen=True)
class _Choice:
    """A choice: its value in a recipe, its other values, and the change of a recipe that a value makes."""

    name: str
    value: Value
    others: tuple[Value, ...]
    apply: Callable[[Recipe, Value], Recipe]


def open_choices(recipe: Recipe, rewrites: Iterable[Rewrite], heights: Sequence[int]) -> tuple[Tunable, ...]:
    """Return the choices to try for a recipe, those of the whole network first.

    `rewrites` are those of all backends, and `heights` the heights in pixels of maps to try a choice on alone, which is named
    "CHOICE@HEIGHT".
    """
    every = _choices(recipe, rewrites)
    whole = [Tunable(choice.name, choice.value, choice.others) for choice in every]
    regional = [
        Tunable(f"{choice.name}@{height}", choice.value, choice.others)
        for choice in every
        if choice.name in REGIONAL
        for height in heights
    ]
    return (*whole, *regional)


def chosen_recipe(recipe: Recipe, rewrites: Iterable[Rewrite], values: Mapping[str, Value]) -> Recipe:
    """Return a recipe with choices, each a value by name; those of one height change what the others give."""
    apply = {choice.name: choice.apply for choice in _choices(recipe, rewrites)}
    changed = recipe
    for name, value in values.items():
        if "@" not in name:
            changed = apply[name](changed, value)
    regions: dict[int, Recipe] = {}
    for name, value in values.items():
        plain, _, height = name.partition("@")
        if height:
            regions[int(height)] = apply[plain](regions.get(int(height), changed), value)
    return replace(changed, regions=tuple(regions.items()))


def single_choices(recipe: Recipe, rewrites: Sequence[Rewrite], graph: ir.Graph) -> Iterator[Recipe]:
    """Yield the recipe with each single choice; together they quantize every tensor that any combination does."""
    for tunable in open_choices(recipe, rewrites, region_heights(graph)):
        for value in tunable.others:
            yield chosen_recipe(recipe, rewrites, {tunable.name: value})


def region_heights(graph: ir.Graph) -> tuple[int, ...]:
    """Return the heights in pixels of the maps that residual Adds and gates read, the largest first; none for a single one."""
    trunk = find_trunk(graph)
    joins = [node for node in graph if node in trunk.attention.gates or _adds_maps(node, trunk.values)]
    heights = {map_height(node) for node in joins} - {0}
    return tuple(sorted(heights, reverse=True)) if len(heights) > 1 else ()


def _adds_maps(node: ir.Node, maps: frozenset[ir.Value]) -> bool:
    return node.op_type == "Add" and len(node.inputs) == 2 and maps.issuperset(node.inputs)


def _choices(recipe: Recipe, rewrites: Iterable[Rewrite]) -> list[_Choice]:
    found = [
        _Choice("residual", recipe.residual, tuple(one for one in RESIDUAL if one != recipe.residual), _set_residual),
        *(_flag(f"read.{reader}", reader in recipe.readers, partial(_set_member, "readers", reader)) for reader in READERS),
        _flag("float.First", recipe.fewest_channels > 1, _set_first),
        *(_flag(f"float.{kind}", kind in recipe.floats, partial(_set_member, "floats", kind)) for kind in FLOATS),
    ]
    if not recipe.symmetric:
        found.append(_flag("symmetric_gate", recipe.symmetric_gate, partial(_set_field, "symmetric_gate")))
    if recipe.outputs:
        found.append(_flag("pass_through", recipe.pass_through, partial(_set_field, "pass_through")))
    for rewrite in dict.fromkeys((*recipe.rewrites, *rewrites)):
        found.append(_flag(f"rewrite.{_name(rewrite)}", rewrite in recipe.rewrites, partial(_set_rewrite, rewrite)))
    return found


def _name(rewrite: Rewrite) -> str:
    return getattr(rewrite, "__name__", type(rewrite).__name__)


def _flag(name: str, value: bool, apply: Callable[[Recipe, Value], Recipe]) -> _Choice:
    return _Choice(name, value, (not value,), apply)


def _set_residual(recipe: Recipe, value: Value) -> Recipe:
    return replace(recipe, residual=next(one for one in RESIDUAL if one == value))


def _set_field(field: str, recipe: Recipe, value: Value) -> Recipe:
    changes: dict[str, bool] = {field: bool(value)}
    return replace(recipe, **changes)  # type: ignore[arg-type]


def _set_member(field: str, member: str, recipe: Recipe, value: Value) -> Recipe:
    members: frozenset[str] = getattr(recipe, field)
    changed = {field: members | {member} if value else members - {member}}
    return replace(recipe, **changed)  # type: ignore[arg-type]


def _set_first(recipe: Recipe, value: Value) -> Recipe:
    return replace(recipe, fewest_channels=FEWEST_CHANNELS if value else 1)


def _set_rewrite(rewrite: Rewrite, recipe: Recipe, value: Value) -> Recipe:
    others = tuple(one for one in recipe.rewrites if one is not rewrite)
    if value:
        return recipe if rewrite in recipe.rewrites else replace(recipe, rewrites=(*others, rewrite))
    return replace(recipe, rewrites=others)
