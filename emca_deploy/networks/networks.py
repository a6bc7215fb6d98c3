"""Finds the networks in a checkpoint: the prefix under which each lies, its head, and the tensors beside it."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from emca_deploy.networks.checkpoint_files import CheckpointFile
from emca_deploy.networks.layouts import HEAD_OF_LAYOUT, Layout, to_torchvision
from emca_deploy.networks.stored import StoredTensor

__all__ = ["Network", "find_networks"]

MAX_NETWORKS = 16
MAX_LEVELS = 6
SHOWN = 3

_WRAPPERS = re.compile(r"(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""What torch.compile, FSDP and activation checkpointing put anywhere into a name."""

_TRUNKS: dict[Layout, tuple[str, str]] = {
    "native": (r"stage[1-4]\.block\d+\.", r"(?:stem|stage[1-4])\."),
    "pkcam": (r"stage[1-4]\.\d+\.", r"(?:pre|stage[1-4])\."),
    "torchvision": (r"layer[1-4]\.\d+\.", r"(?:conv1|bn1|layer[0-4])\."),
    "huggingface": (r"encoder\.stages\.[0-3]\.layers\.\d+\.", r"(?:embedder|encoder)\."),
    "sequential": (r"[4-7]\.\d+\.(?:conv|bn|downsample)[\d.]", r"[0-7]\."),
}
"""Layout -> how names of a block's tensors look, and how all names of the network begin but the head's."""

_BLOCK = re.compile(
    r"(?P<prefix>(?:[^.]+\.)*?)(?:" + "|".join(f"(?P<{layout}>{block})" for layout, (block, _) in _TRUNKS.items()) + ")"
)
_HEADS = (
    "fc", "head", "heads", "classifier", "last_linear", "linear", "cls_head", "classification_head", "cls", "clf", "logits",
)  # fmt: skip
_COUNTERS = ("total_ops", "total_params", "n_averaged")
"""What profilers and averages add to modules; no layer has them."""

_ASIDE = frozenset((
    "loss", "losses", "criterion", "criteria", "metric", "metrics", "acc", "accuracy", "auroc", "confmat", "queue", "center",
    "centers", "teacher", "student", "ema", "aux", "auxiliary", "optimizer", "optimizers", "optim", "projector", "momentum",
))  # fmt: skip
"""Words of modules through which no logits go: losses, metrics, queues, teachers."""

_AVERAGES = frozenset(("ema", "avg", "average", "averaged", "averaging", "swa", "shadow", "polyak", "modelema"))


@dataclass(frozen=True)
class Network:
    """A network, whole or not, somewhere in a checkpoint. Names are those of `CheckpointFile.tensors`.

    Attributes:
        where: what stands in front of its names: containers and prefix ("state_dict.module.").
        container: the containers' part of it ("state_dict.").
        layout: whose names it has.
        names: the layout's name of each tensor (Hugging Face's and a Sequential's as torchvision's) -> the full name.
        head: the full name of the module that its logits come from, without a dot at the end; "" where there is none.
        beside: full names of all other tensors.
        average: whether it is a moving average of another network's weights.
        problem: why its logits cannot be computed from these tensors alone, or "".
        layers_beside: whether that problem is only that other layers lie beside it, which need not matter.
        statistics: where another network lies whose batch norm statistics these are; None where they are its own.
    """

    where: str
    container: str
    layout: Layout
    names: dict[str, str]
    head: str
    beside: tuple[str, ...]
    average: bool
    problem: str = ""
    layers_beside: bool = False
    statistics: str | None = None

    @property
    def prefix(self) -> str:
        """Return what stands in front of the names of the state dict."""
        return self.where.removeprefix(self.container)


@dataclass(frozen=True)
class _Head:
    """A head: the full name of its module, the module of its linear layer, how far above the trunk it is, and its fault."""

    top: str
    linear: str
    level: str
    problem: str = ""


