"""TensorRT's calibration cache, for implicit INT8: TensorRT up to 10, and DLA, which takes nothing else.

A text file: a header `TRT-<version>-EntropyCalibration2`, then a line `tensor: hex` each, where hex is the big-endian
single-precision pattern of the tensor's scale, amax / 127.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from emca_deploy.artifacts import write_text
from emca_deploy.calibration.observers import TensorRange
from emca_deploy.calibration.quantize import activation_params
from emca_deploy.errors import InputError

__all__ = ["read_cache", "write_cache"]

HEADER = re.compile(r"TRT-(\d+)-EntropyCalibration2")
LINE = re.compile(r"(.+): ([0-9a-f]{8})")


def write_cache(ranges: Mapping[str, TensorRange], path: Path, tensorrt_version: str) -> None:
    """Write a calibration cache; TensorRT reads it back with any calibrator whose cache this is.

    A name may hold colons and spaces: the hex is what follows the last colon. A tensor that is always zero gets scale 1.

    Args:
        ranges: by tensor name.
        path: of the cache.
        tensorrt_version: "8.6.1" or "8601"; TensorRT refuses a cache of another version.

    Raises:
        InputError: the version is none, a name is empty, has a line break or is not ASCII, or a range is not finite.
        OutputError: it cannot be written.
    """
    lines = [f"TRT-{_version(tensorrt_version)}-EntropyCalibration2"]
    for name, values in ranges.items():
        if not name or not name.isascii() or not name.isprintable():
            raise InputError(f"tensor {name!r}: not a name a TensorRT cache can hold", "rename it in the model: printable ASCII")
        if not np.isfinite(values.magnitude):
            raise InputError(f"tensor {name}: its range is not finite", "calibrate again")
        scale = activation_params(values, symmetric=True).scale
        lines.append(f"{name}: {np.array(scale, '>f4').tobytes().hex():0>8}")
    write_text(path, "\n".join(lines) + "\n")


def read_cache(path: Path) -> tuple[str, dict[str, float]]:
    """Return a cache's TensorRT version, as digits ("8601"), and the scale (amax / 127) of each tensor.

    Raises:
        InputError: it cannot be read, or is no such cache.
    """
    remedy = "write it again"
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError) as exc:
        raise InputError(f"{path}: cannot be read: {exc}", remedy) from exc
    header = HEADER.fullmatch(lines[0]) if lines else None
    if header is None:
        raise InputError(f"{path}: not a TensorRT entropy calibration cache", remedy)
    scales: dict[str, float] = {}
    for number, line in enumerate(lines[1:], 2):
        found = LINE.fullmatch(line)
        scale = float(np.frombuffer(bytes.fromhex(found[2]), ">f4")[0]) if found else np.nan
        if found is None or not 0 < scale < np.inf or found[1] in scales:
            raise InputError(f"{path}: line {number} is not 'tensor: scale'", remedy)
        scales[found[1]] = scale
    return header[1], scales


def _version(text: str) -> str:
    """Return a version as TensorRT writes it into a cache's header: major, minor and patch by digits."""
    if re.fullmatch(r"\d{3,6}", text):
        return text
    parts = re.fullmatch(r"(\d{1,2})\.(\d{1,2})\.(\d{1,2})(\.\d+)*", text)
    if parts is None:
        raise InputError(f"TensorRT version '{text}' is none", "write it as 8.6.1")
    major, minor, patch = (int(part) for part in parts.groups()[:3])
    # NV_TENSORRT_VERSION: thousands and hundreds until 9, ten-thousands and hundreds from 10 on.
    return str(major * (10000 if major >= 10 else 1000) + minor * 100 + patch)
