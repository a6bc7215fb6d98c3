"""Train an EMCA-ResNet on Fashion-MNIST; the bundled checkpoint comes from this script.

    python examples/train_fashion_mnist.py -o fashion.safetensors

The data are the four idx files of Fashion-MNIST (Debian: `apt-get install dataset-fashion-mnist`; MIT licence). Early epochs
run on smaller images, in a quarter of the time; the last epochs at full size recover the accuracy.
"""

import argparse
import gzip
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from emca_deploy import create_model

DATA = Path("/usr/share/datasets/fashion-mnist")
MEAN, STD = 0.2860, 0.3530  # of the 60,000 training images
SCHEDULE = "32x5,48x4,64x4"
FEWEST_STEPS = 10  # the learning rate rises for a fifth of all steps, which must be more than one: PyTorch divides by the rest


def read_split(folder: Path, split: str, limit: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Return images (N, 28, 28) uint8 and labels (N,) int64 of "train" or "t10k"."""
    with gzip.open(folder / f"{split}-images-idx3-ubyte.gz") as stream:
        images = np.frombuffer(stream.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    with gzip.open(folder / f"{split}-labels-idx1-ubyte.gz") as stream:
        labels = np.frombuffer(stream.read(), np.uint8, offset=8).astype(np.int64)
    return images[:limit], labels[:limit]


def read_schedule(text: str) -> list[tuple[int, int]]:
    """Return (image size, epochs) of every phase of "32x5,64x4"."""
    try:
        return [(int(size), int(epochs)) for size, epochs in (phase.split("x") for phase in text.split(","))]
    except ValueError as exc:
        raise ValueError(f"--schedule {text}: not SIZExEPOCHS, comma-separated, such as {SCHEDULE}") from exc


def resize(images: np.ndarray, size: int) -> Tensor:
    """Resize (N, 28, 28) uint8 to (N, 1, size, size) uint8 with Pillow, as deployment does."""
    bilinear = Image.Resampling.BILINEAR
    resized = [np.asarray(Image.fromarray(image).resize((size, size), bilinear)) for image in images]
    return torch.from_numpy(np.stack(resized)).unsqueeze(1)


def normalise(images: Tensor) -> Tensor:
    """Turn (N, 1, H, W) uint8 into the network's input, (N, 3, H, W) float32."""
    return ((images.float() / 255 - MEAN) / STD).expand(-1, 3, -1, -1)


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift each batch by up to a sixteenth of its size and mirror half of the images; (N, 1, H, W) uint8 both ways."""
    size, place = images.shape[2], images.device
    reach = size // 16
    tops, lefts = torch.randint(0, 2 * reach + 1, (2, len(images), 1), generator=generator).to(place)
    mirrored = (torch.rand(len(images), 1, generator=generator) < 0.5).to(place)
    along = torch.arange(size, device=place)
    rows, columns = tops + along, lefts + torch.where(mirrored, along.flip(0), along)
    each = torch.arange(len(images), device=place)[:, None, None]
    return F.pad(images, (reach,) * 4)[each, 0, rows[:, :, None], columns[:, None, :]].unsqueeze(1)


def batches(count: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield the full index batches of one shuffled epoch."""
    order = torch.randperm(count, generator=generator)
    for start in range(0, count - size + 1, size):
        yield order[start : start + size]


@torch.inference_mode()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return top-1 in percent."""
    model.eval()
    hits = sum(int((model(normalise(i)).argmax(1) == t).sum()) for i, t in zip(images.split(250), labels.split(250), strict=True))
    model.train()
    return 100 * hits / len(labels)


def train(args: argparse.Namespace) -> None:
    """Train, print a line per epoch, and save the weights as fp16 safetensors."""
    torch.manual_seed(args.seed)
    generator = torch.Generator().manual_seed(args.seed)
    images, labels_array = read_split(args.data, "train", args.limit)
    test_images, test_labels_array = read_split(args.data, "t10k", args.limit)
    labels, test_labels = torch.from_numpy(labels_array), torch.from_numpy(test_labels_array)
    phases = read_schedule(args.schedule)
    steps_per_epoch = len(images) // args.batch
    if steps_per_epoch == 0:
        raise ValueError(f"{len(images)} images are less than one batch: give a smaller --batch than {args.batch}")
    model = create_model(args.arch, num_classes=10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, args.lr, total_steps=max(FEWEST_STEPS, steps_per_epoch * sum(epochs for _, epochs in phases)), pct_start=0.2
    )
    epoch = 0
    for size, epochs in phases:
        resized = resize(images, size)
        test_resized = resize(test_images, size)
        for _ in range(epochs):
            epoch += 1
            start, total_loss = time.monotonic(), 0.0
            for index in batches(len(resized), args.batch, generator):
                x = normalise(augment(resized[index], generator))
                with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
                    loss = F.cross_entropy(model(x), labels[index])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                scheduler.step()
                total_loss += loss.item()
            top1 = accuracy(model, test_resized, test_labels)
            print(
                f"epoch {epoch} size {size} loss {total_loss / steps_per_epoch:.4f} top-1 {top1:.2f} "
                f"seconds {time.monotonic() - start:.0f}",
                flush=True,
            )
            weights = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
            save_file(weights, args.output, metadata={"arch": args.arch, "top1": f"{top1:.2f}", "epoch": str(epoch)})


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="file for the fp16 safetensors")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the four idx files")
    parser.add_argument("--arch", default="emca_eca_resnet18")
    parser.add_argument("--schedule", default=SCHEDULE, help="SIZExEPOCHS, comma-separated")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=0.15)
    parser.add_argument("--limit", type=int, help="use only the first images of both splits, for a trial run")
    parser.add_argument("--bf16", action="store_true", help="bfloat16 autocast, faster where the CPU has it")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    try:
        train(args)
    except (OSError, ValueError) as exc:
        parser.error(str(exc))


if __name__ == "__main__":
    main()
