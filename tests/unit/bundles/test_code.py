"""Programs of a bundle: they give the network what this package gives it, to the bit."""

import runpy
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from emca_deploy.api.bundle import BundleRequest, bundle
from emca_deploy.artifacts import Manifest, write_manifest
from emca_deploy.bundles.code import _c_text
from emca_deploy.cli import run
from emca_deploy.data.preprocess import decode, normalize, to_pixels
from emca_deploy.errors import BundleError, UnknownNameError
from emca_deploy.preprocessing import RESIZES, Preprocessing

TEMPERATURE = 2.5
SIZES = ((37, 53), (90, 41), (24, 24), (300, 200), (31, 190))
SETTINGS = {
    "default": Preprocessing(24, 28),
    "covered": Preprocessing((24, 20), (28, 22), interpolation="bicubic", channels="bgr", scale=1, mean=(1, 2, 3), std=(4, 5, 6)),
    "squash": Preprocessing(24, 24, resize="squash", interpolation="lanczos"),
    "letterbox": Preprocessing((20, 24), resize="letterbox", pad_value="mean", channels="bgr"),
    "letterbox at the end": Preprocessing(24, resize="letterbox", pad="end", pad_value=114, interpolation="nearest"),
    "gray": Preprocessing(24, 26, channels="gray", mean=(0.3,), std=(0.2,), interpolation="bicubic"),
    "none": Preprocessing(64, resize="none", pad_value=3, exif="apply"),
    "smaller than the input": Preprocessing(25, 20),
    "uint8": Preprocessing(24, 28).of_pixels("uint8-nhwc"),
}


def write_network(
    path: Path, used: Preprocessing, *, batch: int | str = "N", pixels: bool = False, softmax: bool = False, **facts
) -> Path:
    """Write a network whose logits are the mean of each channel; with `softmax`, it returns probabilities."""
    channels = used.channel_count
    shape = [batch, used.height, used.width, channels] if pixels else [batch, channels, used.height, used.width]
    nodes = [
        helper.make_node("GlobalAveragePool", ["planes" if pixels else "images"], ["means"]),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("Softmax" if softmax else "Identity", ["flat"], ["logits"]),
    ]
    if pixels:
        nodes = [
            helper.make_node("Cast", ["images"], ["numbers"], to=TensorProto.FLOAT),
            helper.make_node("Transpose", ["numbers"], ["planes"], perm=[0, 3, 1, 2]),
            *nodes,
        ]
    given = helper.make_tensor_value_info("images", TensorProto.UINT8 if pixels else TensorProto.FLOAT, shape)
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, channels])
    graph = helper.make_graph(nodes, "g", [given], [logits])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9, doc_string=path.name)
    onnx.save(model, path)
    values = {"kind": "onnx", "precision": "fp32", "num_classes": channels, "preprocessing": used}
    write_manifest(path, Manifest(**{**values, "sha256": "", **facts}))
    return path


def bundled(folder: Path, name: str, languages: tuple[str, ...] = ("python",)) -> Path:
    """Return the folder of a bundle with programs for a network with these settings."""
    model = write_network(folder / "model.onnx", SETTINGS[name], pixels=name == "uint8", temperature=TEMPERATURE)
    bundle(BundleRequest((model,), folder / "b", code=languages))
    return folder / "b"


def expected(path: Path, used: Preprocessing) -> np.ndarray:
    with path.open("rb") as stream:
        return normalize(to_pixels(decode(stream, path.name, used.exif), used), used)


def write_images(folder: Path) -> list[Path]:
    """Write images of several sizes and kinds, and one of each EXIF orientation; return their files."""
    random = np.random.default_rng(0)
    kinds = {"RGB": (3, np.uint8), "RGBA": (4, np.uint8), "L": (1, np.uint8), "I;16": (1, np.uint16)}
    found = []
    for number, (width, height) in enumerate(SIZES):
        for mode, (channels, dtype) in kinds.items():
            top = np.iinfo(dtype).max + 1
            values = random.integers(0, top, (height, width, channels)).astype(dtype)
            found.append(folder / f"{number}-{mode.replace(';', '')}.png")
            Image.fromarray(values.squeeze()).save(found[-1])
    values = random.integers(0, 256, (30, 40, 3)).astype(np.uint8)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        for ending, options in ((".png", {}), (".jpg", {"quality": 100, "subsampling": 0})):
            found.append(folder / f"turned{orientation}{ending}")
            Image.fromarray(values).save(found[-1], exif=exif, **options)
    found.append(folder / "palette.png")
    Image.fromarray(values).quantize(16).save(found[-1])
    return found


