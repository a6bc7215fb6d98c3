"""Holds a checkpoint's tensors against the networks that are known, and says what differs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from emca_deploy.errors import CheckpointError
from emca_deploy.networks.checkpoint_files import CheckpointFile
from emca_deploy.networks.inference import Inferred, count_classes, infer, nearest_depth
from emca_deploy.networks.layouts import Translated, foreign_name, translate
from emca_deploy.networks.networks import Network
from emca_deploy.networks.registry import ARCHITECTURES, create_model

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Fit", "empty_network", "fit_network", "is_counter"]

SHOWN = 3
SEE_MODELS = "`emca-deploy models` lists what can be loaded; save such a network's whole state dict"


@dataclass(frozen=True)
class Fit:
    """Which network the tensors of a `Network` are those of.

    Attributes:
        network: where it lies in the file.
        inferred: the architecture.
        classes: the width of its logits.
        layout: whose key names it has.
    """

    network: Network
    inferred: Inferred
    classes: int
    layout: str


def fit_network(
    file: CheckpointFile, network: Network, *, arch: str | None, position: str, trusted: bool, explain: bool = True
) -> Fit:
    """Find the architecture of a network from the names and shapes of its tensors, whose values are not read.

    It must be `arch` where that is not None. `trusted` says that its logits go through no layers beside it; `explain` makes an
    error name the nearest architecture, which takes building several.

    Raises:
        CheckpointError: it fits no architecture, or not `arch`.
    """
    if network.problem and not (trusted and network.layers_beside):
        raise _more_layers(file.path, network)
    found = translate({name: file.tensors[full].outline() for name, full in network.names.items()}, file.path)
    inferred, classes = infer(found.tensors), count_classes(found.tensors)
    if inferred is None or classes is None:
        if not explain:
            raise CheckpointError(f"{file.path}: {_place(network)}fits no architecture", SEE_MODELS)
        raise _no_fit(file.path, network, found, _nearest(file, found, inferred, arch), arch)
    if arch is not None and arch != inferred.arch:
        raise _another(file.path, inferred, arch)
    options = dict(inferred.options) | ({"caffe": True} if found.caffe else {})
    if position != "residual" and not inferred.arch.startswith("pkcam"):
        options["position"] = position
    inferred = Inferred(inferred.arch, options)
    if not _compare(empty_network(inferred, classes).state_dict(), found.tensors).fits:
        raise _no_fit(file.path, network, found, inferred, arch)
    layout = found.layout if network.layout in ("native", "pkcam", "torchvision") else network.layout
    return Fit(network, inferred, classes, layout)


def _more_layers(path: Path, network: Network) -> CheckpointError:
    remedy = "`emca-deploy models` lists what can be loaded; another network can be exported to ONNX where it was trained"
    if network.layers_beside:
        remedy = f"where its logits do not go through these layers, say --prefix {network.prefix.rstrip('.') or repr('')}"
    return CheckpointError(f"{path}: {_place(network)}{network.problem}", remedy)


def _place(network: Network) -> str:
    return f"under '{network.where}': " if network.where else ""


@dataclass(frozen=True)
class _Comparison:
    """A checkpoint's tensors held against a network's; names are ours."""

    matching: int
    missing: list[str]
    unexpected: list[str]
    misshapen: list[str]

    @property
    def fits(self) -> bool:
        return not (self.missing or self.unexpected or self.misshapen)


def is_counter(name: str) -> bool:
    """Return whether `name` is that of batch norm's step count: old checkpoints lack it, and inference does not read it."""
    return name.endswith("num_batches_tracked")


def _compare(expected: Mapping[str, "Tensor"], given: Mapping[str, "Tensor"]) -> _Comparison:
    wanted = {name: tensor for name, tensor in expected.items() if not is_counter(name)}
    present = {name: tensor for name, tensor in given.items() if not is_counter(name)}
    common = [name for name in wanted if name in present]
    misshapen = [name for name in common if not _alike(wanted[name], present[name])]
    missing = [name for name in wanted if name not in present]
    unexpected = [name for name in present if name not in wanted]
    return _Comparison(len(common) - len(misshapen), missing, unexpected, misshapen)


def _alike(a: "Tensor", b: "Tensor") -> bool:
    return a.shape == b.shape and a.dtype == b.dtype


def empty_network(inferred: Inferred, classes: int) -> "nn.Module":
    """Return the network on the meta device, which costs neither memory nor initialisation."""
    import torch

    with torch.device("meta"):
        return create_model(inferred.arch, classes, **inferred.options)


def _nearest(file: CheckpointFile, found: Translated, inferred: Inferred | None, arch: str | None) -> Inferred:
    """Return the architecture that most of the tensors fit; the one asked for, or the one the file names, where there is one."""
    if inferred is not None:
        return inferred
    named = arch or file.arch
    if named in ARCHITECTURES:
        return Inferred(str(named))
    depth = nearest_depth(found.tensors) or 18
    names = [name for name, architecture in ARCHITECTURES.items() if architecture.depth == depth]
    classes = count_classes(found.tensors) or 1000

    def score(name: str) -> int:
        comparison = _compare(empty_network(Inferred(name), classes).state_dict(), found.tensors)
        return comparison.matching - len(comparison.missing) - len(comparison.unexpected)

    return Inferred(max(names, key=score))


def _no_fit(path: Path, network: Network, found: Translated, nearest: Inferred, arch: str | None) -> CheckpointError:
    classes = count_classes(found.tensors) or 1000
    expected = empty_network(nearest, classes).state_dict()
    comparison = _compare(expected, found.tensors)

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

    parts = [
        f"{what} {len(names)}: {_first(describe, names)}"
        for what, names, describe in (
            ("missing", comparison.missing, theirs),
            ("unexpected", comparison.unexpected, theirs),
            ("misshapen", comparison.misshapen, shapes),
        )
        if names
    ]
    total = sum(not is_counter(name) for name in expected)
    verdict = f"is not {arch}" if arch else f"fits no architecture; the nearest is {nearest.arch}"
    return CheckpointError(
        f"{path}: {verdict}: {comparison.matching} of its {total} tensors match; {'; '.join(parts) or 'attention in odd places'}",
        SEE_MODELS,
    )


def _first(describe: Callable[[str], str], names: Sequence[str]) -> str:
    shown = ", ".join(describe(name) for name in names[:SHOWN])
    return shown + (", ..." if len(names) > SHOWN else "")


def _another(path: Path, inferred: Inferred, arch: str) -> CheckpointError:
    options = ", ".join(f"{name}={value}" for name, value in inferred.options.items())
    holds = inferred.arch + (f" ({options})" if options else "")
    return CheckpointError(
        f"{path}: is not {arch}: its tensors are those of {holds}", f"say --arch {inferred.arch}, or leave --arch out"
    )
