"""Real images as the input of calls that are measured."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emca_deploy.data.choosing import assumed_for
from emca_deploy.data.sources import choose_indices, open_source
from emca_deploy.errors import DataError
from emca_deploy.harness.spec import LoadedModel, RunnerSpec

__all__ = ["MOST_IMAGES", "real_batches"]

MOST_IMAGES = 64
"""Images that are kept in memory at once; calls take them in turn."""


def real_batches(spec: RunnerSpec, runner: LoadedModel, batch: int) -> list[npt.NDArray[Any]]:
    """Return batches of a spec's data set in the model's layout and type, with equally many images of each class.

    Raises:
        DataError: the data set cannot be read, or has fewer images than a batch.
        InputError: its images do not fit the model.
    """
    preprocessing = spec.preprocessing or assumed_for(runner.input, runner.output)
    source = open_source(Path(spec.data), preprocessing)
    wanted = max(batch, MOST_IMAGES // batch * batch)
    indices = choose_indices(len(source), wanted, source.labels)
    if len(indices) < batch:
        raise DataError(f"{spec.data}: has {len(indices)} images, fewer than a batch of {batch}", "use a smaller --batch")
    order = np.random.default_rng(0).permutation(indices).tolist()[: len(indices) // batch * batch]
    return [runner.to_native(images) for images, _ in source.batches(batch, order)]
