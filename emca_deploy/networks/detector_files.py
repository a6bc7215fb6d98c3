"""Finds the detectors in a checkpoint, each with its architecture and the conventions that its layout implies."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emca_deploy.checkpoint_files.opening import CheckpointFile
from emca_deploy.errors import CheckpointError
from emca_deploy.networks.detector_layouts import (
    BODY,
    DetectorLayout,
    detector_prefixes,
    find_kind,
    find_layout,
    our_name,
    refused_part,
    with_extra_levels,
)
from emca_deploy.networks.detector_settings import DetectorFacts, Sizes, read_facts
from emca_deploy.networks.detector_weights import convert_heads, count_detector_classes, fold_epsilon, mismatch
from emca_deploy.networks.fitting import Fit, Inferred, differences, empty_network, infer, is_counter, nearest_depth
from emca_deploy.networks.layouts import Translated, translate
from emca_deploy.networks.networks import Network, is_average, without_wrappers
from emca_deploy.tasks.detector_config import DetectorKind

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["DetectorFit", "find_detectors", "fit_detector"]

SHOWN = 3
SUPPORTED = (
    "RetinaNet, Faster R-CNN and Mask R-CNN over a ResNet and a feature pyramid can be loaded; export another detector to ONNX "
    "where it was trained"
)
_IGNORED = re.compile(
    r"backbone\.(body\.)?(fc|head|linear|last_linear)\.|ema_|.*\b(cum_samples|total_ops|total_params|n_averaged)$"
)
"""Names that detections do not depend on: a classifier left in the backbone, averages of mmdetection 2.x, counters."""


@dataclass(frozen=True)
class DetectorFit(Fit):
    """A detector of a checkpoint with its architecture.

    Attributes:
        kind: Detector around the backbone.
        facts: Conventions that its tensors do not show.
    """

    kind: DetectorKind
    facts: DetectorFacts

    def translate(self, tensors: Mapping[str, "Tensor"], path: Path) -> dict[str, "Tensor"]:
        """Return the detector's tensors with our names and last layers."""
        body, heads = _split(self.network.names, self.facts.layout)
        backbone = translate({name: tensors[theirs] for name, theirs in body.items()}, path).tensors
        if self.facts.no_epsilon:
            backbone = fold_epsilon(backbone)
        found = {name: tensors[theirs] for name, theirs in heads.items()}
        return {
            **{f"backbone.{name}": tensor for name, tensor in backbone.items()},
            **convert_heads(found, self.facts.layout, self.classes),
        }


def find_detectors(file: CheckpointFile) -> list[Network]:
    """Return the detectors in a checkpoint, even those that are not supported; those with most tensors come first."""
    plain = without_wrappers(file.tensors)
    found = []
    for prefix in detector_prefixes(plain):
        names = {name.removeprefix(prefix): full for name, full in plain.items() if name.startswith(prefix)}
        own, first = next(iter(names.items()))
        where = first.removesuffix(own) if first.endswith(own) else prefix
        container = first[: file.containers[first]]
        used = {name: full for name, full in names.items() if not _IGNORED.match(name) and not is_counter(name)}
        inside = set(names.values())
        others = tuple(full for full in file.tensors if full not in inside or _IGNORED.match(full[len(where) :]))
        found.append(
            Network(
                where=where,
                container=container if where.startswith(container) else "",
                layout=find_layout(names),
                names=used,
                head="",
                others=others,
                average=is_average(file, plain, prefix),
            )
        )
    return sorted(found, key=lambda network: len(network.names), reverse=True)


def _split(names: Mapping[str, str], layout: DetectorLayout) -> tuple[dict[str, str], dict[str, str]]:
    """Return the file's names of the backbone's tensors by their name in it, and those of the other tensors by ours."""
    front = BODY[layout]
    body = {name.removeprefix(front): name for name in names if name.startswith(front) and not our_name(name, layout)}
    heads = {ours: name for name in names if (ours := our_name(name, layout))}
    return body, with_extra_levels(heads)


@dataclass(frozen=True)
class _Parts:
    """The tensors of a detector, without values.

    Attributes:
        front: Beginning of errors: the file, and the detector's place in it.
        body: Backbone with the names of our ResNets.
        heads: File's names of the other tensors, without the prefix, by our names.
        shapes: Shapes of the other tensors by our names, before conversion.
        no_epsilon: Whether batch norm has no epsilon: torchvision's frozen one before 0.9, and that of its published weights.
    """

    network: Network
    front: str
    layout: DetectorLayout
    kind: DetectorKind
    body: Translated
    heads: dict[str, str]
    shapes: dict[str, tuple[int, ...]]
    no_epsilon: bool

    def theirs(self, name: str) -> str:
        """Return the file's name of a tensor that has our name."""
        if name in self.heads:
            return self.network.prefix + self.heads[name]
        own = self.body.originals.get(name.removeprefix("backbone."), "") if name.startswith("backbone.") else ""
        return self.network.prefix + BODY[self.layout] + own if own else name


