"""Finds the architecture that a checkpoint's tensors belong to from their names and shapes, and says what differs."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emca_deploy.checkpoint_files.opening import CheckpointFile
from emca_deploy.errors import CheckpointError
from emca_deploy.networks.layouts import Translated, foreign_name, translate
from emca_deploy.networks.networks import Network
from emca_deploy.networks.registry import ARCHITECTURES, DETECTORS, FAMILY_OPTIONS, create_model

if TYPE_CHECKING:
    from typing import TypeAlias

    from torch import Tensor, nn

    from emca_deploy.networks.resnet import AttentionConfig

    _Modules: TypeAlias = Mapping[tuple[int, int], Mapping[str, Tensor]]

__all__ = [
    "Fit",
    "Inferred",
    "count_classes",
    "differences",
    "empty_network",
    "fit_network",
    "infer",
    "is_counter",
    "nearest_depth",
]

SHOWN = 3
SEE_MODELS = "`emca-deploy models` lists what can be loaded; save such a network's whole state dict"

_MODULE = re.compile(r"stage([1-4])\.block(\d+)\.attention\.(.+)")
_BLOCK = re.compile(r"stage([1-4])\.(?:block)?(\d+)\.")
_KINDS = {"excitation.reduce.weight": "se", "excitation.conv.weight": "eca", "excitation.cfc": "srm"}


@dataclass(frozen=True)
class Inferred:
    """An architecture, and the options of `create_model` that differ from its family's own configuration."""

    arch: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Fit:
    """A network of a checkpoint with its architecture.

    Attributes:
        network: Place of its tensors in the file.
        classes: Width of the logits.
        layout: Origin of its key names.
    """

    network: Network
    inferred: Inferred
    classes: int
    layout: str

    def translate(self, tensors: Mapping[str, "Tensor"], path: Path) -> dict[str, "Tensor"]:
        """Return the network's tensors, by their names in `Network.names`, with our names; `path` is for errors."""
        return translate(tensors, path).tensors


def fit_network(
    file: CheckpointFile, network: Network, *, arch: str | None, position: str, trusted: bool, explain: bool = True
) -> Fit:
    """Find the architecture of a network from the names and shapes of its tensors; values are not read.

    Args:
        file: Checkpoint.
        network: Network in it.
        arch: Architecture that it must have; any where None.
        position: Place of attention in a block, which the tensors do not show.
        trusted: Whether its logits are known not to go through layers outside it.
        explain: Whether an error names the nearest architecture, which takes building several.

    Raises:
        CheckpointError: the network fits no architecture, or another one than `arch`.
    """
    if network.problem and not (trusted and network.extra_layers):
        remedy = "`emca-deploy models` lists what can be loaded; another network can be exported to ONNX where it was trained"
        if network.extra_layers:
            remedy = f"where its logits do not go through these layers, say --prefix {network.prefix.rstrip('.') or repr('')}"
        raise CheckpointError(f"{file.path}: {_place(network)}{network.problem}", remedy)
    found = translate({name: file.tensors[full].outline() for name, full in network.names.items()}, file.path)
    inferred, classes = infer(found.tensors), count_classes(found.tensors)
    if inferred is None or classes is None:
        if not explain:
            raise CheckpointError(f"{file.path}: {_place(network)}fits no architecture", SEE_MODELS)
        raise _no_fit(file.path, network, found, inferred or _nearest(file, found, arch), arch)
    if arch is not None and arch != inferred.arch:
        wrong = ", ".join(f"{name}={value}" for name, value in inferred.options.items())
        what = "the classifier " if arch in DETECTORS else ""
        problem = f"{file.path}: is not {arch}: its tensors are those of {what}{inferred.arch}" + (f" ({wrong})" if wrong else "")
        raise CheckpointError(problem, f"say --arch {inferred.arch}, or leave --arch out")
    options = dict(inferred.options) | ({"caffe": True} if found.caffe else {})
    if position != "residual" and not inferred.arch.startswith("pkcam"):
        options["position"] = position
    inferred = Inferred(inferred.arch, options)
    _, wrong_tensors = differences(empty_network(inferred, classes).state_dict(), found.tensors)
    if wrong_tensors:
        raise _no_fit(file.path, network, found, inferred, arch)
    layout = found.layout if network.layout in ("native", "pkcam", "torchvision") else network.layout
    return Fit(network, inferred, classes, layout)


