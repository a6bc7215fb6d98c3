"""Compare what `calibrate --method auto` and `--samples auto` choose with each method alone, on unseen test images.

    python benchmarks/calibration_choice.py bundled@64 seed1.safetensors@64 families/resnet18.safetensors@48

Each network is named by its checkpoint and image size. It is exported by torch.onnx.export without this package's metadata, and
calibrated for each placement with each of `VARIANTS`. ONNX Runtime computes the INT8 models as ONNX defines them, with 8-bit
weights, and each row of --output compares their logits with fp32's. After a stop, the same command continues.
"""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from shutil import copyfile
from typing import Any

import numpy as np
import onnx_ir as ir
from exported_files import write
from peers.subjects import FASHION_MNIST, calibration_images, test_images

from emca_deploy._machine import default_threads
from emca_deploy.arrays import Float32Array
from emca_deploy.artifacts import sha256_file
from emca_deploy.backends.registry import all_recipes, find_recipe
from emca_deploy.calibration.calibrate import calibrate_model
from emca_deploy.calibration.choice import CANDIDATES
from emca_deploy.calibration.graphs.graph import load_graph
from emca_deploy.calibration.graphs.simulation import Simulation
from emca_deploy.calibration.options import CalibrationOptions
from emca_deploy.data.bundled import BUNDLED_PREPROCESSING, bundled_checkpoint
from emca_deploy.data.sources import choose_indices, open_source
from emca_deploy.preprocessing import Preprocessing
from emca_deploy.tasks.logits import LogitsNoise, predicted

BACKENDS = ("openvino", "onnxruntime", "tensorrt")
AUTO = "auto"
VARIANTS: tuple[tuple[str, str | int], ...] = ((AUTO, 300), *((method, 300) for method in CANDIDATES), (AUTO, AUTO))
"""The method and number of images of each calibration."""

CLOSE_DB = 0.2
"""Most decibels that a good choice is below the best one."""


