"""Foreign text reaches a terminal as printable characters only; a stdout that cannot be written gives a one-line error."""

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from emca_deploy.cli import run
from emca_deploy.commands._console import console_for

EVIL = "a\x1b]0;PWN\x07\x1b[31mb\x9b2Jc\u202ed"
SGR = re.compile(r"\x1b\[[0-9;]*m")


def network(path: Path, name: str) -> Path:
    """Write a network whose first node is called `name`."""
    weight = numpy_helper.from_array(np.ones((4, 3, 1, 1), np.float32), "w")
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["c"], name),
        helper.make_node("GlobalAveragePool", ["c"], ["g"], "pool"),
        helper.make_node("Flatten", ["g"], ["logits"], "flat"),
    ]
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 8, 8])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 4])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def said(capsys) -> str:
    out, err = capsys.readouterr()
    text = out + err
    assert text
    assert text.replace("\n", "").isprintable(), repr(text)
    return text


def test_commands_of_a_plan_are_printable_and_name_the_node(tmp_path, capsys):
    model = network(tmp_path / "m.onnx", EVIL)
    assert run(["plan", str(model), "--backend", "tensorrt", "--device", "orin-nx", "--jetpack", "6.2", "--dla"]) == 0
    assert "a\\x1b]0;PWN\\x07\\x1b[31mb" in said(capsys)


@pytest.mark.parametrize(
    "words",
    [
        ["calibrate", "FILE", "--data", "x", "--backend", "openvino", "-o", "y"],
        ["profile", "FILE"],
        ["plan", "FILE", "--backend", "tensorrt", "--device", EVIL],
        ["export", "FILE", "-o", "y.onnx"],
        ["layers", "FILE"],
        ["compare", "FILE", "FILE"],
        ["report", "FILE"],
        [EVIL],
        ["profile", "m.onnx", f"--{EVIL}"],
    ],
    ids=lambda words: words[0] if words[0] != EVIL else "unknown",
)
@pytest.mark.parametrize("exists", [False, True])
def test_errors_about_strange_names_are_printable(words, exists, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if exists:
        Path(f"{EVIL}.onnx").write_bytes(b"\x1b[2J no model")
    assert run([word.replace("FILE", f"{EVIL}.onnx") for word in words]) == 2
    assert len(said(capsys).splitlines()) == 2


@given(
    st.text(st.one_of(st.characters(codec=None, exclude_categories=["Cs"]), st.sampled_from("\x1b\x07\x9b[]\n"))), st.booleans()
)
def test_tables_show_foreign_cells_without_escapes(text, as_text):
    from rich.table import Table
    from rich.text import Text

    console = console_for()
    console.width = 120
    table = Table()
    table.add_column("name")
    table.add_row(Text(text) if as_text else Text.from_markup("x") + text)
    with console.capture() as shown:
        console.print(table)
        console.print(text, markup=False, highlight=False)
    assert SGR.sub("", shown.get()).replace("\n", "").isprintable()


def command(*words: str, out: str = "/dev/full") -> subprocess.CompletedProcess:
    with Path(out).open("w") as full:
        call = [sys.executable, "-m", "emca_deploy", *words]
        return subprocess.run(call, stdout=full, stderr=subprocess.PIPE, text=True, check=False)


def test_a_full_stdout_is_one_error_and_the_result_is_kept(tmp_path):
    model = "fake:latency_ms=1"
    brief = [
        "--duration",
        "0.1",
        "--max-duration",
        "0.1",
        "--warmup",
        "0",
        "--threads",
        "1",
        "--processes",
        "1",
        "--no-telemetry",
    ]
    found = command("profile", model, *brief, "--json", "-o", str(tmp_path / "r.json"))
    assert found.returncode == 2
    said = [line.split(":")[0] for line in found.stderr.splitlines()]
    assert [word for word in said if word != "warning"] == ["error", "  try"]  # on a busy machine there are warnings
    assert json.loads((tmp_path / "r.json").read_text())["results"]
    table = command("profile", model, *brief, "-o", str(tmp_path / "s.json"))
    assert table.returncode == 2
    assert json.loads((tmp_path / "s.json").read_text())["results"]


def calibrated_with(most: int, folder: Path) -> bool:
    """Calibrate with at most `most` open files and return whether that was enough; the number needed depends on the machine."""
    folder.mkdir()
    model = network(folder / "m.onnx", "conv")
    data = Path(__file__).parents[2] / "emca_deploy/data/bundled/fashion_mnist_calibration.zip"
    words = [
        "calibrate",
        str(model),
        "--data",
        str(data),
        "--backend",
        "openvino",
        *("--samples", "2", "--recover", "none", "--method", "minmax"),
        "-o",
        str(folder / "q.onnx"),
    ]
    found = subprocess.run(
        [sys.executable, "-m", "emca_deploy", *words],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (most, most)),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "Traceback" not in found.stderr
    if found.returncode:
        assert found.returncode in (2, 3)
        assert [line.split(":")[0] for line in found.stderr.splitlines()][-2:] == ["error", "  try"]
    assert (folder / "q.onnx").exists() == (found.returncode == 0)
    return found.returncode == 0


@pytest.mark.parametrize("limits", [(6, 10), pytest.param((6, 7, 8, 9, 12), marks=pytest.mark.slow)])
def test_few_file_descriptors_are_one_error(tmp_path, limits):
    enough = [calibrated_with(most, tmp_path / str(most)) for most in limits]
    assert not enough[0]
    assert enough == sorted(enough)


def test_tables_with_bounds_are_printed_where_stdout_takes_ascii_only(own):
    words = [
        sys.executable,
        "-m",
        "emca_deploy",
        "profile",
        str(own),
        "--duration",
        "0.1",
        "--max-duration",
        "0.1",
        "--processes",
        "1",
    ]
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([*words, "--warmup", "0"], env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b"images/s" in done.stdout
