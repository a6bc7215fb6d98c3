"""Measure what INT8 costs detectors in AP, next to NNCF's post-training quantization, and what INT8 saves in time.

    python benchmarks/detectors.py accuracy retinanet.safetensors mask_rcnn.safetensors --output result.json
    python benchmarks/detectors.py accuracy ... --nncf PEERS/bin/python   # a Python that has nncf and onnx
    python benchmarks/detectors.py latency --output latency.json

`accuracy` exports each checkpoint, calibrates it for each placement on scenes of training garments, and compares the AP of each
INT8 file with that of the fp32 file on scenes of test garments. TensorRT's placement runs in ONNX Runtime, which simulates its
arithmetic. NNCF quantizes the same ONNX file and images, with its defaults and with post-processing left out. Files in
--work are reused: after a stop, the same command continues.

`latency` exports a Faster R-CNN with a ResNet-50 and random weights for images of 640 pixels, and compares INT8 with fp32 on
OpenVINO, side by side. Then it measures the share of an INT8 run that post-processing and regions take.
"""

import argparse
import json
import os
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from emca_deploy._machine import cpu_info, default_threads

PLACEMENTS = {"openvino": "openvino", "onnxruntime": "onnxruntime", "tensorrt": "onnxruntime"}
"""Placement, and the runtime that it is measured on."""

SCENES = Path(__file__).parent.parent / "examples" / "fashion_scenes.py"
ARCH = "faster_rcnn_emca_eca_resnet50_fpn"
IMAGE_SIZE = 640

CALIBRATION_IMAGES = 16
"""Images of noise that the network of random weights is calibrated on: its accuracy does not matter."""

NETWORK = ("images/", "backbone.", "fpn.", "rpn.", "roi.")
"""Beginnings of the names of nodes of the network; all others are post-processing."""

NNCF = """
import sys, nncf, onnx, numpy as np
model, images, output, *left_out = sys.argv[1:]
model, images = onnx.load(model), np.load(images)
name = model.graph.input[0].name
dataset = nncf.Dataset(list(images), lambda image: {name: image[None]})
scope = nncf.IgnoredScope(patterns=left_out) if left_out else None
onnx.save(nncf.quantize(model, dataset, subset_size=len(images), ignored_scope=scope), output)
"""

NNCF_KINDS = {"nncf": [], "nncf-without-post": ["^post.*"]}
"""NNCF's defaults, and the same with post-processing left in float, which a user must name; by the nodes that are left out."""


def emca(*arguments: object) -> str:
    """Run a command of emca-deploy and return what it prints."""
    command = [sys.executable, "-m", "emca_deploy", *map(str, arguments)]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode not in (0, 4):
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}")
    return done.stdout


def scenes(folder: Path, name: str, split: str, count: int) -> tuple[Path, Path]:
    """Write scenes once; return their zip and their annotations."""
    images, annotations = folder / f"{name}-{count}.zip", folder / f"{name}-{count}.json"
    if not annotations.exists():
        files = ["-o", str(images), "--annotations", str(annotations)]
        subprocess.run([sys.executable, str(SCENES), *files, "--split", split, "--count", str(count)], check=True)
    return images, annotations


