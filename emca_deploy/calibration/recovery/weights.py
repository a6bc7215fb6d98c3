"""Rounding weights for the smallest error of each layer's output, without training, and keeping them in a file."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from emca_deploy._progress import Counter, Stage
from emca_deploy.arrays import Float32Array
from emca_deploy.artifacts import atomic_write
from emca_deploy.atomic import check_writable
from emca_deploy.calibration.graphs.attention_path import find_attention
from emca_deploy.calibration.graphs.graph_session import in_order
from emca_deploy.calibration.graphs.products import products_on_one_thread
from emca_deploy.calibration.graphs.weighted_layers import output_axis, weight_of, weight_rows, weighted_layers
from emca_deploy.calibration.placement.quantize import LARGEST_WEIGHT, QuantizedWeight, quantize_weight, quantize_with
from emca_deploy.calibration.ranges.table import ELSEWHERE, TableKey
from emca_deploy.calibration.recovery.gram import InputRows, LayerGram, can_be_rounded, layer_grams, row_groups
from emca_deploy.data.sources import ImageSource
from emca_deploy.errors import InputError
from emca_deploy.npz import read_arrays

__all__ = [
    "DAMPING", "FINETUNE", "LEVELS", "WEIGHTS", "Rounding", "cholesky_in_place", "nearest_weights", "round_weights",
    "rounded_path", "rounds_weights",
]  # fmt: skip

DAMPING = 0.01
"""GPTQ's damping, for inputs not seen in calibration: share of the diagonal's mean that is added to a Gram matrix's diagonal."""

BLOCK = 128
"""Columns rounded before one matrix product carries their errors to the others."""

FACTOR_BLOCK = 256
"""Columns of the factor computed at a time; 128 to 512 take equally long."""

WEIGHTS, FINETUNE = "weights", "finetune"

LEVELS = ("none", "bias", WEIGHTS, FINETUNE)
"""Levels of recovery; each includes those before it."""

FILE_VERSION = 2
"""Version of the rounding, raised where the same images give other integers."""

MOST_AT_ONCE = 2
"""Layers that are rounded at once; the largest of a ResNet need 200 MiB each."""


def rounded_path(table: Path, largest: int) -> Path:
    """Return the path of the rounded weights, of magnitudes up to `largest`, next to their range table."""
    kind = "weights" if largest == LARGEST_WEIGHT[8] else "weights-7bit"
    return table.with_name(f"{table.name.removesuffix('.json').removesuffix('.ranges')}.{kind}.npz")


def rounds_weights(level: str) -> bool:
    """Return whether a level of recovery rounds weights for the output of their layer."""
    return LEVELS.index(level) >= LEVELS.index(WEIGHTS)


def nearest_weights(graph: ir.Graph, largest: int) -> dict[str, QuantizedWeight]:
    """Return the nearest integers of every layer's weights."""
    return {name: quantize_weight(weight_of(node), output_axis(node), largest) for name, node in weighted_layers(graph).items()}


class Rounding:
    """The rounded weights of every layer that can be rounded, from their file or computed.

    They depend only on the model and the images; one file serves every backend, method and choice of layers.

    Attributes:
        rows: gatherer of what the rounding needs, for a pass of the model over the images; None where the file has the weights.
    """

    def __init__(self, model: ir.Model, key: TableKey, file: tuple[Path, int], most_images: int) -> None:
        """Read the file. `key` is that of the range table, `file` its path and the largest magnitude of a weight.

        `most_images` is the largest number of images that may be gathered.

        Raises:
            InputError: another file is in the way.
            OutputError: the file cannot be written.
        """
        self._model, self._largest, self._path, self._label = model, file[1], rounded_path(*file), _label(key)
        attention = find_attention(model.graph).nodes  # which no placement quantizes
        layers = weighted_layers(model.graph).items()
        self._layers = {name: node for name, node in layers if can_be_rounded(node) and node not in attention}
        found = _read(self._path, self._label)
        usable = found is not None and found.keys() == self._layers.keys()
        self._found = (
            found if found is not None and usable and all(_fits(self._layers[name], found[name]) for name in found) else None
        )
        self.rows: InputRows | None = None
        if self._found is None:
            check_writable(self._path, ELSEWHERE)
            groups = row_groups(model, list(self._layers), most_images)
            self.rows = InputRows(model, groups[0], most_images) if groups else None

    def weights(self, source: ImageSource, indices: Sequence[int], threads: int, stage: Stage) -> dict[str, QuantizedWeight]:
        """Return the weights by layer; what `rows` has not gathered takes passes of its own.

        Raises:
            ModelError: the model cannot run these images.
            DataError: an image cannot be read.
            OutputError: the file cannot be written.
        """
        if self._found is not None:
            return self._found
        with stage("rounding weights") as progress:
            gathered = dict(self.rows.grams()) if self.rows is not None and self.rows.filled else {}
            rounded = self._rounded(gathered.items(), threads, Counter(progress, len(self._layers)))
            left = [name for name in self._layers if name not in gathered]
            rounded |= self._rounded(layer_grams(self._model, left, source, indices, threads, progress), threads)
        self.rows, self._found = None, {name: rounded[name] for name in self._layers}
        _write(self._path, self._label, self._found)
        return self._found

    def _rounded(
        self, grams: Iterable[tuple[str, LayerGram]], threads: int, count: Counter | None = None
    ) -> dict[str, QuantizedWeight]:
        """Return rounded weights by layer, each layer's rounded on one of a few threads."""
        found: dict[str, QuantizedWeight] = {}
        with products_on_one_thread():
            for name, weight in in_order(self._round, grams, min(threads, MOST_AT_ONCE)):
                found[name] = weight
                if count is not None:
                    count(1)
        return found

    def _round(self, layer: tuple[str, LayerGram]) -> tuple[str, QuantizedWeight]:
        name, gram = layer
        node = self._layers[name]
        weight, axis = weight_of(node), output_axis(node)
        scales = quantize_weight(weight, axis, self._largest)[1]
        integers = round_weights(weight_rows(node), gram(), scales, self._largest)
        return name, ((integers.reshape(weight.shape) if axis == 0 else np.ascontiguousarray(integers.T)), scales)


