"""Finds the networks in a checkpoint, each with its prefix, its head and the tensors that are not its own."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from emca_deploy.checkpoint_files.opening import CheckpointFile
from emca_deploy.checkpoint_files.stored import StoredTensor
from emca_deploy.networks.layouts import HEAD_OF_LAYOUT, Layout, to_torchvision

__all__ = ["Network", "find_networks", "is_average", "without_wrappers"]

MAX_NETWORKS = 16
MAX_LEVELS = 6
SHOWN = 3

_WRAPPERS = re.compile(r"(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""Parts that torch.compile, FSDP and activation checkpointing insert anywhere in a name."""

_TRUNKS: dict[Layout, tuple[str, str]] = {
    "native": (r"stage[1-4]\.block\d+\.", r"(?:stem|stage[1-4])\."),
    "pkcam": (r"stage[1-4]\.\d+\.", r"(?:pre|stage[1-4])\."),
    "torchvision": (r"layer[1-4]\.\d+\.", r"(?:conv1|bn1|layer[0-4])\."),
    "huggingface": (r"encoder\.stages\.[0-3]\.layers\.\d+\.", r"(?:embedder|encoder)\."),
    "sequential": (r"[4-7]\.\d+\.(?:conv|bn|downsample)[\d.]", r"[0-7]\."),
}
"""Patterns by layout: the beginning of the names in a block, and the beginning of all names but the head's."""

_BLOCK = re.compile(
    r"(?P<prefix>(?:[^.]+\.)*?)(?:" + "|".join(f"(?P<{layout}>{block})" for layout, (block, _) in _TRUNKS.items()) + ")"
)
_HEADS = (
    "fc", "head", "heads", "classifier", "last_linear", "linear", "cls_head", "classification_head", "cls", "clf", "logits",
)  # fmt: skip
_COUNTERS = ("total_ops", "total_params", "n_averaged")
"""Tensors that profilers and averages add to modules."""

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")

_ASIDE = frozenset((
    "loss", "losses", "criterion", "criteria", "metric", "metrics", "acc", "accuracy", "auroc", "confmat", "queue", "center",
    "centers", "teacher", "student", "ema", "aux", "auxiliary", "optimizer", "optimizers", "optim", "projector", "momentum",
))  # fmt: skip
"""Words in the names of modules that logits do not go through: losses, metrics, queues, teachers."""

_AVERAGES = frozenset(("ema", "avg", "average", "averaged", "averaging", "swa", "shadow", "polyak", "modelema"))


@dataclass(frozen=True)
class Network:
    """A network, whole or not, in a checkpoint. Full names are those of `CheckpointFile.tensors`.

    Attributes:
        where: Beginning of its full names: containers and prefix ("state_dict.module.").
        container: Containers in it ("state_dict.").
        layout: Origin of its names.
        names: Full name by the layout's name (torchvision's for Hugging Face's ResNet and for a Sequential).
        head: Full name of the module that its logits come from, without a dot at the end; "" where there is none.
        others: Full names of all other tensors.
        average: Whether it is a moving average of another network's weights.
        problem: Reason why its logits cannot be computed from these tensors alone, or "".
        extra_layers: Whether the problem is only that the file has other layers too, which logits may not go through.
        statistics: Beginning of the names of the network that these batch norm statistics come from; None where they are its own.
    """

    where: str
    container: str
    layout: Layout
    names: dict[str, str]
    head: str
    others: tuple[str, ...]
    average: bool
    problem: str = ""
    extra_layers: bool = False
    statistics: str | None = None

    @property
    def prefix(self) -> str:
        """The beginning of its names in the state dict."""
        return self.where.removeprefix(self.container)


@dataclass(frozen=True)
class _Head:
    """A head: names of its module, of its linear layer, and of the module around it and the trunk; and what is wrong with it."""

    top: str
    linear: str
    level: str
    problem: str = ""


def find_networks(file: CheckpointFile) -> list[Network]:
    """Return the networks in a checkpoint, at most 16; those with most tensors come first."""
    plain = without_wrappers(file.tensors)
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
    """Give an average that has parameters only the batch norm statistics of the plain network, which training uses too."""
    if not network.average or any(name.endswith("running_mean") for name in network.names):
        return network
    for other in networks:
        absent = other.names.keys() - network.names.keys()
        if not other.average and absent and all(name.rpartition(".")[2] in _STATISTICS for name in absent):
            names = {name: network.names.get(name, full) for name, full in other.names.items()}
            borrowed = {names[name] for name in absent}
            others = tuple(name for name in network.others if name not in borrowed)
            return replace(network, names=names, others=others, statistics=other.where)
    return network


