"""Measure which share of a runner's own rate `validate` reaches: images per second with decoding over those without.

    python benchmarks/accuracy_rate.py                          # two networks, four kinds of data sets, about ten minutes
    python benchmarks/accuracy_rate.py --images 10000 --case emca_eca_resnet18@64 --rounds 5 --output result.json

Each leg of a round runs in its own process, with the same batch size and threads. The order is random in every round. The ratio
is that of the medians over the rounds, with its interval. Weights are random: they do not change the rate.

Where the runner uses every core, decoding takes time from it: the best possible ratio is then infer / (infer + decode), in
processor time per image. The table has it next to the measured ratio; the difference is what the pipeline itself loses.
"""

import argparse
import io
import json
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from safetensors.torch import save_file

from emca_deploy._machine import cpu_info, default_threads
from emca_deploy.artifacts import Preprocessing
from emca_deploy.data.sources import open_source
from emca_deploy.exporting.checkpoint import ExportOptions, export_checkpoint
from emca_deploy.harness.measure.worker import Worker
from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.networks.registry import create_model
from emca_deploy.stats.estimates import ratio_of_medians

CASES = ("emca_eca_resnet18@64", "emca_eca_resnet50@224")
BATCH = 16
PHOTO = (375, 500)
"""Height and width of a typical photograph of ImageNet, pixels."""


@dataclass(frozen=True)
class Row:
    """One network on one data set.

    Attributes:
        ratio: Images/s of `validate` over those of the runner alone, medians over the rounds.
        ratio_ci95: 95 % interval of `ratio`.
        decode_cpu_ms: Processor time of decoding and preprocessing one image.
        infer_cpu_ms: Processor time of one image in the runner alone.
        bound: Best possible ratio when the runner uses all cores.
    """

    case: str
    backend: str
    data: str
    images: int
    validate_images_per_s: tuple[float, ...]
    infer_images_per_s: tuple[float, ...]
    ratio: float
    ratio_ci95: tuple[float, float]
    decode_cpu_ms: float
    infer_cpu_ms: float
    bound: float