def _fits(node: ir.Node, weight: QuantizedWeight) -> bool:
    """Return whether integers and scales from a file fit a layer's shape."""
    shape, channels = weight_of(node).shape, weight_of(node).shape[output_axis(node)]
    return weight[0].dtype == np.int8 and weight[0].shape == shape and weight[1].size == channels


def _label(key: TableKey) -> str:
    """Return everything that the weights depend on, as text; they do not depend on the method of the ranges."""
    return json.dumps(
        {"version": FILE_VERSION} | asdict(key) | {"method": None, "preprocessing": key.preprocessing.identity()}, sort_keys=True
    )


def _write(path: Path, label: str, rounded: dict[str, QuantizedWeight]) -> None:
    arrays: dict[str, npt.NDArray[Any]] = {f"{name}/int8": integers for name, (integers, _) in rounded.items()}
    arrays |= {f"{name}/scale": scales for name, (_, scales) in rounded.items()}
    with atomic_write(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **(arrays | {"label": np.array(label)}))  # type: ignore[arg-type]  # numpy's own option has a bool


def _read(path: Path, label: str) -> dict[str, QuantizedWeight] | None:
    """Return a file's weights; None where it is absent, damaged or of other weights; refuse to overwrite other arrays."""
    try:
        arrays = read_arrays(path)
        if "label" not in arrays:
            raise InputError(f"{path}: is in the way: rounded weights are kept there, and it holds other arrays", ELSEWHERE)
        if str(arrays["label"]) != label:
            return None
        names = [name.removesuffix("/int8") for name in arrays if name.endswith("/int8")]
        return {name: (arrays[f"{name}/int8"], arrays[f"{name}/scale"]) for name in names}
    except (OSError, ValueError, KeyError):
        return None


def round_weights(weights: Float32Array, gram: Float32Array, scales: Float32Array, largest: int = 127) -> npt.NDArray[np.int8]:
    """Round weights (outputs, inputs) to INT8 in [-largest, largest] for the smallest error of the layer's output.

    `gram` (inputs, inputs) holds the inputs' second moments up to a factor. They are not centred, which keeps the output's mean.
    It is overwritten. Scales are (outputs,). Source: Frantar et al., "GPTQ" (2022).
    """
    energy = np.diag(gram).astype(np.float64)
    damping = DAMPING * float(energy.mean())
    if not damping > 0:  # every input is always zero, and any rounding will do
        return quantize_with(weights, scales, 0, largest)
    # The most important column is rounded first, while all others can still compensate its error.
    order = np.argsort(energy, kind="stable")
    # A float64 factor gives the same integers but for one in 10,000, and takes twice the memory.
    _reorder(gram, order)
    gram[np.diag_indices_from(gram)] += np.float32(damping)
    factor = cholesky_in_place(gram)
    # From here on each input is a row, which keeps the data of one step together.
    scaled = np.ascontiguousarray((weights / scales[:, None]).T[order])
    rounded = np.empty_like(scaled)
    errors = np.zeros_like(scaled)
    for end in range(len(scaled), 0, -BLOCK):
        start = max(0, end - BLOCK)
        carried = factor[end:, start:end].T @ errors[end:]
        within = np.ascontiguousarray(factor[start:end, start:end].T)
        for row in range(end - 1, start - 1, -1):
            of_row = within[row - start, row - start :]
            target = scaled[row] + (carried[row - start] + of_row[1:] @ errors[row + 1 : end]) / of_row[0]
            rounded[row] = np.clip(np.rint(target), -largest, largest)
            errors[row] = scaled[row] - rounded[row]
    result = np.empty(weights.shape, np.int8)
    result[:, order] = rounded.T
    return result


def _reorder(matrix: Float32Array, order: npt.NDArray[np.intp]) -> None:
    """Permute the rows and columns of a square matrix in place, block by block: a copy could take 100 MiB."""
    for start in range(0, len(matrix), FACTOR_BLOCK):
        block = slice(start, start + FACTOR_BLOCK)
        matrix[block] = matrix[block][:, order]
    for start in range(0, len(matrix), FACTOR_BLOCK):
        block = slice(start, start + FACTOR_BLOCK)
        matrix[:, block] = matrix[order, block]


def cholesky_in_place(matrix: Float32Array) -> Float32Array:
    """Replace a symmetric positive definite matrix, (n, n), by its lower triangular factor L, where L L' is the matrix; return L.

    Nearly all of the work is matrix products of blocks of columns. For 4608 columns this takes a third of the time of
    `numpy.linalg.cholesky`, and no second matrix.

    Raises:
        numpy.linalg.LinAlgError: the matrix is not positive definite.
    """
    for start in range(0, len(matrix), FACTOR_BLOCK):
        end = start + FACTOR_BLOCK
        matrix[start:, start:end] -= matrix[start:, :start] @ matrix[start:end, :start].T
        corner = np.linalg.cholesky(matrix[start:end, start:end])
        matrix[start:end, start:end] = corner
        matrix[start:end, end:] = 0
        matrix[end:, start:end] = matrix[end:, start:end] @ np.linalg.inv(corner).T
    return matrix
