"""Every classifier and detector by name, with its published figures, its parameters and its multiply-adds."""

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from emca_deploy.errors import UnknownNameError
from emca_deploy.tasks.detector_config import DETECTOR_KINDS, DetectorConfig, DetectorKind

if TYPE_CHECKING:
    from torch import nn

    from emca_deploy.networks.pkcam import PkcamBackbone
    from emca_deploy.networks.resnet import AttentionConfig, Caffe, ResNetBackbone

__all__ = [
    "ARCHITECTURES",
    "DETECTORS",
    "Architecture",
    "Published",
    "count_macs",
    "count_parameters",
    "create_model",
    "find_architecture",
]

DEPTHS = (18, 34, 50, 101, 152)


@dataclass(frozen=True)
class Published:
    """Figures of the EMCA paper's ImageNet table at 224x224.

    Attributes:
        params_mi: Parameters / 2**20. For SRM the paper leaves out half of each `cfc`.
        gmacs_gi: Multiply-adds / 2**30 (the paper calls them GFLOPs).
        top1: Top-1 accuracy in percent, as `top5`.
    """

    params_mi: float
    gmacs_gi: float
    top1: float
    top5: float


@dataclass(frozen=True)
class Architecture:
    """One architecture, and its published figures where the paper has them.

    Attributes:
        detector: Kind of the detector over this network; None for a classifier.
    """

    name: str
    family: str
    depth: int
    published: Published | None
    detector: DetectorKind | None = None


FAMILY_OPTIONS: dict[str, dict[str, Any]] = {
    "resnet": {"kind": "none"},
    "se_resnet": {"kind": "se", "placement": "all"},
    "eca_resnet": {"kind": "eca", "placement": "all"},
    "srm_resnet": {"kind": "srm", "placement": "all"},
    "emca_se_resnet": {"kind": "se", "placement": "first", "previous_stages": 1, "blocks_per_stage": "all"},
    "emca_eca_resnet": {"kind": "eca", "placement": "first", "previous_stages": 1, "blocks_per_stage": "all"},
    "emca_srm_resnet": {"kind": "srm", "placement": "first", "previous_stages": 1, "blocks_per_stage": "all"},
    "pkcam_eca_resnet": {},
}
"""The paper's configuration of each family; S = 1 and N = all is its headline EMCA."""

_PUBLISHED: dict[str, tuple[float, float, float, float]] = {
    "resnet18": (11.148, 1.694, 70.40, 89.45),
    "resnet34": (20.788, 3.419, 73.31, 91.40),
    "resnet50": (24.373, 3.829, 75.89, 92.85),
    "se_resnet18": (11.231, 1.695, 70.59, 89.78),
    "se_resnet34": (20.938, 3.421, 73.87, 91.65),
    "se_resnet50": (26.772, 3.837, 76.80, 93.39),
    "eca_resnet18": (11.148, 1.695, 70.75, 89.74),
    "eca_resnet34": (20.788, 3.420, 74.13, 91.68),
    "eca_resnet50": (24.373, 3.834, 77.12, 93.68),
    "srm_resnet18": (11.152, 1.695, 70.96, 89.81),
    "srm_resnet34": (20.795, 3.419, 73.98, 91.68),
    "srm_resnet50": (24.402, 3.829, 77.13, 93.51),
    "emca_se_resnet18": (11.190, 1.695, 71.00, 90.00),
    "emca_se_resnet34": (20.829, 3.421, 74.41, 91.90),
    "emca_se_resnet50": (25.037, 3.835, 77.33, 93.52),
    "emca_eca_resnet18": (11.148, 1.695, 71.04, 89.99),
    "emca_eca_resnet34": (20.788, 3.421, 74.46, 91.70),
    "emca_eca_resnet50": (24.373, 3.834, 77.13, 93.49),
    "emca_srm_resnet18": (11.150, 1.694, 71.02, 90.00),
    "emca_srm_resnet34": (20.790, 3.419, 74.38, 91.87),
    "emca_srm_resnet50": (24.380, 3.829, 77.20, 93.54),
}


ARCHITECTURES = {
    name: Architecture(name, family, depth, Published(*_PUBLISHED[name]) if name in _PUBLISHED else None)
    for family in FAMILY_OPTIONS
    for depth in DEPTHS
    for name in (f"{family}{depth}",)
}
"""Every classifier, by name."""