@pytest.mark.parametrize("name", SETTINGS)
def test_python_program_preprocesses_as_this_package_does(name, tmp_path):
    used = SETTINGS[name]
    program = runpy.run_path(str(bundled(tmp_path, name) / "code/python/classify.py"))
    for path in write_images(tmp_path)[:: 1 if used.exif == "apply" else 3]:
        found = program["preprocess"](program["read_image"](path))
        assert np.array_equal(found.transpose(2, 0, 1), expected(path, used)), path.name


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("name", ["gray", "uint8"])
def test_python_program_prints_the_best_classes_and_writes_logits(name, runtime, tmp_path, monkeypatch, capsys):
    pytest.importorskip(runtime)
    image = write_images(tmp_path)[0]
    program = bundled(tmp_path, name) / "code/python/classify.py"
    files = [tmp_path / "logits.npy", tmp_path / "inputs.npy"]
    options = ["--runtime", runtime, "--top", "1", "--logits", str(files[0]), "--inputs", str(files[1]), "--threads", "1"]
    monkeypatch.setattr(sys, "argv", [str(program), str(image), *options])
    runpy.run_path(str(program), run_name="__main__")
    wanted = expected(image, SETTINGS[name])
    inputs, logits = np.load(files[1]), np.load(files[0])
    assert np.array_equal(inputs[0], wanted.transpose(1, 2, 0) if name == "uint8" else wanted)
    assert np.allclose(logits[0], wanted.mean((1, 2)), rtol=1e-5)
    powers = np.exp((logits[0] - logits[0].max()) / TEMPERATURE)
    assert capsys.readouterr().out == f"{image}: {logits[0].argmax()} {powers.max() / powers.sum():.4f}\n"


def test_probabilities_of_a_network_are_printed_as_they_are(tmp_path, monkeypatch, capsys):
    image = write_images(tmp_path)[0]
    model = write_network(tmp_path / "model.onnx", SETTINGS["default"], softmax=True)
    bundle(BundleRequest((model,), tmp_path / "b", code=("python", "cpp")))
    program = tmp_path / "b/code/python/classify.py"
    monkeypatch.setattr(sys, "argv", [str(program), str(image), "--runtime", "onnxruntime", "--logits", str(tmp_path / "o.npy")])
    runpy.run_path(str(program), run_name="__main__")
    printed = [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines()]
    assert printed == pytest.approx(sorted(np.load(tmp_path / "o.npy")[0], reverse=True), abs=1e-4)
    assert "false, false, true, 1.0f}" in (tmp_path / "b/code/cpp/bundle.hpp").read_text()


def test_programs_are_the_same_bytes_and_in_the_checksums(tmp_path):
    reports = [bundle(BundleRequest((write_network(tmp_path / "m.onnx", SETTINGS["default"]),), tmp_path / name, code=languages))
               for name, languages in (("a", ("python", "cpp")), ("b", ("cpp", "python")), ("c", ("python",)))]  # fmt: skip
    one, other, python = ({each.name for each in report.files if each.name.startswith("code/")} for report in reports)
    assert one == other > python == {"code/README.md", "code/python/classify.py"}
    assert reports[0].digest == reports[1].digest
    assert "code/cpp/openvino.cpp" in (tmp_path / "a/SHA256SUMS").read_text()


def test_programs_use_only_runtimes_that_the_bundle_has_a_model_for(tmp_path):
    used = SETTINGS["default"]
    both = write_network(tmp_path / "fp32.onnx", used)
    fast = write_network(tmp_path / "int8.onnx", used, backend="onnxruntime", precision="int8", details={"weight_bits": 8})
    bundle(BundleRequest((both, fast), tmp_path / "a", code=("python", "cpp")))
    program = runpy.run_path(str(tmp_path / "a/code/python/classify.py"))
    assert {name: Path(model["file"]).name for name, model in program["MODELS"].items()} == {
        "openvino": "fp32.onnx",
        "onnxruntime": "int8.onnx",
    }
    assert "x64quantprecision" in (tmp_path / "a/code/cpp/onnxruntime.cpp").read_text()
    bundle(BundleRequest((fast,), tmp_path / "b", code=("python", "cpp")))
    assert list(runpy.run_path(str(tmp_path / "b/code/python/classify.py"))["MODELS"]) == ["onnxruntime"]
    assert not (tmp_path / "b/code/cpp/openvino.cpp").exists()


def test_programs_know_every_field_of_a_preprocessing():
    known = {
        "image_size",
        "resize_size",
        "mean",
        "std",
        "resize",
        "interpolation",
        "pad",
        "pad_value",
        "channels",
        "scale",
        "exif",
    }
    assert {field.name for field in fields(Preprocessing)} - {"assumed"} == known
    assert {used.resize for used in SETTINGS.values()} == set(RESIZES)


