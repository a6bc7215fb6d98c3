"""Crops of regions from all levels of a feature pyramid, laid on one canvas, and the box head.

The levels P2 to P5 lie on one map, each with its edge pixels repeated around it. A region's box is scaled to its level and moved
to that level's place. One RoiAlign over the canvas then gives the same crops as one RoiAlign for each level and a choice, in a
quarter of the work.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emca_deploy.errors import InputError
from emca_deploy.networks.detectors.boxes import area
from emca_deploy.tasks.detector_config import ROI_LEVELS, DetectorConfig

__all__ = ["BoxHead", "Canvas", "RoiAlign", "RoiForm", "sample_on_grid"]

FIRST_STRIDE = 4
BEFORE, AFTER = 1, 2
"""Edge pixels repeated before and after each level. A region that is enlarged to one pixel may reach one pixel too far."""

RoiForm = Callable[[Tensor, Tensor, int, int, bool], Tensor]
"""A function of a map (N, C, H, W), boxes (N, R, 4) in its pixels, bins, sampling ratio and `aligned`, that returns crops
(N, R, C, bins, bins)."""


def sample_on_grid(x: Tensor, boxes: Tensor, bins: int, sampling_ratio: int, aligned: bool) -> Tensor:
    """Compute RoiAlign as bilinear samples on a grid and their means (He et al., 2017); see `RoiForm`.

    Raises:
        InputError: the sampling ratio is 0, so that the number of samples depends on the box.
    """
    if sampling_ratio == 0:
        raise InputError(
            "RoiAlign with an adaptive number of samples has no fixed grid",
            "use the form of RoiAlign as an operator, or train with a sampling ratio of 1 or more",
        )
    count, channels, height, width = x.shape
    samples = bins * sampling_ratio
    start = boxes[..., :2] - (0.5 if aligned else 0.0)
    sides = boxes[..., 2:] - boxes[..., :2]
    if not aligned:
        sides = sides.clamp(min=1.0)
    steps = (torch.arange(samples, dtype=x.dtype, device=x.device) + 0.5) / samples
    along_x = start[..., 0:1] + sides[..., 0:1] * steps  # (N, R, samples)
    along_y = start[..., 1:2] + sides[..., 1:2] * steps
    scaled_x = along_x * (2.0 / (width - 1)) - 1.0
    scaled_y = along_y * (2.0 / (height - 1)) - 1.0
    regions = boxes.shape[1]
    shape = (count, regions, samples, samples)
    grid = torch.stack([scaled_x[:, :, None, :].expand(shape), scaled_y[:, :, :, None].expand(shape)], dim=-1)
    sampled = F.grid_sample(x, grid.reshape(count, regions * samples, samples, 2), padding_mode="border", align_corners=True)
    pooled = F.avg_pool2d(sampled, sampling_ratio) if sampling_ratio > 1 else sampled
    return pooled.reshape(count, channels, regions, bins, bins).transpose(1, 2)


@dataclass(frozen=True)
class _Place:
    """The top left pixel of a level on the canvas, without its repeated edge, and its size."""

    x: int
    y: int
    height: int
    width: int

    @property
    def right(self) -> int:
        return self.x + self.width + AFTER

    @property
    def below(self) -> int:
        return self.y + self.height + AFTER


def _places(shapes: Sequence[tuple[int, int]]) -> list[_Place]:
    """Lay the finest level on top, and the others in a row below it."""
    places = [_Place(BEFORE, BEFORE, *shapes[0])]
    x, y = 0, places[0].below
    for height, width in shapes[1:]:
        places.append(_Place(x + BEFORE, y + BEFORE, height, width))
        x = places[-1].right
    return places


Shapes = Sequence[tuple[int, int]]
"""Heights and widths of the levels P2 to P5."""


class Canvas(nn.Module):
    """Lays the levels P2 to P5 on one map."""

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Return the canvas (N, C, H, W) of the levels (N, C, H_l, W_l), finest first."""
        places = _places([(level.shape[2], level.shape[3]) for level in levels])
        padded = [F.pad(level, (BEFORE, AFTER, BEFORE, AFTER), mode="replicate") for level in levels]
        below = max(place.below for place in places[1:]) - places[0].below
        width = max(padded[0].shape[3], places[-1].right)
        rest = [0, 0, width - places[-1].right]  # to the right of the smallest level: a copy of the whole row would cost more
        row = [F.pad(level, (0, right, 0, below - level.shape[2])) for level, right in zip(padded[1:], rest, strict=True)]
        return torch.cat([F.pad(padded[0], (0, width - padded[0].shape[3])), torch.cat(row, dim=3)], dim=2)


