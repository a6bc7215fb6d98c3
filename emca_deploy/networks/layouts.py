"""Translates other repositories' key names of ResNets to ours, and back for errors."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from emca_deploy.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["HEAD_OF_LAYOUT", "Layout", "Translated", "foreign_name", "to_torchvision", "translate"]

Layout = str
"""Origin of a checkpoint's key names: "native", "pkcam", "torchvision", "timm", "pretrained-models", "srm", "mmpretrain",
"huggingface", or "sequential" (torchvision's children in a torch.nn.Sequential)."""

HEAD_OF_LAYOUT: dict[Layout, str] = {
    "native": "head.", "pkcam": "linear.", "torchvision": "fc.", "huggingface": "fc.", "sequential": "fc.",
}  # fmt: skip
"""Name of the layer that makes the logits, after `to_torchvision`."""

# (ours, theirs): equal in torchvision, SENet, ECANet, timm and SRM; pretrained-models wraps the stem and renames the head.
_TRUNK = (("stem.conv.", "conv1."), ("stem.bn.", "bn1."), ("head.", "fc."))
_CAFFE_TRUNK = (("stem.conv.", "layer0.conv1."), ("stem.bn.", "layer0.bn1."), ("head.", "last_linear."))
_SHORTCUT = (("shortcut.conv.", "downsample.0."), ("shortcut.bn.", "downsample.1."))

# (layout, its name within a block, ours)
_ATTENTION: tuple[tuple[Layout, str, str], ...] = (
    ("torchvision", r"eca\.conv\.weight", "conv.weight"),
    ("torchvision", r"se\.fc\.0\.(weight|bias)", r"reduce.\1"),
    ("torchvision", r"se\.fc\.2\.(weight|bias)", r"expand.\1"),
    ("timm", r"se\.fc1\.(weight|bias)", r"reduce.\1"),
    ("timm", r"se\.fc2\.(weight|bias)", r"expand.\1"),
    ("timm", r"se\.conv\.weight", "conv.weight"),
    ("pretrained-models", r"se_module\.fc1\.(weight|bias)", r"reduce.\1"),
    ("pretrained-models", r"se_module\.fc2\.(weight|bias)", r"expand.\1"),
    ("mmpretrain", r"se_layer\.conv1\.conv\.(weight|bias)", r"reduce.\1"),
    ("mmpretrain", r"se_layer\.conv2\.conv\.(weight|bias)", r"expand.\1"),
    ("srm", r"(?:rclb|srm)\.cfc(?:\.weight)?", "cfc"),
    ("srm", r"(?:rclb|srm)\.bn\.(\w+)", r"bn.\1"),
    ("srm", r"rclb\.fc\.0\.(weight|bias)", r"reduce.\1"),
    ("srm", r"rclb\.fc\.2\.(weight|bias)", r"expand.\1"),
)
_THEIR_BLOCK = re.compile(r"layer([1-4])\.(\d+)\.(.+)")
_OUR_BLOCK = re.compile(r"stage([1-4])\.block(\d+)\.(.+)")

# (theirs, torchvision's), without a prefix. A Sequential numbers its children: 2 and 3 are ReLU and pooling.
_HUGGING_FACE = (
    (r"embedder\.embedder\.convolution\.", r"conv1."),
    (r"embedder\.embedder\.normalization\.", r"bn1."),
    (r"encoder\.stages\.(\d)\.layers\.(\d+)\.layer\.(\d)\.convolution\.", r"layer{0}.\2.conv{1}."),
    (r"encoder\.stages\.(\d)\.layers\.(\d+)\.layer\.(\d)\.normalization\.", r"layer{0}.\2.bn{1}."),
    (r"encoder\.stages\.(\d)\.layers\.(\d+)\.shortcut\.convolution\.", r"layer{0}.\2.downsample.0."),
    (r"encoder\.stages\.(\d)\.layers\.(\d+)\.shortcut\.normalization\.", r"layer{0}.\2.downsample.1."),
)
_SEQUENTIAL = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}


@dataclass(frozen=True)
class Translated:
    """A state dict with our key names.

    Attributes:
        layout: Origin of its former names.
        tensors: Tensors by our name; those that have none keep their own.
        originals: Former name by our name.
        caffe: Whether these weights belong to Caffe's variant of the network (see `ResNet`).
    """

    layout: Layout
    tensors: dict[str, "Tensor"]
    originals: dict[str, str]
    caffe: bool = False


def translate(state: Mapping[str, "Tensor"], path: Path) -> Translated:
    """Rename the keys of `state` to ours; `path` is for errors.

    Raises:
        CheckpointError: the tensors belong to a variant of ResNet that is not supported.
    """
    if "stem.conv.weight" in state or any(_OUR_BLOCK.match(key) for key in state):
        return Translated("native", dict(state), {key: key for key in state})
    if "pre.0.weight" in state or any(".ECA_excitation_local." in key for key in state):
        return Translated("pkcam", dict(state), {key: key for key in state})
    if variant := _variant({key: tuple(tensor.shape) for key, tensor in state.items()}):
        raise CheckpointError(
            f"{path}: is a ResNet variant that is not supported: {variant}",
            "give a standard ResNet's checkpoint; `emca-deploy models` lists what can be loaded",
        )
    caffe = any(key.startswith("layer0.") for key in state)
    layout, tensors, originals = "pretrained-models" if caffe else "torchvision", {}, {}
    for key, tensor in state.items():
        whose, name = _our_name(key, _CAFFE_TRUNK if caffe else _TRUNK)
        layout = whose or layout
        tensors[name] = _reshape(name, tensor)
        originals[name] = key
    return Translated(layout, tensors, originals, caffe)