DETECTORS = {
    name: Architecture(name, arch.family, arch.depth, None, kind)
    for kind in DETECTOR_KINDS
    for arch in ARCHITECTURES.values()
    for name in (f"{kind}_{arch.name}_fpn",)
}
"""Every detector, by name: a classifier without its last layer is the backbone."""


def find_architecture(name: str) -> Architecture:
    """Return the classifier or detector called `name`.

    Raises:
        UnknownNameError: there is none; the error names similar ones.
    """
    every = ARCHITECTURES | DETECTORS
    if name not in every:
        raise UnknownNameError.of("architecture", name, every, "`emca-deploy models` lists them all")
    return every[name]


def create_model(name: str, num_classes: int = 1000, **options: Any) -> "nn.Module":
    """Build an architecture with fresh weights.

    Args:
        name: Architecture, as `emca-deploy models` lists it.
        num_classes: Width of the logits. A detector's classes do not count background.
        options: Fields of `AttentionConfig`, and `caffe` of `ResNet`, that differ from the family's own configuration. For a
            detector also fields of `DetectorConfig` that differ from the published configuration.

    Returns:
        A module that maps (N, 3, H, W) float32 to logits (N, num_classes), or a detector (see `Detector`), in training mode.

    Raises:
        UnknownNameError: there is no such architecture or option.
        InputError: an option has a value that no network can be built from.
    """
    arch = find_architecture(name)
    if arch.detector is not None:
        return _create_detector(arch, arch.detector, num_classes, options)
    if arch.family == "pkcam_eca_resnet":
        _refuse_options(options)
        from emca_deploy.networks.pkcam import PkcamResNet

        return PkcamResNet(arch.depth, num_classes)
    from emca_deploy.networks.resnet import ResNet

    attention, caffe = _attention(arch, options)
    return ResNet(arch.depth, num_classes, attention, caffe)


def _create_detector(arch: Architecture, kind: DetectorKind, num_classes: int, options: dict[str, Any]) -> "nn.Module":
    from emca_deploy.networks.detectors.building import build_detector, configure

    own = {option: value for option, value in options.items() if option in DetectorConfig.__dataclass_fields__}
    others = {option: value for option, value in options.items() if option not in own}
    return build_detector(kind, _create_backbone(arch, others), configure(kind, num_classes, own))


def _create_backbone(arch: Architecture, options: dict[str, Any]) -> "ResNetBackbone | PkcamBackbone":
    if arch.family == "pkcam_eca_resnet":
        _refuse_options(options)
        from emca_deploy.networks.pkcam import PkcamBackbone

        return PkcamBackbone(arch.depth)
    from emca_deploy.networks.resnet import ResNetBackbone

    attention, caffe = _attention(arch, options)
    return ResNetBackbone(arch.depth, attention, caffe)


def _refuse_options(options: dict[str, Any]) -> None:
    if options:
        raise UnknownNameError.of(
            "option of a pkcam network", sorted(options)[0], (), "these networks have no options: leave it out"
        )


def _attention(arch: Architecture, options: dict[str, Any]) -> tuple["AttentionConfig", "Caffe"]:
    """Return the attention of a ResNet, and whether it is Caffe's variant."""
    from emca_deploy.networks.resnet import AttentionConfig

    fields = AttentionConfig.__dataclass_fields__
    chosen = {option: value for option, value in options.items() if option != "caffe"}
    for option in chosen:
        if option not in fields:
            raise UnknownNameError.of("model option", option, [*fields, "caffe"], "see the docstring of AttentionConfig")
    return replace(AttentionConfig(**FAMILY_OPTIONS[arch.family]), **chosen), options.get("caffe", False)


def count_parameters(module: "nn.Module") -> int:
    """Return the number of trainable numbers in `module`, without batch norm's running statistics."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_macs(module: "nn.Module", image_size: int) -> int:
    """Return the multiply-adds of one image (3, image_size, image_size), in inference.

    They are counted operator by operator while a copy of the module runs on PyTorch's meta device, which computes shapes only.
    Convolutions and matrix products count; pooling, batch norm and elementwise work do not, as in the papers.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    shapes_only = copy.deepcopy(module, {id(p): torch.nn.Parameter(p.detach().to("meta")) for p in module.parameters()})
    shapes_only = shapes_only.to("meta").eval()
    for parent in list(shapes_only.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, torch.nn.BatchNorm2d):  # its shapes take half of the time
                setattr(parent, name, torch.nn.Identity())
    image = torch.empty(1, 3, image_size, image_size, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        shapes_only(image)
    return int(counter.get_total_flops()) // 2
