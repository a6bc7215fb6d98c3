"""Collecting what the calibration methods need: one streaming pass of the fp32 model over the calibration images.

Smallest and largest values are taken inside the graph, by ReduceMin and ReduceMax nodes, so that only a few numbers per
tensor and image leave the runtime. Histograms need the tensors themselves: each worker runs a few images and counts their values
before it takes the next, so memory depends on neither the number of images nor the method. Of the operands of a residual Add
what is looked at is what of them survives the ReLU that follows (`relu_bounds`).
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from emca_deploy._progress import Progress
from emca_deploy.calibration.graphs.graph_session import (
    append_output,
    find_values,
    fixed_batch,
    leave,
    native_images,
    open_session,
    run_session,
)
from emca_deploy.calibration.graphs.workers import in_order, pool_size
from emca_deploy.calibration.ranges.histogram import Histogram
from emca_deploy.calibration.ranges.methods.base import Method
from emca_deploy.calibration.ranges.observers import Observation
from emca_deploy.calibration.ranges.relu_bounds import as_hard_swish_sees, as_relu_sees, hard_swish_inputs, relu_partners
from emca_deploy.canonical.marks import label_of
from emca_deploy.errors import DataError

if TYPE_CHECKING:
    from emca_deploy.data.sources import ImageSource

__all__ = ["collect_observations"]

REDUCED_BATCH = 8
"""Images a call where the graph reduces; larger ones fall out of the cache and gain nothing."""

COUNTED_BATCH = 1
"""Images a call where tensors leave the runtime: what one image makes is still in the cache when it is counted."""

REDUCTIONS = {"ReduceMin": 18, "ReduceMax": 18, "ReduceSum": 13}
"""Each with the opset since which its axes are an input, no attribute."""

Images = npt.NDArray[np.float32]
Digest = tuple[Images, Images] | Histogram


def collect_observations(
    model: ir.Model,
    names: Sequence[str],
    source: "ImageSource",
    indices: Sequence[int],
    threads: int,
    progress: Progress | None,
    method: Method,
) -> dict[str, Observation]:
    """Return what a method needs to know of some tensors.

    Of a residual Add's operands it is what the ReLU after the Add sees of them.

    Args:
        model: the canonical graph; it is left as it is.
        names: of the tensors, in the order they are computed.
        source: the calibration images.
        indices: which of them.
        threads: for the runtime and the counting together.
        progress: called with (images done, images in all).
        method: what to keep.

    Raises:
        InputError: no such method.
        ModelError: the model cannot be run on these images.
        DataError: an activation is infinite or not a number; the tensor and the image are named.
    """
    work = _Pass(model.clone(), names, threads, counts=method.reads_histogram)
    observers = {name: method.observer() for name in work.names}
    done = 0
    for digests, count in work.digests(source, indices):
        for name, digest in zip(work.names, digests, strict=True):
            try:
                if isinstance(digest, ValueError):
                    raise digest
                observers[name].observe(*(digest if isinstance(digest, tuple) else (digest,)))
            except ValueError as exc:
                where = ", ".join(source.item_name(i) for i in _culprits(digest, indices[done : done + count]))
                raise DataError(f"tensor {name}: {exc}, in image {where}", "check the image and the model's weights") from exc
        done += count
        if progress:
            progress(done, len(indices))
    return {name: observer.observation() for name, observer in observers.items()}


def _culprits(digest: Digest | ValueError, members: Sequence[int]) -> Sequence[int]:
    """Return which images of a batch make a tensor infinite; all of them where that cannot be told apart."""
    if isinstance(digest, tuple) and len(digest[0]) == len(members):
        infinite = ~(np.isfinite(digest[0]) & np.isfinite(digest[1]))
        return [member for member, bad in zip(members, infinite, strict=True) if bad]
    return members


class _Pass:
    """A session that gives, of images, what there is to know of each tensor."""

    def __init__(self, model: ir.Model, names: Sequence[str], threads: int, *, counts: bool) -> None:
        self.names = names
        self._graph, self._counts = model.graph, counts
        _open(model, self.names) if counts else _reduce(model, self.names)
        self._workers, threads_each = pool_size(threads) if counts else (1, threads)
        self._session = open_session(model, label_of(model.graph), threads_each)
        self._fixed = fixed_batch(model.graph)

    def digests(self, source: "ImageSource", indices: Sequence[int]) -> Iterator[tuple[list[Digest | ValueError], int]]:
        """Yield each batch's digest of every tensor and its number of images, in the images' order."""
        batches = source.batches(self._fixed or (COUNTED_BATCH if self._counts else REDUCED_BATCH), indices)

        def digest(images: Images) -> tuple[list[Digest | ValueError], int]:
            return self._digest(images), len(images)

        yield from in_order(digest, (images for images, _ in batches), self._workers)

    def _digest(self, images: Images) -> list[Digest | ValueError]:
        count = len(images)
        feed = native_images(self._graph, images)
        size = len(next(iter(feed.values())))
        outputs: list[Images] = run_session(self._session, feed, label_of(self._graph))
        if not self._counts:
            rows = [_rows(output, size, count) for output in outputs]
            return [_extremes(*rows[i : i + len(REDUCTIONS)]) for i in range(0, len(rows), len(REDUCTIONS))]
        return [_histogram(_rows(output, size, count)) for output in outputs]


def _rows(output: Images, size: int, count: int) -> Images:
    """Return what an output says of the first `count` images, without those that fill a fixed batch."""
    return output[:count] if len(output) == size else output


def _extremes(minima: Images, maxima: Images, sums: Images) -> tuple[Images, Images]:
    return np.where(np.isnan(sums), sums, minima), np.where(np.isnan(sums), sums, maxima)


def _histogram(values: Images) -> Histogram | ValueError:
    try:
        return Histogram.of(values)
    except ValueError as exc:
        return exc


def _observed(graph: ir.Graph, names: Sequence[str]) -> list[ir.Value]:
    """Return what is looked at of the tensors of these names, in a graph that has no outputs any more."""
    partners, cut = relu_partners(graph), hard_swish_inputs(graph)
    graph.outputs.clear()

    def seen(value: ir.Value) -> ir.Value:
        if value in partners:
            return as_relu_sees(graph, value, partners[value])
        return as_hard_swish_sees(graph, value, cut[value]) if value in cut else value

    return [seen(value) for value in find_values(graph, names)]


def _open(model: ir.Model, names: Sequence[str]) -> None:
    """Make the graph's outputs the tensors of these names."""
    graph = model.graph
    graph.outputs.extend([leave(graph, value) for value in _observed(graph, names)])


def _reduce(model: ir.Model, names: Sequence[str]) -> None:
    """Make the graph's outputs each image's smallest value, largest and sum of the tensors of these names, by turns.

    The sum is there because it alone is sure to be NaN where a value is: the runtime's minima and maxima may step over one.
    """
    graph, opset = model.graph, model.opset_imports.get("", 0)
    axes = ir.Value(name="calibration/axes", const_value=ir.tensor(np.array([1], np.int64), name="calibration/axes"))
    graph.register_initializer(axes)
    for value in _observed(graph, names):
        flat = append_output(graph, ir.node("Flatten", [value]), f"{value.name}/flat")
        for operator, since in REDUCTIONS.items():
            attributes: dict[str, Any] = {"keepdims": 0} if opset >= since else {"keepdims": 0, "axes": [1]}
            node = ir.node(operator, [flat, axes] if opset >= since else [flat], attributes)
            graph.outputs.append(append_output(graph, node, f"{value.name}/{operator}"))
