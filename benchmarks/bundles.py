"""Measure bundles: the same classes in every runtime, throughput beside `validate`, and the time to the first answer.

    python benchmarks/bundles.py classes   # 2,000 images through `run`, ONNX Runtime's ModelPackage and OpenVINO
    python benchmarks/bundles.py speed     # `run` beside `validate`, in turn; needs an idle machine
    python benchmarks/bundles.py first     # processes from start to the first answer; needs an idle machine

The network is the bundled one, and for `first` an `emca_eca_resnet18` at 224x224 with random weights.
"""

import argparse
import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from emca_deploy.api.build import build
from emca_deploy.api.bundle import BundleRequest, bundle
from emca_deploy.api.calibrate import CalibrateRequest, calibrate
from emca_deploy.api.export import ExportRequest, export
from emca_deploy.api.load_bundle import BATCH, load_bundle
from emca_deploy.api.validate import ValidateRequest, validate
from emca_deploy.data.bundled import (
    BUNDLED_PREPROCESSING,
    bundled_calibration_images,
    bundled_checkpoint,
    bundled_test_images,
)
from emca_deploy.data.given import GivenImages, images_in
from emca_deploy.preprocessing import PreprocessingOptions
from emca_deploy.requests import BuildRequest

Classes = npt.NDArray[np.int64]
ROUNDS = 5


def bundled_model(folder: Path) -> Path:
    """Export the bundled network and return the file."""
    export(ExportRequest(bundled_checkpoint(), folder / "model.onnx", preprocessing=BUNDLED_PREPROCESSING))
    return folder / "model.onnx"


def images(folder: Path) -> Path:
    """Unpack the 2,000 bundled test images and return their folder."""
    with zipfile.ZipFile(bundled_test_images()) as archive:
        archive.extractall(folder / "images")
    return folder / "images"


def classes(folder: Path) -> None:
    """Compare the classes of one model of a bundle in every runtime, and the bytes of two bundles."""
    model, data = bundled_model(folder), images(folder)
    for output in ("a.emca", "b.emca", "unpacked"):
        bundle(BundleRequest((model,), folder / output, licence="Apache-2.0"))
    digests = [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("a.emca", "b.emca")]
    print(f"two bundles of the same inputs: the same sha256: {digests[0] == digests[1]}")
    with load_bundle(folder / "a.emca") as ours:
        paths, variant, used = images_in(data), ours.variant, ours.preprocessing
        own = ours(paths).classes
    file = folder / "unpacked/variants" / variant / "model.onnx"
    pixels = np.concatenate([batch for batch, _ in GivenImages(paths, used).batches(50)])
    for name, infer in {"ModelPackage": model_package(folder / "unpacked"), "OpenVINO": openvino(file)}.items():
        found = np.concatenate([infer(pixels[start : start + 50]).argmax(axis=1) for start in range(0, len(pixels), 50)])
        print(f"{name}: {int((found == own).sum()):,} of {len(own):,} images have the class of `run` ({variant})")


def model_package(folder: Path) -> Callable[[Any], Any]:
    """Return the model that ONNX Runtime chooses from an unpacked bundle."""
    import onnxruntime

    context = onnxruntime.ModelPackageContext(str(folder))
    chosen = context.select_component("model", onnxruntime.ModelPackageOptions(onnxruntime.SessionOptions()))
    session = chosen.create_session()
    name = session.get_inputs()[0].name
    return lambda batch: session.run(None, {name: batch})[0]


def openvino(path: Path) -> Callable[[Any], Any]:
    """Return a model that OpenVINO reads."""
    import openvino as ov

    core = ov.Core()
    compiled = core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda batch: compiled(batch)[0]


def speed(folder: Path) -> None:
    """Compare the images per second of `run`, lines of text included, with those of `validate`, round by round."""
    model, data = bundled_model(folder), images(folder)
    engine = folder / "model.ov"
    build(BuildRequest(str(int8(model, "openvino")), "openvino", str(engine)))
    for artifact in (model, engine):
        packed = folder / f"{artifact.name}.emca"
        bundle(BundleRequest((artifact,), packed, licence="Apache-2.0"))
        ratios = []
        for _ in range(ROUNDS):
            ours, theirs = lines_per_s(packed, data), validate(ValidateRequest(str(artifact), data)).accuracy.images_per_s
            ratios.append(ours / theirs)
            print(f"{artifact.name}: run {ours:.0f}, validate {theirs:.0f} images/s: {ratios[-1]:.3f}")
        print(f"{artifact.name}: median {statistics.median(ratios):.3f}")


def lines_per_s(packed: Path, data: Path) -> float:
    """Return the lines per second that a process of `run` prints after its first batch."""
    command = [sys.executable, "-m", "emca_deploy", "--quiet", "run", str(packed), str(data)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        times = [perf_counter() for _ in child.stdout]
    return (len(times) - BATCH) / (times[-1] - times[BATCH - 1])


def int8(model: Path, backend: str) -> Path:
    """Calibrate a model with few images and return the INT8 file."""
    output = model.with_name(f"{model.stem}.{backend}.int8.onnx")
    calibrate(CalibrateRequest(model, bundled_calibration_images(), output, backend, samples=32, method="minmax", recover="none"))
    return output


def first(folder: Path) -> None:
    """Measure processes that answer for one image: wall-clock and processor seconds."""
    model = folder / "r18.onnx"
    said = PreprocessingOptions(image_size=224)
    export(ExportRequest(None, model, preprocessing=said, arch="emca_eca_resnet18"))
    quantized = int8(model, "openvino")
    build(BuildRequest(str(quantized), "openvino", str(folder / "int8.ov")))
    image = next(iter(images_in(images(folder))))
    for artifact in (model, quantized, folder / "int8.ov"):
        packed = folder / f"{artifact.name}.emca"
        bundle(BundleRequest((artifact,), packed, licence="Apache-2.0"))
        found = [process(packed, image) for _ in range(ROUNDS)]
        wall, used = (sorted(each) for each in zip(*found, strict=True))
        print(
            f"{artifact.name}: first answer after {wall[0]:.2f} to {wall[-1]:.2f} s; {used[ROUNDS // 2]:.2f} s of processor time"
        )


def process(packed: Path, image: Path) -> tuple[float, float]:
    """Return wall-clock and processor seconds of one run."""
    start = perf_counter()
    child = subprocess.Popen(
        [sys.executable, "-m", "emca_deploy", "--quiet", "run", str(packed), str(image)], stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0
    return perf_counter() - start, usage.ru_utime + usage.ru_stime


PARTS = {"classes": classes, "speed": speed, "first": first}


def main() -> None:
    """Measure the parts that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=list(PARTS))
    for name in parser.parse_args().parts:
        with tempfile.TemporaryDirectory() as folder:
            PARTS[name](Path(folder))


if __name__ == "__main__":
    main()
