"""Compare `--recover finetune` with `--recover weights` on trained networks and unseen test images, both simulated.

    python benchmarks/finetuning.py --checkpoints benchmarks/families --arch srm_resnet18 --backend tensorrt

The logits are those of the Q/DQ model by ONNX's definition, without a runtime's kernels. Results are written at once; after a
stop, the same command continues.
"""

import argparse
import json
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx_ir as ir
from peers.subjects import FASHION_MNIST, Subject, calibration_images, test_images, trained_subjects

from emca_deploy._machine import cpu_info, default_threads
from emca_deploy.api.calibrate import CalibrateReport, CalibrateRequest, calibrate
from emca_deploy.artifacts import write_json
from emca_deploy.calibration.graphs.graph import load_graph
from emca_deploy.calibration.graphs.simulation import Simulation
from emca_deploy.data.sources import choose_indices, open_source
from emca_deploy.tasks.classification import compare
from emca_deploy.tasks.logits import LogitsNoise

LEVELS = ("weights", "finetune")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--checkpoints", type=Path, help="folder of train_families.py; default the bundled network alone")
    add("--arch", action="append", default=[], help="only this architecture; may be repeated")
    add("--backend", action="append", help="placement; may be repeated; default tensorrt")
    add("--weight-bits", type=int, choices=(7, 8), help="bits of weights on processors")
    add("--method", default="auto", help="calibration method")
    add("--image-size", type=int, default=48, help="image size of the folder's networks in pixels")
    add("--images", type=int, default=300, help="number of calibration images")
    add("--limit", type=int, default=2000, help="number of test images")
    add("--budget", type=float, default=240.0, help="seconds of fine-tuning")
    add("--threads", type=int, default=default_threads())
    add("--data", type=Path, default=FASHION_MNIST, help="folder of Fashion-MNIST's idx files")
    add("--output", type=Path, default=Path("finetuning.json"), help="raw results; an existing file is continued")
    return parser.parse_args()


class _Comparison:
    """One network with its export and test images."""

    def __init__(self, subject: Subject, args: argparse.Namespace, folder: Path) -> None:
        self._subject, self._args = subject, args
        self._model = subject.export(folder)
        tests = open_source(test_images(args.data, folder).path, subject.preprocessing)
        indices = choose_indices(len(tests), args.limit, tests.labels)
        graph = load_graph(self._model, subject.preprocessing)
        self._simulation = Simulation(graph.graph, tests, indices, args.threads)
        assert tests.labels is not None
        self._labels = tests.labels[indices]
        self._reference = self._simulation.logits(graph)

    def measure(self, backend: str, level: str) -> dict[str, Any]:
        """Calibrate with a level of recovery, and return its figures on the test images."""
        begun = time.monotonic()
        made = self._calibrate(backend, level)
        seconds = time.monotonic() - begun
        logits = self._simulation.logits(ir.load(made.calibration.onnx))
        report = compare(level, logits, self._labels, "fp32", self._reference)
        against, noise = report.reference, LogitsNoise.of(self._reference, logits)
        assert against is not None
        tuned = made.calibration.fine_tuned
        return {
            "top1": report.top1,
            "top1_drop": against.top1_drop,
            "top1_drop_ci95": against.top1_drop_ci95,
            "agreement": against.agreement,
            "sqnr_db": noise.all_db,
            "typical_db": noise.typical_db,
            "method": made.calibration.method,
            "seconds": round(seconds, 1),
            "finetune": asdict(tuned) if tuned else None,
        }

    def _calibrate(self, backend: str, level: str) -> CalibrateReport:
        args, bits = self._args, None if backend.startswith("tensorrt") else self._args.weight_bits
        request = CalibrateRequest(
            self._model,
            calibration_images(),
            self._model.with_name(f"{backend}.{level}.onnx"),
            backend,
            weight_bits=bits,
            threads=args.threads,
            method=args.method,
            samples=args.images,
            recover=level,
            checkpoint=self._subject.checkpoint if level == "finetune" else None,
            finetune_budget_s=args.budget,
        )
        return calibrate(request)


def main() -> None:
    """Measure what the results file lacks."""
    args = _arguments()
    found = json.loads(args.output.read_text()) if args.output.is_file() else {"cpu": cpu_info().model, "rows": []}
    settings = {name: getattr(args, name) for name in ("weight_bits", "method", "images", "limit", "budget", "threads")}
    done = {(row["network"], row["backend"], json.dumps(row["settings"])) for row in found["rows"]}
    for subject in trained_subjects(args.checkpoints, args.image_size, args.arch):
        wanted = [one for one in args.backend or ["tensorrt"] if (subject.name, one, json.dumps(settings)) not in done]
        with tempfile.TemporaryDirectory() as folder:
            comparison = _Comparison(subject, args, Path(folder)) if wanted else None
            for backend in wanted:
                assert comparison is not None
                levels = {level: comparison.measure(backend, level) for level in LEVELS}
                found["rows"].append({"network": subject.name, "backend": backend, "settings": settings, **levels})
                write_json(args.output, found)
                print(f"{subject.name}, {backend}: {_in_words(levels)}", flush=True)


def _in_words(levels: dict[str, dict[str, Any]]) -> str:
    before, after = (levels[level] for level in LEVELS)
    tuned = after["finetune"]
    figures = (
        f"{name} {before[key]:.2f} -> {after[key]:.2f}"
        for name, key in (("dB", "sqnr_db"), ("typical dB", "typical_db"), ("same", "agreement"), ("top-1", "top1"))
    )
    return f"{', '.join(figures)}; {tuned['seconds']:.0f} s, {'kept' if tuned['kept'] else 'not kept'}"


if __name__ == "__main__":
    main()
