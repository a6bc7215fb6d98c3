r"""Compare an INT8 file's logits between processors; each run needs only numpy and the runtime, so that it also works under qemu.

    python benchmarks/processors.py images images.npy
    python benchmarks/processors.py run onnxruntime model.int8.onnx images.npy vnni.npy
    qemu-x86_64 -cpu Haswell python benchmarks/processors.py run onnxruntime model.int8.onnx images.npy avx2.npy
    QEMU_CPU=cortex-a76 qemu-aarch64 -L ROOT ROOT/usr/bin/python3 benchmarks/processors.py run onnxruntime model.int8.onnx \
        images.npy arm.npy
    python benchmarks/processors.py compare vnni.npy avx2.npy

ROOT is an aarch64 system, for example of `debootstrap --foreign --arch=arm64`, with the runtime's aarch64 wheel in PYTHONPATH.
"""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

EVERY = 40
"""One of so many of the 2,000 bundled test images is taken, which are sorted by class."""


def save_images(path: str) -> None:
    """Write the preprocessed images (50, 3, 64, 64) float32."""
    from emca_deploy.data.bundled import BUNDLED_PREPROCESSING, bundled_test_images
    from emca_deploy.data.sources import open_source
    from emca_deploy.preprocessing import Preprocessing

    source = open_source(bundled_test_images(), Preprocessing(64, 64, BUNDLED_PREPROCESSING.mean, BUNDLED_PREPROCESSING.std))
    np.save(path, np.concatenate([np.asarray(images) for images, _ in source.batches(1, range(0, len(source), EVERY))]))


def opened(runtime: str, model: str) -> Callable[[Any], Any]:
    """Return a function that runs a batch on one thread."""
    if runtime == "onnxruntime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return lambda batch: session.run(None, {name: batch})[0]
    import openvino

    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1})
    return lambda batch: compiled(batch)[0]


def run(runtime: str, model: str, images: str, output: str) -> None:
    infer, given = opened(runtime, model), np.load(images)
    np.save(output, np.concatenate([infer(given[index : index + 1]) for index in range(len(given))]))


def compare(first: str, second: str) -> None:
    one, other = np.load(first), np.load(second)
    noise = float(((one - other) ** 2).sum())
    equal, same = (one == other).all(axis=1).sum(), (one.argmax(axis=1) == other.argmax(axis=1)).sum()
    decibels = 10 * np.log10((one**2).sum() / noise) if noise else np.inf
    print(f"{equal} of {len(one)} images bit-equal, {same} in the same class, {decibels:.1f} dB")


if __name__ == "__main__":
    {"images": save_images, "run": run, "compare": compare}[sys.argv[1]](*sys.argv[2:])
