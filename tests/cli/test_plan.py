"""`emca-deploy plan` as a user runs it, without TensorRT or a device."""

import json
import shlex

import pytest

from emca_deploy.cli import run


def arguments(model, *more):
    backend = [] if "--backend" in more else ["--backend", "tensorrt"]
    return ["plan", str(model), *backend, *map(str, more)]


def test_json_is_all_there_is_on_stdout(model, files, capsys):
    before = files(model.parent)
    assert run(arguments(model, "--device", "orin-nx", "--jetpack", "6.2", "--json")) == 0
    out, err = capsys.readouterr()
    assert err == ""
    document = json.loads(out)
    assert (document["schema_version"], document["model"], document["backend"]) == (1, str(model), "tensorrt")
    assert (document["tensorrt_version"], document["device"], document["jetpack"]) == ("10.3.0", "orin-nx", "6.2")
    assert (document["compute_capability"], document["dla"], document["precision"]) == ("8.7", False, "int8")
    assert (document["quantization"], document["typing"], document["builder_flags"]) == ("qdq", "typed", ["STRONGLY_TYPED"])
    assert document["calibrate_for"] == "tensorrt"
    assert document["reasons"]
    assert "--stronglyTyped" in document["trtexec"]
    assert files(model.parent) == before


def test_a_person_gets_the_choice_the_reasons_and_the_commands(model, capsys):
    assert run(arguments(model, "--device", "agx-orin", "--jetpack", "6.2", "--dla", "--data", "my images")) == 0
    out, err = capsys.readouterr()
    assert out.startswith(
        "int8 on Jetson AGX Orin (sm_87, DLA) with tensorrt 10.3.0: a calibration cache, flagged\n"
        "builder flags: GPU_FALLBACK, INT8, FP16\n- JetPack 6.2 brings TensorRT 10.3.0\n"
    )
    assert "--data 'my images'" in out
    assert "--calib=model.cache" in out
    assert "global poolings run on the GPU" in err


def test_its_commands_are_ones_that_work(model, flat_images, tmp_path, capsys):
    """Run the commands that work without a board: calibration for TensorRT-RTX with a real build, and a DLA's cache."""
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    own = tmp_path / "model.onnx"
    own.write_bytes(model.read_bytes())
    rtx = ["--backend", "tensorrt-rtx", "--device", "8.9", "--tensorrt-version", "1.7"]
    dla = ["--device", "orin-nx", "--jetpack", "6.2", "--dla"]
    said = ""
    for where in (rtx, dla):
        said += capsys.readouterr().out
        assert run(arguments(own, *where, "--data", flat_images, "--json")) == 0
        commands = json.loads(capsys.readouterr().out)["commands"]
        for step in commands:
            words = shlex.split(step["command"])
            assert words[0] == "emca-deploy"
            quick = ["--threads", "1", "--samples", "2", "--recover", "none"] if words[1] == "calibrate" else []
            if step["where"] == "here":
                assert run([*words[1:], *quick]) == 0, capsys.readouterr().err
    assert "tensorrt-rtx engine, int8" in said
    engine = json.loads((tmp_path / "model.engine.manifest.json").read_text())
    assert engine["precision"] == "int8"
    assert engine["details"]["tensorrt"]["targets"] == ["8.9"]
    cache = (tmp_path / "model.cache").read_text().splitlines()
    assert cache[0] == "TRT-100300-EntropyCalibration2"
    assert len(cache) > 25


def test_an_int8_model_of_another_backend_is_refused(model, flat_images, tmp_path, refused, capsys):
    for backend, words in (("openvino", "uint8 zero point"), ("onnxruntime", "INT32 bias")):
        placed, table = tmp_path / f"{backend}.onnx", tmp_path / "ranges.json"
        quick = ["--samples", "1", "--recover", "none", "--threads", "1", "--table", str(table)]
        calibrate = ["calibrate", str(model), "--data", str(flat_images), "--backend", backend, "-o", str(placed)]
        assert run([*calibrate, *quick]) == 0
        said = refused(*arguments(placed, "--device", "orin-nx", "--jetpack", "6.2"))
        assert words in said
        assert "--backend tensorrt" in said


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--device", "orin-n", "--jetpack", "6.2"], "nearest: orin-nx"),
        (["--device", "orin-nx"], "--jetpack"),
        (["--device", "orin-nx", "--jetpack", "6.9"], "no JetPack is called '6.9'"),
        (["--device", "orin-nx", "--jetpack", "7.2", "--dla"], "10.7 was the last"),
        (["--device", "sm_87", "--tensorrt-version", "10.13"], "sm_87"),
        (["--device", "8.6", "--tensorrt-version", "x"], "'x'"),
        (["--device", "orin-nx", "--jetpack", "6.2", "--precision", "bf16"], "--precision"),
        (["--backend", "openvino", "--device", "orin-nx"], "--backend"),
        ([], "--device"),
    ],
)
def test_bad_input_is_two_lines(model, refused, options, words):
    assert words in refused(*arguments(model, *options))


def test_a_model_that_cannot_be_read(tmp_path, refused):
    (tmp_path / "text.onnx").write_text("no model")
    for name in ("none.onnx", "text.onnx"):
        assert str(tmp_path / name) in refused(*arguments(tmp_path / name, "--device", "orin-nx", "--jetpack", "6.2"))
