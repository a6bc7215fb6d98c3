"""How well a sweep predicts latencies of models it never measured, and how many cells it needs for the Pareto front.

    python benchmarks/sweep_prediction.py [--image-size 96,128] [--duration 2] [--folder DIR] [--json FILE]
    python benchmarks/sweep_prediction.py --replay benchmarks/results/sweep-prediction-epyc-zen4-2core.json

Measures 40 cells: five networks with random weights at two image sizes, in fp32 and INT8 on both processor backends. Then the
order that `--budget` chooses is replayed on these results. Accuracies are the published ones of the networks, less one point at
the smaller size, and less a tenth of a point in INT8. With --folder an interrupted run goes on. Takes about ten minutes.
--replay reads the cells of an earlier run instead of measuring them, and also replays each four of the five networks.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from emca_deploy._progress import silent
from emca_deploy.api.sweep import SweepRequest, sweep
from emca_deploy.api.sweeping.folder import SweepFolder
from emca_deploy.api.sweeping.keys import Keys
from emca_deploy.api.sweeping.places import Places
from emca_deploy.api.sweeping.plan import read_plan
from emca_deploy.api.sweeping.prediction import predict
from emca_deploy.api.sweeping.ranking import Ranking
from emca_deploy.api.sweeping.shared_work import SharedWork
from emca_deploy.networks.registry import ARCHITECTURES
from emca_deploy.results.sweep import SweepCell, SweepRow, front_of

MODELS = ("resnet18", "emca_eca_resnet18", "se_resnet34", "eca_resnet50", "emca_srm_resnet34")


def plan_of(folder: Path, sizes: str, duration: float) -> Path:
    images = np.random.default_rng(0).integers(0, 256, (4, 160, 160, 3), np.uint8)
    np.savez(folder / "data.npz", images=images)
    text = f'models = {json.dumps(MODELS)}\nimage_size = [{sizes}]\nnum_classes = 100\nbackends = ["onnxruntime", "openvino"]\n'
    text += (
        f'threads = 1\ndata = "data.npz"\nsamples = 4\nrecover = "none"\n[measure]\nduration = {duration}\ntelemetry = false\n'
    )
    (folder / "plan.toml").write_text(text, encoding="utf-8")
    return folder / "plan.toml"


def with_accuracy(row: SweepRow, largest: str) -> SweepRow:
    published = ARCHITECTURES[row.cell.model].published
    assert published is not None
    accuracy = published.top1 - (row.cell.image_size != largest) - 0.1 * (row.cell.precision == "int8")
    return replace(row, accuracy=accuracy, metric="top-1")


def rows_of(path: Path) -> tuple[list[SweepRow], list[float | None]]:
    """Return the cells of an earlier run, and what the probes predict for each."""
    rows = []
    cells = json.loads(path.read_text(encoding="utf-8"))["results"]
    for key, cell in enumerate(cells):
        network, backend, precision, target, scenario, *_ = cell["name"].split()
        model, size = network.split("@")
        is_about = SweepCell(model, size, precision, backend, target, scenario, batch=1, threads=1)
        rate = 1000 / cell["p50_ms"]
        rows.append(SweepRow(str(key), cell["name"], is_about, status="done", p50_ms=cell["p50_ms"], images_per_s=rate))
    largest = max((row.cell.image_size or "" for row in rows), key=int)
    return [with_accuracy(row, largest) for row in rows], [cell["probes_ms"] for cell in cells]


def replayed(rows: list[SweepRow], expected: list[float | None], seed: int = 0) -> tuple[int, list[float]]:
    """Return how many cells are measured until the front is that of all, and the relative errors of the others."""
    known, wanted = [replace(row, status="pending", accuracy=None) for row in rows], front_of(tuple(rows))
    left = list(range(len(rows)))
    while front_of(tuple(known)) != wanted:
        found = predict(known, expected, with_accuracy=True, seed=seed)
        best = max(left, key=lambda index: found[index].chance)
        left.remove(best)
        known[best] = rows[best]
    found = predict(known, expected, with_accuracy=True)
    return len(rows) - len(left), [abs(found[i].ms / (rows[i].p50_ms or 1) - 1) for i in left]


def unseen(rows: list[SweepRow], expected: list[float | None]) -> list[float]:
    """Return the relative errors of each network's cells, predicted from the probes and the cells of the other networks."""
    errors = []
    for model in MODELS:
        known = [replace(row, status="pending") if row.cell.model == model else row for row in rows]
        found = predict(known, expected, with_accuracy=True)
        errors += [abs(found[i].ms / (row.p50_ms or 1) - 1) for i, row in enumerate(rows) if row.cell.model == model]
    return errors


def replay(rows: list[SweepRow], expected: list[float | None]) -> None:
    """Print how many cells are measured with each of ten seeds, for all networks and without each of them."""
    print(f"networks never seen: median error {100 * float(np.median(unseen(rows, expected))):.2f} %")
    for left_out in (None, *MODELS):
        kept = [index for index, row in enumerate(rows) if row.cell.model != left_out]
        some, guesses = [rows[index] for index in kept], [expected[index] for index in kept]
        counts = [replayed(some, guesses, 10 * seed)[0] for seed in range(10)]
        print(f"without {left_out}: front {len(front_of(tuple(some)))} of {len(some)}, measured {counts}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image-size", default="96,128")
    parser.add_argument("--duration", type=float, default=2.0)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--replay", type=Path)
    arguments = parser.parse_args()
    if arguments.replay is not None:
        replay(*rows_of(arguments.replay))
        return
    with TemporaryDirectory() as name:
        folder = arguments.folder or Path(name)
        folder.mkdir(exist_ok=True)
        path = plan_of(folder, arguments.image_size, arguments.duration)
        report = sweep(
            SweepRequest(path, folder / "out"), finished=lambda row, done, total: print(done, total, row.name, row.p50_ms)
        )
        plan, place = read_plan(path), SweepFolder(folder / "out")
        keys = Keys(plan, place.digests)
        places = Places(plan, keys, place.shared)
        ranking = Ranking(plan, keys, SharedWork(plan, places, silent), place.shared, silent, budget_s=1e6)
        largest = arguments.image_size.split(",")[-1]
        rows = [with_accuracy(row, largest) for row in report.cells if row.status == "done"]
        expected = [ranking.expect(row.cell) for row in rows]
    probes = [abs((guess or 1) / (row.p50_ms or 1) - 1) for guess, row in zip(expected, rows, strict=True)]
    count, errors = replayed(rows, expected)
    found = {
        "cells": len(rows),
        "front": len(front_of(tuple(rows))),
        "measured_until_front": count,
        "median_error_percent": {
            "probes alone": 100 * float(np.median(probes)),
            "networks never seen": 100 * float(np.median(unseen(rows, expected))),
            "cells not measured": 100 * float(np.median(errors or [0.0])),
        },
    }
    print(json.dumps(found, indent=1))
    if arguments.json is not None:
        cells = [{"name": row.name, "p50_ms": row.p50_ms, "probes_ms": guess} for row, guess in zip(rows, expected, strict=True)]
        arguments.json.write_text(json.dumps({**found, "results": cells}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
