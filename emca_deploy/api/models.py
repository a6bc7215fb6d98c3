"""`models`: the size, cost and published accuracy of every classifier, and the size of every detector."""

from dataclasses import dataclass

from emca_deploy._optional import import_optional
from emca_deploy._progress import Progress
from emca_deploy.errors import UnknownNameError
from emca_deploy.networks.registry import ARCHITECTURES, DETECTORS, Architecture, Published
from emca_deploy.results.codec import version
from emca_deploy.tasks.detector_config import DETECTOR_KINDS

__all__ = ["DETECTOR_CLASSES", "DetectorSize", "ModelSize", "ModelsReport", "models"]

DETECTOR_CLASSES = 80
"""Number of classes of the detectors that are counted, COCO's."""


@dataclass(frozen=True)
class ModelSize:
    """The size of an architecture with 1000 classes, and the cost of one image.

    Attributes:
        name: name of the architecture.
        family: architecture without its depth.
        depth: number of layers in the name of the ResNet.
        params: number of parameters.
        params_mi: parameters / 2**20.
        macs: multiply-adds.
        gflops_gi: multiply-adds / 2**30, which the paper calls GFLOPs.
        gmacs: multiply-adds / 1e9.
        published: figures of the paper; None if it has none.
    """

    name: str
    family: str
    depth: int
    params: int
    params_mi: float
    macs: int
    gflops_gi: float
    gmacs: float
    published: Published | None


@dataclass(frozen=True)
class DetectorSize:
    """The size of a detector with 80 classes, at its published configuration.

    Attributes:
        name: name of the detector.
        detector: "retinanet", "faster_rcnn" or "mask_rcnn".
        backbone: classifier whose stages it is built on.
        params: number of parameters.
        params_mi: parameters / 2**20.
    """

    name: str
    detector: str
    backbone: str
    params: int
    params_mi: float


@dataclass(frozen=True, kw_only=True)
class ModelsReport:
    """The classifiers at one image size, the side of the square input in pixels, and the detectors."""

    schema_version: int = version(1)
    image_size: int
    models: tuple[ModelSize, ...]
    detectors: tuple[DetectorSize, ...] = ()


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
    detectors = [architecture for name, architecture in DETECTORS.items() if name.startswith(family)]
    if not chosen and not detectors:
        families = {architecture.family for architecture in ARCHITECTURES.values()} | set(DETECTOR_KINDS)
        raise UnknownNameError.of("family of architectures", family, families, "leave the family out to list all")
    total = len(chosen) + len(detectors)
    found, found_detectors = [], []
    for done, architecture in enumerate((*chosen, *detectors)):
        if progress is not None:
            progress(done, total)
        if architecture.detector is None:
            found.append(_count(architecture, image_size))
        else:
            found_detectors.append(_count_detector(architecture, architecture.detector))
    return ModelsReport(image_size=image_size, models=tuple(found), detectors=tuple(found_detectors))


def _count_detector(made: Architecture, kind: str) -> DetectorSize:
    import torch

    from emca_deploy.networks.registry import count_parameters, create_model

    with torch.device("meta"):
        params = count_parameters(create_model(made.name, DETECTOR_CLASSES))
    return DetectorSize(made.name, kind, f"{made.family}{made.depth}", params, params / 2**20)


def _count(made: Architecture, image_size: int) -> ModelSize:
    import torch

    from emca_deploy.networks.registry import count_macs, count_parameters, create_model

    with torch.device("meta"):
        module = create_model(made.name)
    params, macs = count_parameters(module), count_macs(module, image_size)
    sizes = (params, params / 2**20, macs, macs / 2**30, macs / 1e9)
    return ModelSize(made.name, made.family, made.depth, *sizes, made.published)
