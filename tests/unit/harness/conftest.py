import math
from pathlib import Path

import numpy as np
import pytest

from emca_deploy.harness.spec import RunnerSpec


@pytest.fixture
def make_spec(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))

    def make(name="candidate", **kwargs):
        return RunnerSpec(name, "harness_runners:make", kwargs)

    return make


@pytest.fixture
def wandering():
    """Return a function that makes levels that wander, (count,), as a first-order autoregression; mean 0, variance 1."""

    def make(rng, count, alike):
        levels, level = np.empty(count), rng.standard_normal()
        for index in range(count):
            level = alike * level + math.sqrt(1 - alike**2) * rng.standard_normal()
            levels[index] = level
        return levels

    return make
