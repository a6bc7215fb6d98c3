"""Layer times of TensorRT, from the files that trtexec exports."""

import re
from pathlib import Path

from emca_deploy.backends.layer_profiler import RuntimeLayer, plain_precision
from emca_deploy.backends.tensorrt.tool.exports import ExportedLayer, read_layer_info, read_profile
from emca_deploy.errors import InputError

__all__ = ["read_trtexec"]

_NODE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_WORDS = (("int8", "int8"), ("fp16", "fp16"), ("half", "fp16"), ("bf16", "bf16"), ("fp32", "fp32"), ("float", "fp32"))
_MOVES = re.compile(r"reformat|copy|shuffle|quantize", re.IGNORECASE)


def read_trtexec(profile: Path, layer_info: Path | None = None) -> tuple[list[RuntimeLayer], int]:
    """Return the layers of an exported profile in the order of execution, and its number of queries.

    The one sample of a layer is its median, or its average for TensorRT before 8.4, which exports no median.

    Args:
        profile: output of --exportProfile.
        layer_info: output of --exportLayerInfo for the same engine, built with --profilingVerbosity=detailed; it has types and
            precisions. Without it, types are guessed from the names of layers.

    Raises:
        InputError: a file cannot be read, or is not such an output.
    """
    exported = read_profile(_text(profile), str(profile))
    about: dict[str, ExportedLayer] = {}
    if layer_info is not None:
        about = {layer.name: layer for layer in read_layer_info(_text(layer_info), str(layer_info))}
    layers = []
    for row in exported.layers:
        ms = row.average_ms if row.median_ms is None else row.median_ms
        known = about.get(row.name, ExportedLayer(row.name))
        nodes = tuple(dict.fromkeys((*_NODE.findall(known.nodes), *_names(row.name))))
        layers.append(RuntimeLayer(row.name, known.kind or _type(row.name), _precision(known), nodes, (ms,)))
    return layers, exported.queries


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as exc:
        raise InputError(f"{path}: cannot be read: {exc.strerror}", "name a file that trtexec exported") from exc


def _names(name: str) -> list[str]:
    """Split a fused layer's name: "conv1 + relu1", "PWN(mul, add)", "{ForeignNode[a...b]}"."""
    inner = re.sub(r"^\w*\(+|[{}\[\]]", "", name.rstrip(")"))
    return [part.strip() for part in re.split(r" \+ |, |\|\||\.\.\.", inner) if part.strip()]


def _type(name: str) -> str:
    moved = _MOVES.search(name)
    if moved:
        return "Reformat"
    return "PointWise" if name.startswith("PWN(") else ""


def _precision(layer: ExportedLayer) -> str:
    """Return the precision of a layer's first input, from a text such as "Row major linear FP32" or "Int8"."""
    for text in (*layer.inputs[:1], *layer.outputs[:1]):
        words = text.lower()
        for word, precision in _WORDS:
            if word in words:
                return precision
    return plain_precision("")
