"""Which images of a data set to use when not all are needed."""

import numpy as np
import numpy.typing as npt

from emca_deploy.errors import InputError

__all__ = ["choose_indices"]


def choose_indices(
    count: int, samples: int, labels: npt.NDArray[np.int64] | None = None, seed: int = 0
) -> list[int]:  # fmt: skip
    """Choose `samples` of `count` images without replacement, the same ones on every machine; all where there are fewer.

    With labels (count,) int64 every class gets the same number, give or take one; a class that has too few gives all it has and
    the others make up for it. Another seed gives another choice. The indices are in rising order.

    Raises:
        InputError: fewer than one sample is asked for.
    """
    if samples < 1:
        raise InputError(f"{samples} images are too few to choose", "ask for at least 1")
    if labels is not None and labels.shape != (count,):
        raise ValueError(f"labels of shape {labels.shape} for {count} images")
    if samples >= count:
        return list(range(count))
    random = np.random.RandomState(seed)  # its stream is frozen for good, unlike that of default_rng
    order = random.permutation(count)
    if labels is not None:
        order = order[_round_robin(labels[order], random)]
    return sorted(int(index) for index in order[:samples])


def _round_robin(labels: npt.NDArray[np.int64], random: np.random.RandomState) -> npt.NDArray[np.intp]:
    """Return positions of `labels`: the first of every class, then the second of every class, and so on."""
    _, dense, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    by_class = np.argsort(dense, kind="stable")
    first = np.cumsum(sizes) - sizes
    turn = np.empty(len(labels), np.int64)
    turn[by_class] = np.arange(len(labels)) - np.repeat(first, sizes)
    place_in_turn = random.permutation(len(sizes))[dense]  # chance says which classes get one more
    return np.lexsort((place_in_turn, turn))