class RoiAlign(nn.Module):
    """Crops (N, R, C, bins, bins) of boxes (N, R, 4), in pixels of the image, from a canvas.

    `form` computes them from boxes in pixels of the canvas. Export may replace it by another one with the same result.
    """

    def __init__(self, bins: int, config: DetectorConfig) -> None:
        super().__init__()
        self.bins, self.sampling_ratio, self.aligned = bins, config.roi_sampling_ratio, config.roi_aligned
        self.finest_scale, self.one = config.roi_finest_scale, float(config.plus_one)
        self.reach = float(config.plus_one and config.roi_plus_one)
        self.form: RoiForm = sample_on_grid

    def forward(self, canvas: Tensor, boxes: Tensor, shapes: Shapes) -> Tensor:
        """Return the crops from the canvas of levels of these shapes."""
        return self.form(canvas, self.move(boxes, shapes), self.bins, self.sampling_ratio, self.aligned)

    def move(self, boxes: Tensor, shapes: Shapes) -> Tensor:
        """Return boxes (..., 4) in pixels of the image as boxes in pixels of the canvas, each on the level of its size."""
        side = torch.sqrt(area(boxes, self.one))
        thresholds = boxes.new_tensor([self.finest_scale * 2 ** (level - 1e-6) for level in range(1, ROI_LEVELS)])
        level = (side[..., None] >= thresholds).to(torch.int64).sum(-1)
        rows = [(1 / (FIRST_STRIDE * 2**number), place.x, place.y) for number, place in enumerate(_places(shapes))]
        placed = boxes.new_tensor(rows)[level]
        scale, origin = placed[..., :1], placed[..., 1:]
        corners = torch.cat([boxes[..., :2], boxes[..., 2:] + self.reach], dim=-1)
        return corners * scale + torch.cat([origin, origin], dim=-1)


class _CropsLinear(nn.Linear):
    """A fully connected layer on crops, which it reads pixel by pixel.

    Its weights are in the order of checkpoints, channel by channel. Runtimes that crop channels last, as OpenVINO does, need not
    rearrange the crops, which are larger than the weights.
    """

    def forward(self, crops: Tensor) -> Tensor:
        """Return the results (R, width) of crops (R, C, bins, bins)."""
        weight = self.weight.reshape(-1, *crops.shape[1:]).permute(0, 2, 3, 1).flatten(1)
        return F.linear(crops.permute(0, 2, 3, 1).flatten(1), weight, self.bias)


class BoxHead(nn.Module):
    """Two fully connected layers, then the scores of each class and of background, which is last, and deltas of each class."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        width = config.box_head_width
        self.fc6 = _CropsLinear(config.fpn_channels * config.box_bins**2, width)
        self.fc7 = nn.Linear(width, width)
        self.scores = nn.Linear(width, config.num_classes + 1)
        self.deltas = nn.Linear(width, 4 * config.num_classes)
        for layer, std in ((self.scores, 0.01), (self.deltas, 0.001)):
            if not layer.weight.is_meta:
                nn.init.normal_(layer.weight, std=std)
                nn.init.zeros_(layer.bias)

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Return the class logits (R, K + 1) and the deltas (R, 4 * K) of crops (R, C, bins, bins)."""
        hidden = F.relu(self.fc7(F.relu(self.fc6(crops))))
        return self.scores(hidden), self.deltas(hidden)
