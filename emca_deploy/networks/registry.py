"""Every architecture by name, with its published figures, its parameters and its multiply-adds."""

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from emca_deploy.errors import UnknownNameError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ARCHITECTURES", "Architecture", "Published", "count_macs", "count_parameters", "create_model", "find_architecture"]

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
    """One architecture, and its published figures where the paper has them."""

    name: str
    family: str
    depth: int
    published: Published | None


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
"""Every architecture, by name."""


def find_architecture(name: str) -> Architecture:
    """Return the architecture called `name`.

    Raises:
        UnknownNameError: there is none; the error names similar ones.
    """
    if name not in ARCHITECTURES:
        raise UnknownNameError.of("architecture", name, ARCHITECTURES, "`emca-deploy models` lists them all")
    return ARCHITECTURES[name]


def create_model(name: str, num_classes: int = 1000, **options: Any) -> "nn.Module":
    """Build an architecture with fresh weights.

    Args:
        name: Architecture, as `emca-deploy models` lists it.
        num_classes: Width of the logits.
        options: Fields of `AttentionConfig`, and `caffe` of `ResNet`, that differ from the family's own configuration.

    Returns:
        A module that maps (N, 3, H, W) float32 to logits (N, num_classes), in training mode.

    Raises:
        UnknownNameError: there is no such architecture or option.
        InputError: an option has a value that no network can be built from.
    """
    arch = find_architecture(name)
    if arch.family == "pkcam_eca_resnet":
        if options:
            raise UnknownNameError.of(
                "option of a pkcam network", sorted(options)[0], (), "these networks have no options: leave it out"
            )
        from emca_deploy.networks.pkcam import PkcamResNet

        return PkcamResNet(arch.depth, num_classes)
    from emca_deploy.networks.resnet import AttentionConfig, ResNet

    fields = AttentionConfig.__dataclass_fields__
    caffe = bool(options.pop("caffe", False))
    for option in options:
        if option not in fields:
            raise UnknownNameError.of("model option", option, [*fields, "caffe"], "see the docstring of AttentionConfig")
    return ResNet(arch.depth, num_classes, replace(AttentionConfig(**FAMILY_OPTIONS[arch.family]), **options), caffe)


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
    image = torch.empty(1, 3, image_size, image_size, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        shapes_only(image)
    return int(counter.get_total_flops()) // 2
