"""Measure what an input of plain pixels, `--input uint8-nhwc`, gains and costs against a normalized float32 input.

    python benchmarks/uint8_input.py                        # about ten minutes on an idle machine
    python benchmarks/uint8_input.py --rounds 60 --output result.json
    python benchmarks/uint8_input.py --only logits          # the logits alone; needs no idle machine

The logits are compared on the 2,000 bundled test images, in fp32 on both CPU backends. Calls are measured at 224x224 and batch 1
with random weights, in fp32 and in INT8, in one process: rounds of all kinds of calls in random order, and ratios within each
round. A call "from pixels" begins with an image as a decoder returns it, (H, W, C) uint8: numpy normalizes it for the float one.
"""

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np
import numpy.typing as npt

from emca_deploy._machine import default_threads
from emca_deploy.api.calibrate import CalibrateRequest, calibrate
from emca_deploy.api.export import ExportRequest, export
from emca_deploy.artifacts import write_json
from emca_deploy.backends.registry import open_runner
from emca_deploy.data.bundled import (
    BUNDLED_PREPROCESSING,
    bundled_calibration_images,
    bundled_checkpoint,
    bundled_test_images,
)
from emca_deploy.data.choosing import preprocessing_of_file
from emca_deploy.data.sources import open_source
from emca_deploy.preprocessing import Preprocessing, PreprocessingOptions

BACKENDS = ("onnxruntime", "openvino")
FORM = "uint8-nhwc"
CALLS = 5
"""Calls of one kind in a round; their median counts."""

CALIBRATION_IMAGES = 16
Call = Callable[[], Any]


def logits(folder: Path, threads: int) -> list[dict[str, Any]]:
    """Compare the logits of both inputs on all bundled test images."""
    files = {form: folder / f"{form}.onnx" for form in ("float", FORM)}
    for form, file in files.items():
        asked = None if form == "float" else form
        export(ExportRequest(bundled_checkpoint(), file, preprocessing=BUNDLED_PREPROCESSING, input_form=asked))
    rows = []
    for backend in BACKENDS:
        answers = []
        for file in files.values():
            source = open_source(bundled_test_images(), preprocessing_of_file(file, PreprocessingOptions()))
            with open_runner(backend, str(file), threads=threads) as runner:
                answers.append(np.concatenate([runner.infer(images).copy() for images, _ in source.batches(16)]))
        wanted, found = (answer.astype(np.float64) for answer in answers)
        rows.append({
            "backend": backend,
            "images": len(wanted),
            "same_class": int((wanted.argmax(1) == found.argmax(1)).sum()),
            "max_rel": float(np.abs(wanted - found).max() / np.abs(wanted).max()),
        })  # fmt: skip
        print(rows[-1], flush=True)
    return rows


def models(folder: Path, arch: str, threads: int) -> dict[tuple[str, str, bool], Path]:
    """Return files by backend, precision and whether they take pixels."""
    used = Preprocessing.for_size(224)
    floating = folder / "r.onnx"
    export(ExportRequest(None, floating, arch=arch, preprocessing=used, batch=1))
    pixels = folder / "r.pixels.onnx"
    export(ExportRequest(floating, pixels, input_form=FORM))
    found: dict[tuple[str, str, bool], Path] = {}
    for backend in BACKENDS:
        found[backend, "fp32", False], found[backend, "fp32", True] = floating, pixels
        for takes_pixels in (False, True):
            made = folder / f"r.{backend}.{takes_pixels}.onnx"
            form = FORM if takes_pixels else None
            request = CalibrateRequest(
                floating, bundled_calibration_images(), made, backend, samples=CALIBRATION_IMAGES, method="minmax",
                recover="none", threads=threads, input_form=form,
            )  # fmt: skip
            calibrate(request)
            found[backend, "int8", takes_pixels] = made
    return found


def measured(kinds: dict[str, Call], rounds: int) -> dict[str, npt.NDArray[np.float64]]:
    """Return the milliseconds of each kind of call, (rounds,)."""
    random = np.random.default_rng(0)
    times: dict[str, list[float]] = {name: [] for name in kinds}
    for call in kinds.values():
        for _ in range(CALLS):
            call()
    for _ in range(rounds):
        for name in random.permutation(list(kinds)):
            taken = []
            for _ in range(CALLS):
                start = perf_counter_ns()
                kinds[name]()
                taken.append(perf_counter_ns() - start)
            times[name].append(float(np.median(taken)) / 1e6)
    return {name: np.array(values) for name, values in times.items()}


def ratio(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> dict[str, float]:
    """Return the median of the ratios within rounds, and its 95 % interval from resampled rounds."""
    ratios = first / second
    draws = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
    low, high = np.percentile(np.median(draws, axis=1), (2.5, 97.5))
    return {"ratio": float(np.median(ratios)), "low": float(low), "high": float(high)}


def calls(folder: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Compare calls of both inputs, for each backend and precision."""
    image = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), np.uint8)
    used = Preprocessing.for_size(224)
    factor = (1 / (255 * np.array(used.std))).astype(np.float32)
    shift = (-np.array(used.mean) / np.array(used.std)).astype(np.float32)

    def normalized() -> npt.NDArray[np.float32]:
        return np.ascontiguousarray((image * factor + shift).transpose(0, 3, 1, 2), np.float32)

    files = models(folder, args.arch, args.threads)
    rows = []
    for backend in BACKENDS:
        for precision in ("fp32", "int8"):
            floating = open_runner(backend, str(files[backend, precision, False]), threads=args.threads)
            pixels = open_runner(backend, str(files[backend, precision, True]), threads=args.threads)
            with floating, pixels:
                ready = normalized()
                kinds: dict[str, Call] = {
                    "float": lambda one=floating, batch=ready: one.infer(batch),  # type: ignore[misc]
                    "float from pixels": lambda one=floating: one.infer(normalized()),  # type: ignore[misc]
                    "pixels": lambda one=pixels: one.infer(image),  # type: ignore[misc]
                }
                times = measured(kinds, args.rounds)
            rows.append({
                "backend": backend,
                "precision": precision,
                "median_ms": {name: round(float(np.median(values)), 3) for name, values in times.items()},
                "pixels_to_float": ratio(times["pixels"], times["float"]),
                "pixels_to_float_from_pixels": ratio(times["pixels"], times["float from pixels"]),
            })  # fmt: skip
            print(rows[-1], flush=True)
    return rows


def copies(rounds: int) -> dict[str, Any]:
    """Measure the copy of one image of each type to other memory, as to a device's buffer."""
    arrays = [np.zeros((1, 3, 224, 224), kind) for kind in (np.float32, np.uint8)]
    kinds: dict[str, Call] = {str(one.dtype): partial(np.copyto, one.copy(), one) for one in arrays}
    times = measured(kinds, rounds)
    found = {"bytes": {str(one.dtype): one.nbytes for one in arrays}, **ratio(times["float32"], times["uint8"])}
    print(found, flush=True)
    return found


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--only", choices=["logits", "calls"])
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    document: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        if args.only != "calls":
            document["logits"] = logits(Path(folder), args.threads)
        if args.only != "logits":
            document["copy"] = copies(args.rounds)
            document["calls"] = calls(Path(folder), args)
    if args.output is not None:
        write_json(args.output, document)


if __name__ == "__main__":
    main()
