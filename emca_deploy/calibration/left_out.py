"""What clipping to ranges costs the logits of images that these ranges do not come from.

The error of an INT8 model's logits has two parts: rounding, which wider ranges increase, and clipping, which they remove. Only
the second part shows whether more calibration images would help. The first differs by several dB from image to image and from one
range to a slightly wider one, which would hide it.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import inf, log10

import numpy as np
import onnx_ir as ir

from emca_deploy.arrays import Float32Array, Float64Array
from emca_deploy.calibration.graphs.graph_session import find_values
from emca_deploy.calibration.graphs.regions import ImageFeeds
from emca_deploy.calibration.graphs.simulation import Simulation
from emca_deploy.calibration.placement.place import Edge
from emca_deploy.calibration.placement.qdq import insert_behind, insert_pair
from emca_deploy.calibration.placement.quantize import activation_params
from emca_deploy.calibration.ranges.collect import TensorPass, ends_of, observe
from emca_deploy.calibration.ranges.observers import MinMaxObserver, TensorRange
from emca_deploy.canonical.edit import new_constant
from emca_deploy.canonical.marks import compared_values
from emca_deploy.data.sources import ImageSource
from emca_deploy.tasks.logits import LogitsNoise

__all__ = ["LeftOut", "clipped_model", "rounded_model"]

JUDGES = 40
"""Left-out images whose clipping is simulated."""

ROUNDED = 16
"""Images of these whose rounding is simulated; the sum of its errors differs little from one draw of images to the next."""


class _Logits:
    """A passenger that keeps each image's logits."""

    def __init__(self, name: str) -> None:
        self.reads, self._name = [name], name
        self.rows: list[Float32Array] = []

    def take(self, _: int, tensors: Mapping[str, Float32Array]) -> Float32Array:
        """Return an image's logits in one row."""
        return tensors[self._name].reshape(1, -1)

    def add(self, taken: Float32Array) -> None:
        """Keep them."""
        self.rows.append(taken)


class LeftOut:
    """Images that no range comes from. The float model runs on them once, at the first question."""

    def __init__(self, model: ir.Model, names: Sequence[str], source: ImageSource, indices: Sequence[int], threads: int) -> None:
        """Take the first `JUDGES` of the images; `names` are the tensors that ranges are for."""
        self._model, self._names, self._source, self._threads = model, names, source, threads
        self._indices, self._feeds = list(indices[:JUDGES]), ImageFeeds(model.graph, threads)
        self._extremes: Float64Array | None = None
        self._reference: Float32Array | None = None
        self._parts: list[int] = []

    def clipped_db(self, ends: Float64Array) -> float:
        """Return by how many dB the SQNR of all logits would rise if nothing were clipped to ranges (tensors, 2).

        All tensors are quantized to 8 bits and no weights, for any backend. It is infinite for outputs that are no logits.

        Raises:
            ModelError: the model cannot run these images.
            DataError: an image cannot be read, or makes an activation infinite.
        """
        if self._extremes is None:
            self._extremes = self._run_float()
        if self._reference is None:
            return inf
        beyond = (self._extremes[:, :, 0] < ends[:, 0]) | (self._extremes[:, :, 1] > ends[:, 1])
        exceeding = np.flatnonzero(beyond.any(axis=1))
        if not len(exceeding):
            return 0.0
        clipped = self._reference.copy()
        clipped[exceeding] = self._simulated(
            exceeding.tolist(), clipped_model(self._model, dict(zip(self._names, ends, strict=True)))
        )
        few = list(range(min(ROUNDED, len(self._indices))))
        rounded = self._simulated(few, rounded_model(self._model, dict(zip(self._names, ends, strict=True))))
        clipping = _share(LogitsNoise.of(self._reference, clipped, self._parts))
        rounding = _share(LogitsNoise.of(clipped[few], rounded, self._parts))
        return 10 * log10(1 + clipping / rounding) if rounding > 0 else inf

    def _run_float(self) -> Float64Array:
        """Keep the float model's logits, and return the smallest and largest value of each tensor, (N, tensors, 2)."""
        logits = None if self._is_detector else _Logits(str(compared_values(self._model.graph)[0].name))
        work = TensorPass(self._model.clone(), self._names, self._threads, logits, counts=False)
        observers = {name: MinMaxObserver() for name in self._names}
        found: list[list[tuple[float, float]]] = []
        for digests, taken in work.digests(self._source, self._indices):
            observe(observers, digests, self._source, self._indices[len(found) : len(found) + len(taken)])
            for each in taken:
                if logits is not None:
                    logits.add(each)
                found.append([ends_of(digest) for digest in digests])
        if logits is None:
            self._reference = self._simulated(list(range(len(self._indices))), self._model)
        elif len({row.size for row in logits.rows}) == 1:
            self._reference = np.concatenate(logits.rows)
        return np.array(found, np.float64)

    def _simulated(self, positions: list[int], model: ir.Model) -> Float32Array:
        """Return a variant's logits, (N, numbers), of some of the images."""
        chosen = [self._indices[at] for at in positions]
        simulation = Simulation(self._model.graph, self._source, chosen, self._threads, self._feeds)
        if self._is_detector:
            rows = simulation.logits(model)
            self._parts = simulation.parts
            return rows
        return np.concatenate([tensors[0].reshape(len(tensors[0]), -1) for tensors in simulation.outputs(model)])

    @property
    def _is_detector(self) -> bool:
        """Whether several tensors are compared."""
        return len(compared_values(self._model.graph)) > 1


def _share(noise: LogitsNoise) -> float:
    """Return the power of an error over that of the logits."""
    return float(noise.noise.sum() / noise.signal.sum()) if noise.signal.sum() else 0.0


def clipped_model(model: ir.Model, ends: Mapping[str, Float64Array]) -> ir.Model:
    """Return a copy of a float model with tensors clipped to a smallest and a largest value."""
    copy = model.clone()
    for value, readers in _readers(copy.graph, ends):
        low, high = (
            new_constant(copy.graph, f"{value.name}/{end}", np.array(bound, np.float32))
            for end, bound in zip(("low", "high"), ends[str(value.name)], strict=True)
        )
        clip = ir.node("Clip", [value, low, high], name=f"{value.name}/clip")
        result = clip.outputs[0]
        result.name, result.shape, result.type = f"{value.name}/clipped", value.shape, value.type
        insert_behind(copy.graph, value, [clip])
        for node, index in readers:
            node.replace_input_with(index, result)
    return copy


def rounded_model(model: ir.Model, ends: Mapping[str, Float64Array]) -> ir.Model:
    """Return a copy of a float model that reads tensors of these ranges in 8 bits."""
    copy = model.clone()
    for value, readers in _readers(copy.graph, ends):
        insert_pair(copy.graph, value, readers, activation_params(TensorRange(*ends[str(value.name)].tolist()), symmetric=False))
    return copy


def _readers(graph: ir.Graph, names: Iterable[str]) -> list[tuple[ir.Value, list[Edge]]]:
    """Return tensors, each with all that read it."""
    return [(value, [(use.node, use.idx) for use in value.uses()]) for value in find_values(graph, list(names))]
