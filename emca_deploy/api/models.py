"""`models`: the size, cost and published accuracy of every architecture."""

from dataclasses import asdict, dataclass
from typing import Any

from emca_deploy._optional import import_optional
from emca_deploy._progress import Progress
from emca_deploy.errors import UnknownNameError
from emca_deploy.networks.registry import ARCHITECTURES, Architecture

__all__ = ["ModelSize", "ModelsReport", "models"]

MEBI, GIBI = 2**20, 2**30


@dataclass(frozen=True)
class ModelSize:
    """Parameters, and multiply-adds of one image, of an architecture with 1000 classes."""

    architecture: Architecture
    params: int
    macs: int

    def to_dict(self) -> dict[str, Any]:
        """Return its JSON."""
        published = self.architecture.published
        return {
            "name": self.architecture.name,
            "family": self.architecture.family,
            "depth": self.architecture.depth,
            "params": self.params,
            "params_mi": self.params / MEBI,
            "macs": self.macs,
            "gflops_gi": self.macs / GIBI,
            "gmacs": self.macs / 1e9,
            "published": asdict(published) if published else None,
        }


@dataclass(frozen=True)
class ModelsReport:
    """The architectures at one image size, the side of the square input in pixels."""

    image_size: int
    models: tuple[ModelSize, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of `models`."""
        return {"schema_version": 1, "image_size": self.image_size, "models": [each.to_dict() for each in self.models]}


def models(image_size: int = 224, family: str = "", progress: Progress | None = None) -> ModelsReport:
    """Count parameters and multiply-adds of the architectures from their networks.

    Args:
        image_size: side of the square input in pixels, 32 or more.
        family: prefix of the names to list.
        progress: callback that gets (done, total).

    Raises:
        MissingError: torch is not installed.
        UnknownNameError: no architecture's name starts with `family`.
    """
    import_optional("torch")
    chosen = [architecture for name, architecture in ARCHITECTURES.items() if name.startswith(family)]
    if not chosen:
        families = {architecture.family for architecture in ARCHITECTURES.values()}
        raise UnknownNameError.of("family of architectures", family, families, "leave the family out to list all")
    found = []
    for done, architecture in enumerate(chosen):
        if progress is not None:
            progress(done, len(chosen))
        found.append(_count(architecture, image_size))
    return ModelsReport(image_size, tuple(found))


def _count(architecture: Architecture, image_size: int) -> ModelSize:
    import torch

    from emca_deploy.networks.registry import count_macs, count_parameters, create_model

    with torch.device("meta"):
        module = create_model(architecture.name)
    return ModelSize(architecture, count_parameters(module), count_macs(module, image_size))