def _read_parts(file: CheckpointFile, network: Network) -> _Parts:
    """Translate a detector's names.

    Raises:
        CheckpointError: the detector is not supported.
    """
    front = f"{file.path}: " + (f"under '{network.where}': " if network.where else "")
    layout = find_layout(network.names)
    if part := refused_part(network.names):
        raise CheckpointError(f"{front}is a detector that is not supported: {part}", SUPPORTED)
    body, heads = _split(network.names, layout)
    kind = find_kind(heads)
    known = {*body.values(), *heads.values()}
    unknown = [name for name, full in network.names.items() if name not in known and _may_matter(file, full)]
    if kind is None or unknown:
        names = ", ".join((unknown or list(heads.values()))[:SHOWN])
        raise CheckpointError(f"{front}is a detector that is not supported, with tensors like {names}", SUPPORTED)
    outlines = {name: file.tensors[network.names[theirs]].outline() for name, theirs in body.items()}
    shapes = {name: file.tensors[network.names[theirs]].shape for name, theirs in heads.items()}
    plain = any(re.match(r"backbone\.fpn\.inner_blocks\.\d+\.weight", name) for name in heads.values())
    frozen = not any(is_counter(full) for full in file.tensors if full.startswith(network.where))
    return _Parts(network, front, layout, kind, translate(outlines, file.path), heads, shapes, plain and frozen)


def _may_matter(file: CheckpointFile, full: str) -> bool:
    return file.tensors[full].is_floating and bool(file.tensors[full].shape)


def fit_detector(file: CheckpointFile, network: Network, *, arch: str | None, position: str) -> DetectorFit:
    """Find the architecture and the conventions of a detector from its names, its shapes and the file's record of it.

    Args:
        file: Checkpoint.
        network: Detector in it.
        arch: Architecture that it must have; any where None.
        position: Place of attention in a block of its backbone, which the tensors do not show.

    Raises:
        CheckpointError: the detector is not supported, contradicts its configuration, or is another one than `arch`.
    """
    parts = _read_parts(file, network)
    backbone = infer(parts.body.tensors)
    if backbone is None:
        names = ", ".join(parts.body.originals[name] for name in list(parts.body.tensors)[:SHOWN]) or "none"
        problem = f"{parts.front}is a detector with a backbone that fits no architecture; its names are like {names}"
        raise CheckpointError(problem, SUPPORTED)
    name = f"{parts.kind}_{backbone.arch}_fpn"
    if arch is not None and arch != name:
        problem = f"{parts.front}is not {arch}: its tensors are those of the detector {name}"
        raise CheckpointError(problem, f"say --arch {name}, or leave --arch out")
    if wrong := mismatch(parts.shapes, parts.layout, parts.kind, parts.theirs):
        remedy = "give the state dict of one detector, whose heads were trained for the same classes"
        raise CheckpointError(f"{parts.front}its heads are for different numbers of classes: {wrong}", remedy)
    facts = read_facts(file, parts.layout, parts.kind, _sizes(parts), no_epsilon=parts.no_epsilon)
    options = {**backbone.options, **facts.options} | ({"caffe": True} if parts.body.caffe else {})
    if backbone.arch.startswith("pkcam"):
        options.pop("caffe", None)  # PKCAM's code has one form of a block
    elif position != "residual":
        options["position"] = position
    classes = count_detector_classes(parts.shapes, parts.layout, parts.kind)
    fit = DetectorFit(network, Inferred(name, options), classes, facts.layout, parts.kind, facts)
    _compare(file, fit, parts)
    return fit


def _sizes(parts: _Parts) -> Sizes:
    """Return the sizes that a detector's tensors show, each with the name of its tensor."""
    shapes = parts.shapes

    def size(name: str, axis: int = 0) -> int:
        return (*shapes.get(f"{name}.weight", ()), 0, 0)[axis]

    channels = size("fpn.output.0")
    dense = "head" if parts.kind == "retinanet" else "rpn"
    values: dict[str, Any] = {
        "num_classes": count_detector_classes(shapes, parts.layout, parts.kind),
        "fpn_channels": channels,
    }
    shown = {"num_classes": "head.scores" if dense == "head" else "roi.box.scores", "fpn_channels": "fpn.output.0"}
    if dense == "rpn":
        values["box_head_width"] = size("roi.box.fc6")
        values["box_bins"] = isqrt(size("roi.box.fc6", 1) // max(channels, 1))
        shown |= {"box_head_width": "roi.box.fc6", "box_bins": "roi.box.fc6"}
    else:
        top = max((name for name in shapes if name.startswith("fpn.lateral.") and name.endswith(".weight")), default="")
        width, source = size(top.removesuffix(".weight"), 1), size("fpn.extra.0", 1)
        if source in (channels, width) and channels != width:
            values["p6_from"] = "c5" if source == width else "p5"
            shown["p6_from"] = "fpn.extra.0"
    shown["anchors"] = f"{dense}.deltas"
    names = {name: parts.theirs(f"{module}.weight") for name, module in shown.items()}
    return Sizes(nearest_depth(parts.body.tensors), size(f"{dense}.deltas") // 4, values, names)


def _compare(file: CheckpointFile, fit: DetectorFit, parts: _Parts) -> None:
    """Refuse a detector whose tensors are not exactly those of its architecture."""
    outlines = {name: file.tensors[full].outline() for name, full in fit.network.names.items()}
    given = fit.translate(outlines, file.path)
    expected = empty_network(fit.inferred, fit.classes).state_dict()
    matching, wrong = differences(expected, given)
    if not wrong:
        return
    listed = []
    for what, names in wrong.items():
        shown = [parts.theirs(name) for name in names[:SHOWN]]
        if what == "misshapen":
            shown = [
                f"{theirs} ({'x'.join(map(str, given[name].shape))}, not {'x'.join(map(str, expected[name].shape))})"
                for theirs, name in zip(shown, names, strict=False)
            ]
        listed.append(f"{what} {len(names)}: {', '.join(shown)}{', ...' if len(names) > SHOWN else ''}")
    total = sum(not is_counter(name) for name in expected)
    raise CheckpointError(
        f"{parts.front}is not a whole {fit.inferred.arch}: {matching} of its {total} tensors match; {'; '.join(listed)}",
        "give the detector's whole state dict",
    )
