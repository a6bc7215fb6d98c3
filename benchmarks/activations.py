"""Measure what activations cost in INT8 on each CPU backend, and other placements of their Q/DQ pairs on ONNX Runtime.

    python benchmarks/activations.py                          # all activations, about ten minutes
    python benchmarks/activations.py silu hardswish gelu

The networks are those of the tests (`tests/unit/calibration/random_networks.py`) at 112x112; ranges are minima and maxima. Times
are processor time on one thread, the minimum over several rounds: other work on the machine changes them little. Activations that
run in INT8 because they are between a DQ and a Q (HardSigmoid, LeakyReLU) do so in both columns of ONNX Runtime.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import openvino

sys.path.append(str(Path(__file__).parents[1] / "tests" / "unit" / "calibration"))
from random_networks import ACTIVATIONS, network, pictures

from emca_deploy.backends.registry import all_recipes, find_recipe
from emca_deploy.calibration.graphs.graph import load_graph
from emca_deploy.calibration.placement import place as placing
from emca_deploy.calibration.placement.qdq import insert_qdq
from emca_deploy.calibration.ranges.collect import collect_observations
from emca_deploy.calibration.ranges.methods.registry import parse_method
from emca_deploy.preprocessing import Preprocessing

SIZE, ROUNDS, CALLS = 112, 12, 4
NETWORKS = {"residual": (["residual"] * 3, 64), "inverted": (["inverted"] * 3, 32)}
Run = Callable[[np.ndarray], np.ndarray]


class Pictures:
    """Images in memory, in the form that calibration reads."""

    labels = None
    preprocessing = Preprocessing.for_size(SIZE)

    def __init__(self, images: np.ndarray) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def item_name(self, index: int) -> str:
        """Return the name of an image in errors."""
        return f"picture {index}"

    def batches(self, size: int, indices: "list[int] | None" = None):
        """Yield batches (N, 3, H, W) float32, and no labels."""
        order = list(range(len(self.images)) if indices is None else indices)
        for start in range(0, len(order), size):
            yield self.images[order[start : start + size]], None


def on_onnxruntime(path: Path) -> Run:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images})[0]


def on_openvino(path: Path) -> Run:
    core = openvino.Core()
    model = core.read_model(path)
    model.reshape([1, 3, SIZE, SIZE])
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1})
    return lambda images: compiled(images)[0]


def quantized(path: Path, backend: str, output: Path) -> Path:
    model = load_graph(path)
    source = Pictures(pictures(8, SIZE))
    names = placing.quantizable(model.graph, all_recipes())
    seen = collect_observations(model, names, source, range(len(source)), 1, None, parse_method("minmax"))
    recipe = find_recipe(backend)
    insert_qdq(
        model, placing.place(model.graph, recipe), {name: parse_method("minmax").range_of(one) for name, one in seen.items()}
    )
    for rewrite in recipe.rewrites:
        rewrite(model.graph)
    ir.save(model, output)
    return output


def variants(path: Path, folder: Path) -> dict[str, Run]:
    """Return the timed models by name."""
    found = {"ORT fp32": on_onnxruntime(path), "OV fp32": on_openvino(path)}
    found["ORT INT8"] = on_onnxruntime(quantized(path, "onnxruntime", folder / "int8.onnx"))
    looked_up = placing.LOOKED_UP
    placing.LOOKED_UP = frozenset()  # every activation stays in float between DQ and Q
    try:
        found["ORT, float between"] = on_onnxruntime(quantized(path, "onnxruntime", folder / "between.onnx"))
    finally:
        placing.LOOKED_UP = looked_up
    found["OV INT8"] = on_openvino(quantized(path, "openvino", folder / "fused.onnx"))
    return found


def sqnr_db(expected: np.ndarray, found: np.ndarray) -> float:
    return float(10 * np.log10((expected**2).sum() / max(float(((expected - found) ** 2).sum()), 1e-30)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("activations", nargs="*", default=ACTIVATIONS)
    options = parser.parse_args()
    image, unseen = pictures(1, SIZE), pictures(16, SIZE, seed=9)
    for name, (blocks, channels) in NETWORKS.items():
        for act in options.activations:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "float.onnx"
                onnx.save(network(blocks, act, "gemm", channels=channels, size=SIZE)[0], path)
                runs = variants(path, Path(folder))
                best = dict.fromkeys(runs, np.inf)
                for _ in range(ROUNDS):
                    for label, run in runs.items():
                        start = time.process_time()
                        for _ in range(CALLS):
                            run(image)
                        best[label] = min(best[label], 1000 * (time.process_time() - start) / CALLS)
                logits = {label: np.concatenate([run(one[None]) for one in unseen]) for label, run in runs.items()}
            cells = [f"{label} {best[label]:.2f} ms, {sqnr_db(logits['ORT fp32'], logits[label]):.1f} dB" for label in runs]
            print(f"{name} {act}: {'; '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
