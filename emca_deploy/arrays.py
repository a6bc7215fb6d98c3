"""Array types."""

import numpy as np
import numpy.typing as npt

__all__ = ["Float32Array", "Float64Array", "Int64Array"]

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
Int64Array = npt.NDArray[np.int64]