def without_wrappers(names: Iterable[str]) -> dict[str, str]:
    """Return full names by the name without wrappers' parts, where that is unique."""
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
    width = max((tensors[name].shape[0] for name in trunk if len(tensors[name].shape) == 4), default=0)  # out of the trunk
    head = _find_head(tensors, prefix, frozenset(trunk), width)
    names = {to_torchvision(name.removeprefix(prefix), layout): plain[name] for name in trunk if name not in counters}
    if head is not None:
        own = "last_linear." if "layer0.conv1.weight" in names else HEAD_OF_LAYOUT[layout]
        inside = [name for name in plain if name.startswith(f"{head.linear}.") and not _is_counter(name)]
        names |= {own + name.removeprefix(f"{head.linear}."): plain[name] for name in inside}
    used = set(names.values())
    problem = head.problem if head else ""
    layers = []
    if head is not None and not problem:  # without a head, the error lists what is missing
        layers = _extra_layers(tensors, prefix, head, {name for name in plain if plain[name] in used})
    if layers:
        problem = f"its logits may go through layers that a ResNet does not have: {_shown(layers, tensors)}"
    first = plain[trunk[0]]
    where = first[: len(first) - len(trunk[0]) + len(prefix)] if first.endswith(trunk[0][len(prefix) :]) else prefix
    return Network(
        where=where,
        container=first[: file.containers[first]] if where.startswith(first[: file.containers[first]]) else "",
        layout=layout,
        names=names,
        head=plain.get(f"{head.linear}.weight", "").removesuffix(".weight") if head else "",
        others=tuple(name for name in file.tensors if name not in used),
        average=is_average(file, plain, prefix),
        problem=problem,
        extra_layers=bool(layers),
    )


def _levels(prefix: str) -> Iterator[str]:
    """Yield the prefixes under which a head may be: "a.b.", "a.", ""."""
    for _ in range(MAX_LEVELS):
        yield prefix
        if not prefix:
            return
        prefix = prefix[: prefix[:-1].rfind(".") + 1]


def _find_head(tensors: Mapping[str, StoredTensor], prefix: str, trunk: frozenset[str], width: int) -> _Head | None:
    """Return the linear layer next to the trunk, or next to a module around it, that makes logits from its `width` channels."""
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
            which = _shown([f"{head.linear}.weight" for head in chosen], tensors)
            return _Head(
                chosen[0].top,
                chosen[0].linear,
                level,
                f"it has more than one head, and it is unknown which gives the logits: {which}",
            )
        if chosen:
            return chosen[0]
        below = level
    return None


def _as_head(tensors: Mapping[str, StoredTensor], level: str, top: str, names: list[str], width: int) -> _Head | None:
    if _has_word(top, _ASIDE) or any(_BLOCK.match(name, len(level)) for name in names):
        return None
    linears = [name for name in names if name.endswith(".weight") and len(tensors[name].shape) == 2]
    if not linears:
        return None
    linear = linears[0].removesuffix(".weight")
    others = [name for name in names if name not in (f"{linear}.weight", f"{linear}.bias") and not _is_counter(name)]
    if top not in _HEADS and (others or tensors[linears[0]].shape[1] != width):
        return None
    problem = ""
    if len(linears) > 1:
        problem = f"its head has {len(linears)} linear layers, where a ResNet has one: {_shown(linears, tensors)}"
    elif others:
        problem = f"its head has more than one layer: {_shown(others, tensors)}"
    return _Head(level + top, linear, level, problem)


def _extra_layers(tensors: Mapping[str, StoredTensor], prefix: str, head: _Head, used: set[str]) -> list[str]:
    """Return the tensors of layers between the trunk and its head, or in the module around both."""
    level = head.level
    return [
        name
        for name, tensor in tensors.items()
        if name.startswith(level)
        and name not in used
        and _may_matter(name, tensor, prefix)
        and not _has_word(name.removeprefix(level), _ASIDE)
        and not (_BLOCK.match(name, len(level)) and not name.startswith(prefix))
    ]


def _may_matter(name: str, tensor: StoredTensor, prefix: str) -> bool:
    """Return whether logits may depend on a tensor: in the ResNet's own module on any, outside it on layers only."""
    if not tensor.is_floating or _is_counter(name):
        return False
    if name.startswith(prefix):  # for example a pooling's exponent, a normalization's mean, a temperature
        return bool(tensor.shape) or "." in name[len(prefix) :]
    own = name.rpartition(".")[2]
    dimensions = len(tensor.shape)
    return dimensions >= 4 or (own == "weight" and dimensions >= 2) or own in ("running_mean", "running_var")


def _is_counter(name: str) -> bool:
    return name.rpartition(".")[2] in (*_COUNTERS, "num_batches_tracked")


def _has_word(name: str, words: frozenset[str]) -> bool:
    return not words.isdisjoint(re.split(r"[^a-z]+", name.lower()))


def is_average(file: CheckpointFile, plain: Mapping[str, str], prefix: str) -> bool:
    """Return whether the network under a prefix is a moving average; `plain` has the names without wrappers' parts."""
    top = prefix.partition(".")[0]
    # mmengine and Lightning's WeightAveraging swap the two: the average becomes the state dict.
    if {"message_hub", "ema_state_dict"} <= set(file.keys) or "current_model_state" in file.keys:
        return top == "state_dict"
    return any(f"{level}n_averaged" in plain for level in _levels(prefix)) or _has_word(prefix, _AVERAGES)


def _shown(names: list[str], tensors: Mapping[str, StoredTensor]) -> str:
    shown = ", ".join(f"{name} ({'x'.join(map(str, tensors[name].shape))})" for name in names[:SHOWN])
    return shown + (", ..." if len(names) > SHOWN else "")
