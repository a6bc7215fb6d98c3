r"""Measure which equal runs give other predictions, and whether `compare --floor` tells noise from a change.

    python benchmarks/noise_floor.py --fp32 model.onnx --int8 onnxruntime=ort.int8.onnx --int8 openvino=ov.int8.onnx \
        --data test.zip --folder runs -o benchmarks/results/noise-floor-MACHINE.json

Every run is one `validate --logits` in a process of its own; a run whose file is in --folder is not made again. Then `compare`
gets three equal runs at a time: once as they are, where a difference shown is wrong, and once with other predictions injected
into the second, where a difference must be shown. Equal runs may differ too little for this to be hard, so the same is done with
equal builds (--build: INT8 files of the first backend, each calibrated on other images) and with noise added to one run's logits.
"""

import argparse
import json
import os
import random
import subprocess
import sys
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np

from emca_deploy.api.checking.compare_logits import compare_logits
from emca_deploy.arrays import Float32Array
from emca_deploy.machines.environment import collect_environment
from emca_deploy.results.logits_comparison import LogitsComparison

SETTINGS = {
    "t2-b16": (2, 16),
    "t2-b16-again": (2, 16),
    "t1-b16": (1, 16),
    "t2-b1": (2, 1),
    "t1-b1": (1, 1),
}
"""Threads and images per call of runs on one machine. The first one is A."""

AVX2 = "t2-b16-avx2"
"""OpenVINO without AVX-512 and VNNI (ONEDNN_MAX_CPU_ISA=AVX2), in place of an older processor."""

OLDER = "older"
"""An older version of the runtime."""

INJECTED = 0.001
NOISE = ((1e-4, 0.0), (3e-3, 0.0), (1e-2, 0.0), (3e-2, 0.0), (1e-1, 0.0), (1e-2, 1.0), (3e-2, 1.0))
"""Standard deviation of added noise, logits, and that of its logarithm between images: 1 makes some images much noisier."""

COUNTS = ("wrongly_shown", "wrongly_shown_without_tie", "injected_shown", "injected_shown_without_tie")
"""Comparisons in which the interval above the floor, or that of changes without a near tie, excludes 0."""


def run(artifact: Path, backend: str, path: Path, data: Path, setting: str = "t2-b16", older: str | None = None) -> Path:
    """Keep the logits of one run in a file, and return it; `older` is the folder with the older version of the runtime."""
    if path.exists():
        return path
    threads, batch = SETTINGS.get(setting, SETTINGS["t2-b16"])
    words = ["validate", artifact, "--data", data, "--backend", backend, "--threads", threads, "--batch", batch, "--logits", path]
    environment = dict(os.environ)
    if setting == AVX2:
        environment["ONEDNN_MAX_CPU_ISA"] = "AVX2"
    if setting == OLDER and older:
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (older, os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "emca_deploy", "-q", *map(str, words)]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return path


def told(found: LogitsComparison) -> dict[str, Any]:
    """Return what the tables have of a comparison."""
    return {
        "changed": found.changed.images,
        "percent_ci95": found.changed.ci95,
        "equal_images": found.equal_images,
        "largest_difference": found.largest_difference,
        "sqnr_db": found.sqnr_db,
    }


def written(source: Path, path: Path, logits: Float32Array) -> Path:
    """Write a copy of a run's file with other logits."""
    with np.load(source) as arrays, path.open("wb") as stream:
        np.savez(stream, **{**arrays, "logits": logits})
    return path


def logits_of(path: Path) -> Float32Array:
    with np.load(path) as arrays:
        logits: Float32Array = arrays["logits"]
        return logits


def injected(logits: Float32Array, rng: np.random.Generator) -> Float32Array:
    """Swap the two largest logits of random images."""
    answers = logits.copy()
    rows = rng.choice(len(answers), round(INJECTED * len(answers)), replace=False)
    best = np.argsort(answers[rows], axis=1)
    answers[rows, best[:, -1]], answers[rows, best[:, -2]] = logits[rows, best[:, -2]], logits[rows, best[:, -1]]
    return answers


def intervals(found: LogitsComparison) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the interval above the floor, and that of changes without a near tie, percent."""
    if found.above_floor_ci95 is None or found.without_tie_ci95 is None:
        raise ValueError("compared without a floor")
    return found.above_floor_ci95, found.without_tie_ci95


def shown(triples: list[tuple[Path, Path, Path]], folder: Path, rng: np.random.Generator) -> dict[str, Any]:
    """Compare each A with B above the floor of C, as they are and with predictions injected into B."""
    counts, floors, other = dict.fromkeys(COUNTS, 0), list[int](), folder / "injected.npz"
    for a, b, c in triples:
        same = compare_logits(a, b, c)
        found = compare_logits(a, written(b, other, injected(logits_of(b), rng)), c)
        above, untied = intervals(same)
        counts["wrongly_shown"] += above[0] > 0 or above[1] < 0
        counts["wrongly_shown_without_tie"] += untied[0] > 0
        above, untied = intervals(found)
        counts["injected_shown"] += above[0] > 0
        counts["injected_shown_without_tie"] += untied[0] > 0
        floors.append(same.floor.images if same.floor else 0)
    other.unlink(missing_ok=True)
    return {"triples": len(triples), **counts, "floor_images": floors}


def simulated(path: Path, noise: tuple[float, float], pairs: int, folder: Path, rng: np.random.Generator) -> dict[str, Any]:
    """Do the same with noise added to a run's logits in B and in C."""
    logits, found = logits_of(path), list[dict[str, Any]]()
    for _ in range(pairs):
        scale = noise[0] * np.exp(rng.normal(0, noise[1], (len(logits), 1)))
        noisy = [(logits + scale * rng.normal(size=logits.shape)).astype(np.float32) for _ in range(2)]
        b, c = (written(path, folder / f"noisy-{name}.npz", each) for name, each in zip("bc", noisy, strict=True))
        found.append(shown([(path, b, c)], folder, rng))
        b.unlink()
        c.unlink()
    total = {key: sum(each[key] for each in found) for key in ("triples", *COUNTS)}
    return {"deviation": noise[0], "spread": noise[1], **total, "floor_images": [each["floor_images"][0] for each in found]}