def accuracy(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a row for each checkpoint and quantizer."""
    test = scenes(args.work, "test", "t10k", args.count)
    calibration, _ = scenes(args.work, "calibration", "train", args.calibration)
    rows = []
    for checkpoint in args.checkpoints:
        model = args.work / f"{checkpoint.stem}.onnx"
        if not model.exists():
            emca("export", checkpoint, "-o", model)
        for placement, runtime in PLACEMENTS.items():
            int8 = args.work / f"{checkpoint.stem}.{placement}.onnx"
            if not int8.exists():
                emca("calibrate", model, "--data", calibration, "--backend", placement, "-o", int8)
            rows.append(compared(model, int8, runtime, test, {"network": checkpoint.stem, "quantizer": placement}))
        for quantizer, left_out in NNCF_KINDS.items() if args.nncf is not None else ():
            int8 = args.work / f"{checkpoint.stem}.{quantizer}.onnx"
            if not int8.exists():
                nncf(args, model, calibration, int8, left_out)
            for runtime in ("openvino", "onnxruntime"):
                rows.append(compared(model, int8, runtime, test, {"network": checkpoint.stem, "quantizer": quantizer}))
    return rows


def nncf(args: argparse.Namespace, model: Path, calibration: Path, output: Path, left_out: list[str]) -> None:
    """Quantize a model with NNCF's defaults but for nodes of these names, on the images as our calibration sees them."""
    from emca_deploy.data.choosing import preprocessing_of_file
    from emca_deploy.data.sources import open_source
    from emca_deploy.preprocessing import PreprocessingOptions

    source = open_source(calibration, preprocessing_of_file(model, PreprocessingOptions()))
    images = args.work / "calibration.npy"
    np.save(images, np.concatenate([batch for batch, _ in source.batches(16)]))
    subprocess.run([str(args.nncf), "-c", NNCF, str(model), str(images), str(output), *left_out], check=True)


def compared(model: Path, int8: Path, runtime: str, test: tuple[Path, Path], row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with the drop of AP on the test scenes."""
    images, annotations = test
    kept = int8.with_name(f"{int8.stem}.{runtime}.{images.stem}.npz")
    theirs = model.with_name(f"{model.stem}.{runtime}.{images.stem}.npz")
    command = ["validate", int8, "--backend", runtime, "--data", images, "--annotations", annotations, "--logits", kept]
    command += ["--reference", model, "--reference-backend", runtime, "--reference-logits", theirs, "--json"]
    report = json.loads(emca(*command))
    against = report["reference"]
    found = {**row, "runtime": runtime, "images": report["samples"]}
    for kind in ("box", "mask"):
        if against[kind] is not None:
            found[f"{kind}_ap_fp32"] = round(against[kind]["ap"], 3)
            found[f"{kind}_drop"] = round(against[f"{kind}_ap_drop"], 3)
            found[f"{kind}_drop_ci95"] = [round(end, 3) for end in against[f"{kind}_ap_drop_ci95"]]
    print(json.dumps(found), flush=True)
    return found


def latency(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the ratio of fp32's latency to INT8's, and the share of post-processing and regions in an INT8 run."""
    size = args.image_size
    model, int8 = args.work / f"{args.arch}-{size}.onnx", args.work / f"{args.arch}-{size}.int8.onnx"
    if not model.exists():
        emca("export", "--arch", args.arch, "--random-init", "--num-classes", 80, "--image-size", size, "-o", model)
    if not int8.exists():
        noise = np.random.default_rng(0).standard_normal((CALIBRATION_IMAGES, 3, size, size)).astype(np.float32)
        np.savez(args.work / "noise.npz", images=noise)
        fast = ["--method", "minmax", "--recover", "none"]
        emca("calibrate", model, "--data", args.work / "noise.npz", "--backend", "openvino", "-o", int8, *fast)
    measured = json.loads(emca("profile", model, int8, "--backend", "openvino", "--duration", args.duration, "--json"))
    (profiled,) = json.loads(emca("layers", int8, "--backend", "openvino", "--no-roofline", "--json"))["results"]
    row = {"network": args.arch, "image_size": size, "comparisons": measured["comparisons"]}
    row |= {Path(result["artifact"]).name: result["latency_ms"]["p50"] for result in measured["results"]}
    post = [layer for layer in profiled["layers"] if is_post(layer["nodes"] or [layer["name"]])]
    row["post_percent"] = round(sum(layer["share_percent"] for layer in post), 2)
    print(json.dumps(row), flush=True)
    return [row]


def is_post(nodes: list[str]) -> bool:
    """Return whether a layer made of these nodes is post-processing. OpenVINO records no origin of some of its splits."""
    return any(node.startswith("post.") for node in nodes) or not any(node.startswith(NETWORK) for node in nodes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("accuracy", "latency"))
    parser.add_argument("checkpoints", nargs="*", type=Path, help="checkpoints of detectors, from examples/train_scenes.py")
    parser.add_argument("--work", type=Path, default=Path("detectors-work"), help="folder of all files that are made")
    parser.add_argument("--count", type=int, default=1000, help="number of test scenes")
    parser.add_argument("--calibration", type=int, default=300, help="number of calibration scenes")
    parser.add_argument("--arch", default=ARCH, help="detector of the latency part")
    parser.add_argument("--image-size", type=int, default=IMAGE_SIZE, help="side of its images in pixels")
    parser.add_argument("--nncf", type=Path, help="Python with nncf and onnx; without it NNCF is left out")
    parser.add_argument("--duration", type=float, default=20.0, help="seconds to measure each candidate")
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    rows = accuracy(args) if args.part == "accuracy" else latency(args)
    machine = {"cpu": cpu_info().model, "threads": default_threads(), "cores": os.cpu_count()}
    head = {"date": datetime.now(timezone.utc).isoformat(timespec="seconds"), "machine": machine, "command": sys.argv}
    args.output.write_text(json.dumps({**head, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