def find_networks(file: CheckpointFile) -> list[Network]:
    """Return the networks in a checkpoint, those with most tensors first; at most 16."""
    plain = _without_wrappers(file.tensors)
    counts: dict[tuple[str, Layout], int] = {}
    for name in plain:
        match = _BLOCK.match(name)
        if match and match.lastgroup:
            place = (match["prefix"], match.lastgroup)
            counts[place] = counts.get(place, 0) + 1
    for prefix, layout in [place for place in counts if place[1] == "sequential"]:
        stem = file.tensors.get(plain.get(f"{prefix}0.weight", ""))
        if stem is None or len(stem.shape) != 4:
            del counts[prefix, layout]
    largest = sorted(counts, key=lambda place: counts[place], reverse=True)[:MAX_NETWORKS]
    networks = [_network(file, plain, prefix, layout) for prefix, layout in largest]
    return [_with_statistics(network, networks) for network in networks]


def _with_statistics(network: Network, networks: list[Network]) -> Network:
    """Return an average of parameters only with the statistics of the plain network's batch norms, which training uses too."""
    if not network.average or any(name.endswith("running_mean") for name in network.names):
        return network
    for other in networks:
        absent = other.names.keys() - network.names.keys()
        if not other.average and absent and all(_is_statistic(name) for name in absent):
            names = {name: network.names.get(name, full) for name, full in other.names.items()}
            borrowed = {names[name] for name in absent}
            beside = tuple(name for name in network.beside if name not in borrowed)
            return replace(network, names=names, beside=beside, statistics=other.where)
    return network


def _is_statistic(name: str) -> bool:
    return name.rpartition(".")[2] in ("running_mean", "running_var", "num_batches_tracked")


def _without_wrappers(names: Iterable[str]) -> dict[str, str]:
    """Return full names by what is left of them without the wrappers' parts, where that is unique."""
    found: dict[str, str] = {}
    for name in names:
        shorter = _WRAPPERS.sub("", name)
        found[name if shorter in found else shorter] = name
    return found


def _network(file: CheckpointFile, plain: Mapping[str, str], prefix: str, layout: Layout) -> Network:
    begins = re.compile(_TRUNKS[layout][1])
    tensors = {name: file.tensors[full] for name, full in plain.items()}
    trunk = [name for name in plain if name.startswith(prefix) and begins.match(name, len(prefix))]
    counters = {name for name in trunk if name.rpartition(".")[2] in _COUNTERS}
    head = _find_head(tensors, prefix, frozenset(trunk), _width(tensors[name] for name in trunk))
    names = {to_torchvision(name.removeprefix(prefix), layout): plain[name] for name in trunk if name not in counters}
    if head is not None:
        own = "last_linear." if "layer0.conv1.weight" in names else HEAD_OF_LAYOUT[layout]
        inside = [name for name in plain if name.startswith(f"{head.linear}.") and not _is_counter(name)]
        names |= {own + name.removeprefix(f"{head.linear}."): plain[name] for name in inside}
    used = set(names.values())
    problem = head.problem if head else ""
    layers = []
    if head is not None and not problem:  # without a head, what is missing says more
        layers = _layers_beside(tensors, prefix, head, {name for name in plain if plain[name] in used})
    if layers:
        problem = f"beside the ResNet's own layers there are others, which its logits may go through: {_shown(layers, tensors)}"
    first = plain[trunk[0]]
    where = first[: len(first) - len(trunk[0]) + len(prefix)] if first.endswith(trunk[0][len(prefix) :]) else prefix
    return Network(
        where=where,
        container=first[: file.containers[first]] if where.startswith(first[: file.containers[first]]) else "",
        layout=layout,
        names=names,
        head=plain.get(f"{head.linear}.weight", "").removesuffix(".weight") if head else "",
        beside=tuple(name for name in file.tensors if name not in used),
        average=_is_average(file, plain, prefix),
        problem=problem,
        layers_beside=bool(layers),
    )


def _width(trunk: Iterable[StoredTensor]) -> int:
    """Return how many channels leave the trunk: the most that any convolution has."""
    return max((tensor.shape[0] for tensor in trunk if len(tensor.shape) == 4), default=0)


def _levels(prefix: str) -> Iterator[str]:
    """Yield the prefix and what is above it, as far as heads may be: "a.b.", "a.", ""."""
    for _ in range(MAX_LEVELS):
        yield prefix
        if not prefix:
            return
        prefix = prefix[: prefix[:-1].rfind(".") + 1]


