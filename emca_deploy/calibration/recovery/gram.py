"""Gram matrices of layers' inputs, from one or more passes of the fp32 model over some images."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from emca_deploy._machine import read_memory_mib
from emca_deploy._progress import Progress
from emca_deploy.arrays import Float32Array
from emca_deploy.calibration.graphs.graph_session import GraphRunner, in_order, pool_size
from emca_deploy.calibration.graphs.weighted_layers import ConvGeometry, conv_geometry, weight_rows, weighted_layers
from emca_deploy.data.sources import ImageSource

__all__ = ["POSITIONS", "can_be_rounded", "input_rows", "layer_grams"]


POSITIONS = 32
"""Output pixels of each image whose inputs are taken; neighbours read nearly the same."""

MEMORY_BYTES = 512 * 2**20
"""Most bytes of one pass's matrices, which also take at most an eighth of the machine's memory. A network that needs more gets
several passes; a ResNet-50 needs 475 MiB."""

ROWS = 512
"""Rows gathered for one matrix product; with fewer, it waits for memory."""

BLOCK = 512
"""Rows of a matrix that one product adds to, from the diagonal on. The other half is mirrored at the end, which takes half the
time of whole products."""


def can_be_rounded(node: ir.Node) -> bool:
    """Return whether a layer's outputs are plain products of its weights with rows of its input."""
    return node.op_type == "Gemm" or conv_geometry(node) is not None


def input_rows(images: Float32Array, geometry: ConvGeometry, seed: Sequence[int]) -> Float32Array:
    """Return the inputs of seeded output pixels, (pixels, C * kernel height * kernel width), from an input (1, C, H, W)."""
    top, left, bottom, right = geometry.pads
    padded = np.pad(images[0], ((0, 0), (top, bottom), (left, right))) if any(geometry.pads) else images[0]
    windows = np.lib.stride_tricks.sliding_window_view(padded, geometry.kernel, axis=(1, 2))
    windows = windows[:, :: geometry.strides[0], :: geometry.strides[1]]  # (C, rows, columns, kernel height, kernel width)
    height, width = windows.shape[1:3]
    chosen = np.arange(height * width)
    if len(chosen) > POSITIONS:
        chosen = np.random.default_rng(seed).choice(chosen, POSITIONS, replace=False)
    return windows[:, chosen // width, chosen % width].transpose(1, 0, 2, 3).reshape(len(chosen), -1)


def layer_grams(
    model: ir.Model,
    names: Sequence[str],
    source: ImageSource,
    indices: Sequence[int],
    threads: int,
    progress: Progress | None = None,
) -> Iterator[tuple[str, Float32Array]]:
    """Yield the name and Gram matrix, (inputs, inputs) float32, of each layer's input.

    `progress` is called with (images done, all images), over all passes.

    Raises:
        ModelError: the model cannot run these images.
        DataError: an image cannot be read.
    """
    groups = _groups(model, names)
    for number, group in enumerate(groups):
        workers, threads_each = pool_size(threads)
        reader, sums = _Reader(model, group, threads_each), _Sums()
        images = zip(indices, (images for images, _ in source.batches(1, indices)), strict=True)
        for done, rows in enumerate(in_order(reader.rows, images, workers)):
            sums.add(rows)
            if progress:
                progress(number * len(indices) + done + 1, len(groups) * len(indices))
        del reader  # frees its runtime's memory
        yield from sums.finished()


def _groups(model: ir.Model, names: Sequence[str]) -> list[list[str]]:
    """Split layers, in order, into groups whose matrices fit in memory."""
    layers = weighted_layers(model.graph)
    groups: list[list[str]] = []
    machine_mib = read_memory_mib()
    room = MEMORY_BYTES if machine_mib is None else min(MEMORY_BYTES, int(machine_mib * 2**20) // 8)
    used = room
    for name in names:
        need = 4 * weight_rows(layers[name]).shape[1] ** 2
        if used + need > room:
            groups.append([])
            used = 0
        groups[-1].append(name)
        used += need
    return groups


class _Reader:
    """A session that returns the input rows of each layer of one group."""

    def __init__(self, model: ir.Model, names: Sequence[str], threads: int) -> None:
        layers = weighted_layers(model.graph)
        self._geometry = {name: None if layers[name].op_type == "Gemm" else conv_geometry(layers[name]) for name in names}
        self._reads = {name: str(value.name) for name in names if (value := layers[name].inputs[0]) is not None}
        self._probe = GraphRunner(model.clone(), sorted(set(self._reads.values())), threads)

    def rows(self, numbered: tuple[int, Float32Array]) -> dict[str, Float32Array]:
        """Return each layer's rows (pixels, inputs) for one image, (1, 3, H, W), whose number seeds the choice of pixels."""
        number, images = numbered
        tensors = self._probe(images)
        return {
            name: tensors[self._reads[name]] if geometry is None else input_rows(tensors[self._reads[name]], geometry, [number])
            for name, geometry in self._geometry.items()
        }


class _Sums:
    """The matrices of one group while they are filled."""

    def __init__(self) -> None:
        self._rows: dict[str, list[Float32Array]] = {}
        self._grams: dict[str, Float32Array] = {}

    def add(self, rows: Mapping[str, Float32Array]) -> None:
        """Add each layer's rows of one image."""
        for name, found in rows.items():
            waiting = self._rows.setdefault(name, [])
            waiting.append(found)
            if sum(map(len, waiting)) >= ROWS:
                self._add_up(name)

    def _add_up(self, name: str) -> None:
        rows = np.concatenate(self._rows[name])
        self._rows[name].clear()
        inputs = rows.shape[1]
        if name not in self._grams:
            self._grams[name] = np.zeros((inputs, inputs), np.float32)
        gram = self._grams[name]
        for start in range(0, inputs, BLOCK):
            gram[start : start + BLOCK, start:] += rows[:, start : start + BLOCK].T @ rows[:, start:]

    def finished(self) -> Iterator[tuple[str, Float32Array]]:
        """Yield each matrix, and free it."""
        for name, waiting in self._rows.items():
            if waiting:
                self._add_up(name)
            gram = self._grams.pop(name)
            for start in range(0, len(gram), BLOCK):
                end = start + BLOCK
                gram[end:, start:end] = gram[start:end, end:].T
            yield name, gram