def photograph(seed: int, height: int, width: int) -> Image.Image:
    """Draw an image that compresses like a photograph: smooth shapes and some noise."""
    rng = np.random.default_rng(seed)
    shapes = Image.fromarray(rng.integers(0, 256, (height // 12 + 2, width // 12 + 2, 3), dtype=np.uint8))
    smooth = np.asarray(shapes.resize((width, height), Image.Resampling.BICUBIC), np.int16)
    noisy = smooth + rng.normal(0, 6, smooth.shape).astype(np.int16)
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def folder_of(images: list[Image.Image], suffix: str, place: Path, count: int) -> Path:
    """Write `count` files in two classes, repeating the images."""
    for name in ("0", "1"):
        (place / name).mkdir(parents=True)
    encoded = [io.BytesIO() for _ in images]
    for image, content in zip(images, encoded, strict=True):
        image.save(content, Image.registered_extensions()[suffix], quality=90)
    for index in range(count):
        (place / str(index % 2) / f"{index:06d}{suffix}").write_bytes(encoded[index % len(images)].getvalue())
    return place


def npz_of(images: list[Image.Image], place: Path, count: int) -> Path:
    """Write the images repeatedly as one uint8 array."""
    stacked = np.stack([np.asarray(images[index % len(images)]) for index in range(count)])
    np.savez(place, images=stacked, labels=np.arange(count) % 2)
    return place


def data_sets(size: int, place: Path, count: int) -> dict[str, Callable[[], Path]]:
    """Return the functions that make the data sets: photographs, and images that already have the network's size."""
    photographs = [photograph(seed, *PHOTO) for seed in range(24)]
    exact = [photograph(seed, size, size) for seed in range(24)]
    return {
        "JPEG 500x375": lambda: folder_of(photographs, ".jpg", place / "jpeg", count),
        f"JPEG {size}x{size}": lambda: folder_of(exact, ".jpg", place / "small", count),
        f"PNG {size}x{size}": lambda: folder_of(exact, ".png", place / "png", count),
        f"npz uint8 {size}x{size}": lambda: npz_of(exact, place / "images.npz", count),
    }


def model_of(case: str, place: Path) -> tuple[Path, Preprocessing]:
    """Export a network with random weights; its manifest has the preprocessing."""
    arch, _, size = case.partition("@")
    torch.manual_seed(0)
    checkpoint = place / f"{case}.safetensors"
    save_file(create_model(arch).state_dict(), checkpoint)
    preprocessing = Preprocessing.for_size(int(size))
    options = ExportOptions(preprocessing=preprocessing)
    return export_checkpoint(checkpoint, place / f"{case}.onnx", options).onnx, preprocessing


def validate_rate(spec: RunnerSpec, data: Path, preprocessing: Preprocessing) -> float:
    """Return images/s of a run as `validate` does it: the runtime's waiting threads sleep while images are decoded."""
    with Worker(replace(spec, kwargs={**spec.kwargs, "spin": False})) as worker:
        worker.open()
        *_, last = worker.logits(data, preprocessing, None, BATCH)
        worker.finish()
    return last.total / float(last.summary["seconds"])


def infer_rate(spec: RunnerSpec, seconds: float) -> tuple[float, float]:
    """Return images/s of the runner alone, and the processor time of one image, ms."""
    with Worker(spec) as worker:
        worker.open()
        worker.prepare(BATCH, seed=0)
        worker.block(0.0, min_calls=2)
        before_s = worker.cpu_s
        latencies_ns = worker.block(seconds, min_calls=5)
        cpu_ms = 1e3 * (worker.cpu_s - before_s) / (BATCH * len(latencies_ns))
        worker.finish()
    return BATCH * len(latencies_ns) / (float(latencies_ns.sum()) / 1e9), cpu_ms


def decode_cpu_ms(data: Path, preprocessing: Preprocessing, count: int = 64) -> float:
    """Return the processor time of decoding and preprocessing one image."""
    source = open_source(data, preprocessing)
    source.load(0)
    start_s = time.process_time()
    for index in range(count):
        source.load(index % len(source))
    return 1e3 * (time.process_time() - start_s) / count


def measure(case: str, backend: str, model: Path, data: tuple[str, Path, Preprocessing], args: argparse.Namespace) -> Row:
    """Measure one network on one data set."""
    kind, path, preprocessing = data
    kwargs = {"backend": backend, "artifact": str(model), "threads": args.threads, "spin": True}
    spec = RunnerSpec(f"{case} {backend}", kwargs=kwargs, artifact=model.name, backend=backend)
    whole, alone, cpu_ms = [], [], []
    order = random.Random(0)
    for _ in range(args.rounds):
        for leg in order.sample(("validate", "infer"), 2):
            if leg == "validate":
                whole.append(validate_rate(spec, path, preprocessing))
            else:
                rate, cost_ms = infer_rate(spec, args.seconds)
                alone.append(rate)
                cpu_ms.append(cost_ms)
    ratio, ci95 = ratio_of_medians([np.array([rate]) for rate in whole], [np.array([rate]) for rate in alone])
    decode_ms, infer_ms = decode_cpu_ms(path, preprocessing), float(np.median(cpu_ms))
    spare = cpu_info().logical_cores - args.threads
    bound = 1.0 if spare > 0 else infer_ms / (infer_ms + decode_ms)
    return Row(case, backend, kind, args.images, tuple(whole), tuple(alone), ratio, ci95, decode_ms, infer_ms, bound)


def show(rows: list[Row], console: Console) -> None:
    """Print the table: the measured ratio and the best possible one."""
    table = Table(title=f"validate's rate over the runner's own, batch {BATCH}")
    heads = ("network", "backend", "data", "ratio (95%)", "bound", "validate /s", "infer /s", "decode CPU ms", "infer CPU ms")
    for head in heads:
        table.add_column(head, justify="left" if head in heads[:3] else "right")
    for row in rows:
        low, high = row.ratio_ci95
        rates = (f"{np.median(row.validate_images_per_s):.1f}", f"{np.median(row.infer_images_per_s):.1f}")
        costs = (f"{row.decode_cpu_ms:.2f}", f"{row.infer_cpu_ms:.2f}")
        ratio = f"{row.ratio:.3f} ({low:.3f}-{high:.3f})"
        table.add_row(row.case, row.backend, row.data, ratio, f"{row.bound:.3f}", *rates, *costs)
    console.print(table)


def main() -> None:
    """Measure, print the table, and write the raw rates to --output."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", help=f"ARCH@SIZE, may be repeated; default {' and '.join(CASES)}")
    parser.add_argument("--backend", action="append", help="may be repeated; default onnxruntime and openvino")
    parser.add_argument("--data", action="append", help="only data sets whose name starts with this; may be repeated")
    parser.add_argument("--images", type=int, default=400, help="number of images in each data set")
    parser.add_argument("--seconds", type=float, default=5.0, help="seconds of the runner alone in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--output", type=Path, help="write the raw rates as JSON")
    args = parser.parse_args()
    console, rows = Console(width=150), []
    for case in args.case or CASES:
        with tempfile.TemporaryDirectory() as folder:
            model, preprocessing = model_of(case, Path(folder))
            for kind, make in data_sets(preprocessing.image_size, Path(folder), args.images).items():
                if args.data and not kind.startswith(tuple(args.data)):
                    continue
                data = (kind, make(), preprocessing)
                rows += [measure(case, name, model, data, args) for name in args.backend or ("onnxruntime", "openvino")]
    show(rows, console)
    if args.output:
        stamp = datetime.now(timezone.utc).isoformat(timespec="seconds")
        document = {"created": stamp, "batch": BATCH, "threads": args.threads, "cpu": cpu_info().model}
        args.output.write_text(json.dumps({**document, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
