"""Training a rounded network to return what its fp32 network returns."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
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

BATCH, LARGEST_BATCH_PIXELS = 16, 16 * 112**2
"""Images of a step, and the pixels that they have at most, which limits memory."""

VIEWS = 4
"""Shifted and mirrored forms of each image: few enough that the teacher's answers are kept."""

LEARNING_RATES = {"ranges": 0.0005, "biases": 0.02}
"""Adam's learning rates: of the logarithms of the tensors' scales, and of biases in units of `twin.BIAS_UNIT`."""

LARGEST_SHIFT = 0.06
"""Largest shift of an image, as a share of its sides."""

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
        load: function that returns images.
        indices: images to train on.
    """

    teacher: Twin
    student: Twin
    rounding: Rounding
    load: Load
    indices: Sequence[int]
    _answers: dict[tuple[int, int], Tensor] = field(default_factory=dict)

    def run(self, limits: tuple[float, int, int], progress: Progress | None = None) -> Trained:
        """Train; `limits` are the budget in seconds, the number of threads and the random seed.

        Two runs with the same seed and number of threads give the same result where the budget suffices for all steps.
        """
        budget_s, threads, seed = limits
        ending = time.monotonic() + budget_s
        with _torch_threads(threads):
            before = self._error_db()
            optimizer = torch.optim.Adam(self._groups(), betas=(0.9, 0.99), fused=True)
            rates = [group["lr"] for group in optimizer.param_groups]
            begun, judging_s, taken, total = time.monotonic(), time.monotonic() - (ending - budget_s), 0, STEPS
            batches = self._batches(seed)
            while taken < total:
                for group, rate in zip(optimizer.param_groups, rates, strict=True):
                    group["lr"] = rate * _share(taken, total)
                optimizer.zero_grad(set_to_none=True)
                images, wanted = next(batches)
                torch.autograd.backward(_noise(wanted, self.student(images)))
                optimizer.step()
                taken += 1
                step_s = (time.monotonic() - begun) / taken
                total = min(STEPS, taken + max(0, int((ending - judging_s - time.monotonic()) / step_s)))
                if progress:
                    progress(taken, total)
            return Trained(taken, len(images), before, self._error_db(), taken == STEPS)

    def _groups(self) -> list[dict[str, object]]:
        biases = [layer.bias_shift for layer in self.rounding.layers.values()]
        parameters = {"ranges": list(self.rounding.growths), "biases": biases}
        return [{"params": parameters[name], "lr": rate} for name, rate in LEARNING_RATES.items()]

    def _wanted(self, keys: Sequence[tuple[int, int]], images: Tensor) -> Tensor:
        """Return the teacher's logits, which it computes once for each view of an image."""
        if any(key not in self._answers for key in keys):
            with torch.no_grad():
                self._answers.update(zip(keys, self.teacher(images).clone(), strict=True))
        return torch.stack([self._answers[key] for key in keys])

    def _error_db(self) -> float:
        """Return the noise over signal of the images' logits."""
        signal = noise = SMALLEST_SIGNAL
        with torch.no_grad():
            for start in range(0, len(self.indices), BATCH):
                chosen = self.indices[start : start + BATCH]
                images = torch.from_numpy(self.load(chosen)).contiguous(memory_format=torch.channels_last)
                wanted = self._wanted([(index, 0) for index in chosen], images)
                signal += float(wanted.square().sum())
                noise += float((wanted - self.student(images)).square().sum())
        return min(10 * log10(noise / signal), LARGEST_DB) if isfinite(noise) else LARGEST_DB

    def _batches(self, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches of views with the teacher's answers without end, each image at most once in a turn."""
        random = np.random.default_rng(seed)
        height, width = self.load(self.indices[:1]).shape[2:]
        size = min(len(self.indices), max(4, min(BATCH, LARGEST_BATCH_PIXELS // (height * width))))
        while True:
            order, views = random.permutation(len(self.indices)), random.integers(VIEWS, size=len(self.indices))
            for start in range(0, len(order) - size + 1, size):
                keys = [(self.indices[place], int(views[place])) for place in order[start : start + size]]
                images = self.load([index for index, _ in keys])
                moved = torch.from_numpy(np.stack([_moved(image, seed, key) for image, key in zip(images, keys, strict=True)]))
                moved = moved.contiguous(memory_format=torch.channels_last)
                yield moved, self._wanted(keys, moved)


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


def _share(step: int, total: int) -> float:
    """Return the share of the learning rate at a step: rising over the first twentieth, then falling as a cosine."""
    warm = max(1, total // 20)
    return (step + 1) / warm if step < warm else 0.5 * (1 + cos(pi * (step - warm) / max(1, total - warm)))


def _moved(image: Float32Array, seed: int, key: tuple[int, int]) -> Float32Array:
    """Return a view of an image (C, H, W), by its index and number: shifted with its border repeated, and perhaps mirrored.

    The first view is the image itself.
    """
    if key[1] == 0:
        return image
    random = np.random.default_rng((seed, *key))
    places = []
    for side in image.shape[1:]:
        far = round(side * LARGEST_SHIFT)
        places.append(np.clip(np.arange(side) + random.integers(-far, far + 1), 0, side - 1))
    rows, columns = places
    if random.random() < 0.5:
        columns = columns[::-1]
    return np.ascontiguousarray(image[:, rows][:, :, columns])