def to_torchvision(name: str, layout: Layout) -> str:
    """Return torchvision's name of a tensor in Hugging Face's ResNet or in a Sequential of torchvision's children."""
    if layout == "sequential":
        first, dot, rest = name.partition(".")
        return _SEQUENTIAL.get(first, first) + dot + rest
    if layout == "huggingface":
        for pattern, replacement in _HUGGING_FACE:
            match = re.match(pattern, name)
            if match:
                groups = match.groups()
                counted = replacement.format(*(int(group) + 1 for group in (groups[:1] + groups[2:])))
                return match.expand(counted) + name[match.end() :]
    return name


def foreign_name(name: str, layout: Layout, caffe: bool = False) -> str:
    """Return the name that `layout` has for our trunk key `name`; attention keys keep our name."""
    if layout in ("native", "pkcam"):
        return name
    for ours, theirs in _CAFFE_TRUNK if caffe else _TRUNK:
        if name.startswith(ours):
            return _from_torchvision(theirs + name.removeprefix(ours), layout)
    for ours, theirs in _SHORTCUT:
        name = name.replace(ours, theirs)
    return _from_torchvision(_OUR_BLOCK.sub(r"layer\1.\2.\3", name), layout)


def _from_torchvision(name: str, layout: Layout) -> str:
    if layout == "sequential":
        first, dot, rest = name.partition(".")
        return {theirs: number for number, theirs in _SEQUENTIAL.items()}.get(first, first) + dot + rest
    if layout != "huggingface":
        return name
    stem = {"conv1.": "embedder.embedder.convolution.", "bn1.": "embedder.embedder.normalization."}
    for ours, theirs in stem.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    match = re.fullmatch(r"layer(\d)\.(\d+)\.(?:(conv|bn)(\d)|downsample\.([01]))\.(.+)", name)
    if match is None:
        return name
    stage, block, kind, number, place, rest = match.groups()
    module = "convolution" if kind == "conv" or place == "0" else "normalization"
    part = f"layer.{int(number) - 1}" if number else "shortcut"
    return f"encoder.stages.{int(stage) - 1}.layers.{block}.{part}.{module}.{rest}"


def _our_name(key: str, trunk: tuple[tuple[str, str], ...]) -> tuple[Layout | None, str]:
    for ours, theirs in trunk:
        if key.startswith(theirs):
            return None, ours + key.removeprefix(theirs)
    parts = _THEIR_BLOCK.fullmatch(key)
    if parts is None:
        return None, key
    block, rest = f"stage{parts[1]}.block{parts[2]}.", parts[3]
    for ours, theirs in _SHORTCUT:
        if rest.startswith(theirs):
            return None, block + ours + rest.removeprefix(theirs)
    for whose, pattern, replacement in _ATTENTION:
        match = re.fullmatch(pattern, rest)
        if match:
            return whose, f"{block}attention.excitation.{match.expand(replacement)}"
    return None, block + rest


def _reshape(name: str, tensor: "Tensor") -> "Tensor":
    """Turn SE's 1x1 convolutions into matrices, and SRM's depthwise Conv1d (C, 1, 2) into (C, 2)."""
    if name.endswith(("excitation.reduce.weight", "excitation.expand.weight")) and tuple(tensor.shape[2:]) == (1, 1):
        return tensor[:, :, 0, 0]
    if name.endswith("excitation.cfc") and tuple(tensor.shape[1:]) == (1, 2):
        return tensor[:, 0, :]
    return tensor


def _variant(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """Return what makes a ResNet with these tensors a variant that is not supported, or None."""
    stem = shapes.get("conv1.weight", shapes.get("layer0.conv1.weight", ()))
    second = shapes.get("layer1.0.conv2.weight", ())
    pattern = re.compile(r"layer\d\.\d+\.downsample\.\d\.weight")
    shortcuts = {key: shape for key, shape in shapes.items() if pattern.fullmatch(key) and len(shape) == 4}
    deep = "conv1.0.weight" in shapes or "layer0.conv2.weight" in shapes
    rules = [
        (deep, "a deep stem of three 3x3 convolutions (conv1.0, conv1.3, ...)"),
        (len(stem) == 4 and stem[2:] != (7, 7), f"a {'x'.join(map(str, stem[2:]))} stem convolution, not 7x7"),
        *((".downsample.1." in key, f"average-pooled shortcuts as in ResNet-D ({key})") for key in shortcuts),
        *((s[2:] != (1, 1), f"a {s[2]}x{s[3]} shortcut convolution ({key})") for key, s in shortcuts.items()),
    ]
    if len(second) == 4:
        rules.append((second[0] != second[1], "grouped convolutions as in ResNeXt (layer1.0.conv2)"))
        rules.append((second[0] != 64, f"another width, {second[0]} channels where ResNet has 64 (layer1.0.conv2)"))
    return next((variant for found, variant in rules if found), None)
