"""A connection lost during validation: the run continues where it stopped."""

import numpy as np
import pytest

from emca_deploy.artifacts import Preprocessing
from emca_deploy.requests import LogitsRequest
from emca_deploy.targets.registry import parse

COUNT = 4000


@pytest.fixture
def images(tmp_path):
    """Arrays used without preprocessing, enough of them to be interrupted."""
    path = tmp_path / "images.npz"
    arrays = np.random.default_rng(0).standard_normal((COUNT, 3, 16, 16)).astype(np.float32)
    np.savez(path, images=arrays, labels=np.arange(COUNT) % 10)
    return path


def test_validation_goes_on_where_it_was(far, model, images):
    cuts = []

    def told(done, total):
        if total == COUNT and 0 < done < COUNT and not cuts:
            cuts.append(done)
            far.cut()

    used = Preprocessing(16, 18)
    request = LogitsRequest(str(model), str(images), target=far.target, preprocessing=used, batch=1, threads=1, untuned=True)
    found = parse(far.target).run(request, told).logits
    assert cuts
    assert found.logits.shape == (COUNT, 10)
    assert found.reused >= cuts[0]
    assert list(found.labels) == [index % 10 for index in range(COUNT)]
    far.wait_until_nothing_runs()
    assert not list((far.cache / "logits").iterdir())
