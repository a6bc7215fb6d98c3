"""Latencies and accuracies that are not measured yet, and the chance of each cell to be on the Pareto front.

Logarithms of latencies are a Gaussian process (Rasmussen and Williams, 2006, chapter 2): the prior mean is what the probes
predict, and deviations from it are shared by cells of the same model, size, backend, precision, batch and threads. What one cell
shows is thereby used for all that resemble it. Accuracies are another one, by model, size and precision: a larger size or another
precision changes those of all models alike, and a network in fp32 answers alike on every backend.

The deviations are rounded from those most likely for 40 measured cells of five networks (benchmarks/LOG.md).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from emca_deploy.arrays import Float64Array
from emca_deploy.results.sweep import SweepCell, SweepRow, front_group, ms_per_image

__all__ = ["Prediction", "predict"]

DRAWS = 256
NOISE = 0.02
"""Standard deviation of the logarithm of a measured latency: about 2 % from run to run."""

_Key = Callable[[SweepCell], object]
_LATENCY: tuple[tuple[float, _Key], ...] = (
    (0.05, lambda cell: (cell.target, cell.model)),
    (0.05, lambda cell: (cell.target, cell.model, cell.image_size)),
    (0.04, lambda cell: (cell.target, cell.model, cell.precision)),
    (0.20, lambda cell: (cell.target, cell.backend, cell.precision)),
    (0.05, lambda cell: (cell.target, cell.backend, cell.precision, cell.image_size)),
    (0.12, lambda cell: (cell.target, cell.backend, cell.precision, cell.scenario, cell.batch, cell.threads)),
    (0.05, lambda cell: (cell.target, cell.model, cell.backend, cell.precision)),
    (0.08, lambda cell: cell),
)
"""Standard deviations of the logarithm of a latency that cells with an equal key share."""

_ACCURACY: tuple[tuple[float, _Key], ...] = (
    (8.0, lambda cell: cell.model),
    (2.0, lambda cell: cell.image_size),
    (1.0, lambda cell: (cell.model, cell.image_size)),
    (0.3, lambda cell: cell.precision),
    (0.2, lambda cell: (cell.model, cell.precision)),
    (0.1, lambda cell: (cell.model, cell.image_size, cell.precision, None if cell.precision == "fp32" else cell.backend)),
)
"""Standard deviations of an accuracy in points that cells with an equal key share."""

_WITHOUT_PROBES: tuple[tuple[float, _Key], ...] = (
    (3.0, lambda cell: cell.target),
    (1.0, lambda cell: (cell.target, cell.model, cell.image_size)),
    (0.7, lambda cell: (cell.target, cell.backend, cell.precision)),
    (0.7, lambda cell: (cell.target, cell.scenario, cell.batch, cell.threads)),
)
"""Further deviations of cells without probes."""
_USUAL_ACCURACY = 75.0


@dataclass(frozen=True)
class Prediction:
    """What is known about one cell.

    Attributes:
        ms: Median of the predicted latency of a call.
        interval_ms: 95 % interval of it.
        chance: Chance to be on the Pareto front, 0 to 1.
    """

    ms: float
    interval_ms: tuple[float, float]
    chance: float


def predict(
    rows: Sequence[SweepRow], expected_ms: Sequence[float | None], *, with_accuracy: bool, seed: int = 0
) -> list[Prediction]:
    """Predict every cell from those that are done.

    Args:
        rows: cells, done or not.
        expected_ms: latency of a call by the probes; None where there are none.
        with_accuracy: whether the cells will have an accuracy.
        seed: random seed of the draws.
    """
    cells = [row.cell for row in rows]
    known = np.array([row.status == "done" for row in rows])
    failed = np.array([row.status == "failed" for row in rows])
    has_probes = np.array([value is not None for value in expected_ms])
    mean = np.log([value or 1.0 for value in expected_ms])
    kernel = _kernel(cells, _LATENCY)
    kernel += _kernel(cells, _WITHOUT_PROBES) * np.outer(~has_probes, ~has_probes)
    log_ms = np.log([ms_per_image(row) * row.cell.batch if row.status == "done" else 1.0 for row in rows])
    mean, covariance = _condition(mean, kernel, known, log_ms, NOISE)
    times = _draw(mean, covariance, seed)
    accuracies = np.zeros_like(times)
    if with_accuracy:
        measured = np.array([row.accuracy is not None for row in rows])
        values = np.array([row.accuracy or 0.0 for row in rows])
        middle = values[measured].mean() if measured.any() else _USUAL_ACCURACY
        expected, spread = _condition(np.full(len(rows), middle), _kernel(cells, _ACCURACY), measured, values, 0.01)
        accuracies = _draw(expected, spread, seed + 1)
    times[:, known] = log_ms[known]
    per_image = times - np.log([cell.batch for cell in cells])
    chances = _chances(per_image, accuracies, [front_group(cell, accurate=with_accuracy) for cell in cells], failed)
    width = 1.96 * np.sqrt(np.diag(covariance))
    low, high = np.exp(mean - width), np.exp(mean + width)
    return [
        Prediction(float(np.exp(mean[index])), (float(low[index]), float(high[index])), float(chances[index]))
        for index in range(len(rows))
    ]


def _kernel(cells: Sequence[SweepCell], parts: Sequence[tuple[float, _Key]]) -> Float64Array:
    total = np.zeros((len(cells), len(cells)))
    for deviation, key in parts:
        names: dict[object, int] = {}
        labels = np.array([names.setdefault(key(cell), len(names)) for cell in cells])
        total += deviation**2 * (labels[:, None] == labels[None, :])
    return total


def _condition(
    mean: Float64Array, kernel: Float64Array, known: Float64Array, values: Float64Array, noise: float
) -> tuple[Float64Array, Float64Array]:
    """Return mean and covariance of all values, given the known ones with noise."""
    if not known.any():
        return mean, kernel
    inner = kernel[np.ix_(known, known)] + noise**2 * np.eye(int(known.sum()))
    gain = np.linalg.solve(inner, kernel[known]).T
    return mean + gain @ (values - mean)[known], kernel - gain @ kernel[known]


def _draw(mean: Float64Array, covariance: Float64Array, seed: int) -> Float64Array:
    """Return (DRAWS, N) samples of a normal distribution."""
    values, vectors = np.linalg.eigh(covariance)
    factor = vectors * np.sqrt(np.maximum(values, 0.0))
    normal = np.random.default_rng(seed).standard_normal((DRAWS, len(mean)))
    drawn: Float64Array = mean + normal @ factor.T
    return drawn


def _chances(times: Float64Array, accuracies: Float64Array, groups: Sequence[object], failed: Float64Array) -> Float64Array:
    """Return the share of draws in which each cell is on the front of its group; failed cells are on none."""
    chances = np.zeros(times.shape[1])
    for group in dict.fromkeys(groups):
        inside = np.array([index for index, other in enumerate(groups) if other == group and not failed[index]])
        if len(inside):
            chances[inside] = _on_front(times[:, inside], accuracies[:, inside]).mean(axis=0)
    return chances


def _on_front(times: Float64Array, accuracies: Float64Array) -> Float64Array:
    """Return (DRAWS, N) bool: whether no faster cell of the same draw is as accurate."""
    order = np.argsort(times, axis=1, kind="stable")
    best = np.maximum.accumulate(np.take_along_axis(accuracies, order, axis=1), axis=1)
    before = np.concatenate([np.full((len(best), 1), -np.inf), best[:, :-1]], axis=1)
    found = np.zeros(times.shape, bool)
    np.put_along_axis(found, order, np.take_along_axis(accuracies, order, axis=1) > before, axis=1)
    return found
