"""The programs of a bundle, built with the real libraries, agree with `validate` image by image."""

import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest

from emca_deploy.api.bundle import BundleRequest, bundle
from emca_deploy.backends.registry import open_runner
from emca_deploy.data.bundled import BUNDLED_PREPROCESSING, bundled_test_images
from emca_deploy.data.preprocess import decode, normalize, to_pixels

pytestmark = pytest.mark.slow
IMAGES = 40
CROSS = ("aarch64-linux-gnu-g++", "qemu-aarch64")
CORES_WITHOUT_SVE = "cortex-a72"  # with SVE, as qemu 7.2 emulates it, OpenVINO 2026.4 returns other logits


@pytest.fixture(scope="module")
def given(tmp_path_factory, bundled_model):
    """The folder of a bundle, and files of images."""
    folder = tmp_path_factory.mktemp("programs")
    bundle(BundleRequest((bundled_model(folder),), folder / "bundle", code=("python", "cpp")))
    with ZipFile(bundled_test_images()) as archive:
        names = [name for name in archive.namelist() if name.endswith(".png")]
        images = [Path(archive.extract(name, folder)) for name in names[:: len(names) // IMAGES][:IMAGES]]
    return folder / "bundle", images


def expected(runtime: str, model: Path, images: list[Path]) -> np.ndarray:
    logits = []
    with open_runner(runtime, str(model), threads=1) as runner:
        for path in images:
            with path.open("rb") as stream:
                pixels = to_pixels(decode(stream, path.name), BUNDLED_PREPROCESSING)
            logits.append(runner.infer(normalize(pixels, BUNDLED_PREPROCESSING)[None])[0].copy())
    return np.array(logits)


def compare(command: list, runtime: str, given: tuple[Path, list[Path]], tmp_path: Path) -> None:
    folder, images = given
    written = tmp_path / "logits.npy"
    done = subprocess.run(
        [*map(str, [*command, "--top", 1, "--threads", 1, "--logits", written, *images])],
        check=True,
        capture_output=True,
        text=True,
    )
    found, wanted = np.load(written), expected(runtime, next(folder.glob("variants/*/model.onnx")), images)
    assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()
    assert [line.split()[-2] for line in done.stdout.splitlines()] == [str(index) for index in wanted.argmax(1)]


def build(code: Path, folder: Path, *options: str) -> Path:
    if shutil.which("cmake") is None or not Path("/usr/include/stb/stb_image.h").exists():
        pytest.skip("CMake or stb is not installed: apt install cmake libstb-dev")
    subprocess.run(["cmake", "-S", code, "-B", folder, *options], check=True, capture_output=True)
    subprocess.run(["cmake", "--build", folder], check=True, capture_output=True)
    return folder / "classify"


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_python_program(given, runtime, tmp_path):
    folder, _ = given
    compare([sys.executable, "-I", folder / "code/python/classify.py", "--runtime", runtime], runtime, given, tmp_path)


def test_cpp_program_with_openvino(given, tmp_path):
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    helpers = pytest.importorskip("openvino.utils")
    folder, images = given
    program = build(folder / "code/cpp", tmp_path / "build", "-DRUNTIME=openvino", f"-DOpenVINO_DIR={helpers.get_cmake_path()}")
    compare([program, "--bundle", folder], "openvino", given, tmp_path)
    broken = tmp_path / "broken.png"
    broken.write_bytes(images[0].read_bytes()[:100])
    for arguments, code in (([broken], 1), ([], 2), (["--top", "many", images[0]], 2)):
        done = subprocess.run([program, "--bundle", folder, *arguments], check=False, capture_output=True, text=True)
        assert (done.returncode, done.stderr.startswith("error: ")) == (code, True)


def test_cpp_program_with_onnx_runtime(given, tmp_path):
    root = os.environ.get("ORT_ROOT")
    if root is None:
        pytest.skip("ORT_ROOT does not name a release of ONNX Runtime with include and lib, so this program has not been run")
    folder, _ = given
    program = build(folder / "code/cpp", tmp_path / "build", "-DRUNTIME=onnxruntime", f"-DORT_ROOT={root}")
    compare([program, "--bundle", folder], "onnxruntime", given, tmp_path)


@pytest.fixture(scope="module")
def openvino_for_aarch64(tmp_path_factory):
    """Return the folder of OpenVINO's Python package for aarch64."""
    missing = [name for name in CROSS if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: apt install g++-aarch64-linux-gnu qemu-user")
    folder = tmp_path_factory.mktemp("aarch64")
    platforms = [option for each in ("manylinux_2_31", "manylinux_2_35") for option in ("--platform", f"{each}_aarch64")]
    options = ["--quiet", "--no-deps", "--only-binary", ":all:", *platforms, "--dest", folder]
    command = [sys.executable, "-m", "pip", "download", *options, f"openvino=={version('openvino')}"]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("OpenVINO for aarch64 cannot be downloaded")
    with ZipFile(next(folder.glob("*.whl"))) as archive:
        archive.extractall(folder)
    return folder / "openvino"


def test_cpp_program_for_aarch64(given, openvino_for_aarch64, tmp_path):
    folder, images = given
    program = build(
        folder / "code/cpp",
        tmp_path / "build",
        "-DCMAKE_SYSTEM_NAME=Linux",
        "-DCMAKE_SYSTEM_PROCESSOR=aarch64",
        f"-DCMAKE_CXX_COMPILER={CROSS[0]}",
        "-DSTB_INCLUDE=/usr/include/stb",
        f"-DOpenVINO_DIR={openvino_for_aarch64 / 'cmake'}",
    )
    emulator = [CROSS[1], "-cpu", CORES_WITHOUT_SVE, "-L", "/usr/aarch64-linux-gnu"]
    compare([*emulator, program, "--bundle", folder], "openvino", (folder, images[:4]), tmp_path)
