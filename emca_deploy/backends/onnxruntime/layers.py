"""The times of ONNX Runtime's layers, from the file that its profiler writes."""

import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emca_deploy._optional import import_optional
from emca_deploy.arrays import Float32Array
from emca_deploy.backends.base import RunOptions
from emca_deploy.backends.layer_profiler import LayerProfiler, RuntimeLayer, plain_precision
from emca_deploy.backends.onnxruntime.runner import library_errors, load_session
from emca_deploy.errors import ModelError
from emca_deploy.onnx_file.refusal import library_reason

__all__ = ["OrtLayerProfiler", "read_ort_profile"]

SUFFIX = "_kernel_time"
ADDED = re.compile(r"_(nchwc|nhwc|token_\d+|quant|fused)$")
"""Suffixes that the optimiser appends to the name of a node or tensor when it writes a new node."""


class OrtLayerProfiler(LayerProfiler):
    """Profiles an .onnx file, or an engine of ONNX Runtime, on the CPU."""

    def __init__(self, artifact: str, options: RunOptions) -> None:
        self._path = Path(artifact)
        self._options = options
        self._session: Any = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def open(self) -> None:
        """Load the model with profiling on, and set `input`."""
        self._errors = library_errors(import_optional("onnxruntime"))
        self._folder = tempfile.TemporaryDirectory(prefix="emca-layers-")
        profile_to = Path(self._folder.name) / "profile"
        try:
            self._session, self._boundary = load_session(self._path, self._options, profile_to=profile_to)
        except BaseException:
            self.close()
            raise
        self.input = self._boundary.input

    def infer(self, batch: Float32Array) -> None:
        """Make one profiled call."""
        try:
            self._session.run(None, {self.input.name: self._boundary.to_native(batch)})
        except self._errors as exc:
            raise ModelError(f"{self._path}: fails while running: {library_reason(exc)}", "try another batch") from exc

    def layers(self, skip: int) -> list[RuntimeLayer]:
        """Return the layers in the order of execution, and end the profile."""
        place = Path(self._session.end_profiling())
        return read_ort_profile(place.read_text(encoding="utf-8", errors="replace"), str(self._path), skip)

    def close(self) -> None:
        """Free the session and the profile."""
        self._session = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None


def read_ort_profile(text: str, source: str, skip: int = 0) -> list[RuntimeLayer]:
    """Read a list of events in the format of Chrome's tracing, without `skip` calls; raise ModelError for other text."""
    try:
        events = json.loads(text)
        kernels = [event for event in events if event.get("cat") == "Node" and event["name"].endswith(SUFFIX)]
        samples_ms: dict[tuple[str, str], list[float]] = {}
        about: dict[tuple[str, str], Mapping[str, Any]] = {}
        for event in kernels:
            arguments: Mapping[str, Any] = event.get("args", {})
            key = (event["name"].removesuffix(SUFFIX), str(arguments.get("node_index", "")))
            samples_ms.setdefault(key, []).append(float(event["dur"]) / 1000)  # microseconds
            about.setdefault(key, arguments)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise ModelError(f"{source}: its profile cannot be read: {library_reason(exc)}", "update ONNX Runtime") from exc
    return [
        RuntimeLayer(key[0], str(about[key].get("op_name", "")), _precision(about[key]), _nodes(key[0]), tuple(values[skip:]))
        for key, values in samples_ms.items()
    ]


def _precision(arguments: Mapping[str, Any]) -> str:
    """Return the precision of the first input, else of the first output, else "unknown"."""
    for listed in (arguments.get("input_type_shape"), arguments.get("output_type_shape")):
        for entry in listed if isinstance(listed, list) else []:
            for word in entry if isinstance(entry, dict) else ():
                return plain_precision(str(word))
    return "unknown"


def _nodes(name: str) -> tuple[str, ...]:
    """Return the names that a node had before the optimiser appended suffixes, the original first, then its own."""
    names = [name]
    while ADDED.search(names[0]):
        names.insert(0, ADDED.sub("", names[0]))
    return tuple(names)
