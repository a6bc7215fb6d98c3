"""Reader of TensorRT's calibration caches that follows TensorRT."""

import struct
from pathlib import Path

__all__ = ["read_cache"]


def read_cache(path: Path) -> tuple[str, dict[str, float]]:
    """Return a cache's TensorRT version, as digits ("8601"), and the scale (amax / 127) of each tensor."""
    header, *lines = path.read_text(encoding="ascii").splitlines()
    pairs = (line.rpartition(": ") for line in lines)
    scales = {name: struct.unpack(">f", bytes.fromhex(number))[0] for name, _, number in pairs}
    assert len(scales) == len(lines)
    return header.removeprefix("TRT-").removesuffix("-EntropyCalibration2"), scales
