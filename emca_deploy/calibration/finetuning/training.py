"""Training a rounded network to return what its fp32 network returns, layer by layer and at the logits."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import cos, isfinite, log10, pi

import numpy as np
import torch
from torch import Tensor

from emca_deploy._progress import Progress
from emca_deploy.arrays import Float32Array
from emca_deploy.calibration.finetuning.twin import Rounding, Twin

__all__ = ["LARGEST_DB", "STEPS", "Trained", "Training"]

STEPS = 300
"""Most steps of training."""

BATCH, LARGEST_BATCH_PIXELS = 32, 32 * 112**2
"""Images of a step, and the pixels that they have at most, which limits memory."""

LEARNING_RATES = {"steps": 0.001, "growths": 0.0003, "ranges": 0.0001, "biases": 0.03}
"""Adam's learning rates: of weights in steps, of the logarithms of their scales and of the tensors' scales, and of biases in
units of `twin.BIAS_UNIT`."""

LAYERS = 1.0
"""Weight of the layers' mean error against the error of the logits."""

LARGEST_SHIFT = 0.06
"""Largest shift of an image, as a share of its sides."""

TIMED = 3
"""Number of steps after which the duration of a step is known."""

FEWEST_STEPS = 10
"""Number of steps that are taken even if the budget is too small for them."""

SMALLEST_SIGNAL = 1e-30

LARGEST_DB = 150.0
"""Noise over signal of a network that diverged."""

Load = Callable[[Sequence[int]], Float32Array]
"""A function that returns some images, (N, 3, H, W) float32, by their indices."""


@dataclass(frozen=True)
class Trained:
    """A finished training.

    Attributes:
        steps: number of steps.
        batch: number of images of each step.
        before_db: noise over signal of the trained images' logits before training.
        after_db: the same after it.
        complete: whether the budget sufficed for all steps.
    """

    steps: int
    batch: int
    before_db: float
    after_db: float
    complete: bool


@dataclass(frozen=True)
class Training:
    """A student that learns from a teacher.

    Attributes:
        teacher: fp32 network.
        student: the same network with rounding.
        rounding: what is trained.
        names: tensors, apart from the logits, that the student is to return as the teacher does.
    """

    teacher: Twin
    student: Twin
    rounding: Rounding
    names: Sequence[str]

    def run(
        self, load: Load, indices: Sequence[int], limits: tuple[float, int, int], progress: Progress | None = None
    ) -> Trained:
        """Train on some images; `limits` are the budget in seconds, the number of threads and the random seed.

        Two runs with the same seed and number of threads give the same result where the budget suffices for all steps.
        """
        budget_s, threads, seed = limits
        with _torch_threads(threads):
            before = self._error_db(load, indices)
            begun, total, taken = time.monotonic(), STEPS, 0
            optimizer = torch.optim.Adam(self._groups(), betas=(0.9, 0.99))
            rates = [group["lr"] for group in optimizer.param_groups]
            for images in _batches(load, indices, seed):
                if taken == TIMED:
                    total = _affordable(budget_s, (time.monotonic() - begun) / TIMED)
                for group, rate in zip(optimizer.param_groups, rates, strict=True):
                    group["lr"] = rate * _share(taken, total)
                optimizer.zero_grad(set_to_none=True)
                torch.autograd.backward(self._loss(images))
                optimizer.step()
                taken += 1
                if progress:
                    progress(taken, total)
                late = taken >= FEWEST_STEPS and time.monotonic() - begun > budget_s
                if taken >= total or late:
                    break
            return Trained(taken, len(images), before, self._error_db(load, indices), taken == STEPS)

    def _groups(self) -> list[dict[str, object]]:
        layers = list(self.rounding.layers.values())
        parameters = {
            "steps": [layer.steps for layer in layers],
            "growths": [layer.growth for layer in layers],
            "ranges": list(self.rounding.growths),
            "biases": [layer.bias_shift for layer in layers],
        }
        return [{"params": parameters[name], "lr": rate} for name, rate in LEARNING_RATES.items()]

    def _loss(self, images: Tensor) -> Tensor:
        """Return the logarithm of the logits' noise over signal, and the mean of the layers'."""
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            wanted = self.teacher(images, self.names)
        found = self.student(images, self.names)
        loss = _noise(wanted.pop(self.teacher.logits_name), found[self.student.logits_name])
        layers = [_noise(reference, found[name]) for name, reference in wanted.items()]
        return loss + LAYERS * torch.stack(layers).mean() if layers else loss

    def _error_db(self, load: Load, indices: Sequence[int], size: int = 16) -> float:
        """Return the noise over signal of the logits of some images."""
        signal = noise = SMALLEST_SIGNAL
        with torch.no_grad():
            for start in range(0, len(indices), size):
                images = torch.from_numpy(load(indices[start : start + size]))
                wanted = self.teacher(images, [])[self.teacher.logits_name]
                signal += float(wanted.square().sum())
                noise += float((wanted - self.student(images, [])[self.student.logits_name]).square().sum())
        return min(10 * log10(noise / signal), LARGEST_DB) if isfinite(noise) else LARGEST_DB


def _noise(reference: Tensor, found: Tensor) -> Tensor:
    """Return the logarithm of noise over signal."""
    signal = reference.square().sum().clamp_min(SMALLEST_SIGNAL)
    return ((found - reference).square().sum() / signal).clamp_min(SMALLEST_SIGNAL).log()


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    """Let PyTorch use a number of threads, and then as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _affordable(budget_s: float, step_s: float) -> int:
    """Return the number of steps for a budget, from the duration of one."""
    return max(FEWEST_STEPS, min(STEPS, int(budget_s / step_s)))


def _share(step: int, total: int) -> float:
    """Return the share of the learning rate at a step: rising over the first twentieth, then falling as a cosine."""
    warm = max(1, total // 20)
    return (step + 1) / warm if step < warm else 0.5 * (1 + cos(pi * (step - warm) / max(1, total - warm)))


def _batches(load: Load, indices: Sequence[int], seed: int) -> Iterator[Tensor]:
    """Yield batches of shifted and flipped images without end, each image at most once in a turn."""
    random = np.random.default_rng(seed)
    height, width = load(indices[:1]).shape[2:]
    size = min(len(indices), max(4, min(BATCH, LARGEST_BATCH_PIXELS // (height * width))))
    while True:
        order = random.permutation(len(indices))
        for start in range(0, len(order) - size + 1, size):
            images = load([indices[place] for place in order[start : start + size]])
            yield torch.from_numpy(np.stack([_moved(image, random) for image in images]))


def _moved(image: Float32Array, random: np.random.Generator) -> Float32Array:
    """Return an image (C, H, W) shifted by some pixels, with its border repeated, and mirrored half of the time."""
    places = []
    for side in image.shape[1:]:
        far = round(side * LARGEST_SHIFT)
        places.append(np.clip(np.arange(side) + random.integers(-far, far + 1), 0, side - 1))
    rows, columns = places
    if random.random() < 0.5:
        columns = columns[::-1]
    return np.ascontiguousarray(image[:, rows][:, :, columns])
