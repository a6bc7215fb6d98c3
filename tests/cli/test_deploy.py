"""`emca-deploy deploy` as a user runs it: the files it writes, what it refuses before any work, and Ctrl-C."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from html.parser import HTMLParser
from pathlib import Path

import in_process
import pytest
import small

from emca_deploy._machine import find_gpus
from emca_deploy.cli import run
from emca_deploy.results.deploy import read_deploy_report

QUICK = ["--image-size", "32", "--resize-size", "40", "--duration", "0.5", "--threads", "1", "--samples", "6"]
QUICK += ["--recover", "none"]  # recovery is slow; the demo's test covers it
PATIENCE_S = 300
MADE = {
    "model.onnx", "model.onnx.manifest.json", "model.ranges.json", "result.json", "report.html",
    "model.onnxruntime.int8.onnx", "model.onnxruntime.int8.onnx.manifest.json",
    "onnxruntime-fp32.ort.onnx", "onnxruntime-fp32.ort.onnx.manifest.json",
    "onnxruntime-int8.ort.onnx", "onnxruntime-int8.ort.onnx.manifest.json",
}  # fmt: skip
MADE_FOR_OPENVINO = {
    "model.openvino.int8.onnx", "model.openvino.int8.onnx.manifest.json",
    "openvino-fp32.ov", "openvino-fp32.ov.manifest.json", "openvino-int8.ov", "openvino-int8.ov.manifest.json",
}  # fmt: skip


def arguments(checkpoint: object, data: object, validation: object, output: object, *more: object) -> list[str]:
    return [str(a) for a in ("deploy", checkpoint, "--data", data, "--val", validation, "-o", output, *QUICK, *more)]


@pytest.fixture(scope="module")
def deployed(shared, small_checkpoint, small_networks, flat_images, labelled_images):
    """The folder of a deployment on both backends, its stdout and its stderr."""
    pytest.importorskip("openvino")
    output = shared / "deployed"
    command = arguments(small_checkpoint, flat_images, labelled_images, output, "--limit", 9)
    out, err = io.StringIO(), io.StringIO()
    with small_networks(), pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["emca-deploy", *command])
        in_process.use_threads(patch)  # golden/test_json.py and the Ctrl-C tests below start real processes
        assert run(command) == 0
    return output, subprocess.CompletedProcess(command, 0, out.getvalue(), err.getvalue())


def test_everything_is_there_and_nothing_else(deployed, files):
    output, _ = deployed
    assert files(output) == MADE | MADE_FOR_OPENVINO


def test_the_result_can_be_read_and_is_consistent(deployed, small_checkpoint, flat_images):
    output, _ = deployed
    report = read_deploy_report(output / "result.json")
    assert [c.name for c in report.candidates] == ["onnxruntime fp32", "openvino fp32", "onnxruntime int8", "openvino int8"]
    assert report.baseline == "onnxruntime fp32"
    assert report.title == "emca_eca_resnet10, 3 classes, 32x32"
    assert report.calibration["samples"] == 6
    assert report.calibration["data"] == str(flat_images)
    assert report.parity["max_rel"] < 1e-5
    assert str(small_checkpoint) in report.command
    baseline, *others = report.candidates
    assert (baseline.speedup, baseline.speedup_ci95) == (1.0, None)
    for candidate in report.candidates:
        assert candidate.latency.samples == len(candidate.latency.samples_ms) > 0
        assert candidate.latency.batch == 1
        assert candidate.accuracy.samples == 9
        assert candidate.file_mib > 0.3
    for candidate in others:
        low, high = candidate.speedup_ci95
        assert low <= candidate.speedup <= high
        ratio = baseline.latency.latency_ms.p50 / candidate.latency.latency_ms.p50
        assert candidate.speedup == pytest.approx(ratio)
    openvino_fp32, int8 = report.candidates[1], report.candidates[2:]
    assert openvino_fp32.accuracy.reference.agreement == 100.0
    assert openvino_fp32.accuracy.reference.sqnr_db > 100
    for candidate in int8:
        assert 29 < candidate.accuracy.reference.sqnr_db < 45
        assert candidate.file_mib < baseline.file_mib


def test_the_manifests_chain_from_checkpoint_to_engine(deployed, small_checkpoint):
    import hashlib

    output, _ = deployed

    def manifest(name: str) -> dict:
        return json.loads((output / f"{name}.manifest.json").read_text())

    model = manifest("model.onnx")
    assert model["inputs"]["checkpoint"] == hashlib.sha256(small_checkpoint.read_bytes()).hexdigest()
    for backend, suffix in (("onnxruntime", ".ort.onnx"), ("openvino", ".ov")):
        quantized = manifest(f"model.{backend}.int8.onnx")
        assert quantized["inputs"]["model"] == model["sha256"]
        for precision, source in (("fp32", model), ("int8", quantized)):
            engine = manifest(f"{backend}-{precision}{suffix}")
            assert (engine["kind"], engine["backend"], engine["precision"]) == ("engine", backend, precision)
            assert source["sha256"] in engine["inputs"].values()


class _Fetches(HTMLParser):
    """Collects what a browser would load for a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name in {"src", "srcset", "data", "poster"} or (tag == "link" and name == "href"):
                self.found.append(value)
            self.found += re.findall(r"url\(\s*['\"]?(?!#)([^)]*)", value or "")


