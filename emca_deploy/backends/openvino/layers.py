"""The times of OpenVINO's layers, from its performance counters and its executable graph."""

import re
from pathlib import Path
from typing import Any

from emca_deploy.arrays import Float32Array
from emca_deploy.backends.base import RunOptions
from emca_deploy.backends.layer_profiler import LayerProfiler, RuntimeLayer, plain_precision
from emca_deploy.backends.openvino.runner import load_compiled
from emca_deploy.errors import ModelError
from emca_deploy.onnx_file.refusal import library_reason

__all__ = ["OvLayerProfiler", "precision_of_exec_type"]

COUNTERS = {"PERF_COUNT": True}
ADDED = re.compile(r"/(WithoutBiases|fq_\w+)$|_0$")
"""Suffixes that OpenVINO's transformations append to the name of a node."""


class OvLayerProfiler(LayerProfiler):
    """Profiles an .onnx file, or an engine of OpenVINO, on the CPU."""

    def __init__(self, artifact: str, options: RunOptions) -> None:
        self._path = Path(artifact)
        self._options = options
        self._request: Any = None
        self._calls = 0
        self._samples_ms: dict[tuple[str, int], dict[int, float]] = {}
        self._infos: dict[tuple[str, int], tuple[str, str]] = {}

    def open(self) -> None:
        """Load the model with performance counters on, and set `input`."""
        compiled, self._boundary = load_compiled(self._path, self._options, COUNTERS)
        self.input = self._boundary.input
        self._nodes = _original_nodes(compiled)
        self._request = compiled.create_infer_request()

    def infer(self, batch: Float32Array) -> None:
        """Make one call, and keep its counters."""
        try:
            self._request.infer([self._boundary.to_native(batch)])
            infos = self._request.profiling_info
        except RuntimeError as exc:
            raise ModelError(f"{self._path}: fails while running: {library_reason(exc)}", "try another batch") from exc
        for place, info in enumerate(infos):
            if not str(info.status).endswith("EXECUTED"):  # fused into another, or done in place
                continue
            key = (info.node_name, place)
            self._infos[key] = (info.node_type, info.exec_type)
            self._samples_ms.setdefault(key, {})[self._calls] = info.real_time.total_seconds() * 1000
        self._calls += 1

    def layers(self, skip: int) -> list[RuntimeLayer]:
        """Return the layers in the order of execution."""
        layers = []
        for key in sorted(self._infos, key=lambda key: key[1]):
            (name, _), (kind, exec_type) = key, self._infos[key]
            nodes = self._nodes.get(name) or _unadded(name)
            samples_ms = tuple(self._samples_ms[key].get(call, 0.0) for call in range(skip, self._calls))
            if not any(samples_ms):  # the first calls alone rearrange the weights
                continue
            layers.append(RuntimeLayer(name, kind, precision_of_exec_type(exec_type), nodes, samples_ms))
        return layers

    def close(self) -> None:
        """Free the compiled model."""
        self._request = None


def precision_of_exec_type(exec_type: str) -> str:
    """Return the precision at the end of an execution type: "int8" for "brgconv_avx512_I8"; "unknown" where there is none."""
    return plain_precision(exec_type.rpartition("_")[2])


def _original_nodes(compiled: Any) -> dict[str, tuple[str, ...]]:
    """Return the names of the original nodes that the runtime's graph records for each of its nodes."""
    found = {}
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = node.get_rt_info()
        words = info["originalLayersNames"].astype(str) if "originalLayersNames" in info else ""
        names = [name for word in words.split(",") if word for name in _unadded(word)]
        if names:
            found[node.get_friendly_name()] = tuple(dict.fromkeys(names))
    return found


def _unadded(name: str) -> tuple[str, ...]:
    shorter = ADDED.sub("", name)
    return (shorter, name) if shorter != name else (name,)
