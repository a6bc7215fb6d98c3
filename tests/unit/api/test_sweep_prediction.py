"""Predictions of a sweep: features of models, costs from probes, and the order of cells within a budget."""

from itertools import product

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from emca_deploy.api.sweeping.prediction import predict
from emca_deploy.api.sweeping.probes import FEATURES, features_of, fit_costs, write_probes
from emca_deploy.results.sweep import SweepCell, SweepRow, front_of, with_front

MOST_MEASURED = 20


def cell(model="m", backend="a", precision="fp32", batch=1, **more):
    return SweepCell(model, None, precision, backend, "cpu", "single-stream", batch, 1, **more)


def row(index, one, ms=None, accuracy=None):
    key = f"{index:016x}"
    if ms is None:
        return SweepRow(key, one.name, one)
    return SweepRow(key, one.name, one, "done", p50_ms=ms, accuracy=accuracy, metric="top-1" if accuracy else None)


def sweep_of(seed):
    """Return 40 finished cells, and what probes would expect: 5 models that share the true deviations of their configurations."""
    random = np.random.default_rng(seed)
    speeds = {("a", "fp32"): 1.0, ("b", "fp32"): 0.85, ("a", "int8"): 0.35, ("b", "int8"): 0.28}
    shared = {key: random.normal(0, 0.15) for key in product("ab", ("fp32", "int8"), (1, 4))}
    rows, expected = [], []
    for index, size in enumerate(np.sort(random.uniform(1, 10, 5))):
        top1, own = 70 + 6 * np.log10(size) + random.normal(0, 1), random.normal(0, 0.12)
        drops = {"a": abs(random.normal(0, 0.15)), "b": abs(random.normal(0, 0.15))}
        for (backend, precision, batch), deviation in shared.items():
            guess = size * speeds[backend, precision] * batch
            ms = guess * np.exp(deviation + own + random.normal(0, 0.05))
            accuracy = top1 - (drops[backend] if precision == "int8" else 0.0)
            rows.append(row(len(rows), cell(f"m{index}", backend, precision, batch), float(ms), float(accuracy)))
            expected.append(float(guess * np.exp(random.normal(0, 0.05))))
    return rows, expected


@pytest.mark.parametrize("seed", range(4))
def test_half_of_the_cells_are_enough_for_the_front(seed):
    rows, expected = sweep_of(seed)
    known = [row(index, one.cell) for index, one in enumerate(rows)]
    for _ in range(MOST_MEASURED):
        found = predict(known, expected, with_accuracy=True)
        left = [index for index, one in enumerate(known) if one.status == "pending"]
        best = max(left, key=lambda index: found[index].chance)
        known[best] = rows[best]
    assert front_of(tuple(known)) == front_of(tuple(rows))
    left.remove(best)
    errors = [abs(found[index].ms / rows[index].p50_ms - 1) for index in left]
    assert np.median(errors) < 0.2


def test_what_is_measured_is_known_and_teaches_its_neighbours():
    cells = [cell("m0"), cell("m1"), cell("m1", "b")]
    before = predict([row(i, one) for i, one in enumerate(cells)], [10.0, 20.0, 20.0], with_accuracy=False)
    after = predict([row(0, cells[0], 12.0), *(row(i, cells[i]) for i in (1, 2))], [10.0, 20.0, 20.0], with_accuracy=False)
    assert after[0].ms == pytest.approx(12, rel=0.02)
    assert before[1].ms < after[1].ms < 24  # the same backend, precision and batch
    assert after[2].ms == pytest.approx(before[2].ms)  # another model on another backend
    width = [found[1].interval_ms[1] / found[1].interval_ms[0] for found in (before, after)]
    assert width[1] < width[0]


def test_a_failed_cell_has_no_chance():
    rows = [SweepRow("0", "x", cell("m0"), "failed", reason="it fails"), row(1, cell("m1"))]
    failed, other = predict(rows, [None, None], with_accuracy=True)
    assert (failed.chance, other.chance) == (0.0, 1.0)


def test_the_front():
    fast, exact, slow = row(0, cell("m0"), 1.0, 70.0), row(1, cell("m1"), 2.0, 71.0), row(2, cell("m2"), 3.0, 70.5)
    batched = row(3, cell("m2", batch=8), 4.0, 70.5)
    rows = with_front((fast, exact, slow, batched))
    assert [one.pareto for one in rows] == [False, True, False, True]
    without = tuple(row(i, one.cell, one.p50_ms) for i, one in enumerate((fast, exact, slow, batched)))
    assert front_of(without) == {without[0].key, without[1].key, without[3].key}  # each model has a front of its own


def test_costs_are_found_and_never_negative():
    random = np.random.default_rng(0)
    features = random.uniform(0, 1, (12, 4)) * [1e9, 1e7, 1e5, 10]
    costs = np.array([1e-9, 0.0, 1e-6, 1e-2])
    found = fit_costs(features, features @ costs + 1e-9)
    assert (found >= 0).all()
    assert features @ found == pytest.approx(features @ costs, rel=0.01)


def test_the_features_of_a_network(tmp_path):
    weights = {
        "w": np.ones((8, 3, 3, 3), np.float32),
        "g": np.ones((8, 1, 3, 3), np.float32),
        "p": np.ones((4, 8, 1, 1), np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1] * 4),
        helper.make_node("Conv", ["a", "g"], ["b"], pads=[1] * 4, group=8),
        helper.make_node("Conv", ["b", "p"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 32, 32])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4, 32, 32])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [numpy_helper.from_array(v, k) for k, v in weights.items()])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "m.onnx")
    pixels = 32 * 32
    moved = 2 * pixels * (3 + 8 + 8 + 8 + 8 + 4)
    wanted = [2 * pixels * 8 * 27, 0, 2 * pixels * 32, 2 * pixels * 72, 216 + 72 + 32, moved, 3]
    assert features_of(tmp_path / "m.onnx", 2).tolist() == wanted
    small = dict(zip(FEATURES, features_of(tmp_path / "m.onnx", 2, (16, 8)), strict=True))
    assert (small["large maps"], small["small maps"]) == (0, 2 * 128 * 8 * 27)


def test_probes_differ_in_every_feature(tmp_path):
    features = np.array([features_of(path, 1) for path in write_probes(tmp_path)])
    assert np.linalg.matrix_rank(features / features.max(axis=0)) == len(FEATURES)