def _place(network: Network) -> str:
    return f"under '{network.where}': " if network.where else ""


def is_counter(name: str) -> bool:
    """Return whether a tensor is batch norm's step count, which old checkpoints lack and inference does not read."""
    return name.endswith("num_batches_tracked")


def differences(expected: Mapping[str, "Tensor"], given: Mapping[str, "Tensor"]) -> tuple[int, dict[str, list[str]]]:
    """Return how many tensors match, and the names of the missing, unexpected and misshapen ones, where there are any."""
    wanted = {name: (tensor.shape, tensor.dtype) for name, tensor in expected.items() if not is_counter(name)}
    present = {name: (tensor.shape, tensor.dtype) for name, tensor in given.items() if not is_counter(name)}
    found = {
        "missing": [name for name in wanted if name not in present],
        "unexpected": [name for name in present if name not in wanted],
        "misshapen": [name for name in wanted if name in present and wanted[name] != present[name]],
    }
    matching = len(wanted) - len(found["missing"]) - len(found["misshapen"])
    return matching, {what: names for what, names in found.items() if names}


def empty_network(inferred: Inferred, classes: int) -> "nn.Module":
    """Return the network on the meta device, without values."""
    import torch

    with torch.device("meta"):
        return create_model(inferred.arch, classes, **inferred.options)


def _nearest(file: CheckpointFile, found: Translated, arch: str | None) -> Inferred:
    """Return `arch`, or the architecture that the file names, or the one that most of the tensors fit."""
    named = arch or file.arch
    if named in ARCHITECTURES:
        return Inferred(str(named))
    depth = nearest_depth(found.tensors) or 18
    names = [name for name, architecture in ARCHITECTURES.items() if architecture.depth == depth]
    classes = count_classes(found.tensors) or 1000

    def score(name: str) -> int:
        matching, wrong = differences(empty_network(Inferred(name), classes).state_dict(), found.tensors)
        return matching - len(wrong.get("missing", ())) - len(wrong.get("unexpected", ()))

    return Inferred(max(names, key=score))


def _no_fit(path: Path, network: Network, found: Translated, nearest: Inferred, arch: str | None) -> CheckpointError:
    classes = count_classes(found.tensors) or 1000
    expected = empty_network(nearest, classes).state_dict()

    def theirs(name: str) -> str:
        original = found.originals.get(name)
        if original:
            return network.names[original].removeprefix(network.container)
        layout = found.layout if network.layout == "torchvision" else network.layout
        return network.prefix + foreign_name(name, layout, found.caffe)

    def shapes(name: str) -> str:
        given = found.tensors[name]
        want = "x".join(map(str, expected[name].shape))
        have = "x".join(map(str, given.shape)) if given.is_floating_point() else str(given.dtype)
        return f"{theirs(name)} ({have}, not {want})"

    matching, wrong = differences(expected, found.tensors)
    parts = []
    for what, names in wrong.items():
        shown = ", ".join(map(shapes if what == "misshapen" else theirs, names[:SHOWN])) + (", ..." if len(names) > SHOWN else "")
        parts.append(f"{what} {len(names)}: {shown}")
    total = sum(not is_counter(name) for name in expected)
    verdict = f"is not {arch}" if arch else f"fits no architecture; the nearest is {nearest.arch}"
    return CheckpointError(
        f"{path}: {verdict}: {matching} of its {total} tensors match; {'; '.join(parts) or 'attention in odd places'}",
        SEE_MODELS,
    )


