"""The placement of layers on a DLA and on the GPU, from the log of TensorRT's builder.

The log has one of three forms: `[DlaLayer] {ForeignNode[first...last]}` and `[GpuLayer] KIND: name` since 8.0 (verbose only, from
8.6 or so on), the same without a kind, and before that one line of names for each.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

__all__ = ["DlaPlacement", "GpuLayer", "concerns_dla", "place_nodes", "read_placement"]

Device = Literal["dla", "gpu", "unknown"]

TAGGED = re.compile(r"\[(?P<device>Dla|Gpu)Layer\] ")
HEADING = re.compile(r"-{5,} ?Layers [Rr]unning on (?P<device>DLA|GPU)")
PREFIX = re.compile(r"(?:\[[^\]]*\] ?)*(?:\w+: \[TRT\]: ?)?")
KIND = re.compile(r"^(?P<kind>[A-Z][A-Z0-9_]*): (?P<name>.*)$")
FOREIGN = ("{ForeignNode[", "]}")
GROUP = re.compile(r"\{([^{}]*)\}")
SEPARATORS = re.compile(r"PWN\(|\)|, ?| \+ | \|\| |\{|\}")
UNNAMED = re.compile(r"^\(Unnamed Layer\* \d+\)")

REFUSALS = (
    ("Layer '", re.compile(r"' \(\w+\): (Unsupported on DLA)")),
    ("Default DLA is enabled but layer ", re.compile(r" is not (?:supported|running) on DLA, (falling back to GPU)")),
)
"""The text before a layer's name, and the text after it with the reason."""

TOO_MANY = re.compile(r"(?P<reason>DLA supports only \d{1,9} subgraphs per DLA core)\. Switching to GPU for layer ")
OTHER_REFUSAL = re.compile(r"(?:^|\] )(?P<name>[^\[\]\s][^\[\]]*?): (?P<reason>DLA [^.]*)")
MOST_DOTS = 64
"""Number of places that are tried as the "..." of a foreign node; no name of a model has more."""


@dataclass(frozen=True)
class GpuLayer:
    """A layer on the GPU; `kind` is TensorRT's word for it, empty where the log has none."""

    kind: str
    name: str


@dataclass(frozen=True)
class DlaPlacement:
    """The placement of an engine's layers.

    Attributes:
        parts: Parts for the DLA (loadables), as logged: "{ForeignNode[first...last]}".
        gpu: Layers on the GPU, including copies between the two.
        refused: Reasons of layers that are not on the DLA, by name, as far as the builder logs them.
    """

    parts: tuple[str, ...] = ()
    gpu: tuple[GpuLayer, ...] = ()
    refused: dict[str, str] = field(default_factory=dict)

    def to_dict(self, nodes: Sequence[str] = (), macs: Mapping[str, int] | None = None) -> dict[str, Any]:
        """Return the record for a manifest; `nodes` are in topological order, `macs` their multiply-adds for one image."""
        places = place_nodes(self, nodes)
        total = sum((macs or {}).values())
        on_dla = sum(count for node, count in (macs or {}).items() if places.get(node) == "dla")
        unknown = sum(count for node, count in (macs or {}).items() if places.get(node, "unknown") == "unknown")
        return {
            "dla_parts": list(self.parts),
            "gpu_layers": [{"kind": layer.kind, "name": layer.name} for layer in self.gpu],
            "gpu_layer_kinds": dict(Counter(layer.kind or "unknown" for layer in self.gpu)),
            "refused": dict(self.refused),
            "nodes": dict(Counter(places.values())),
            "gpu_nodes": [node for node, place in places.items() if place == "gpu"],
            "macs_on_dla_percent": 100 * on_dla / total if total else None,
            "macs_of_unknown_place_percent": 100 * unknown / total if total else None,
        }


def concerns_dla(message: str) -> bool:
    """Return whether `read_placement` needs a message of the builder, for a log that keeps only some."""
    return any(word in message for word in ("DlaLayer]", "GpuLayer]", "DLA", "unning on GPU"))