def _find_head(tensors: Mapping[str, StoredTensor], prefix: str, trunk: frozenset[str], width: int) -> _Head | None:
    """Return the linear layer beside the trunk, or beside a module around it, that makes logits of its `width` channels."""
    below = None
    for level in _levels(prefix):
        tops: dict[str, list[str]] = {}
        for name in tensors:
            if name.startswith(level) and name not in trunk and (below is None or not name.startswith(below)):
                tops.setdefault(name[len(level) :].partition(".")[0], []).append(name)
        heads = [head for top, names in tops.items() if (head := _as_head(tensors, level, top, names, width))]
        named = [head for head in heads if head.top.removeprefix(level) in _HEADS]
        chosen = named or heads
        if len(chosen) > 1:
            which = ", ".join(f"{head.linear} ({_shape(tensors[f'{head.linear}.weight'])})" for head in chosen[:SHOWN])
            return _Head(chosen[0].top, chosen[0].linear, level, f"it has more than one head, and one gives the logits: {which}")
        if chosen:
            return chosen[0]
        below = level
    return None


def _as_head(tensors: Mapping[str, StoredTensor], level: str, top: str, names: list[str], width: int) -> _Head | None:
    if _is_aside(top) or any(_BLOCK.match(name, len(level)) for name in names):
        return None
    linears = [name for name in names if name.endswith(".weight") and len(tensors[name].shape) == 2]
    if not linears:
        return None
    linear = linears[0].removesuffix(".weight")
    others = [name for name in names if name not in (f"{linear}.weight", f"{linear}.bias") and not _is_counter(name)]
    if others and top not in _HEADS:
        return None
    if top not in _HEADS and tensors[linears[0]].shape[1] != width:
        return None
    problem = ""
    if len(linears) > 1:
        problem = f"its head has {len(linears)} linear layers, and the networks here have one: {_shown(linears, tensors)}"
    elif others:
        problem = f"its head has more than one linear layer: {_shown(others, tensors)}"
    return _Head(level + top, linear, level, problem)


def _layers_beside(tensors: Mapping[str, StoredTensor], prefix: str, head: _Head, used: set[str]) -> list[str]:
    """Return the tensors of layers between the trunk and its head, or beside both in one module."""
    level = head.level
    return [
        name
        for name, tensor in tensors.items()
        if name.startswith(level)
        and name not in used
        and _may_matter(name, tensor, prefix)
        and not _is_aside(name.removeprefix(level))
        and not (_BLOCK.match(name, len(level)) and not name.startswith(prefix))
    ]


def _may_matter(name: str, tensor: StoredTensor, prefix: str) -> bool:
    """Return whether logits may depend on a tensor: in the ResNet's own module on any number, around it on layers."""
    if not tensor.is_floating or _is_counter(name):
        return False
    if name.startswith(prefix):  # also a pooling's exponent, a normalisation's mean, a temperature
        return bool(tensor.shape) or "." in name[len(prefix) :]
    own = name.rpartition(".")[2]
    dimensions = len(tensor.shape)
    return dimensions >= 4 or (own == "weight" and dimensions >= 2) or own in ("running_mean", "running_var")


def _is_counter(name: str) -> bool:
    return name.rpartition(".")[2] in (*_COUNTERS, "num_batches_tracked")


def _words(name: str) -> set[str]:
    return set(re.split(r"[^a-z]+", name.lower()))


def _is_aside(name: str) -> bool:
    return not _ASIDE.isdisjoint(_words(name))


def _is_average(file: CheckpointFile, plain: Mapping[str, str], prefix: str) -> bool:
    top = prefix.partition(".")[0]
    if {"message_hub", "ema_state_dict"} <= set(file.keys):  # mmengine swaps them: the average becomes the state dict
        return top == "state_dict"
    if "current_model_state" in file.keys:  # Lightning's WeightAveraging does so, too
        return top == "state_dict"
    counted = any(f"{level}n_averaged" in plain for level in _levels(prefix))
    return counted or not _AVERAGES.isdisjoint(_words(prefix))


def _shape(tensor: StoredTensor) -> str:
    return "x".join(map(str, tensor.shape))


def _shown(names: list[str], tensors: Mapping[str, StoredTensor]) -> str:
    shown = ", ".join(f"{name} ({_shape(tensors[name])})" for name in names[:SHOWN])
    return shown + (", ..." if len(names) > SHOWN else "")
