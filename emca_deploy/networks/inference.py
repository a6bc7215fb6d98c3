"""Tells which architecture a state dict belongs to, from the names and shapes of its tensors."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from emca_deploy.networks.registry import FAMILY_OPTIONS

if TYPE_CHECKING:
    from typing import TypeAlias

    from torch import Tensor

    from emca_deploy.networks.resnet import AttentionConfig

    _Modules: TypeAlias = Mapping[tuple[int, int], Mapping[str, Tensor]]

__all__ = ["Inferred", "count_classes", "infer", "nearest_depth"]

_MODULE = re.compile(r"stage([1-4])\.block(\d+)\.attention\.(.+)")
_BLOCK = re.compile(r"stage([1-4])\.(?:block)?(\d+)\.")
_KINDS = {"excitation.reduce.weight": "se", "excitation.conv.weight": "eca", "excitation.cfc": "srm"}


@dataclass(frozen=True)
class Inferred:
    """An architecture by name, and the options of `create_model` in which it differs from its family's own configuration."""

    arch: str
    options: dict[str, Any] = field(default_factory=dict)


def infer(state: Mapping[str, "Tensor"]) -> Inferred | None:
    """Return the architecture that `state`, with our key names, belongs to, or None where it is none of ours.

    This reads what identifies an architecture; it does not check every tensor. Where two configurations have equal weights (all
    previous stages, or as many as there are), the smaller number is returned; `position` is always the residual branch.
    """
    depth = _depth(state)
    if depth is None:
        return None
    if "pre.0.weight" in state:
        return Inferred(f"pkcam_eca_resnet{depth}")
    modules = _modules(state)
    kinds = {kind for names in modules.values() for name, kind in _KINDS.items() if name in names}
    if not kinds:
        return Inferred(f"resnet{depth}") if not modules else None
    if len(kinds) > 1:
        return None
    kind = kinds.pop()
    wanted = _placed(modules, kind, _blocks(state))
    if wanted is None:
        return None
    plain = wanted["placement"] == "all" and wanted["previous_stages"] == 0
    family = f"{'' if plain else 'emca_'}{kind}_resnet"
    defaults = FAMILY_OPTIONS[family]
    options = {name: value for name, value in wanted.items() if value != defaults.get(name, value)}
    if kind == "eca":
        from emca_deploy.networks.resnet import stage_channels

        options |= _eca_options(modules, stage_channels(depth))
    if kind == "se":
        options |= _se_options(modules)
    return Inferred(f"{family}{depth}", options)


def count_classes(state: Mapping[str, "Tensor"]) -> int | None:
    """Return the width of the logits, or None without a head."""
    for name in ("head.weight", "linear.weight"):
        if name in state and state[name].ndim == 2:
            return int(state[name].shape[0])
    return None


def nearest_depth(state: Mapping[str, "Tensor"]) -> int:
    """Return the depth whose blocks are nearest to those in `state`, 0 where it has none."""
    from emca_deploy.networks.resnet import STAGE_BLOCKS

    blocks = _blocks(state)
    if not any(blocks):
        return 0
    bottleneck = _is_bottleneck(state)
    return min(
        (depth for depth in STAGE_BLOCKS if (depth >= 50) == bottleneck),
        key=lambda depth: sum(abs(a - b) for a, b in zip(STAGE_BLOCKS[depth], blocks, strict=True)),
    )


def _blocks(state: Mapping[str, "Tensor"]) -> tuple[int, ...]:
    found: list[set[int]] = [set(), set(), set(), set()]
    for key in state:
        match = _BLOCK.match(key)
        if match:
            found[int(match[1]) - 1].add(int(match[2]))
    return tuple(len(numbers) for numbers in found)


def _is_bottleneck(state: Mapping[str, "Tensor"]) -> bool:
    return any(re.search(r"\.(conv3|residual\.6)\.weight$", key) for key in state)


def _depth(state: Mapping[str, "Tensor"]) -> int | None:
    from emca_deploy.networks.resnet import STAGE_BLOCKS

    depth = nearest_depth(state)
    return depth if depth and STAGE_BLOCKS[depth] == _blocks(state) else None


def _modules(state: Mapping[str, "Tensor"]) -> dict[tuple[int, int], dict[str, "Tensor"]]:
    """Return the attention modules' tensors by (stage, block), stages counted from 0."""
    modules: dict[tuple[int, int], dict[str, Tensor]] = {}
    for key, tensor in state.items():
        match = _MODULE.fullmatch(key)
        if match:
            modules.setdefault((int(match[1]) - 1, int(match[2])), {})[match[3]] = tensor
    return modules


def _placed(modules: "_Modules", kind: str, blocks: tuple[int, ...]) -> dict[str, Any] | None:
    """Return placement, S and N under which a network has just these modules with these aggregation weights."""
    scales = {
        place: names["aggregation.weight"].numel() if "aggregation.weight" in names else 1 for place, names in modules.items()
    }
    for config in _candidates(kind):
        expected = {
            (stage, block): 1 + len(config.sources(stage, blocks))
            for stage in range(4)
            for block in range(blocks[stage])
            if config.has_module(block, blocks[stage])
        }
        if expected == scales:
            return {name: getattr(config, name) for name in ("placement", "previous_stages", "blocks_per_stage")}
    return None


def _candidates(kind: str) -> Iterator["AttentionConfig"]:
    """Yield configurations, the likeliest of those with equal weights first."""
    from emca_deploy.networks.resnet import AttentionConfig

    for placement in ("all", "first", "last"):
        for reach in (0, 1, 2, "all"):
            for each in ("all", 1) if reach else ("all",):
                yield AttentionConfig(kind, placement, reach, each)  # type: ignore[arg-type]


def _of_stages(modules: "_Modules", name: str) -> Sequence["Tensor"]:
    """Return the tensor `name` of one module of each stage."""
    first = {stage: names[name] for (stage, _), names in sorted(modules.items(), reverse=True) if name in names}
    return [first[stage] for stage in sorted(first)]


def _eca_options(modules: "_Modules", stage_channels: Sequence[int]) -> dict[str, Any]:
    from emca_deploy.networks.attention import eca_kernel_size

    kernels = tuple(int(weight.numel()) for weight in _of_stages(modules, "excitation.conv.weight"))
    formula = tuple(eca_kernel_size(channels) for channels in stage_channels)
    odd = len(kernels) == len(formula) and all(kernel % 2 for kernel in kernels)
    return {"eca_kernel_sizes": kernels} if odd and kernels != formula else {}


def _se_options(modules: "_Modules") -> dict[str, Any]:
    shapes = [tuple(weight.shape) for weight in _of_stages(modules, "excitation.reduce.weight")]
    options: dict[str, Any] = {}
    if any("excitation.reduce.bias" in names for names in modules.values()):
        options["se_bias"] = True
    if all(len(shape) == 2 and shape[0] > 0 for shape in shapes):
        reductions = tuple(shape[1] // shape[0] for shape in shapes)
        if set(reductions) != {16}:
            options["se_reduction"] = reductions[0] if len(set(reductions)) == 1 else reductions
    return options
