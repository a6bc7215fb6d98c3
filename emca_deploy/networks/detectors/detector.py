"""What all detectors share: a backbone whose batch norms stay as they are, a configuration, and the sizes of levels."""

from torch import Tensor, nn

from emca_deploy.networks.detectors.losses import Sampling
from emca_deploy.tasks.detector_config import RPN_LEVELS, DetectorConfig

__all__ = ["Detector", "level_shapes"]


def level_shapes(image_size: tuple[int, int], first_stride: int) -> list[tuple[int, int]]:
    """Return the heights and widths of five levels for an image of (height, width): each half of the one before, rounded up."""
    height, width = (-(-side // first_stride) for side in image_size)
    shapes = []
    for _ in RPN_LEVELS:
        shapes.append((height, width))
        height, width = -(-height // 2), -(-width // 2)
    return shapes


class Detector(nn.Module):
    """A detector over a backbone that returns the outputs of its four stages. `sampling` is the plan of its losses.

    Attributes:
        multiple: Number that the height and width of its images are multiples of: the coarsest stride that is added up.
        has_regions: Whether it crops regions from its levels.
    """

    multiple = 32
    has_regions = True

    def __init__(self, backbone: nn.Module, config: DetectorConfig) -> None:
        super().__init__()
        self.backbone, self.config, self.sampling = backbone, config, Sampling()

    def train(self, mode: bool = True) -> "Detector":
        """Set the mode of every module but the backbone's batch norms, which use their running statistics in training too.

        Batches of a detector are too small for statistics of their own.
        """
        super().train(mode)
        for module in self.backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def freeze(self, stages: int) -> None:
        """Stop the training of the backbone's stem and its first `stages` stages; of nothing where that is 0."""
        frozen = ("stem", "pre", *(f"stage{number + 1}" for number in range(stages))) if stages else ()
        for name, part in self.backbone.named_children():
            part.requires_grad_(name not in frozen)

    def losses(self, images: Tensor, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Return the losses of a batch by name; their sum is what training minimizes.

        Args:
            images: Images (N, 3, H, W), already normalized.
            targets: For each image "boxes" (n, 4) float32 as x1, y1, x2, y2 in pixels, "labels" (n,) int64, and for Mask R-CNN
                "masks" (n, H, W) uint8.
        """
        raise NotImplementedError

    def dense(self, images: Tensor) -> dict[str, Tensor]:
        """Return the dense outputs of images (N, 3, H, W) by name: all that comes before boxes are selected."""
        raise NotImplementedError

    def detect(self, dense: dict[str, Tensor], image_size: tuple[int, int]) -> dict[str, Tensor]:
        """Return the detections from the dense outputs of images of this height and width."""
        raise NotImplementedError
