"""Files that each runner refuses, and its behaviour beyond the contract."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from refusals import refusing

from emca_deploy.backends.fake.runner import CRASH_CODE, FakeSettings
from emca_deploy.backends.registry import available, open_runner
from emca_deploy.errors import CheckpointError, InputError, ModelError
from emca_deploy.onnx_file.file import OnnxFile
from emca_deploy.onnx_file.header import check_onnx_file
from emca_deploy.onnx_file.refusal import library_reason

IMAGES = np.ones((1, 3, 8, 8), np.float32)


@pytest.fixture(params=["onnxruntime", "openvino"])
def backend(request: pytest.FixtureRequest) -> str:
    reason = available()[request.param].reason
    if reason:
        pytest.skip(f"{request.param}: {reason}")
    return request.param


def refuse(backend: str, path: Path, match: str) -> None:
    with pytest.raises(ModelError, match=match) as caught:
        open_runner(backend, str(path)).open()
    assert str(path) in caught.value.problem
    assert "\n" not in str(caught.value)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "is empty": lambda _: b"",
    "is not an ONNX file, or is truncated": lambda whole: whole[:-1],
    "is not an ONNX file": lambda _: b"not a model at all",
    "or is truncated": lambda whole: whole[: len(whole) // 2],
    "holds no graph": lambda _: b"\x08\x08",
    "not an ONNX": lambda _: b"PK\x03\x04" + bytes(100),
}


@pytest.mark.parametrize("match", DAMAGES)
def test_a_damaged_model_is_named(
    backend: str, make_onnx: Callable[..., Path], match: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = make_onnx()
    path.write_bytes(DAMAGES[match](path.read_bytes()))
    refuse(backend, path, match)
    assert capfd.readouterr().err == ""


def test_a_missing_model_and_a_folder_are_named(backend: str, tmp_path: Path) -> None:
    refuse(backend, tmp_path / "none.onnx", "no such file")
    refuse(backend, tmp_path, "is a folder")


UNFIT = {
    "has 2 inputs": "(float[1,3,8,8] a, float[1,3,8,8] b) => (float[1,192] c) { s = Add(a, b) c = Flatten(s) }",
    "several outputs": "(float[1,3,8,8] a) => (float[1,3] b, float[1,3] c) "
    "{ p = GlobalAveragePool(a) b = Flatten(p) m = GlobalMaxPool(a) c = Flatten(m) }",
    r"input 'a' is float32 \(1, 8\)": "(float[1,8] a) => (float[1,8] c) { c = Relu(a) }",
    "input 'a' is int64": "(int64[1,3,8,8] a) => (float[1,192] c) { f = Cast <to = 1> (a) c = Flatten(f) }",
    "none of its outputs": "(float[1,3,8,8] a) => (int64[1,1,8,8] c) { c = ArgMax <axis = 1> (a) }",
    "does not take it": "(float[1,3,8,8] a) => (float[1,3] c) { c = NoSuchOperator(a) }",
}


@pytest.mark.parametrize("match", UNFIT)
def test_no_image_classifier(backend: str, make_onnx: Callable[..., Path], match: str) -> None:
    refuse(backend, make_onnx(UNFIT[match]), match)


NAMED_N = "(float[N,3,8,8] images) => (float[N,3] logits) { means = GlobalAveragePool(images) logits = Flatten(means) }"
UNNAMED = NAMED_N.replace("N,", "?,")
FIXED = NAMED_N.replace("N,", "2,")


@pytest.mark.parametrize("graph", [NAMED_N, UNNAMED])
def test_a_batch_dimension_of_any_name_is_dynamic(backend: str, make_onnx: Callable[..., Path], graph: str) -> None:
    path = make_onnx(graph)
    with open_runner(backend, str(path)) as runner:
        assert isinstance(runner.input.shape[0], str)
        assert runner.infer(np.ones((3, 3, 8, 8), np.float32)).shape == (3, 3)
    with open_runner(backend, str(path), batch=1) as runner:
        np.testing.assert_allclose(runner.infer(IMAGES), [[1, 1, 1]])


def test_a_named_batch_dimension_is_fixed_when_asked(backend: str, make_onnx: Callable[..., Path]) -> None:
    with open_runner(backend, str(make_onnx(NAMED_N)), batch=2) as runner:
        assert runner.input.shape == (2, 3, 8, 8)
        assert runner.output.shape == (2, 3)


def test_a_fixed_batch_cannot_be_changed(backend: str, make_onnx: Callable[..., Path]) -> None:
    path = make_onnx(FIXED)
    with open_runner(backend, str(path), batch=2) as runner, refusing(InputError, "'images'", "(2, 3, 8, 8)"):
        runner.infer(IMAGES)
    with refusing(InputError, path, "2"):
        open_runner(backend, str(path), batch=1).open()


def test_a_failure_while_running_is_ours(backend: str, make_onnx: Callable[..., Path]) -> None:
    # 2 images cannot be broadcast against 3; only a run shows this.
    three = "<float[3,1,1,1] three = {1, 1, 1}>"
    graph = f"(float[N,3,8,8] x) => (float[M,3] y) {three} {{ p = GlobalAveragePool(x) s = Add(p, three) y = Flatten(s) }}"
    with open_runner(backend, str(make_onnx(graph))) as runner:
        assert runner.infer(np.ones((3, 3, 8, 8), np.float32)).shape == (3, 3)
        with refusing(ModelError):
            runner.infer(np.ones((2, 3, 8, 8), np.float32))
        with refusing(ModelError, 3, 1):
            runner.infer(IMAGES)


def test_a_batch_size_baked_into_the_graph_is_noticed(backend: str, make_onnx: Callable[..., Path]) -> None:
    # OpenVINO itself returns the first image's logits and silently ignores the second image.
    graph = "(float[N,3,8,8] x) => (float[1,3] y) <int64[2] s = {1, 3}> { p = GlobalAveragePool(x) y = Reshape(p, s) }"
    with open_runner(backend, str(make_onnx(graph))) as runner:
        assert runner.infer(IMAGES).shape == (1, 3)
        with refusing(ModelError):
            runner.infer(np.ones((2, 3, 8, 8), np.float32))


def test_openvino_computes_in_float32_unless_asked(make_onnx: Callable[..., Path]) -> None:
    pytest.importorskip("openvino")
    runner = open_runner("openvino", str(make_onnx()))
    with runner:
        assert runner.describe()["inference_precision"] == "f32"
        hint = runner._compiled.get_property("INFERENCE_PRECISION_HINT")  # type: ignore[attr-defined]
        assert hint.to_string() == "f32"


def test_openvino_calls_nobody(make_onnx: Callable[..., Path]) -> None:
    pytest.importorskip("openvino")
    code = f"""
