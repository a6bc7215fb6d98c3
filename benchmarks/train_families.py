"""Train every architecture family briefly on Fashion-MNIST, for the quantization benchmark. About forty minutes on two cores.

    python benchmarks/train_families.py -o benchmarks/families
    python benchmarks/train_families.py -o benchmarks/families --only '*50' --device cuda --epochs 16     # from scratch, at 48x48

Each depth starts from one trained trunk and fine-tunes it with each attention: ResNet-18, at 48x48, from the bundled checkpoint,
ResNet-34, at 48x48, from ResNet-18's blocks (the others begin as identities), ResNet-50, at 32x32, from a network whose blocks
all begin as identities, trained for two epochs. With --epochs each network starts from random weights instead: for a GPU.
Existing files are kept: a stopped run can be continued.
"""

import argparse
import re
import sys
import time
from fnmatch import fnmatch
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))
from train_fashion_mnist import DATA, accuracy, augment, batches, normalise, read_split, resize

from emca_deploy._machine import cpu_info
from emca_deploy.artifacts import atomic_write
from emca_deploy.data.bundled import bundled_checkpoint
from emca_deploy.networks.registry import create_model

SIZES = {18: 48, 34: 48, 50: 32}
BATCH = 128
FAMILIES = ("emca_eca", "emca_se", "emca_srm", "eca", "se", "srm")
STEPS = {18: 150, 34: 120, 50: 40}
LR = {18: 0.05, 34: 0.05, 50: 0.02}
BF16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""Instruction sets that make bfloat16 faster than fp32; without them PyTorch emulates it, seven times slower than fp32."""
SCRATCH_SIZE, SCRATCH_BATCH, SCRATCH_LR = 48, 256, 0.15


class Images:
    """Fashion-MNIST's two splits at one size, as uint8 tensors."""

    def __init__(self, folder: Path, size: int, device: str, tested: int | None = 2000) -> None:
        """Read and resize the images."""
        images, labels = read_split(folder, "train", None)
        test_images, test_labels = read_split(folder, "t10k", tested)
        self.train, self.test = resize(images, size).to(device), resize(test_images, size).to(device)
        self.labels, self.test_labels = torch.from_numpy(labels).to(device), torch.from_numpy(test_labels).to(device)


PKCAM_NAMES = (
    (r"^stem\.conv\.", "pre.0."),
    (r"^stem\.bn\.", "pre.1."),
    (r"^head\.", "linear."),
    (r"^(stage\d)\.block(\d+)\.conv1\.", r"\1.\2.residual.0."),
    (r"^(stage\d)\.block(\d+)\.bn1\.", r"\1.\2.residual.1."),
    (r"^(stage\d)\.block(\d+)\.conv2\.", r"\1.\2.residual.3."),
    (r"^(stage\d)\.block(\d+)\.bn2\.", r"\1.\2.residual.4."),
    (r"^(stage\d)\.block(\d+)\.shortcut\.conv\.", r"\1.\2.shortcut.0."),
    (r"^(stage\d)\.block(\d+)\.shortcut\.bn\.", r"\1.\2.shortcut.1."),
)
"""The released code's names for a basic block's layers."""


