"""SIGKILL at every file event of a command: each file left is complete, refused or continued, and no hidden file stays."""

import os
import signal
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from emca_deploy.artifacts import Manifest, read_manifest, sha256_file, write_manifest
from emca_deploy.atomic import _sweep, atomic_write
from emca_deploy.calibration.ranges.table import read_table
from emca_deploy.cli import run
from emca_deploy.data.bundled import bundled_calibration_images, bundled_test_images
from emca_deploy.errors import ModelError
from emca_deploy.harness.measure import tuning
from emca_deploy.harness.measure.comparing import Measured
from emca_deploy.npz import read_arrays

EVENTS = ("os.rename", "os.remove", "os.chmod", "os.mkdir", "os.rmdir", "os.truncate", "os.link")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
MOST_EVENTS = 200

BRIEF = ["--duration", "0.1", "--max-duration", "0.1", "--warmup", "0", "--threads", "1", "--processes", "1", "--no-telemetry"]
COMMANDS = {
    "calibrate": ["calibrate", "m.onnx", "--data", str(bundled_calibration_images()), "--backend", "openvino", "--samples", "4",
                  "--threads", "1", "-o", "q.onnx"],
    "build": ["build", "m.onnx", "--backend", "openvino", "--batch", "1", "--threads", "1", "-o", "m.ov"],
    "profile": ["profile", "m.onnx", *BRIEF, "-o", "r.json", "--raw", "s.npz"],
    "validate": ["validate", "m.onnx", "--data", str(bundled_test_images()), "--limit", "20", "--threads", "1", "--logits",
                 "l.npz"],
    "tune": ["tune", "m.onnx", "--budget", "1", "--threads-max", "1", "-o", "t.json"],
}  # fmt: skip


def network(path: Path) -> None:
    random = np.random.default_rng(0)
    weights = {"w": random.standard_normal((4, 3, 3, 3)), "head": random.standard_normal((10, 4))}
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["c"], "conv"),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["g"], "pool"),
        helper.make_node("Flatten", ["g"], ["f"], "flat"),
        helper.make_node("Gemm", ["f", "head"], ["logits"], "head", transB=1),
    ]
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 32, 32])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])]
    stored = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    write_manifest(path, Manifest("onnx", "", "fp32"))


def in_child(folder: Path, words: list[str], event: int | None) -> int:
    """Run a command in a child that kills itself before the file event with this number; return how it ended."""
    child = os.fork()
    if not child:
        seen = 0

        def count(name, values):
            nonlocal seen
            writes = name in EVENTS or (name == "open" and isinstance(values[2], int) and values[2] & WRITES)
            place = os.path.abspath(os.fsdecode(values[0])) if writes and isinstance(values[0], str | bytes) else ""  # noqa: PTH100
            if place.startswith(str(folder)):
                if seen == event:
                    os.kill(os.getpid(), signal.SIGKILL)
                seen += 1

        code = 99
        try:
            os.chdir(folder)
            for stream in (1, 2):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
            sys.addaudithook(count)
            code = run(words)
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def check(folder: Path, event: int) -> None:
    """Read the files that exist as the next command would."""
    for name in ("m.onnx", "q.onnx", "m.ov"):
        path = folder / name
        if path.exists():
            try:
                manifest = read_manifest(path)
            except ModelError:
                assert name != "m.onnx"
                continue
            assert manifest is not None, f"event {event}: {name} does not say what it is"
            assert manifest.sha256 == sha256_file(path)
    if (folder / "m.ranges.json").exists():
        read_table(folder / "m.ranges.json")
    if (folder / "r.json").exists():
        assert Measured.read(folder / "r.json").report.complete
    for name in ("s.npz", "l.npz", "m.weights.npz"):
        if (folder / name).exists():
            read_arrays(folder / name)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_every_kill_is_survived(name, tmp_path, monkeypatch):
    monkeypatch.setattr(tuning, "_TOLERANCE", 1000.0)  # the shortest tuning
    for event in range(MOST_EVENTS):
        folder = tmp_path / str(event)
        folder.mkdir()
        network(folder / "m.onnx")
        ended = in_child(folder, COMMANDS[name], event)
        check(folder, event)
        if ended != -signal.SIGKILL:
            assert ended == 0
            break
        if name == "validate":
            assert in_child(folder, COMMANDS[name], None) == 0
            check(folder, event)
        _sweep.cache_clear()
        with atomic_write(folder / "next") as temporary:
            temporary.write_text("next")
        assert not [path.name for path in folder.iterdir() if path.name.startswith(".")], f"event {event}"
    assert event >= 5