import sys
calls = []
network = ("socket.connect", "socket.getaddrinfo", "socket.sendto")
sys.addaudithook(lambda event, _: calls.append(event) if event in network else None)
import numpy as np
import onnx
from emca_deploy.backends.registry import open_runner
with open_runner("openvino", {str(make_onnx())!r}) as runner:
    runner.infer(np.ones((1, 3, 8, 8), np.float32))
print(calls)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_torch_names_an_unreadable_checkpoint(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    path = tmp_path / "junk.pth"
    path.write_bytes(b"junk")
    with refusing(CheckpointError, path):
        open_runner("torch", str(path)).open()


def test_precision_is_told_from_the_graph(make_onnx: Callable[..., Path], tmp_path: Path) -> None:
    import onnx
    from onnx import helper, numpy_helper

    assert OnnxFile.open(make_onnx()).precision == "fp32"
    quantized = (
        "(float[1,3,8,8] x) => (float[1,3] y) <float s = {0.1}, uint8 z = {0}> "
        "{ q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) p = GlobalAveragePool(d) y = Flatten(p) }"
    )
    assert OnnxFile.open(make_onnx(quantized)).precision == "int8"
    weight = numpy_helper.from_array(np.zeros((2, 2), np.float16), "w")
    halves = helper.make_model(helper.make_graph([], "g", [], [], [weight]))
    onnx.save(halves, str(tmp_path / "half.onnx"))
    assert OnnxFile.open(tmp_path / "half.onnx").precision == "fp16"


def test_every_truncation_is_noticed(make_onnx: Callable[..., Path]) -> None:
    path = make_onnx()
    whole = path.read_bytes()
    noticed = 0
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        try:
            check_onnx_file(path)
        except ModelError:
            noticed += 1
    # A file cut exactly between two outer fields, after the graph, is still a model: only the opset is missing.
    assert noticed >= len(whole) - 2
    path.write_bytes(whole)
    check_onnx_file(path)


def test_library_messages_become_one_line() -> None:
    told = library_reason(RuntimeError("Exception from src/core.cpp:84:\nCheck 'x' failed at y.cpp:1:\nno such thing\n\n"))
    assert told == "no such thing"
    assert library_reason(RuntimeError("")) == "RuntimeError"
    assert len(library_reason(RuntimeError("x" * 1000))) < 500


def test_fake_settings() -> None:
    assert FakeSettings.parse("fake:") == FakeSettings.parse("fake") == FakeSettings()
    assert FakeSettings.parse("fake:latency_ms=2,classes=5,size=4,fail_at=3") == FakeSettings(2.0, classes=5, size=4, fail_at=3)
    for name in ("fake:speed=1", "fake:size=big", "fake:size"):
        with refusing(InputError, name):
            FakeSettings.parse(name)


def test_fake_fails_on_the_call_asked_for() -> None:
    with open_runner("fake", "fake:fail_at=2") as runner:
        first = runner.infer(IMAGES)
        with pytest.raises(ModelError, match="call 2"):
            runner.infer(IMAGES)
        np.testing.assert_array_equal(runner.infer(IMAGES), first)


def test_fake_takes_its_time() -> None:
    with open_runner("fake", "fake:latency_ms=20") as runner:
        start = time.perf_counter()
        runner.infer(IMAGES)
        assert time.perf_counter() - start >= 0.02


def test_fake_crashes_the_process() -> None:
    code = """
import numpy as np
import onnx
from emca_deploy.backends.registry import open_runner
from emca_deploy.onnx_file.refusal import library_reason
with open_runner("fake", "fake:crash_at=1") as runner:
    runner.infer(np.ones((1, 3, 8, 8), np.float32))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == CRASH_CODE


def test_openvino_names_the_precision_it_runs_in_not_the_one_asked_for(make_onnx: Callable[..., Path]) -> None:
    pytest.importorskip("openvino")
    with open_runner("openvino", str(make_onnx()), precision="f16") as runner:
        hint = runner._compiled.get_property("INFERENCE_PRECISION_HINT")  # type: ignore[attr-defined]
        assert runner.describe()["inference_precision"] == hint.to_string()  # bf16 on processors without fp16 arithmetic


def test_int8_sums_do_not_overflow_on_any_processor(tmp_path: Path) -> None:
    """Without VNNI, ONNX Runtime by default sums pairs of uint8 times int8 products in 16 bits."""
    from onnx import TensorProto, helper, numpy_helper, save

    make = helper.make_node
    one, zero = numpy_helper.from_array(np.float32(1), "one"), numpy_helper.from_array(np.uint8(0), "zero")
    kernel = numpy_helper.from_array(np.full((2, 8, 4, 4), 127, np.int8), "kernel")
    nodes = [
        make("QuantizeLinear", ["images", "one", "zero"], ["q"]),
        make("DequantizeLinear", ["q", "one", "zero"], ["x"]),
        make("DequantizeLinear", ["kernel", "one"], ["w"]),
        make("Conv", ["x", "w"], ["y"]),
        make("QuantizeLinear", ["y", "step", "zero"], ["yq"]),
        make("DequantizeLinear", ["yq", "step", "zero"], ["back"]),
        make("Flatten", ["back"], ["logits"]),
    ]
    total = 255 * 127 * 8 * 16
    step = numpy_helper.from_array(np.float32(total / 200), "step")
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 8, 4, 4])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])
    graph = helper.make_graph(nodes, "g", [images], [logits], [one, zero, kernel, step])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(tmp_path / "m.onnx"))
    with open_runner("onnxruntime", str(tmp_path / "m.onnx")) as runner:
        assert runner.infer(np.full((1, 8, 4, 4), 255, np.float32)) == pytest.approx(total, rel=1e-3)


OFFLINE = """
import sys
import numpy as np
import onnx
from emca_deploy.backends.registry import open_runner
for _ in range(10):
    with open_runner("openvino", sys.argv[1]) as runner:
        runner.start_offline(np.ones((1, 3, 8, 8), np.float32))
        assert len(runner.run_offline(0.0, 30, 30)) == 30
"""


def test_openvino_waits_for_every_offline_call_and_for_its_callbacks(tmp_path):
    """In a process of its own: a queue that is deleted while a callback returns never ends."""
    pytest.importorskip("openvino")
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["": 17]> net (float[N, 3, 8, 8] x) => (float[N, 3] y)'
        " <int64[2] s = {0, 3}> { p = GlobalAveragePool(x) y = Reshape(p, s) }"
    )
    onnx.save(model, tmp_path / "net.onnx")
    subprocess.run([sys.executable, "-c", OFFLINE, str(tmp_path / "net.onnx")], check=True, timeout=120)
