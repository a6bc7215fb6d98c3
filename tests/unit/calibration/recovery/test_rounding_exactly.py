"""Rounded weights against the algorithm written out, and the file that keeps them."""

import json
from contextlib import nullcontext

import numpy as np
import pytest
from refusals import refusing

from emca_deploy.artifacts import Preprocessing
from emca_deploy.calibration.graphs.graph import load_graph
from emca_deploy.calibration.graphs.weighted_layers import ConvGeometry
from emca_deploy.calibration.ranges.table import TableKey
from emca_deploy.calibration.recovery.gram import POSITIONS, input_rows
from emca_deploy.calibration.recovery.weights import Rounding, round_weights, rounded_path
from emca_deploy.errors import InputError, OutputError

KEY = TableKey("a", "b", Preprocessing.for_size(64), "minmax", 2, 0)


def round_slowly(weights, gram, scales, largest):
    """Round input by input, from the one of most energy on; each makes good for the errors of those before it."""
    order = np.argsort(np.diag(gram), kind="stable")
    damped = gram.astype(np.float64)[np.ix_(order, order)] + 0.01 * np.diag(gram).mean() * np.eye(len(gram))
    factor = np.linalg.cholesky(damped)
    scaled = (weights / scales[:, None]).astype(np.float64)[:, order]
    rounded, errors = np.zeros_like(scaled), np.zeros_like(scaled)
    for row in range(len(gram) - 1, -1, -1):
        target = scaled[:, row] + errors[:, row + 1 :] @ factor[row + 1 :, row] / factor[row, row]
        rounded[:, row] = np.clip(np.rint(target), -largest, largest)
        errors[:, row] = scaled[:, row] - rounded[:, row]
    result = np.empty_like(rounded)
    result[:, order] = rounded
    return result


@pytest.mark.parametrize("largest", [127, 64])
def test_rounding_is_that_of_the_algorithm_written_out(largest):
    rng = np.random.default_rng(5)
    x = (rng.standard_normal((300, 8)) @ rng.standard_normal((8, 150)) + 0.1 * rng.standard_normal((300, 150))).astype(np.float32)
    weights = rng.standard_normal((16, 150)).astype(np.float32)
    scales = (np.abs(weights).max(axis=1) / largest).astype(np.float32)
    gram = x.T @ x
    found, expected = round_weights(weights, gram.copy(), scales, largest), round_slowly(weights, gram, scales, largest)
    assert (found != expected).mean() < 0.001  # ties in single precision
    assert np.abs(found.astype(int)).max() == largest


def test_a_sample_of_pixels_has_each_of_them_once():
    image = np.arange(12 * 12, dtype=np.float32).reshape(1, 1, 12, 12)
    rows = input_rows(image, ConvGeometry((1, 1), (1, 1), (0, 0, 0, 0)), [3])
    assert len(rows) == len(np.unique(rows)) == POSITIONS == 8


@pytest.fixture
def ensure(small, pictures, tmp_path):
    """Return a function that makes or reads the rounded weights of two layers, and the times that it made them."""
    made = []

    def stage(name):
        made.append(name)
        return nullcontext()

    def get(path=tmp_path / "t.json"):
        rounding = Rounding(load_graph(small), KEY, (path, 127), 2)
        return rounding.weights(pictures(2), range(2), 1, stage), len(made)

    return get


def test_the_file_of_rounded_weights_is_read_where_it_fits_the_layers(ensure, tmp_path):
    first, made = ensure()
    assert (set(first), made) == ({"convolved", "logits"}, 1)
    path = rounded_path(tmp_path / "t.json", 127)
    with np.load(path) as arrays:
        whole = dict(arrays)
    label = json.loads(str(whole["label"]))
    assert (label["version"], label["method"], label["samples"]) == (2, None, 2)
    again, made = ensure()
    assert made == 1
    for name, (integers, scales) in first.items():
        np.testing.assert_array_equal(again[name][0], integers)
        np.testing.assert_array_equal(again[name][1], scales)
    for change in (
        {"convolved/int8": whole["convolved/int8"].astype(np.int16)},
        {"convolved/int8": whole["convolved/int8"][:2]},
        {"convolved/scale": whole["convolved/scale"][:2]},
        {"other/int8": whole["convolved/int8"], "other/scale": whole["convolved/scale"]},
        {"label": np.array("other")},
    ):
        np.savez(path, **{**whole, **change})
        made += 1
        assert ensure()[1] == made


def test_rounded_weights_take_the_place_of_nothing_else(ensure, tmp_path):
    np.savez(rounded_path(tmp_path / "t.json", 127), images=np.zeros(3))
    with refusing(InputError, "t.weights.npz"):
        ensure()
    with pytest.raises(OutputError):
        ensure(tmp_path / "absent" / "t.json")
    assert rounded_path(tmp_path / "t.ranges.json", 64) == tmp_path / "t.weights-7bit.npz"