def test_the_page_fetches_nothing(deployed):
    output, _ = deployed
    page = (output / "report.html").read_text(encoding="utf-8")
    parser = _Fetches()
    parser.feed(page)
    assert [place for place in parser.found if not place.startswith("data:")] == []
    assert "@import" not in page
    for name in ("onnxruntime int8", "openvino fp32", "emca_eca_resnet10, 3 classes, 32x32"):
        assert name in page


def test_stages_are_told_on_stderr_and_the_table_on_stdout(deployed):
    output, done = deployed
    for stage in ("exporting", "calibrating for openvino", "building engines", "measuring latency", "validating openvino int8"):
        assert stage in done.stderr
        assert stage not in done.stdout
    assert "openvino int8" in done.stdout
    assert str(output / "report.html") in done.stdout
    assert "Traceback" not in done.stderr


@pytest.fixture
def nothing_is_done(monkeypatch):
    """Without PyTorch any export fails with another exit code: exit code 2 shows a refusal before the work."""
    monkeypatch.setitem(sys.modules, "torch", None)


@pytest.mark.usefixtures("nothing_is_done")
@pytest.mark.parametrize(
    ("data", "validation", "more", "code", "words"),
    [
        ("missing", "labelled", [], 2, "{missing}: "),
        ("flat", "missing", [], 2, "{missing}: "),
        ("flat", "flat", [], 2, "{flat}: "),
        ("empty", "labelled", [], 2, "{empty}: "),
        ("flat", "labelled", ["--targets", "gpus"], 2, "nearest: gpu"),
        ("flat", "labelled", ["--targets", "cpu:1"], 2, "'cpu:1'"),
        ("flat", "labelled", ["--targets", "gpu:x"], 2, "'gpu:x'"),
        ("flat", "labelled", ["--targets", "cpu,cpu"], 2, "--targets cpu,cpu: "),
        ("flat", "labelled", ["--targets", ""], 2, "''"),
        ("flat", "labelled", ["--targets", "ssh://board.invalid"], 2, "ssh://board.invalid"),
        ("flat", "labelled", ["--backend", "openvin"], 2, "nearest: openvino"),
        ("flat", "labelled", ["--backend", "tensorrt"], 3, "backend 'tensorrt'"),
        ("flat", "labelled", ["--std", "0,1,1"], 2, "--std 0,1,1"),
        ("flat", "labelled", ["--duration", "0"], 2, "--duration"),
    ],
)
def test_what_cannot_work_is_refused_before_any_work(
    data, validation, more, code, words, checkpoint, flat_images, labelled_images, tmp_path, refused, files
):
    (tmp_path / "empty").mkdir()
    paths = {"flat": flat_images, "labelled": labelled_images, "missing": tmp_path / "no", "empty": tmp_path / "empty"}
    said = refused(*arguments(checkpoint, paths[data], paths[validation], tmp_path / "out", *more), code=code)
    assert words.format(**paths) in said
    assert {p.name for p in tmp_path.iterdir()} == {"empty"}


@pytest.mark.usefixtures("nothing_is_done")
@pytest.mark.skipif(bool(find_gpus()), reason="there is a GPU here")
@pytest.mark.parametrize(("targets", "index"), [("gpu", 0), ("cpu,gpu", 0), ("gpu:1,cpu", 1)])
def test_without_a_gpu_the_way_out_is_told_before_any_work(
    targets, index, checkpoint, flat_images, labelled_images, tmp_path, refused
):
    pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")
    command = arguments(checkpoint, flat_images, labelled_images, tmp_path / "out", "--targets", targets)
    said = refused(*command, code=3)
    assert f"target 'gpu:{index}': " in said
    assert "or --targets cpu" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("nothing_is_done")
