"""Compare how close INT8 logits are to float ones when the same weights come from the files of several exporters.

    python benchmarks/exported_files.py                              # the bundled weights
    python benchmarks/exported_files.py --checkpoint my.safetensors  # an emca_eca_resnet18 of train_fashion_mnist.py

`own` is `emca-deploy export`; `new` and `old` are torch.onnx.export with dynamo=True and False; `authors-new` and
`authors-old` are the same with attention as its authors wrote it: Unsqueeze, Conv1d and Squeeze, `expand_as` and `repeat`.
ONNX Runtime computes all placements, with 8-bit weights, on bundled test images that calibration does not use.
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emca_deploy.backends.registry import all_recipes, find_recipe
from emca_deploy.calibration.calibrate import calibrate_model
from emca_deploy.calibration.graphs.graph import load_graph
from emca_deploy.calibration.graphs.simulation import Simulation
from emca_deploy.calibration.options import CalibrationOptions
from emca_deploy.data.bundled import BUNDLED_PREPROCESSING, bundled_calibration_images, bundled_checkpoint, bundled_test_images
from emca_deploy.data.sources import open_source
from emca_deploy.exporting.checkpoint import ExportOptions, export_checkpoint
from emca_deploy.networks.attention import ChannelAttention
from emca_deploy.networks.checkpoints import load_checkpoint
from emca_deploy.preprocessing import Preprocessing
from emca_deploy.tasks.logits import LogitsNoise

FORMS = ("own", "new", "old", "authors-new", "authors-old")
PLAIN = {"method": "minmax", "recover": "none"}
FULL = {"method": "auto", "recover": "weights"}


def as_authors_write(module: ChannelAttention) -> Callable[..., Tensor]:
    """Return the forward function of ECA and EMCA from their authors' code, with the module's weights."""

    def forward(x: Tensor, previous: Sequence[Tensor] = ()) -> Tensor:
        y = F.adaptive_avg_pool2d(x, 1)
        if module.aggregation is not None:
            channels, weight = module.aggregation.channels, module.aggregation.weight
            stack = torch.cat([*(p.repeat(1, channels // p.shape[1], 1, 1) for p in previous), y], dim=2).squeeze(-1)
            mixed = F.conv1d(stack.reshape(-1, 1, stack.shape[2]), weight, stride=stack.shape[2])
            y = F.relu(mixed.reshape(-1, channels, 1, 1))
        conv = module.excitation.conv
        y = F.conv1d(y.squeeze(-1).transpose(-1, -2), conv.weight, padding=conv.kernel_size[0] // 2)
        return x * torch.sigmoid(y.transpose(-1, -2).unsqueeze(-1)).expand_as(x)

    return forward


def write(checkpoint: Path, form: str, path: Path, preprocessing: Preprocessing = BUNDLED_PREPROCESSING) -> None:
    """Write a checkpoint's ONNX file in one of `FORMS`."""
    if form == "own":
        export_checkpoint(checkpoint, path, ExportOptions(preprocessing=preprocessing))
        return
    network: nn.Module = load_checkpoint(checkpoint)[0].float().eval()
    if form.startswith("authors"):
        for module in network.modules():
            if isinstance(module, ChannelAttention):
                module.forward = as_authors_write(module)  # type: ignore[method-assign]
    images = torch.zeros(2, 3, preprocessing.height, preprocessing.width)
    how: dict[str, Any] = {"input_names": ["images"], "output_names": ["logits"], "dynamo": form.endswith("new")}
    if how["dynamo"]:
        how |= {"dynamic_shapes": ({0: torch.export.Dim("batch")},), "external_data": False, "verbose": False}
    else:
        how["dynamic_axes"] = {"images": {0: "batch"}}
    torch.onnx.export(network, (images,), path, **how)


def measure(path: Path, backends: Sequence[str], limit: int, threads: int) -> None:
    """Print a row per placement: SQNR of all logits together, and of a typical image in brackets."""
    known, unseen = (open_source(file, BUNDLED_PREPROCESSING) for file in (bundled_calibration_images(), bundled_test_images()))
    floating = load_graph(path)
    step = max(1, len(unseen) // limit)
    simulation = Simulation(floating.graph, unseen, range(0, len(unseen), step)[:limit], threads)
    reference = simulation.logits(floating)
    for backend in backends:
        cells = []
        for name, how in (("plain", PLAIN), ("full", FULL)):
            output = path.with_name(f"{path.stem}.{backend}.{name}.onnx")
            table = path.with_name(f"{path.stem}.{name}.json")
            options = CalibrationOptions(find_recipe(backend, 8), all_recipes(), threads=threads, table=table, **how)
            made = calibrate_model(path, known, output, options)
            noise = LogitsNoise.of(reference, simulation.logits(ir.load(output)))
            cells.append(f"{noise.all_db:.2f} ({noise.typical_db:.2f})")
            layers = f"{made.counts.weighted} layers, {made.counts.activations} activations"
        print(f"| {path.stem} | {backend} | {cells[0]} | {cells[1]} | {layers} |", flush=True)


def main() -> None:
    """Read the command line, export and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, help="an emca_eca_resnet18 at 64x64; default the bundled one")
    parser.add_argument("--form", action="append", choices=FORMS, help="may be repeated; default all")
    parser.add_argument("--backend", action="append", choices=("openvino", "onnxruntime", "tensorrt"))
    parser.add_argument("--limit", type=int, default=500, help="number of test images")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for form in args.form or FORMS:
            path = Path(folder) / f"{form}.onnx"
            write(args.checkpoint or bundled_checkpoint(), form, path)
            measure(path, args.backend or ("openvino", "onnxruntime", "tensorrt"), args.limit, args.threads)


if __name__ == "__main__":
    main()
