"""Train a detector on scenes of Fashion-MNIST garments; the sample detectors come from this script.

    python examples/train_scenes.py -o mask_rcnn.safetensors
    python examples/train_scenes.py -o mask_rcnn.safetensors --resume

New scenes are made for every step. Each epoch ends with an evaluation on test scenes and a checkpoint beside the output, from
which `--resume` continues. The backbone starts from the bundled classifier. Two hours on one core give a useful detector.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from fashion_scenes import CLASSES, DATA, SIZE, TEST_SEED, Garments, Scene, make_scene, read_garments
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from emca_deploy import create_model
from emca_deploy.data.bundled import BUNDLED_PREPROCESSING, bundled_checkpoint
from emca_deploy.errors import EmcaError
from emca_deploy.networks.detectors.boxes import pairwise_iou
from emca_deploy.networks.detectors.losses import Sampling
from emca_deploy.preprocessing import PreprocessingOptions
from emca_deploy.results import codec

SAMPLING = Sampling(rpn_positive=32, rpn_negative=64, roi_positive=8, roi_negative=24)
SMALL = {"fpn_channels": 64, "pre_nms": 256, "post_nms": 128, "max_detections": 20, "class_names": CLASSES}
RCNN = {
    "box_head_width": 256, "anchor_sizes": ((16.0,), (28.0,), (44.0,), (64.0,), (96.0,)), "roi_finest_scale": 20.0,
}  # fmt: skip
RETINANET = {
    "anchor_sizes": ((18.0, 24.0, 31.0), (38.0, 46.0, 56.0), (68.0, 82.0, 100.0), (96.0, 112.0, 128.0), (96.0, 112.0, 128.0)),
}
"""Anchors for garments of 24 to 56 pixels, and heads for a small image."""


def make_model(arch: str) -> nn.Module:
    """Return the detector with the bundled classifier's weights in its backbone."""
    own = RETINANET if arch.startswith("retinanet") else RCNN
    model = create_model(arch, num_classes=len(CLASSES), **SMALL, **own)
    model.sampling = SAMPLING
    if arch.endswith("emca_eca_resnet18_fpn"):
        weights = {name: tensor.float() for name, tensor in load_file(bundled_checkpoint()).items()}
        model.backbone.load_state_dict({name: t for name, t in weights.items() if not name.startswith("head.")}, strict=False)
    return model


def normalize(images: np.ndarray) -> Tensor:
    """Turn (N, H, W, 3) uint8 into the network's input, (N, 3, H, W) float32."""
    mean, std = torch.tensor(BUNDLED_PREPROCESSING.mean), torch.tensor(BUNDLED_PREPROCESSING.std)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    return (pixels - mean[:, None, None]) / std[:, None, None]


def batch(garments: Garments, seed: int, numbers: range) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Return the images and the targets of scenes."""
    scenes = [make_scene(garments, SIZE, seed, number) for number in numbers]
    return normalize(np.stack([scene.image for scene in scenes])), [target(scene) for scene in scenes]


def target(scene: Scene) -> dict[str, Tensor]:
    """Return what a detector should find in a scene."""
    return {
        "boxes": torch.from_numpy(scene.boxes()),
        "labels": torch.from_numpy(scene.labels),
        "masks": torch.from_numpy(scene.masks()),
    }


@torch.inference_mode()
def evaluate(model: nn.Module, garments: Garments, count: int, size: int) -> str:
    """Return recall and precision at an intersection over union of 0.5, with scores from 0.05 and from 0.5."""
    model.eval()
    objects = hits = sure = right = 0
    for start in range(0, count, size):
        images, targets = batch(garments, TEST_SEED, range(start, min(start + size, count)))
        found = model(images)
        for row, wanted in enumerate(targets):
            rows = int(found["num_detections"][row])
            overlap = pairwise_iou(wanted["boxes"], found["boxes"][row, :rows])
            good = (overlap > 0.5) & (wanted["labels"][:, None] == found["labels"][row, None, :rows])
            certain = found["scores"][row, :rows] > 0.5
            objects, hits = objects + len(good), hits + int(good.any(1).sum())
            sure, right = sure + int(certain.sum()), right + int((good.any(0) & certain).sum())
    model.train()
    return f"recall {100 * hits / objects:.1f}%, precision {100 * right / max(sure, 1):.1f}% of {sure} sure detections"


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file beside its place, and rename it: it appears whole or not at all."""
    beside = path.with_name(f"{path.name}.part")
    write(beside)
    beside.replace(path)