def test_without_cuda_bindings_the_extra_is_told(checkpoint, flat_images, labelled_images, tmp_path, refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    command = arguments(checkpoint, flat_images, labelled_images, tmp_path / "out", "--targets", "gpu")
    assert "emca-deploy[gpu]" in refused(*command, code=3)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_backend_or_report_extra_is_said_first(
    checkpoint, flat_images, labelled_images, tmp_path, refused, monkeypatch
):
    command = arguments(checkpoint, flat_images, labelled_images, tmp_path / "out")
    for module, extra in (("openvino", "emca-deploy[openvino]"), ("jinja2", "emca-deploy[report]")):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            assert extra in refused(*command, code=3)
    assert list(tmp_path.iterdir()) == []


def test_bad_checkpoints_and_outputs_leave_nothing(checkpoint, flat_images, labelled_images, tmp_path, refused):
    (tmp_path / "bad.pth").write_text("no checkpoint")
    (tmp_path / "file").touch()
    before = set(tmp_path.iterdir())
    for given, output, words in (
        (tmp_path / "no.pth", tmp_path / "out", "no.pth: no such file"),
        (tmp_path / "bad.pth", tmp_path / "out", "bad.pth: is neither"),
        (checkpoint, tmp_path / "no" / "out", "mkdir -p"),
        (checkpoint, tmp_path / "file", "cannot be made: File exists"),
    ):
        assert words in refused(*arguments(given, flat_images, labelled_images, output))
    assert set(tmp_path.iterdir()) == before


def test_no_checkpoint_names_the_demo(flat_images, labelled_images, tmp_path, refused):
    command = ["deploy", "--data", flat_images, "--val", labelled_images, "-o", tmp_path / "out"]
    assert "emca-deploy demo" in refused(*command)


def test_labels_beyond_the_classes_are_refused_before_measuring(small_checkpoint, small_networks, flat_images, tmp_path, capsys):
    import numpy as np

    images = np.zeros((4, 3, 32, 32), np.float32)
    np.savez(tmp_path / "val.npz", images=images, labels=np.array([0, 1, 2, 3]))
    command = arguments(small_checkpoint, flat_images, tmp_path / "val.npz", tmp_path / "out", "--backend", "onnxruntime")
    with small_networks():
        assert run(command) == 2
    err = capsys.readouterr().err
    assert "label 3" in err
    assert "3 classes" in err
    assert "measuring" not in err


def session_members(session: int) -> list[int]:
    """Return the processes of a session, zombies left out."""
    members = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has ended
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                members.append(int(entry.name))
    return members


def is_worker(pid: int) -> bool:
    """Return whether a process belongs to the harness; loading libraries starts others briefly."""
    try:
        return b"harness.measure.worker_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has ended
        return False


def wait_until(condition, process: subprocess.Popen, what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None, f"it ended before {what}"
        assert time.monotonic() < end, f"no {what} in {PATIENCE_S} s"
        time.sleep(0.1)  # looking through /proc takes time from what is waited for


def start(command: list[str]) -> "subprocess.Popen[str]":
    """Start a command as a terminal does, in its own process group, all of which Ctrl-C reaches."""
    whole = [sys.executable, small.__file__, *command]
    return subprocess.Popen(whole, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def interrupt(process: "subprocess.Popen[str]") -> str:
    """Send Ctrl-C and return the output; no started process may survive."""
    os.killpg(process.pid, signal.SIGINT)
    return ended(process)


def ended(process: "subprocess.Popen[str]") -> str:
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, err
    assert out == ""
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("interrupted: ")
    assert session_members(process.pid) == []
    return err


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")


@needs_proc
@pytest.mark.slow  # the two below are interrupted while exporting, and interrupted by Ctrl-C
def test_ctrl_c_while_exporting_leaves_nothing(small_checkpoint, flat_images, labelled_images, tmp_path):
    output = tmp_path / "out"
    with start(arguments(small_checkpoint, flat_images, labelled_images, output, "--backend", "onnxruntime")) as process:
        wait_until(lambda: output.exists() and any(output.iterdir()), process, "temporary file")
        interrupt(process)
    assert list(tmp_path.iterdir()) == []


@needs_proc
def test_termination_cleans_up_too(small_checkpoint, flat_images, labelled_images, tmp_path):
    output = tmp_path / "out"
    with start(arguments(small_checkpoint, flat_images, labelled_images, output, "--backend", "onnxruntime")) as process:
        wait_until(lambda: output.exists() and any(output.iterdir()), process, "temporary file")
        process.terminate()  # the signal reaches this process only, as from `timeout` or at the end of a container
        ended(process)
    assert list(tmp_path.iterdir()) == []


@needs_proc
@pytest.mark.parametrize("again", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_ctrl_c_while_measuring_leaves_whole_files_and_the_next_run_succeeds(
    small_checkpoint, small_networks, flat_images, labelled_images, tmp_path, files, capsys, again
):
    output = tmp_path / "out"
    command = arguments(small_checkpoint, flat_images, labelled_images, output, "--backend", "onnxruntime")
    with start([*command, "--duration", "60"]) as process:
        wait_until(lambda: any(map(is_worker, session_members(process.pid))), process, "worker")
        said = interrupt(process)
    assert "building engines" in said
    assert files(output) == MADE - {"result.json", "report.html"}
    if not again:
        return
    with small_networks():
        assert run([*command, "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out) == json.loads((output / "result.json").read_text())
    assert [c["name"] for c in json.loads(shown.out)["candidates"]] == ["onnxruntime fp32", "onnxruntime int8"]
    assert files(output) == MADE