def test_python_program_names_an_image_that_it_cannot_read(tmp_path, monkeypatch):
    program = bundled(tmp_path, "default") / "code/python/classify.py"
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    monkeypatch.setattr(sys, "argv", [str(program), "--runtime", "onnxruntime", str(tmp_path / "broken.png")])
    with pytest.raises(SystemExit, match=r"error: .*broken.png"):
        runpy.run_path(str(program), run_name="__main__")


NAMES = ["t-shirt / top", 'a "quoted" \\ name', "тапочки 😀", "what??/", "new\tline"]


def test_names_of_classes_stay_names(tmp_path):
    labels = tmp_path / "labels.txt"
    names = ['"quoted"', "тапочки", "back\\slash😀"]
    labels.write_text("\n".join(names) + "\n", encoding="utf-8")
    model = write_network(tmp_path / "model.onnx", SETTINGS["default"])
    bundle(BundleRequest((model,), tmp_path / "b", labels=labels, code=("python",)))
    assert runpy.run_path(str(tmp_path / "b/code/python/classify.py"))["CLASSES"] == names


@pytest.mark.parametrize("name", NAMES)
def test_text_of_cpp_has_the_same_bytes(name):
    literal = _c_text(name)
    assert literal.isascii()
    assert "?" not in literal
    assert literal[1:-1].encode().decode("unicode_escape").encode("latin-1").decode() == name


def test_what_no_program_can_run_is_refused(tmp_path, capsys):
    used = SETTINGS["default"]
    batch = write_network(tmp_path / "batch.onnx", used, batch=4)
    tensorrt = write_network(tmp_path / "trt.onnx", used, backend="tensorrt")
    opencv = write_network(tmp_path / "opencv.onnx", Preprocessing(24, interpolation="opencv-linear"))
    for model in (batch, tensorrt, opencv):
        with pytest.raises(BundleError, match="--code"):
            bundle(BundleRequest((model,), tmp_path / "b", code=("cpp",)))
    with pytest.raises(UnknownNameError):
        bundle(BundleRequest((batch,), tmp_path / "b", code=("rust",)))
    assert run(["bundle", str(batch), "-o", str(tmp_path / "b"), "--code", "python, cpp"]) == 2
    assert "4 images" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


def compiler() -> str:
    found = shutil.which("g++")
    if found is None:
        pytest.skip("g++ is not installed")
    return found


WARNINGS = ("-std=c++17", "-Wall", "-Wextra", "-Werror")


def test_cpp_program_compiles_in_its_parts_without_libraries(tmp_path):
    code = bundled(tmp_path, "default", ("cpp",)) / "code/cpp"
    subprocess.run([compiler(), *WARNINGS, "-fsyntax-only", code / "main.cpp"], check=True)


NO_NETWORK = """#include "network.hpp"
Network open_network(const std::string&, int) {
    return {OPENVINO_MODEL, [](const std::vector<float>&) { return std::vector<float>(CHANNELS); }};
}
"""


@pytest.mark.slow
def test_cpp_program_preprocesses_as_this_package_does(tmp_path):
    stb = next((folder for folder in ("/usr/include/stb", "/usr/local/include/stb") if Path(folder).is_dir()), None)
    if stb is None:
        pytest.skip("stb is not installed")
    images = write_images(tmp_path)
    exact = [path for path in images if path.suffix == ".png"]
    (tmp_path / "no_network.cpp").write_text(NO_NETWORK)
    for name, used in SETTINGS.items():
        folder = tmp_path / name
        folder.mkdir()
        code = bundled(folder, name, ("cpp",)) / "code/cpp"
        build = [compiler(), *WARNINGS, "-O1", "-ffp-contract=off", f"-I{code}", "-isystem", stb]
        reader = tmp_path / "image.o"  # the same for all settings
        if not reader.exists():
            subprocess.run([*build, "-c", code / "image.cpp", "-o", reader], check=True)
        sources = [code / "main.cpp", tmp_path / "no_network.cpp", reader]
        subprocess.run([*build, *sources, "-o", folder / "classify"], check=True)
        command = [folder / "classify", "--bundle", code, "--inputs", folder / "inputs.npy", *images]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        for path, made in zip(images, np.load(folder / "inputs.npy"), strict=True):
            wanted = expected(path, used)
            found = made.transpose(2, 0, 1) if name == "uint8" else made
            if path in exact:
                assert np.array_equal(found, wanted), (name, path.name)
            else:  # stb rounds otherwise than libjpeg
                step = 1 / (used.scale * min(used.std))
                assert np.abs(found - wanted).max() <= 4 * step, (name, path.name)
