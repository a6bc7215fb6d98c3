"""Gram matrices of layers' inputs, from one or more passes of the fp32 model over some images."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from emca_deploy._machine import read_memory_mib
from emca_deploy._progress import Progress
from emca_deploy.arrays import Float32Array
from emca_deploy.calibration.graphs.graph_session import GraphRunner, in_order, pool_size
from emca_deploy.calibration.graphs.weighted_layers import ConvGeometry, conv_geometry, weight_rows, weighted_layers
from emca_deploy.data.sources import ImageSource

__all__ = ["POSITIONS", "InputRows", "LayerGram", "can_be_rounded", "input_rows", "layer_grams", "row_groups"]


POSITIONS = 8
"""Output pixels of each image whose inputs are taken; neighbours read nearly the same, and other images tell more."""

MEMORY_BYTES = 512 * 2**20
"""Most bytes of one pass's rows and matrices, which also take at most an eighth of the machine's memory. A network that needs
more gets several passes."""

ROWS = 1024
"""Rows gathered for one matrix product; with fewer, it waits for memory."""


def can_be_rounded(node: ir.Node) -> bool:
    """Return whether a layer's outputs are plain products of its weights with rows of its input."""
    return node.op_type == "Gemm" or conv_geometry(node) is not None


def input_rows(images: Float32Array, geometry: ConvGeometry, seed: Sequence[int]) -> Float32Array:
    """Return the inputs of seeded output pixels, (pixels, C * kernel height * kernel width), from an input (1, C, H, W).

    Pixels of an input (R, C, H, W) are of any of its R regions.
    """
    top, left, bottom, right = geometry.pads
    sizes = [images.shape[2] + top + bottom, images.shape[3] + left + right]
    height, width = (
        (size - kernel) // step + 1 for size, kernel, step in zip(sizes, geometry.kernel, geometry.strides, strict=True)
    )
    chosen = _chosen(len(images) * height * width, seed)
    region, chosen = chosen // (height * width), chosen % (height * width)
    rows = (chosen // width * geometry.strides[0] - top)[:, None] + np.arange(geometry.kernel[0])
    columns = (chosen % width * geometry.strides[1] - left)[:, None] + np.arange(geometry.kernel[1])
    last_row, last_column = images.shape[2] - 1, images.shape[3] - 1
    inside = (region[:, None, None], rows.clip(0, last_row)[:, :, None], columns.clip(0, last_column)[:, None, :])
    windows = images.transpose(1, 0, 2, 3)[:, inside[0], inside[1], inside[2]]
    padded = ((rows < 0) | (rows > last_row))[:, :, None] | ((columns < 0) | (columns > last_column))[:, None, :]
    windows[:, padded] = 0
    return np.ascontiguousarray(windows.transpose(1, 0, 2, 3)).reshape(len(chosen), -1)


def _chosen(count: int, seed: Sequence[int]) -> npt.NDArray[np.int64]:
    """Return `POSITIONS` of the numbers below `count`, or all where there are fewer."""
    every = np.arange(count)
    return every if count <= POSITIONS else np.random.default_rng(seed).choice(every, POSITIONS, replace=False)


LayerGram = Callable[[], Float32Array]
"""A function that returns the Gram matrix of a layer's input, (inputs, inputs) float32."""


class InputRows:
    """The input rows of some layers, gathered image by image while the model runs, and their Gram matrices.

    A layer with more inputs than there will be rows keeps the rows, which are smaller than its matrix.

    Attributes:
        reads: names of the tensors that the layers read.
        filled: whether rows of an image were added.
    """

    def __init__(self, model: ir.Model, names: Sequence[str], images: int) -> None:
        layers = weighted_layers(model.graph)
        self._geometry = {name: None if layers[name].op_type == "Gemm" else conv_geometry(layers[name]) for name in names}
        self._tensors = {name: str(value.name) for name in names if (value := layers[name].inputs[0]) is not None}
        self.reads = sorted(set(self._tensors.values()))
        self.filled = False
        self._rows: dict[str, list[Float32Array]] = {name: [] for name in names}
        self._grams: dict[str, Float32Array] = {}
        self._keeps = {name: weight_rows(layers[name]).shape[1] > POSITIONS * images for name in names}

    def take(self, number: int, tensors: Mapping[str, Float32Array]) -> dict[str, Float32Array]:
        """Return each layer's rows (pixels, inputs) for one image, whose number seeds the choice of pixels."""
        return {
            name: tensors[self._tensors[name]][_chosen(len(tensors[self._tensors[name]]), [number])]
            if geometry is None
            else input_rows(tensors[self._tensors[name]], geometry, [number])
            for name, geometry in self._geometry.items()
        }

    def add(self, taken: Mapping[str, Float32Array]) -> None:
        """Add each layer's rows of one image."""
        self.filled = True
        for name, found in taken.items():
            waiting = self._rows[name]
            waiting.append(found)
            if not self._keeps[name] and sum(map(len, waiting)) >= ROWS:
                self._add_up(name)

    def _add_up(self, name: str) -> None:
        rows = np.concatenate(self._rows[name])
        self._rows[name].clear()
        gram = rows.T @ rows  # numpy computes one half and mirrors it
        if name in self._grams:
            self._grams[name] += gram
        else:
            self._grams[name] = gram

    def grams(self) -> Iterator[tuple[str, LayerGram]]:
        """Yield the name of each layer, and a function that returns its matrix once; any thread may call it."""
        for name in self._rows:
            yield name, partial(self._gram, name)

    def _gram(self, name: str) -> Float32Array:
        if self._rows[name]:
            self._add_up(name)
        return self._grams.pop(name)


def layer_grams(
    model: ir.Model,
    names: Sequence[str],
    source: ImageSource,
    indices: Sequence[int],
    threads: int,
    progress: Progress | None = None,
) -> Iterator[tuple[str, LayerGram]]:
    """Yield the name of each layer, and a function that returns the Gram matrix of its input once; any thread may call it.

    `progress` is called with (images done, all images), over all passes.

    Raises:
        ModelError: the model cannot run these images.
        DataError: an image cannot be read.
    """
    groups = row_groups(model, names, len(indices))
    for number, group in enumerate(groups):
        workers, threads_each = pool_size(threads)
        rows = InputRows(model, group, len(indices))
        probe = GraphRunner(model.clone(), rows.reads, threads_each)

        def take(numbered: tuple[int, Float32Array], rows: InputRows = rows, probe: GraphRunner = probe) -> Any:
            return rows.take(numbered[0], probe(numbered[1]))

        images = zip(indices, (images for images, _ in source.batches(1, indices)), strict=True)
        for done, taken in enumerate(in_order(take, images, workers)):
            rows.add(taken)
            if progress:
                progress(number * len(indices) + done + 1, len(groups) * len(indices))
        del probe, take  # free the runtime's memory
        yield from rows.grams()


def row_groups(model: ir.Model, names: Sequence[str], images: int) -> list[list[str]]:
    """Split layers, in order, into groups whose rows or matrices fit in memory at once."""
    layers = weighted_layers(model.graph)
    groups: list[list[str]] = []
    machine_mib = read_memory_mib()
    room = MEMORY_BYTES if machine_mib is None else min(MEMORY_BYTES, int(machine_mib * 2**20) // 8)
    used = room
    for name in names:
        inputs = weight_rows(layers[name]).shape[1]
        need = 4 * inputs * min(inputs, POSITIONS * images)
        if used + need > room:
            groups.append([])
            used = 0
        groups[-1].append(name)
        used += need
    return groups