def read_placement(lines: Iterable[str]) -> DlaPlacement | None:
    """Return the last placement in the lines of a builder's log; None where there is none, such as below verbose severity."""
    lists: dict[str, list[str]] = {"DLA": [], "GPU": []}
    refused: dict[str, str] = {}
    seen, heading = False, ""
    for line in lines:
        started = HEADING.search(line)
        tagged = TAGGED.search(line)
        if started is not None:
            seen, heading = True, started["device"]
            if heading == "DLA":
                lists = {"DLA": [], "GPU": []}
        elif tagged is not None:
            seen = True
            lists["DLA" if tagged["device"] == "Dla" else "GPU"].append(line[tagged.end() :].rstrip().removesuffix(","))
            heading = ""
        elif heading:
            lists[heading] += _plain(line, heading)
            heading = ""
        else:
            refused.update(_refusal(line))
    if not seen:
        return None
    return DlaPlacement(tuple(lists["DLA"]), tuple(_gpu_layer(text) for text in lists["GPU"]), refused)


def _plain(line: str, device: str) -> list[str]:
    """Return the layers of the single line in which the oldest versions list them."""
    text = line.strip()
    if prefix := PREFIX.match(text):
        text = text[prefix.end() :]
    if device == "DLA":
        return [f"{{{group}}}" for group in GROUP.findall(text)]
    return [name for name in (part.strip() for part in text.split(",")) if name and not name.startswith("No layer")]


def _gpu_layer(text: str) -> GpuLayer:
    match = KIND.match(text)
    return GpuLayer(match["kind"], match["name"]) if match else GpuLayer("", text)


def _refusal(line: str) -> dict[str, str]:
    for before, behind in REFUSALS:
        _, found, rest = line.partition(before)
        if found and (match := behind.search(rest)):
            return {rest[: match.start()].strip(): match[1]}
    if match := TOO_MANY.search(line):
        return {line[match.end() :].strip(): match["reason"]}
    if match := OTHER_REFUSAL.search(line):
        return {match["name"].strip(): match["reason"].strip()}
    return {}


def place_nodes(placement: DlaPlacement, nodes: Sequence[str]) -> dict[str, Device]:
    """Return where each node of the model, given in topological order, runs.

    A GPU layer names the nodes fused into it. A part of the DLA names only its first and last node: the nodes between them in
    topological order are on the DLA, unless a GPU layer names them. Other nodes were folded away, or their names were lost.
    """
    position = {name: index for index, name in enumerate(nodes)}
    named: dict[str, set[Device]] = {}
    spanned: dict[str, set[Device]] = {}
    layers: list[tuple[Device, str]] = [
        *(("dla", part) for part in placement.parts),
        *(("gpu", one.name) for one in placement.gpu),
    ]
    for device, text in layers:
        start, end = text.find(FOREIGN[0]), text.rfind(FOREIGN[1])
        if start < 0 or end < start + len(FOREIGN[0]):
            found = (token.strip() for token in SEPARATORS.split(text))
            for name in (token for token in found if token in position):
                named.setdefault(name, set()).add(device)
            continue
        first, last = _ends(text[start + len(FOREIGN[0]) : end], position)
        for name in nodes[first : last + 1]:
            spanned.setdefault(name, set()).add(device)
    return {name: _one(named.get(name)) or _one(spanned.get(name)) or "unknown" for name in nodes}


def _one(devices: set[Device] | None) -> Device | None:
    return next(iter(devices)) if devices is not None and len(devices) == 1 else None


def _ends(text: str, position: Mapping[str, int]) -> tuple[int, int]:
    """Return the positions of a foreign node's first and last node; an empty range where they are not in the model."""
    if text in position:
        return position[text], position[text]
    cuts = (match.start() for match in re.finditer(r"\.\.\.", text))
    for cut in islice(cuts, MOST_DOTS):  # a name may contain dots itself
        first, last = (_node_of(part) for part in (text[:cut], text[cut + 3 :]))
        if first in position and last in position:
            ends = sorted((position[first], position[last]))
            return ends[0], ends[1]
    return 0, -1


def _node_of(text: str) -> str:
    """Return the node in a name that may also list layers added by the parser."""
    parts = [part.strip() for part in text.split(" + ")]
    return next((part for part in parts if not UNNAMED.match(part)), text)