def pkcam_names(trunk: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename a ResNet-18's weights to the names in the released code."""
    renamed = {}
    for key, value in trunk.items():
        name = key
        for pattern, replacement in PKCAM_NAMES:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed


def take_weights(model: nn.Module, trunk: dict[str, Tensor]) -> None:
    """Copy the weights whose name and shape fit; residual blocks that the trunk lacks begin as identities."""
    own = model.state_dict()
    model.load_state_dict({k: v.float() for k, v in trunk.items() if k in own and own[k].shape == v.shape}, strict=False)
    for name, block in model.named_modules():
        if re.fullmatch(r"stage\d\.block\d+", name) and not any(key.startswith(f"{name}.") for key in trunk):
            norms = [layer for key, layer in block.named_children() if key.startswith("bn")]
            nn.init.zeros_(norms[-1].weight)


def fit(model: nn.Module, images: Images, steps: int, lr: float, batch: int = BATCH) -> float:
    """Train for some steps of a one-cycle schedule and return top-1 on the test images, in percent."""
    generator = torch.Generator().manual_seed(0)
    device = images.train.device
    torch.backends.cudnn.benchmark = True  # every batch has the same shape
    model.train().to(device=device, memory_format=torch.channels_last)
    fused = device.type == "cuda"  # updates all weights in one kernel
    bf16 = device.type == "cuda" or not BF16.isdisjoint(cpu_info().instruction_sets)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4, nesterov=True, fused=fused)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.2)
    done = 0
    while done < steps:
        for index in batches(len(images.train), batch, generator):
            x = normalise(augment(images.train[index], generator)).contiguous(memory_format=torch.channels_last)
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                loss = F.cross_entropy(model(x), images.labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            done += 1
            if done == steps:
                break
    return accuracy(model, images.test, images.test_labels)


def save(model: nn.Module, path: Path, arch: str, top1: float) -> None:
    """Save fp16 safetensors, whole or not at all; tensors beyond fp16's range, such as a running variance, stay fp32."""
    largest = torch.finfo(torch.float16).max
    weights = {
        k: v.half().contiguous() if v.is_floating_point() and v.abs().max() <= largest else v.contiguous()
        for k, v in model.cpu().state_dict().items()
    }
    with atomic_write(path) as temporary:
        save_file(weights, temporary, metadata={"arch": arch, "top1": f"{top1:.2f}"})


def trunk_of(depth: int, folder: Path, data: Path) -> dict[str, Tensor]:
    """Return the weights that a depth's networks start from; train them if needed."""
    if depth in (18, 34):
        return load_file(bundled_checkpoint())
    path = folder / "trunk50.safetensors"
    if not path.is_file():
        model = create_model("emca_eca_resnet50", num_classes=10)
        take_weights(model, {})
        top1 = fit(model, Images(data, SIZES[50], "cpu"), 1000, 0.05)
        save(model, path, "emca_eca_resnet50", top1)
        print(f"trunk of depth 50: top-1 {top1:.2f}", flush=True)
    return load_file(path)


def fine_tuned(arch: str, depth: int, images: Images, args: argparse.Namespace) -> tuple[nn.Module, float]:
    """Return a network fine-tuned from its depth's trunk, and its top-1."""
    model = create_model(arch, num_classes=10)
    trunk = trunk_of(depth, args.output, args.data)
    take_weights(model, pkcam_names(trunk) if arch.startswith("pkcam") else trunk)
    return model, fit(model, images, STEPS[depth], LR[depth])


def from_scratch(arch: str, images: Images, epochs: int) -> tuple[nn.Module, float]:
    """Return a network trained from random weights, and its top-1."""
    model = create_model(arch, num_classes=10)
    return model, fit(model, images, epochs * (len(images.train) // SCRATCH_BATCH), SCRATCH_LR, SCRATCH_BATCH)


def main() -> None:
    """Train the missing networks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the checkpoints, one per architecture")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of Fashion-MNIST's four idx files")
    parser.add_argument("--only", default="*", help="pattern of architecture names")
    parser.add_argument("--epochs", type=int, help="epochs of training from scratch; default short training from a trunk")
    parser.add_argument("--device", default="cpu", help="PyTorch device; cuda needs --epochs")
    args = parser.parse_args()
    if args.device != "cpu" and args.epochs is None:
        parser.error("--device is for training from scratch: give --epochs")
    args.output.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    wanted = [(f"{family}_resnet{depth}", depth) for depth in (18, 34, 50) for family in FAMILIES]
    wanted.insert(6, ("pkcam_eca_resnet18", 18))
    images: Images | None = None
    for arch, depth in wanted:
        path = args.output / f"{arch}.safetensors"
        if path.is_file() or not fnmatch(arch, args.only):
            continue
        start = time.monotonic()
        size = SIZES[depth] if args.epochs is None else SCRATCH_SIZE
        if images is None or images.test.shape[-1] != size:
            images = Images(args.data, size, args.device, 2000 if args.epochs is None else None)
        if args.epochs is None:
            model, top1 = fine_tuned(arch, depth, images, args)
        else:
            model, top1 = from_scratch(arch, images, args.epochs)
        save(model, path, arch, top1)
        print(f"{arch}: top-1 {top1:.2f}, {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
