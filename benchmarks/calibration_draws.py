"""Compare images drawn farthest first with random draws of equally many: the SQNR of INT8 logits on unseen images.

    python benchmarks/calibration_draws.py --images 25 50 --output draws.json

The bundled network, min-max ranges, corrected biases and nearest weights; ONNX Runtime simulates each backend's placement with
weights of 8 bits. Both kinds of draws are from the images that `calibrate --samples auto` may look at; farthest first looks at
twice as many as it draws. Biases are corrected on the same images for every draw. Each figure is written to --output at once;
after a stop, the same command continues from there.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from emca_deploy._machine import default_threads
from emca_deploy.artifacts import write_json
from emca_deploy.backends.registry import all_recipes, find_recipe
from emca_deploy.calibration.graphs.graph import canonical_graph
from emca_deploy.calibration.graphs.simulation import Simulation
from emca_deploy.calibration.graphs.weighted_layers import add_to_biases
from emca_deploy.calibration.placement.place import place, quantizable
from emca_deploy.calibration.placement.qdq import insert_qdq
from emca_deploy.calibration.placement.recipe import Recipe
from emca_deploy.calibration.ranges.collect import TensorPass, ends_of
from emca_deploy.calibration.ranges.drawing import AT_ONCE, AUTO, Drawer, Images
from emca_deploy.calibration.ranges.observers import TensorRange
from emca_deploy.calibration.recovery.bias_correction import BiasCorrection
from emca_deploy.data.bundled import BUNDLED_PREPROCESSING, bundled_calibration_images, bundled_checkpoint, bundled_test_images
from emca_deploy.data.sources import choose_indices, open_source
from emca_deploy.exporting.checkpoint import ExportOptions, export_checkpoint
from emca_deploy.tasks.logits import LogitsNoise

DRAWS = 20
BIAS_IMAGES = 32
FARTHEST = "farthest first"


class Subject:
    """The bundled network, the extremes of its tensors for each image, and unseen images with their fp32 logits."""

    def __init__(self, folder: Path, unseen: int, threads: int) -> None:
        """Run the network on the images."""
        model = folder / "model.onnx"
        export_checkpoint(bundled_checkpoint(), model, ExportOptions(preprocessing=BUNDLED_PREPROCESSING))
        self.model = canonical_graph(model, BUNDLED_PREPROCESSING, None).model
        self.source = open_source(bundled_calibration_images(), BUNDLED_PREPROCESSING)
        self.threads = threads
        self.indices = Images.of(self.source, AUTO, 0).looked_at
        self.names = quantizable(self.model.graph, all_recipes())
        work = TensorPass(self.model.clone(), self.names, threads, None, counts=False, single=True)
        digests = [found for found, _ in work.digests(self.source, self.indices)]
        self.extremes = np.array([[ends_of(digest) for digest in found] for found in digests])
        test = open_source(bundled_test_images(), BUNDLED_PREPROCESSING)
        self.unseen = Simulation(self.model.graph, test, choose_indices(len(test), unseen, test.labels), threads)
        self.reference = self.unseen.logits(self.model)

    def farthest(self, count: int) -> list[int]:
        """Return the positions of the images that are drawn among the first 2 * `count`."""
        drawer, found = Drawer(), list[int]()
        for start in range(0, 2 * count, AT_ONCE):
            end = min(start + AT_ONCE, 2 * count)
            found += [start + position for position in drawer.draw(self.extremes[start:end])]
        return found

    def sqnr_db(self, recipe: Recipe, drawn: Sequence[int]) -> tuple[float, float]:
        """Return the SQNR of all logits and the mean over images, in dB, with ranges of drawn images."""
        lows, highs = self.extremes[drawn, :, 0].min(axis=0), self.extremes[drawn, :, 1].max(axis=0)
        ranges = {name: TensorRange(*ends) for name, *ends in zip(self.names, lows.tolist(), highs.tolist(), strict=True)}

        def quantize(floating: ir.Model, ranges: Mapping[str, TensorRange] = ranges) -> object:
            return insert_qdq(floating, place(floating.graph, recipe), ranges)

        variant = self.model.clone()
        images = self.indices[:BIAS_IMAGES]
        add_to_biases(variant.graph, BiasCorrection(self.model, quantize, self.source, images, self.threads).shifts(quantize))
        quantize(variant)
        noise = LogitsNoise.of(self.reference, self.unseen.logits(variant))
        return float(noise.all_db or 0), noise.typical_db


def main() -> None:
    """Measure what is missing, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[25, 50], help="numbers of images to draw")
    parser.add_argument("--backend", nargs="+", default=["openvino", "tensorrt"], help="backends whose placement is simulated")
    parser.add_argument("--unseen", type=int, default=500, help="number of test images")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument(
        "--output", type=Path, default=Path("calibration-draws.json"), help="raw results; an existing file is continued"
    )
    args = parser.parse_args()
    found: dict[str, list[float]] = json.loads(args.output.read_text()) if args.output.is_file() else {}
    with tempfile.TemporaryDirectory() as folder:
        subject = Subject(Path(folder), args.unseen, args.threads)
    random = np.random.default_rng(0)
    for count in args.images:
        draws = {FARTHEST: subject.farthest(count)}
        draws |= {f"random {turn}": random.choice(len(subject.indices), count, replace=False).tolist() for turn in range(DRAWS)}
        for backend in args.backend:
            recipe = find_recipe(backend, 8 if find_recipe(backend).on_cpu else None)
            for name, drawn in draws.items():
                key = f"{backend}, {count} images, {args.unseen} unseen, {name}"
                if key not in found:
                    found[key] = list(subject.sqnr_db(recipe, drawn))
                    write_json(args.output, found)
            _show(
                f"{backend}, {count} images",
                [found[f"{backend}, {count} images, {args.unseen} unseen, {name}"] for name in draws],
            )


def _show(title: str, results: Sequence[Sequence[float]]) -> None:
    for index, what in enumerate(("all logits", "typical image")):
        farthest, *random = (result[index] for result in results)
        low, middle, high = np.quantile(random, [0, 0.5, 1])
        spread = f"random {low:.1f} to {high:.1f}, median {middle:.1f} dB"
        print(
            f"{title}, {what}: {spread}; {FARTHEST} {farthest:.1f} dB, less than {sum(r > farthest for r in random)} of {DRAWS}"
        )


if __name__ == "__main__":
    main()
