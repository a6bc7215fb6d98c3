"""Rounding weights so that a layer's output, not each weight, comes out nearest. Pure numpy.

Rounding one weight up can make good what rounding its neighbours down has done, as far as their inputs move together. With G the
Gram matrix of the inputs, the output's squared error of a row of weights w rounded to q is (w - q) G (w - q)'. With G = L L' that
is the squared length of (w - q) L, which rounding one column after the other, from the last, makes small: each takes the errors
of those before it into account. Source: Frantar et al., "GPTQ" (2023), in the form of Babai's nearest plane (Chen et al., "The
Geometry of LLM Quantization", 2025), which needs the Cholesky factor alone and no inverse.
"""

import numpy as np
import numpy.typing as npt

from emca_deploy.arrays import Float32Array
from emca_deploy.calibration.placement.quantize import quantize_with

__all__ = ["DAMPING", "cholesky_in_place", "round_weights"]


DAMPING = 0.01
"""Share of the mean of the Gram matrix's diagonal that is added to it: inputs never seen in calibration are not free. GPTQ's."""

BLOCK = 128
"""Columns rounded before their errors are carried to the others, by one matrix product."""

FACTOR_BLOCK = 256
"""Columns of the factor made at a time; 128 to 512 are alike."""


def round_weights(weights: Float32Array, gram: Float32Array, scales: Float32Array, largest: int = 127) -> npt.NDArray[np.int8]:
    """Round weights to INT8 for the smallest error of the layer's output.

    Args:
        weights: (outputs, inputs).
        gram: (inputs, inputs), the inputs' second moments, to any factor; not centred, so that the output's mean is kept too.
        scales: (outputs,).
        largest: magnitude.

    Returns:
        (outputs, inputs) in [-largest, largest].
    """
    energy = np.diag(gram).astype(np.float64)
    damping = DAMPING * float(energy.mean())
    if not damping > 0:  # every input is always zero, so no rounding is better than another
        return quantize_with(weights, scales, 0, largest)
    # The column that matters most is rounded first, while all others can still make good its error.
    order = np.argsort(energy, kind="stable")
    # float32: with this damping the factor in float64 gives the same integers, but for one in 10,000, and takes twice the memory.
    damped = gram[np.ix_(order, order)]
    damped[np.diag_indices_from(damped)] += np.float32(damping)
    factor = cholesky_in_place(damped)
    # An input a row from here on, so that what one step reads and writes lies together.
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


def cholesky_in_place(matrix: Float32Array) -> Float32Array:
    """Replace a symmetric positive definite matrix, (n, n), by its lower triangular factor L, with L L' the matrix; return it.

    By blocks of columns from the left, so that nearly all of it is matrix products: for 4608 columns a third of the time that
    `numpy.linalg.cholesky` takes, and no second matrix.

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
