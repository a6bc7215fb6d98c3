import time

import numpy as np
import pytest

from emca_deploy.artifacts import Preprocessing
from emca_deploy.errors import DataError, InputError
from emca_deploy.harness.accuracy.collection import LogitsRun
from emca_deploy.harness.measure import feed
from emca_deploy.tasks import logits_rows

FOUR = Preprocessing(4, 4)


@pytest.fixture
def npz(tmp_path):
    def make(count=11, labels=True, size=4):
        rng = np.random.default_rng(0)
        arrays = {"images": rng.standard_normal((count, 3, size, size)).astype(np.float32)}
        if labels:
            arrays["labels"] = rng.integers(0, 4, count)
        path = tmp_path / "data.npz"
        np.savez(path, **arrays)
        return path, arrays

    return make


@pytest.mark.parametrize("batch", ["batch", 1, 4, 16])
def test_logits_are_the_models_in_order_whatever_its_batch(make_spec, npz, batch):
    path, arrays = npz()
    ticks = []
    started = time.perf_counter()
    found = LogitsRun(make_spec(batch=batch, latency_s=0.01), path, FOUR, batch_size=3).collect(lambda *tick: ticks.append(tick))
    whole_s = time.perf_counter() - started
    np.testing.assert_allclose(found.logits, arrays["images"].sum(axis=(1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found.labels, arrays["labels"])
    assert ticks[-1] == (11, 11)
    assert 0.01 < 11 / found.images_per_s < whole_s
    assert found.preprocessing == FOUR


@pytest.mark.usefixtures("in_threads")
def test_limit_takes_logits_and_labels_of_the_same_images(make_spec, npz):
    path, arrays = npz(count=40)
    found = LogitsRun(make_spec(), path, FOUR, limit=8).collect()
    everything = arrays["images"].sum(axis=(1, 2))
    assert found.logits.shape == (8, 4)
    for logits, label in zip(found.logits, found.labels, strict=True):
        (index,) = np.flatnonzero(np.isclose(everything, logits, rtol=1e-4, atol=1e-5).all(axis=1))
        assert arrays["labels"][index] == label


@pytest.mark.usefixtures("in_threads")
def test_preprocessing_can_be_chosen_by_the_models_size(make_spec, npz):
    path, _ = npz(labels=False)
    found = LogitsRun(make_spec(), path).collect()
    assert found.preprocessing == Preprocessing.for_size(4)
    assert found.labels is None


def test_errors_of_the_data_set_come_back(make_spec, tmp_path, npz):
    with pytest.raises(DataError, match=r"nowhere\.zip"):
        LogitsRun(make_spec(), tmp_path / "nowhere.zip", FOUR).collect()
    path, _ = npz(size=8)
    with pytest.raises((DataError, InputError), match="8x8"):
        LogitsRun(make_spec(), path, FOUR).collect()


def test_relative_path_of_a_data_set(make_spec, npz, monkeypatch):
    path, _ = npz()
    monkeypatch.chdir(path.parent)
    assert len(LogitsRun(make_spec(), type(path)("data.npz"), FOUR).collect().logits) == 11


@pytest.mark.usefixtures("in_threads")
def test_batches_have_sixteen_images_and_the_last_one_the_rest(make_spec, npz):
    path, _ = npz(count=40)
    ticks = []
    LogitsRun(make_spec(), path, FOUR).collect(lambda *tick: ticks.append(tick))
    assert ticks == [(16, 40), (32, 40), (40, 40), (40, 40)]  # the last one comes with the labels


class Names(list):
    """A source whose items all have a name of 1 MiB."""

    classes = ()

    def item_name(self, index):
        return "x" * (1 << 20) if index < 8 else "y"


@pytest.mark.parametrize(("indices", "fit"), [(range(8), 8), (range(9), 0)])
def test_names_of_more_than_8_mib_are_left_out(indices, fit):
    found = feed.image_names(Names(range(9)), list(indices))
    assert len(found["files"]) == fit
    assert found["indices"] == (list(indices) if fit else None)


@pytest.mark.parametrize(("count", "asked"), [(1 << 26, []), ((1 << 26) + 1, [4 * ((1 << 26) + 1)])])
def test_logits_of_more_than_256_mib_need_space_for_a_file_and_do_without_it(monkeypatch, count, asked):
    seen = []

    def full(file, start, size):
        seen.append(size)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(logits_rows.os, "posix_fallocate", full)
    assert logits_rows._allocate(count, 1).shape == (count, 1)
    assert seen == asked
