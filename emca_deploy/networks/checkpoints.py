"""Loads a checkpoint into its network, whose architecture is found from the tensors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from emca_deploy._optional import import_optional
from emca_deploy.checkpoint_files.opening import CheckpointFile, open_checkpoint
from emca_deploy.checkpoint_files.stored import TensorProblem
from emca_deploy.errors import CheckpointError
from emca_deploy.networks.detector_files import DetectorFit, find_detectors, fit_detector
from emca_deploy.networks.fitting import Fit, empty_network, fit_network, is_counter
from emca_deploy.networks.networks import Network, find_networks
from emca_deploy.networks.registry import count_parameters, find_architecture
from emca_deploy.preprocessing import PreprocessingOptions
from emca_deploy.results import codec
from emca_deploy.tasks.detector_config import DetectorConfig

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["CheckpointSource", "ModelSpec", "Weights", "load_checkpoint"]

Weights = Literal["ema", "plain"]
"""The moving average of the weights, or the weights themselves."""

GROUPED = 2
SHOWN = 4


@dataclass(frozen=True)
class CheckpointSource:
    """The place of a network in its checkpoint.

    Attributes:
        container: Keys of the dictionaries around the state dict, joined by dots; "" where there are none.
        prefix: Beginning of the network's names in the state dict ("module.").
        head: Name of the layer that makes the logits in the file.
        both_weights: Whether the file has both kinds of weights.
        left_out: Number of tensors that were not loaded, by name or by group ("optimizer.*").
        not_loaded: Classes of the other objects in the file, which were neither loaded nor run.
        statistics: Beginning of the names of the batch norm statistics, where a moving average has none of its own; else None.
        assumed: Facts about a detector that the file does not state, as its project's published detectors have them.
        unread: Parts of a detector's configuration in the file that could not be read.
    """

    container: str
    prefix: str
    head: str
    weights: Weights
    both_weights: bool
    left_out: dict[str, int]
    not_loaded: tuple[str, ...]
    statistics: str | None = codec.left_out()
    assumed: tuple[str, ...] = codec.left_out(())
    unread: tuple[str, ...] = codec.left_out(())


@dataclass(frozen=True)
class ModelSpec:
    """The network of a checkpoint.

    Attributes:
        num_classes: Width of the logits; for a detector the number of classes without background.
        options: Options for `create_model(arch, num_classes, **options)`; empty for the family's own configuration.
        layout: Origin of its key names (see `layouts.Layout` and `detector_layouts.DetectorLayout`).
        source: Place in the file; None for fresh weights.
        detector: Configuration of a detector; None for a classifier.
        preprocessing: Preprocessing that a detector was trained with; None for a classifier.
    """

    arch: str
    num_classes: int
    options: dict[str, Any]
    layout: str
    params: int
    source: CheckpointSource | None = None
    detector: DetectorConfig | None = None
    preprocessing: PreprocessingOptions | None = None

    def check_classifier(self, path: Path, user: str, remedy: str) -> None:
        """Refuse a detector for `user`, a part of the package that takes classifiers only.

        Raises:
            CheckpointError: the checkpoint has a detector.
        """
        if self.detector is not None:
            raise CheckpointError(f"{path}: is the detector {self.arch}, and {user} takes classifiers only", remedy)


def load_checkpoint(
    path: str | Path,
    arch: str | None = None,
    *,
    position: str = "residual",
    weights: Weights | None = None,
    prefix: str | None = None,
) -> tuple["nn.Module", ModelSpec]:
    """Load a checkpoint of a classifier or of a detector; nothing in it is run.

    Args:
        path: File of torch.save, safetensors file, or index of a sharded checkpoint.
        arch: Architecture that it must have; inferred where None.
        position: Place of attention in a block, "residual" or "output", which the tensors do not show.
        weights: "ema" for the moving average or "plain"; where None, the average if the file has one.
        prefix: Beginning of the network's names, where the file has several networks.

    Returns:
        The network in eval mode and its description. A classifier maps images (N, 3, H, W) float32 to logits (N, num_classes),
        a detector to detections (see `networks.detectors`).

    Raises:
        CheckpointError: the file cannot be read safely, fits no architecture, is not `arch`, has several networks, or has a
            detector that is not supported or contradicts its configuration.
        UnknownNameError: there is no architecture `arch`.
        MissingError: torch is not installed.
    """
    path, torch = Path(path), import_optional("torch")
    if arch is not None:
        find_architecture(arch)
    with open_checkpoint(path) as file:
        detectors = find_detectors(file)
        networks = _under(file, detectors or find_networks(file), prefix)
        if detectors:
            fits = _fits(networks, lambda network, _: fit_detector(file, network, arch=arch, position=position))
        else:
            trusted = prefix is not None
            fits = _fits(
                networks,
                lambda network, explain: fit_network(
                    file, network, arch=arch, position=position, trusted=trusted, explain=explain
                ),
            )
        chosen, both = _choose(file, fits, weights)
        tensors = _values(file, chosen.network, both)
    inferred = chosen.inferred
    module = empty_network(inferred, chosen.classes).eval()
    counters = {name: torch.zeros((), dtype=torch.int64) for name in module.state_dict() if is_counter(name)}
    ours = {name: tensor.contiguous() for name, tensor in chosen.translate(tensors, path).items()}
    module.load_state_dict({**counters, **ours}, assign=True)
    source = _source(file, chosen.network, both)
    spec = ModelSpec(inferred.arch, chosen.classes, inferred.options, chosen.layout, count_parameters(module), source)
    return module, _described(spec, chosen, module)


def _described(spec: ModelSpec, fit: Fit, module: "nn.Module") -> ModelSpec:
    """Add what only a detector has."""
    if not isinstance(fit, DetectorFit) or spec.source is None:
        return spec
    source = replace(spec.source, assumed=fit.facts.assumed, unread=fit.facts.unread)
    config: DetectorConfig = module.config  # type: ignore[assignment]  # a detector's attribute
    return replace(spec, source=source, detector=config, preprocessing=fit.facts.preprocessing)


def _fits(networks: Sequence[Network], fit: Callable[[Network, bool], Fit]) -> list[Fit]:
    """Return the networks that fit an architecture; where none does, raise the error of the largest one.

    `fit` gets a network and whether its error may take the time to name the nearest architecture.
    """
    fits, errors = [], []
    for number, network in enumerate(networks):
        try:
            fits.append(fit(network, number == 0))
        except CheckpointError as exc:
            errors.append(exc)
    if not fits:
        raise errors[0]
    return fits


def _under(file: CheckpointFile, networks: list[Network], prefix: str | None) -> list[Network]:
    """Return the networks under `prefix`, or all where it is None; an error where there are none."""
    if not networks:
        names = ", ".join(_printable(name[file.containers[name] :]) for name in list(file.tensors)[:3])
        raise CheckpointError(
            f"{file.path}: holds no ResNet; its keys are like {names}",
            "give a ResNet's checkpoint (`emca-deploy models` lists them); another network can be exported to ONNX where it was "
            "trained, and its .onnx file calibrated",
        )
    if prefix is None:
        return networks
    wanted = f"{prefix.rstrip('.')}." if prefix.rstrip(".") else ""
    matches = [network for network in networks if wanted in (network.where, network.prefix)]
    if not matches:
        raise CheckpointError(
            f"{file.path}: has no network under --prefix {prefix!r}", f"say {_prefixes(networks)}, or leave --prefix out"
        )
    return matches


def _choose(file: CheckpointFile, fits: Sequence[Fit], weights: Weights | None) -> tuple[Fit, bool]:
    """Return the network to load, and whether the file has both plain weights and an average."""
    averages = [fit for fit in fits if fit.network.average]
    plain = [fit for fit in fits if not fit.network.average]
    wanted = averages if weights == "ema" or (weights is None and averages) else plain
    if not wanted:
        kind, other = ("moving average", "plain") if weights == "ema" else ("plain weights", "ema")
        raise CheckpointError(f"{file.path}: has no {kind}", f"leave --weights out, or say --weights {other}")
    different = [fit for number, fit in enumerate(wanted) if not any(_same(file, fit, other) for other in wanted[:number])]
    if len(different) > 1:
        found = ", ".join(
            f"'{_printable(fit.network.where)}' ({fit.inferred.arch}, {fit.classes} classes)" for fit in different[:SHOWN]
        )
        raise CheckpointError(
            f"{file.path}: has {len(different)} different networks, under {found}",
            f"choose one in export or deploy: {_prefixes([fit.network for fit in different])}",
        )
    return wanted[0], bool(averages and plain)


def _prefixes(networks: Sequence[Network]) -> str:
    """Return the option that chooses each network, with the shortest name that no other has."""
    prefixes = [network.prefix for network in networks]
    names = [network.prefix if prefixes.count(network.prefix) == 1 else network.where for network in networks[:SHOWN]]
    return ", ".join(f"--prefix {_printable(name.rstrip('.')) or repr('')}" for name in names)


def _same(file: CheckpointFile, a: Fit, b: Fit) -> bool:
    """Return whether two networks have equal weights, as a module saved under two names does."""
    import torch

    if (a.inferred, a.classes, a.network.names.keys()) != (b.inferred, b.classes, b.network.names.keys()):
        return False
    for name, full in a.network.names.items():
        one, two = file.tensors[full], file.tensors[b.network.names[name]]
        if one.storage is two.storage and one.offset == two.offset:
            continue
        try:
            if not torch.equal(one.load(), two.load()):
                return False
        except TensorProblem:
            return False
    return True


def _values(file: CheckpointFile, network: Network, both: bool) -> dict[str, "Tensor"]:
    tensors = {}
    for name, full in network.names.items():
        if is_counter(name):
            continue
        try:
            tensors[name] = file.tensors[full].load()
        except TensorProblem as exc:
            other = f", or try --weights {'plain' if network.average else 'ema'}" if both else ""
            remedy = f"use a checkpoint from before the training diverged{other}"
            if "NaN" not in str(exc):
                remedy = "save it again as ordinary tensors: torch.save(model.state_dict(), 'weights.pth')"
            raise CheckpointError(f"{file.path}: '{_printable(full[file.containers[full] :])}' {exc}", remedy) from exc
    return tensors


def _source(file: CheckpointFile, network: Network, both: bool) -> CheckpointSource:
    groups: dict[str, list[str]] = {}
    for name in network.others:
        rest = name.removeprefix(network.container)
        groups.setdefault(rest.partition(".")[0], []).append(rest)
    left_out: dict[str, int] = {}
    for top, names in groups.items():
        if len(names) <= GROUPED:
            left_out |= {_printable(name): 1 for name in names}
        else:
            left_out[f"{_printable(top)}.*"] = len(names)
    return CheckpointSource(
        container=_printable(network.container.rstrip(".")),
        prefix=_printable(network.prefix),
        head=_printable(network.head.removeprefix(network.container)),
        weights="ema" if network.average else "plain",
        both_weights=both,
        left_out=left_out,
        not_loaded=tuple(sorted(file.inert)),
        statistics=None if network.statistics is None else _printable(network.statistics),
    )


def _printable(name: str) -> str:
    """Return a name from the file as printable ASCII."""
    return ascii(name)[1:-1]
