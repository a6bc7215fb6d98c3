"""Building and timing with a process that behaves like each version's trtexec."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from refusals import refusing

from emca_deploy.backends.tensorrt.tool import run as run_module
from emca_deploy.backends.tensorrt.tool.beside import Beside
from emca_deploy.backends.tensorrt.tool.dialects import EngineShapes, TrtexecBuild, TrtexecTiming
from emca_deploy.backends.tensorrt.tool.process import spawn_here
from emca_deploy.backends.tensorrt.tool.results import BOUNDARY, Timed
from emca_deploy.backends.tensorrt.tool.run import Host, build_engine, time_engine
from emca_deploy.errors import InputError, MissingError, ModelError, WorkerError
from emca_deploy.reporting.table import energy_columns
from emca_deploy.results.codec import from_json, to_json
from emca_deploy.results.latency import LatencyResult, ProfileReport
from emca_deploy.results.telemetry import TelemetryResult, total_power

VERSIONS = ["8001", "8205", "8401", "8502", "8601", "100300", "101600", "110100"]
SHAPES = EngineShapes("images", (3, 64, 64), (1, 1, 1))
TIMED = Timed("model.engine", "int8", "local", 1, "single-stream", 3.0)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"an ONNX model")
    return path


def build_of(model: Path, version: str, **options) -> TrtexecBuild:
    typed = int(version) >= 100000
    types = {} if typed else {"int8": True, "fp16": True}
    return TrtexecBuild(str(model), str(model.with_suffix(".engine")), **{"typed": typed, "shapes": SHAPES, **types, **options})


def timed_on(tool, folder: Path, **options) -> LatencyResult:
    engine = folder / "model.engine"
    engine.write_bytes(b"an engine")
    timing = TrtexecTiming(str(engine), "times.json", SHAPES, 3.0, **options)
    return time_engine(tool, timing, TIMED, Host(folder=str(folder), target="jetson"))


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_builds_and_times_with_options_it_knows(stand_in, model, tmp_path, version) -> None:
    tool = stand_in(version).find()
    built = build_engine(tool, build_of(model, version))
    engine = model.with_suffix(".engine")
    assert engine.read_bytes() == b"an engine of " + version.encode()
    assert built.int8_convolutions == 1
    timing = TrtexecTiming(str(engine), "times.json", SHAPES, 3.0, profile="profile.json", layer_info="layers.json")
    result = time_engine(tool, timing, TIMED, Host(folder=str(tmp_path), target="jetson"))
    assert (result.samples, len(result.samples_ms), sum(result.block_calls)) == (400, 400, 400)
    assert result.stable, result.warnings
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "model.engine", f"tensorrt-{version}"}


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_gives_the_same_result_for_the_same_queries(stand_in, tmp_path, version) -> None:
    """The stand-ins measure the same queries: all versions must give the same result, although old files include the warm-up."""
    result = timed_on(stand_in(version).find(), tmp_path)
    assert result.latency_ms.p50 == pytest.approx(1.53294, abs=1e-5)
    assert result.device_ms is not None
    assert result.device_ms.max < 1.516  # the warm-up's queries take 4 ms
    assert result.latency_ms.p90 == sorted(result.samples_ms)[359]
    assert result.runtime["boundary"] == BOUNDARY
    assert result.runtime["cuda_graph"]
    assert (result.target, result.backend, result.load_ms, result.peak_rss_mib) == ("jetson", "tensorrt", 51.2, 345)


def test_a_result_survives_json(stand_in, tmp_path) -> None:
    result = timed_on(stand_in().find(), tmp_path, profile="profile.json")
    document = json.loads(json.dumps(to_json(ProfileReport((result,), (), {})), allow_nan=False))
    assert from_json(ProfileReport, document).results[0].latency_ms.p90 == result.latency_ms.p90
    assert tuple(document["results"][0]["samples_ms"]) == result.samples_ms
    assert [layer["name"] for layer in document["results"][0]["runtime"]["profile"]["layers"]] == [
        "stem.conv + stem.relu",
        "head",
    ]


@pytest.mark.parametrize("scenario", ["single-stream", "offline"])
def test_a_result_is_what_it_was(stand_in, tmp_path, golden, scenario) -> None:
    one = stand_in()
    engine = tmp_path / "model.engine"
    engine.write_bytes(b"an engine")
    timing = TrtexecTiming(str(engine), "times.json", SHAPES, 3.0, profile="profile.json", layer_info="layers.json")
    result = time_engine(one.find(), timing, replace(TIMED, batch=2, scenario=scenario), Host(folder=str(tmp_path)))
    document = to_json(result)
    assert len(document.pop("samples_ms")) == 400
    assert len(document.pop("warnings")) == 1
    text = json.dumps(document).replace(str(tmp_path), "FOLDER")
    golden(f"trtexec/result-{scenario}", rounded(json.loads(re.sub(r"emca-[0-9a-f]+", "emca-x", text))))


def rounded(value):
    if isinstance(value, dict):
        return {name: rounded(one) for name, one in value.items() if name != "log"}
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def test_each_step_has_its_time(stand_in, model, tmp_path, monkeypatch) -> None:
    limits, run_to_end = {}, run_module.run_to_end

    def noting(spawn, arguments, timeout_s, *rest):
        limits.setdefault(Path(arguments[0]).name, set()).add(timeout_s)
        return run_to_end(spawn, arguments, timeout_s, *rest)

    monkeypatch.setattr(run_module, "run_to_end", noting)
    tool = stand_in().find()
    built = build_engine(tool, build_of(model, "100300"))
    assert 0 < built.seconds < 600
    assert limits.pop("trtexec") == {3600.0}
    timed_on(tool, tmp_path)
    assert limits.pop("trtexec") == {3.0 + 0.5 + 300.0}
    timed_on(tool, tmp_path, profile="profile.json", warm_up_ms=2000.0)
    assert limits == {"mv": {60.0}, "rm": {30.0}, "sh": {300.0}, "trtexec": {2 * 3.0 + 2.0 + 300.0}}
    assert len(built.log) <= 80
    assert not any("[V]" in line or not line.strip() for line in built.log)
    assert set(built.to_dict()) == {"tool", "version", "options", "seconds", "layers", "int8_convolutions", "warnings", "log"}


def test_the_end_of_a_long_log_is_kept() -> None:
    lines = [f"line {n}" for n in range(200)] + ["[V] talk", " "]
    assert run_module._last(lines) == tuple(f"line {n}" for n in range(120, 200))


def test_copies_graph_and_spinning_are_the_same_in_10_and_11(stand_in, tmp_path) -> None:
    """By default, 11.0 excludes the copies and uses a CUDA graph and spinning."""
    old, new = stand_in("100300"), stand_in("110100")
    for one in (old, new):
        timed_on(one.find(), tmp_path)
    assert {"--useCudaGraph", "--useSpinWait", "--exposeDMA"} <= set(old.calls[-1])
    assert {"--includeDataTransfers", "--exposeDMA"} <= set(new.calls[-1])
    deprecated = {"--useCudaGraph", "--useSpinWait", "--noDataTransfers", "--separateProfileRun", "--stronglyTyped"}
    assert not deprecated & set(new.calls[-1])
    assert "--noDataTransfers" not in old.calls[-1]


def test_a_dla_is_timed_without_a_graph_and_its_fallbacks_are_read(stand_in, model, tmp_path) -> None:
    one = stand_in("8601")
    tool = one.find()
    cache = tmp_path / "model.cache"
    layers = ("stem.conv", "odd:name")
    built = build_engine(tool, build_of(model, "8601", cache=str(cache), float_layers=layers, dla_core=0))
    assert built.dla is not None
    assert built.dla.parts == ("{ForeignNode[stem.conv...stage1.block0.conv2]}",)
    assert [layer.kind for layer in built.dla.gpu] == ["REDUCE", "CONVOLUTION"]
    assert built.dla.refused == {"stage1.block0.attention.pool": "Unsupported on DLA"}
    given = one.calls[-1]
    assert {"--useDLACore=0", "--allowGPUFallback", "--int8", "--fp16", f"--calib={cache}"} <= set(given)
    assert {"--precisionConstraints=prefer", "--layerPrecisions=stem.conv:fp16"} <= set(given)
    result = timed_on(tool, tmp_path, dla_core=0)
    assert "--useCudaGraph" not in one.calls[-1]
    assert not result.runtime["cuda_graph"]


@pytest.mark.parametrize(("version", "what"), [("110100", "calibration cache"), ("110100", "--int8"), ("8502", "strongly typed")])
def test_what_a_version_cannot_build_is_refused_before_it_is_asked(stand_in, model, version, what) -> None:
    one = stand_in(version)
    asked = {"calibration cache": {"cache": "c", "typed": False}, "--int8": {"typed": False, "int8": True}}.get(
        what, {"typed": True}
    )
    with pytest.raises(InputError, match=what):
        build_engine(one.find(), build_of(model, version, **asked))
    assert not one.calls


@pytest.mark.parametrize(
    ("wish", "error", "words"),
    [
        ({"bad_model": True}, ModelError, "While parsing node number 4"),
        ({"kill": "build"}, WorkerError, "signal 9"),
        ({"no_engine": True}, WorkerError, "wrote no engine"),
    ],
)
def test_a_failed_build_says_why_and_leaves_nothing(stand_in, model, tmp_path, wish, error, words) -> None:
    one = stand_in()
    one.wish(**wish)
    with pytest.raises(error, match=words):
        build_engine(one.find(), build_of(model, "100300"))
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "tensorrt-100300"}


@pytest.mark.parametrize(
    ("wish", "error", "words"),
    [
        ({"no_gpu": True}, MissingError, "cannot use the GPU"),
        ({"truncate": True}, WorkerError, "times.json: is cut off"),
        ({"not_a_number": True}, WorkerError, "inf"),
        ({"miscount": 3}, WorkerError, "403.*400"),
    ],
)
def test_a_failed_run_says_why_and_leaves_nothing(stand_in, tmp_path, wish, error, words) -> None:
    one = stand_in()
    one.wish(**wish)
    with pytest.raises(error, match=words):
        timed_on(one.find(), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"model.engine", "tensorrt-100300"}


def test_an_unknown_option_is_our_fault(stand_in, tmp_path) -> None:
    one = stand_in("100300")
    tool = one.find()
    one.version = "8205"  # the tool at the same path is now an older version
    one.wish()
    with refusing(WorkerError, "--stronglyTyped"):
        build_engine(tool, build_of(tmp_path / "conftest", "100300"))


def test_doubtful_numbers_are_called_so(stand_in, tmp_path) -> None:
    one = stand_in()
    one.wish(noise=0.5)
    unsteady = timed_on(one.find(), tmp_path)
    one.wish(wrong_median=True)
    wrong = timed_on(one.find(), tmp_path)
    one.wish(graph_lost=True)
    graphless = timed_on(one.find(), tmp_path)
    assert not unsteady.stable
    assert any("standard deviation" in text for text in unsteady.warnings)
    assert any(
        "trtexec: GPU compute time is unstable, with coefficient of variance = 12.5%. If not" in t for t in unsteady.warnings
    )
    assert any("Latency median is" in text for text in wrong.warnings)
    assert not graphless.runtime["cuda_graph"]
    assert not wrong.stable
    assert not graphless.stable


def test_names_with_quotes_in_a_profile_are_read(stand_in, tmp_path) -> None:
    one = stand_in()
    one.wish(layer_name='conv "a"')
    result = timed_on(one.find(), tmp_path, profile="profile.json")
    assert result.runtime["profile"]["layers"][0]["name"] == 'conv "a"'


def test_a_build_that_hangs_is_ended(stand_in, model, tmp_path) -> None:
    one = stand_in()
    tool = one.find()
    one.wish(hang="build")
    with refusing(WorkerError, "trtexec", "1 s"):
        build_engine(tool, build_of(model, "100300"), timeout_s=1)
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "tensorrt-100300"}
    assert not _running(one.path)


def test_ctrl_c_ends_trtexec_and_leaves_nothing(stand_in, model, tmp_path) -> None:
    one = stand_in()
    one.wish(hang="build")
    code = (
        "import sys\n"
        "from emca_deploy.backends.tensorrt.tool.dialects import TrtexecBuild\n"
        "from emca_deploy.backends.tensorrt.tool.find import find_trtexec\n"
        "from emca_deploy.backends.tensorrt.tool.run import build_engine\n"
        "tool = find_trtexec(path=sys.argv[1])\n"
        "build_engine(tool, TrtexecBuild(sys.argv[2], sys.argv[2] + '.engine'))\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(one.path), str(model)], stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("*.part")) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert list(tmp_path.glob("*.part"))
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=60)
    finally:
        child.kill()
    assert b"KeyboardInterrupt" in errors
    assert not list(tmp_path.glob("*.part"))
    deadline = time.monotonic() + 30  # a process that was ended is listed until the system has cleared it away
    while _running(one.path) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _running(one.path)


def test_tegrastats_is_read_beside_the_run_and_ended_with_it(stand_in, tmp_path) -> None:
    one = stand_in()
    one.wish(run_s=1.0)
    tegrastats = tmp_path / "tegrastats"
    rails = "VDD_IN 4970mW/4952mW VDD_CPU_GPU_CV 551mW/562mW VDD_SOC 1498mW/1490mW"
    line = f"RAM 2448/7620MB (lfb 2x4MB) CPU [1%@729] GR3D_FREQ 40% cpu@47.9C tj@49C {rails}"
    tegrastats.write_text(f"#!/bin/sh\nwhile true; do echo '{line}'; sleep 0.05; done\n")
    tegrastats.chmod(0o755)
    engine = tmp_path / "model.engine"
    engine.write_bytes(b"an engine")
    timing = TrtexecTiming(str(engine), "times.json", SHAPES, 3.0)
    beside = Beside(command=(str(tegrastats),))
    result = time_engine(one.find(), timing, TIMED, Host(folder=str(tmp_path)), beside=beside)
    found = result.telemetry.sources["tegrastats"]
    assert found.power["VDD_IN"].power_w == pytest.approx(4.97)
    assert found.values["gpu_load_percent"].mean == 40
    energy = total_power(result.telemetry)["tegrastats"]
    assert energy.power_w == pytest.approx(4.97)
    assert energy.energy_per_inference_mj == pytest.approx(4970 / result.throughput_images_per_s, rel=0.01)
    assert [column.heading for column in energy_columns([result])][:2] == ["W (tegrastats)", "mJ/image"]
    assert not _running(tegrastats)
    absent = time_engine(one.find(), timing, TIMED, Host(folder=str(tmp_path)), beside=Beside(command=("no-tegrastats-here",)))
    assert absent.telemetry == TelemetryResult()


def test_another_machines_shell_may_print_before_a_file(stand_in, tmp_path) -> None:
    """A remote shell may print a greeting on the same stream."""

    def greeting(arguments):
        return spawn_here(["sh", "-c", 'echo "[Welcome] {to} the board"; exec "$@"', "sh", *arguments])

    engine = tmp_path / "model.engine"
    engine.write_bytes(b"an engine")
    timing = TrtexecTiming(str(engine), "times.json", SHAPES, 3.0, profile="profile.json")
    result = time_engine(stand_in().find(), timing, TIMED, Host(greeting, str(tmp_path), "ssh://board"))
    assert (result.samples, result.target) == (400, "ssh://board")


def test_throughput_counts_images(stand_in, tmp_path) -> None:
    engine = tmp_path / "model.engine"
    engine.write_bytes(b"an engine")
    timing = TrtexecTiming(str(engine), "times.json", SHAPES, 3.0, one_at_a_time=False)
    one = stand_in()
    timed = Timed("model.engine", "int8", "local", 8, "offline", 3.0)
    result = time_engine(one.find(), timing, timed, Host(folder=str(tmp_path)))
    assert result.throughput_images_per_s == pytest.approx(8 * 1000 / np.mean(result.samples_ms), rel=1e-4)
    assert "--exposeDMA" not in one.calls[-1]


def _running(path: Path) -> bool:
    """Return whether a process of this executable is running."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if str(path).encode() in command[:3]:
                return True
    return False