class Network:
    """One network, its plain export, and unseen images with their fp32 logits."""

    def __init__(self, name: str, args: argparse.Namespace) -> None:
        """Export "CHECKPOINT@SIZE" and prepare the images."""
        checkpoint, _, size = name.rpartition("@")
        path = bundled_checkpoint() if checkpoint == "bundled" else Path(checkpoint)
        self.name, self._threads = f"{path.stem}@{size}", args.threads
        self._preprocessing = Preprocessing(int(size), int(size), BUNDLED_PREPROCESSING.mean, BUNDLED_PREPROCESSING.std)
        self._models = {samples: args.work / self.name / str(samples) / "model.onnx" for _, samples in VARIANTS}
        plain = args.work / self.name / "plain.onnx"
        for model in self._models.values():  # one each, so that each keeps its own table of ranges
            if not model.is_file():
                model.parent.mkdir(parents=True, exist_ok=True)
                if not plain.is_file():
                    write(path, "new", plain, self._preprocessing)
                copyfile(plain, model)
        self._known = open_source(calibration_images(), self._preprocessing)
        tests = open_source(test_images(args.data, args.work).path, self._preprocessing)
        graph = load_graph(self._models[AUTO], self._preprocessing)
        unseen = choose_indices(len(tests), args.unseen, tests.labels)
        self._simulation = Simulation(graph.graph, tests, unseen, args.threads)
        self._reference = self._simulation.logits(graph)
        self._logits: dict[str, Float32Array] = {}

    def measure(self, backend: str, method: str, samples: str | int) -> dict[str, Any]:
        """Calibrate, and return the figures on the unseen images."""
        model = self._models[samples]
        output = model.with_name(f"{backend}.{method.replace(':', '')}.onnx")
        options = CalibrationOptions(find_recipe(backend, 8), all_recipes(), self._threads, method=method, samples=samples)
        begun = time.process_time()
        made = calibrate_model(model, self._known, output, options)
        seconds = time.process_time() - begun
        file = sha256_file(output)
        if file not in self._logits:  # the same as that of the chosen method alone
            self._logits[file] = self._simulation.logits(ir.load(output))
        noise = LogitsNoise.of(self._reference, self._logits[file])
        changed = np.flatnonzero(predicted(self._reference) != predicted(self._logits[file]))
        ordered = np.sort(self._reference[changed], axis=1)
        return {
            "network": self.name,
            "backend": backend,
            "method": method,
            "samples": samples,
            "chosen": made.method,
            "biases": bool(made.choice.shifts),
            "images": made.samples,
            "looked_at": made.drawing.looked_at if made.drawing else made.samples,
            "sqnr_db": noise.all_db,
            "typical_db": noise.typical_db,
            "kept_out_db": made.choice.sqnr_db,
            "changed": len(changed),
            "of": len(self._reference),
            "changed_margins": [round(float(margin), 3) for margin in ordered[:, -1] - ordered[:, -2]],
            "median_margin": round(float(np.median(np.diff(np.sort(self._reference, axis=1)[:, -2:], axis=1))), 3),
            "processor_s": round(seconds, 1),
        }


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print a line for each network and placement, and how often the choice is close to the best."""
    pairs: dict[tuple[str, str], dict[tuple[str, str | int], dict[str, Any]]] = defaultdict(dict)
    for row in rows:
        pairs[row["network"], row["backend"]][row["method"], row["samples"]] = row
    complete = {pair: found for pair, found in pairs.items() if len(found) == len(VARIANTS)}
    good, losses = 0, []
    for (network, backend), found in complete.items():
        best = max(found[method, 300]["sqnr_db"] for method in CANDIDATES)
        auto, few = found[AUTO, 300], found[AUTO, AUTO]
        good += best - auto["sqnr_db"] <= CLOSE_DB
        losses.append(auto["sqnr_db"] - few["sqnr_db"])
        cells = [f"{found[method, 300]['sqnr_db']:.2f} ({found[method, 300]['typical_db']:.2f})" for method in CANDIDATES]
        same = 100 * (1 - auto["changed"] / auto["of"])
        cells += [f"{auto['chosen']} {auto['sqnr_db']:.2f}", f"{same:.2f}"]
        cells += [f"{few['chosen']} {few['sqnr_db']:.2f} ({few['images']} of {few['looked_at']})"]
        print(f"| {network}, {backend} | {' | '.join(cells)} |")
    if complete:
        print(f"best or within {CLOSE_DB} dB of it: {good} of {len(complete)}; --samples auto loses at most {max(losses):.2f} dB")


def main() -> None:
    """Measure what the results file lacks, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("networks", nargs="+", metavar="CHECKPOINT@SIZE", help='checkpoint and image size, such as "bundled@64"')
    add("--backend", action="append", choices=BACKENDS, help="placement; may be repeated; default all")
    add("--unseen", type=int, default=5000, help="number of test images")
    add("--threads", type=int, default=default_threads())
    add("--data", type=Path, default=FASHION_MNIST, help="folder of Fashion-MNIST's idx files")
    add("--work", type=Path, default=Path("calibration-choice"), help="folder of exports, range tables and INT8 models")
    add("--output", type=Path, default=Path("calibration-choice.jsonl"), help="raw results; an existing file is continued")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in args.output.read_text().splitlines()] if args.output.is_file() else []
    done = {(row["network"], row["backend"], row["method"], row["samples"]) for row in rows}
    for name in args.networks:
        network = Network(name, args)
        for method, samples in VARIANTS:
            for backend in args.backend or BACKENDS:
                if (network.name, backend, method, samples) in done:
                    continue
                rows.append(network.measure(backend, method, samples))
                with args.output.open("a") as stream:
                    stream.write(json.dumps(rows[-1]) + "\n")
    show(rows)


if __name__ == "__main__":
    main()
