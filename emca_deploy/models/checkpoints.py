"""Loads a checkpoint into the network it was trained as, which is told from its tensors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emca_deploy._optional import require
from emca_deploy.errors import CheckpointError
from emca_deploy.models.checkpoint_files import read_arch_hint, read_state_dict
from emca_deploy.models.counting import count_parameters
from emca_deploy.models.inference import Inferred, count_classes, infer, nearest_depth
from emca_deploy.models.layouts import Translated, foreign_name, translate
from emca_deploy.models.registry import ARCHITECTURES, create_model, find_architecture

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["ModelSpec", "load_checkpoint"]

SHOWN = 3


@dataclass(frozen=True)
class ModelSpec:
    """What a checkpoint turned out to be.

    Attributes:
        arch: the architecture's name.
        num_classes: the width of the logits.
        options: for `create_model(arch, num_classes, **options)`; empty for the family's own configuration.
        layout: whose key names it had: "native", "pkcam", "torchvision", "timm", "pretrained-models" or "srm".
        params: how many parameters the network has.
    """

    arch: str
    num_classes: int
    options: dict[str, Any]
    layout: str
    params: int


def load_checkpoint(path: str | Path, arch: str | None = None, *, position: str = "residual") -> tuple["nn.Module", ModelSpec]:
    """Load a checkpoint; nothing in it is run.

    Args:
        path: what torch.save wrote of a state dict (alone or in a training script's dictionary), or a safetensors file.
        arch: the architecture it must be; inferred where None.
        position: where attention sits in a block, "residual" or "output". The tensors do not tell.

    Returns:
        The network in eval mode, (N, 3, H, W) float32 to logits (N, num_classes), and what it is.

    Raises:
        CheckpointError: the file cannot be read safely, fits no architecture, or is not `arch`.
        UnknownNameError: no architecture is called `arch`.
        MissingError: torch or safetensors is not installed.
    """
    path = Path(path)
    require("torch")
    if arch is not None:
        find_architecture(arch)
    found = translate(read_state_dict(path), path)
    inferred, classes = infer(found.tensors), count_classes(found.tensors)
    if inferred is None or classes is None:
        raise _no_fit(path, found, _nearest(path, found, inferred, arch), arch)
    if arch is not None and arch != inferred.arch:
        raise _another(path, inferred, arch)
    options = dict(inferred.options)
    if found.caffe:
        options["caffe"] = True
    if position != "residual" and not inferred.arch.startswith("pkcam"):
        options["position"] = position
    inferred = Inferred(inferred.arch, options)
    module = _empty(inferred, classes)
    if not _compare(module.state_dict(), found.tensors).fits:
        raise _no_fit(path, found, inferred, arch)
    _fill(module, found.tensors)
    return module, ModelSpec(inferred.arch, classes, options, found.layout, count_parameters(module))


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


def _is_counter(name: str) -> bool:
    return name.endswith("num_batches_tracked")  # old checkpoints lack them, and inference does not read them


def _compare(expected: Mapping[str, "Tensor"], given: Mapping[str, "Tensor"]) -> _Comparison:
    wanted = {name: tensor for name, tensor in expected.items() if not _is_counter(name)}
    present = {name: tensor for name, tensor in given.items() if not _is_counter(name)}
    common = [name for name in wanted if name in present]
    misshapen = [name for name in common if not _alike(wanted[name], present[name])]
    missing = [name for name in wanted if name not in present]
    unexpected = [name for name in present if name not in wanted]
    return _Comparison(len(common) - len(misshapen), missing, unexpected, misshapen)


def _alike(a: "Tensor", b: "Tensor") -> bool:
    return a.shape == b.shape and a.dtype == b.dtype


def _empty(inferred: Inferred, classes: int) -> "nn.Module":
    """Return the network on the meta device, which costs neither memory nor initialisation."""
    import torch

    with torch.device("meta"):
        return create_model(inferred.arch, classes, **inferred.options)


def _fill(module: "nn.Module", tensors: Mapping[str, "Tensor"]) -> None:
    import torch

    module.to_empty(device="cpu").eval()
    counters = {name: torch.zeros((), dtype=torch.int64) for name in module.state_dict() if _is_counter(name)}
    module.load_state_dict({**counters, **{n: t for n, t in tensors.items() if not _is_counter(n)}})


def _nearest(path: Path, found: Translated, inferred: Inferred | None, arch: str | None) -> Inferred:
    """Return the architecture that most of the tensors fit; the one asked for, or the one the file names, where there is one."""
    if inferred is not None:
        return inferred
    named = arch or read_arch_hint(path)
    if named in ARCHITECTURES:
        return Inferred(str(named))
    depth = nearest_depth(found.tensors) or 18
    names = [name for name, architecture in ARCHITECTURES.items() if architecture.depth == depth]
    classes = count_classes(found.tensors) or 1000

    def score(name: str) -> int:
        comparison = _compare(_empty(Inferred(name), classes).state_dict(), found.tensors)
        return comparison.matching - len(comparison.missing) - len(comparison.unexpected)

    return Inferred(max(names, key=score))


def _no_fit(path: Path, found: Translated, nearest: Inferred, arch: str | None) -> CheckpointError:
    classes = count_classes(found.tensors) or 1000
    expected = _empty(nearest, classes).state_dict()
    comparison = _compare(expected, found.tensors)

    def theirs(name: str) -> str:
        return found.originals.get(name) or foreign_name(name, found.layout, found.caffe)

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
    total = sum(not _is_counter(name) for name in expected)
    verdict = f"is not {arch}" if arch else f"fits no architecture; the nearest is {nearest.arch}"
    return CheckpointError(
        f"{path}: {verdict}: {comparison.matching} of its {total} tensors match; {'; '.join(parts) or 'attention in odd places'}",
        "`emca-deploy models` lists what can be loaded; save such a network's whole state dict",
    )


def _first(describe: Any, names: Sequence[str]) -> str:
    shown = ", ".join(describe(name) for name in names[:SHOWN])
    return shown + (", ..." if len(names) > SHOWN else "")


def _another(path: Path, inferred: Inferred, arch: str) -> CheckpointError:
    options = ", ".join(f"{name}={value}" for name, value in inferred.options.items())
    holds = inferred.arch + (f" ({options})" if options else "")
    return CheckpointError(
        f"{path}: is not {arch}: its tensors are those of {holds}", f"say --arch {inferred.arch}, or leave --arch out"
    )