def save_weights(model: nn.Module, path: Path) -> None:
    """Save the weights as fp16 safetensors, with the detector's configuration and its licence in the metadata."""
    half = {
        name: tensor.half().contiguous()
        for name, tensor in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    preprocessing = PreprocessingOptions(image_size=SIZE, mean=BUNDLED_PREPROCESSING.mean, std=BUNDLED_PREPROCESSING.std)
    facts = {"detector": model.config, "preprocessing": preprocessing}
    metadata = {name: json.dumps(codec.to_json(value)) for name, value in facts.items()} | {
        "data": "scenes of Fashion-MNIST, MIT licence"
    }
    write_whole(path, lambda place: save_file(half, place, metadata=metadata))


def rate(step: int, steps: int) -> float:
    """Return the share of the learning rate at a step: it rises for a twentieth of all steps, then falls along a cosine."""
    warm = max(1, steps // 20)
    return min((step + 1) / warm, 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps))))


class Trainer:
    """A detector in training, which can be saved and continued."""

    def __init__(self, args: argparse.Namespace) -> None:
        torch.manual_seed(args.seed)
        self.args, self.step = args, 0
        self.steps = args.epochs * args.steps_per_epoch
        self.model = make_model(args.arch)
        self.model.freeze(args.frozen_stages)
        self.model.to(memory_format=torch.channels_last)  # a third faster
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=args.lr, weight_decay=1e-4)
        self.state_file = args.output.with_suffix(".training")

    def resume(self) -> None:
        """Continue from the checkpoint beside the output, if there is one."""
        if not self.state_file.exists():
            print(f"{self.state_file}: no checkpoint yet; training starts from the beginning")
            return
        state = torch.load(self.state_file, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]

    def save(self) -> None:
        """Write the checkpoint, then the weights."""
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.step}
        write_whole(self.state_file, lambda place: torch.save(state, place))
        save_weights(self.model, self.args.output)

    def train_step(self, garments: Garments) -> dict[str, float]:
        """Take one step on new scenes, and return the losses."""
        args = self.args
        first = self.step * args.batch
        images, targets = batch(garments, args.seed, range(first, first + args.batch))
        for group in self.optimizer.param_groups:
            group["lr"] = args.lr * rate(self.step, self.steps)
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            losses = self.model.losses(images.contiguous(memory_format=torch.channels_last), targets)
        self.optimizer.zero_grad(set_to_none=True)
        sum(losses.values()).backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 5.0)
        self.optimizer.step()
        self.step += 1
        return {name: float(value.detach()) for name, value in losses.items()}

    def run(self) -> None:
        """Train to the end, with a line every 25 steps and an evaluation and a checkpoint at the end of each epoch."""
        args = self.args
        garments, test_garments = read_garments(args.data, "train"), read_garments(args.data, "t10k")
        recent: list[dict[str, float]] = []
        began, first = time.monotonic(), self.step
        while self.step < self.steps:
            recent.append(self.train_step(garments))
            if self.step % 25 == 0:
                means = ", ".join(f"{name} {np.mean([each[name] for each in recent]):.3f}" for name in recent[0])
                pace = (time.monotonic() - began) / (self.step - first)
                print(f"step {self.step} of {self.steps}, {pace:.2f} s each: {means}", flush=True)
                recent.clear()
            if self.step % args.steps_per_epoch == 0:
                self.save()
                print(
                    f"epoch {self.step // args.steps_per_epoch}: {evaluate(self.model, test_garments, args.test, args.batch)}",
                    flush=True,
                )


def train(args: argparse.Namespace) -> None:
    """Train from the beginning, or from the checkpoint beside the output."""
    trainer = Trainer(args)
    if args.resume:
        trainer.resume()
    trainer.run()


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="safetensors file to write")
    parser.add_argument("--arch", default="mask_rcnn_emca_eca_resnet18_fpn")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of Fashion-MNIST's idx files")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--steps-per-epoch", type=int, default=200)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--frozen-stages", type=int, default=0, choices=range(5), help="stages of the backbone that do not learn")
    parser.add_argument("--test", type=int, default=200, help="test scenes of each evaluation")
    parser.add_argument("--seed", type=int, default=0, help=f"seed of the scenes; {TEST_SEED} is that of the test scenes")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--bf16", action="store_true", help="compute in bfloat16, on a processor that is faster in it")
    parser.add_argument("--resume", action="store_true", help="continue from the checkpoint beside the output")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    try:
        train(args)
    except (OSError, ValueError, EmcaError) as exc:
        parser.error(str(exc))


if __name__ == "__main__":
    main()