def infer(state: Mapping[str, "Tensor"]) -> Inferred | None:
    """Return the architecture of `state`, which has our key names, or None where it is not recognized.

    Only tensors that identify an architecture are read. Where two configurations have equal weights (all previous stages, or as
    many as there are), the one with the smaller number is returned; `position` is always the residual branch.
    """
    from emca_deploy.networks.resnet import STAGE_BLOCKS, stage_channels

    depth = nearest_depth(state)
    if not depth or STAGE_BLOCKS[depth] != _blocks(state):
        return None
    if "pre.0.weight" in state:
        return Inferred(f"pkcam_eca_resnet{depth}")
    modules = _modules(state)
    kinds = {kind for names in modules.values() for name, kind in _KINDS.items() if name in names}
    if not modules:
        return Inferred(f"resnet{depth}")
    if len(kinds) != 1:
        return None
    kind = kinds.pop()
    wanted = _placed(modules, kind, _blocks(state))
    if wanted is None:
        return None
    plain = wanted["placement"] == "all" and wanted["previous_stages"] == 0
    family = f"{'' if plain else 'emca_'}{kind}_resnet"
    defaults = FAMILY_OPTIONS[family]
    options = {name: value for name, value in wanted.items() if value != defaults.get(name, value)}
    return Inferred(f"{family}{depth}", options | _excitation_options(modules, kind, stage_channels(depth)))


def count_classes(state: Mapping[str, "Tensor"]) -> int | None:
    """Return the width of the logits, or None where there is no head."""
    for name in ("head.weight", "linear.weight"):
        if name in state and state[name].ndim == 2:
            return int(state[name].shape[0])
    return None


def nearest_depth(state: Mapping[str, "Tensor"]) -> int:
    """Return the depth whose blocks are nearest to those in `state`; 0 where it has none."""
    from emca_deploy.networks.resnet import STAGE_BLOCKS

    blocks = _blocks(state)
    if not any(blocks):
        return 0
    bottleneck = any(re.search(r"\.(conv3|residual\.6)\.weight$", key) for key in state)
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


def _modules(state: Mapping[str, "Tensor"]) -> dict[tuple[int, int], dict[str, "Tensor"]]:
    """Return the attention modules' tensors by (stage, block), both counted from 0."""
    modules: dict[tuple[int, int], dict[str, Tensor]] = {}
    for key, tensor in state.items():
        match = _MODULE.fullmatch(key)
        if match:
            modules.setdefault((int(match[1]) - 1, int(match[2])), {})[match[3]] = tensor
    return modules


def _placed(modules: "_Modules", kind: str, blocks: tuple[int, ...]) -> dict[str, Any] | None:
    """Return placement, S and N of a network that has exactly these modules with these aggregation weights."""
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
    """Yield configurations; of those with equal weights, the likeliest first."""
    from emca_deploy.networks.resnet import AttentionConfig

    for placement in ("all", "first", "last"):
        for reach in (0, 1, 2, "all"):
            for each in ("all", 1) if reach else ("all",):
                yield AttentionConfig(kind, placement, reach, each)  # type: ignore[arg-type]


def _excitation_options(modules: "_Modules", kind: str, channels: Sequence[int]) -> dict[str, Any]:
    """Return the options of SE or ECA that differ from the paper's, from one module of each stage of so many `channels`."""
    from emca_deploy.networks.attention import eca_kernel_size

    name = {"eca": "excitation.conv.weight", "se": "excitation.reduce.weight"}.get(kind, "")
    first = {stage: names[name] for (stage, _), names in sorted(modules.items(), reverse=True) if name in names}
    weights = [first[stage] for stage in sorted(first)]
    if kind == "eca":
        kernels = tuple(int(weight.numel()) for weight in weights)
        formula = tuple(map(eca_kernel_size, channels))
        odd = len(kernels) == len(formula) and all(kernel % 2 for kernel in kernels)
        return {"eca_kernel_sizes": kernels} if odd and kernels != formula else {}
    options: dict[str, Any] = {}
    if kind == "se" and any("excitation.reduce.bias" in names for names in modules.values()):
        options["se_bias"] = True
    if kind == "se" and all(weight.ndim == 2 and weight.shape[0] > 0 for weight in weights):
        reductions = tuple(weight.shape[1] // weight.shape[0] for weight in weights)
        if set(reductions) != {16}:
            options["se_reduction"] = reductions[0] if len(set(reductions)) == 1 else reductions
    return options
