"""Compare the programs of `bundle --code python,cpp` with `validate` on the 2,000 bundled test images, which are PNG files.

    python benchmarks/bundle_code.py                        # Python with both runtimes, and C++ with OpenVINO
    python benchmarks/bundle_code.py --ort-root DIR         # C++ with ONNX Runtime too: DIR has include and lib
    python benchmarks/bundle_code.py --output result.json

The models are the bundled network in fp32 and in INT8 for each runtime. The programs run on JPEG files (quality 90) of the images
too, to count the classes that the decoder of stb changes. Needs CMake, g++ and libstb-dev.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
from openvino.utils import get_cmake_path
from PIL import Image

from emca_deploy.api.bundle import BundleRequest, bundle
from emca_deploy.api.calibrate import CalibrateRequest, calibrate
from emca_deploy.api.export import ExportRequest, export
from emca_deploy.api.validate import ValidateRequest, validate
from emca_deploy.artifacts import write_json
from emca_deploy.data.bundled import (
    BUNDLED_PREPROCESSING,
    bundled_calibration_images,
    bundled_checkpoint,
    bundled_test_images,
)
from emca_deploy.npz import read_arrays

RUNTIMES = ("openvino", "onnxruntime")
CALIBRATION_IMAGES = 64
INPUTS = {"float": None, "uint8": "uint8-nhwc"}
"""Inputs of the models: normalized, or pixels that the graph normalizes."""


def made(folder: Path, threads: int) -> dict[tuple[str, str, str], tuple[Path, Path]]:
    """Return a bundle and the model of each runtime in it, by runtime, precision and input."""
    found = {}
    for name, form in INPUTS.items():
        floating = folder / f"{name}.onnx"
        request = ExportRequest(bundled_checkpoint(), floating, preprocessing=BUNDLED_PREPROCESSING, input_form=form)
        export(request)
        bundle(BundleRequest((floating,), folder / f"{name}-fp32", code=("python", "cpp")))
        for runtime in RUNTIMES:
            found[runtime, "fp32", name] = folder / f"{name}-fp32", floating
    quantized = []
    export(ExportRequest(bundled_checkpoint(), folder / "source.onnx", preprocessing=BUNDLED_PREPROCESSING))
    for runtime in RUNTIMES:
        quantized.append(folder / f"int8.{runtime}.onnx")
        asked = CalibrateRequest(
            folder / "source.onnx", bundled_calibration_images(), quantized[-1], runtime, samples=CALIBRATION_IMAGES,
            method="minmax", recover="none", threads=threads,
        )  # fmt: skip
        calibrate(asked)
    bundle(BundleRequest(tuple(quantized), folder / "int8", code=("python", "cpp")))
    for runtime, model in zip(RUNTIMES, quantized, strict=True):
        found[runtime, "int8", "float"] = folder / "int8", model
    return found


def built(code: Path, folder: Path, runtime: str, ort_root: Path | None) -> Path:
    """Return the C++ program for a runtime."""
    options = [f"-DRUNTIME={runtime}", f"-DOpenVINO_DIR={get_cmake_path()}", f"-DORT_ROOT={ort_root}"]
    subprocess.run(["cmake", "-S", code, "-B", folder, *options], check=True, capture_output=True)
    subprocess.run(["cmake", "--build", folder], check=True, capture_output=True)
    return folder / "classify"


def logits_of(command: list[Any], images: list[Path], threads: int, folder: Path) -> Any:
    """Return what a program computes for all images, (images, classes) float32."""
    written = folder / "logits.npy"
    words = [*map(str, [*command, "--threads", threads, "--top", 1, "--logits", written])]
    subprocess.run([*words, *map(str, images)], check=True, stdout=subprocess.DEVNULL)
    return np.load(written)


def compared(folder: Path, threads: int, ort_root: Path | None) -> list[dict[str, Any]]:
    """Return one row for each model and program."""
    with ZipFile(bundled_test_images()) as archive:
        archive.extractall(folder / "png")
    for path in (folder / "png").glob("*/*.png"):
        Image.open(path).convert("RGB").save(path.with_suffix(".jpg"), quality=90)
    rows = []
    for (runtime, precision, form), (place, model) in made(folder, threads).items():
        store = folder / f"{runtime}-{precision}-{form}.npz"
        validate(ValidateRequest(str(model), bundled_test_images(), runtime, threads=threads, logits=store))
        answers = read_arrays(store)
        wanted, images = answers["logits"], [folder / "png" / name for name in answers["files"].tolist()]
        pictures = [path.with_suffix(".jpg") for path in images]
        programs: dict[str, list[Any]] = {
            "python": [sys.executable, "-I", place / "code/python/classify.py", "--runtime", runtime]
        }
        if runtime == "openvino" or ort_root is not None:
            program = built(place / "code/cpp", folder / f"build-{runtime}-{precision}-{form}", runtime, ort_root)
            programs["cpp"] = [program, "--bundle", place]
        jpeg = {name: logits_of(command, pictures, threads, folder) for name, command in programs.items()}
        for name, command in programs.items():
            found = logits_of(command, images, threads, folder)
            rows.append({
                "runtime": runtime,
                "precision": precision,
                "input": form,
                "program": name,
                "images": len(found),
                "other_class": int((found.argmax(1) != wanted.argmax(1)).sum()),
                "max_rel": float(np.abs(found - wanted).max() / np.abs(wanted).max()),
                "jpeg_other_class_than_python": int((jpeg[name].argmax(1) != jpeg["python"].argmax(1)).sum()),
                "jpeg_max_rel_to_python": float(np.abs(jpeg[name] - jpeg["python"]).max() / np.abs(wanted).max()),
            })  # fmt: skip
            print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--ort-root", type=Path)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = compared(Path(folder), args.threads, args.ort_root)
    if args.output is not None:
        write_json(args.output, {"rows": rows})


if __name__ == "__main__":
    main()