Runs = dict[tuple[str, str], dict[str, Path]]


def all_runs(options: argparse.Namespace, backends: dict[str, str]) -> Runs:
    """Make the runs of both models on each backend, and return their files by (kind, backend) and setting."""
    older, files = dict(each.split("=", 1) for each in options.older), Runs()
    for backend, artifact in backends.items():
        names = [*SETTINGS, *([AVX2] if backend == "openvino" else []), *([OLDER] if backend in older else [])]
        for kind, model in (("int8", Path(artifact)), ("fp32", options.fp32)):
            files[kind, backend] = {
                name: run(model, backend, options.folder / f"{kind}-{backend}-{name}.npz", options.data, name, older.get(backend))
                for name in names
            }
    return files


def same_file_elsewhere(options: argparse.Namespace, backends: dict[str, str], files: Runs) -> dict[str, Any]:
    """Compare each file on its own runtime with the same file on another."""
    found = {}
    for own, artifact in backends.items():
        for other in (name for name in backends if name != own):
            path = run(Path(artifact), other, options.folder / f"int8-{other}-file-of-{own}.npz", options.data)
            found[f"int8 of {own} on {other}"] = told(compare_logits(files["int8", own]["t2-b16"], path))
            found[f"fp32 on {own} and {other}"] = told(
                compare_logits(files["fp32", own]["t2-b16"], files["fp32", other]["t2-b16"])
            )
    if options.seven_bits:
        pair = [
            run(options.seven_bits, "openvino", options.folder / f"seven-openvino-{s}.npz", options.data, s)
            for s in ("t2-b16", AVX2)
        ]
        found["int8 with weights of 7 bits on openvino, without AVX-512 and VNNI"] = told(compare_logits(*pair))
    return found


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fp32", type=Path, required=True)
    parser.add_argument("--int8", action="append", required=True, metavar="BACKEND=FILE")
    parser.add_argument("--older", action="append", default=[], metavar="BACKEND=FOLDER", help="older version of the runtime")
    parser.add_argument("--build", type=Path, action="append", default=[], help="INT8 file calibrated with another --seed")
    parser.add_argument("--seven-bits", type=Path, metavar="FILE", help="OpenVINO INT8 file of `calibrate --weight-bits 7`")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("-o", "--output", type=Path, required=True)
    return parser.parse_args()


def main() -> None:
    """Make the runs and compare them."""
    options = arguments()
    rng, drawn, backends = np.random.default_rng(0), random.Random(0), dict(each.split("=", 1) for each in options.int8)
    files = all_runs(options, backends)
    document: dict[str, Any] = {"environment": collect_environment(), "load": os.getloadavg(), "equal_runs": {}, "int8": {}}
    triples: list[tuple[Path, Path, Path]] = []
    for (kind, backend), runs in files.items():
        first, *others = runs.values()
        document["equal_runs"][f"{kind} {backend}"] = {path.stem: told(compare_logits(first, path)) for path in others}
        every = list(permutations([runs[name] for name in SETTINGS], 3))
        triples += drawn.sample(every, options.pairs // len(files))
    for backend in backends:
        a, b = (files[kind, backend]["t2-b16"] for kind in ("fp32", "int8"))
        found = compare_logits(a, b, files["fp32", backend]["t1-b1"])
        document["int8"][backend] = {**told(found), "above_floor": found.above_floor, "above_floor_ci95": found.above_floor_ci95}
    document["other_runtime"] = same_file_elsewhere(options, backends, files)
    document["real"] = shown(triples, options.folder, rng)
    document["real"]["runs"] = [[path.stem for path in triple] for triple in triples]
    base, backend = files["int8", next(iter(backends))]["t2-b16"], next(iter(backends))
    builds = [run(each, backend, options.folder / f"build-{each.name.split('.')[0]}.npz", options.data) for each in options.build]
    document["builds"] = shown([each for each in permutations(builds, 3) if each[1] < each[2]], options.folder, rng)
    document["simulated"] = [simulated(base, noise, options.pairs, options.folder, rng) for noise in NOISE]
    options.output.write_text(json.dumps(document, indent=1) + "\n")
    print(
        json.dumps(
            {key: document[key] for key in ("equal_runs", "other_runtime", "int8", "real", "builds", "simulated")}, indent=1
        )
    )


if __name__ == "__main__":
    main()
