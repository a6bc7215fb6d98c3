"""Builds from a calibration cache, with a calibrator that only reads the file; for TensorRT up to 10."""

import re
from pathlib import Path
from typing import Any

from emca_deploy.errors import InputError

__all__ = ["check_cache", "read_header", "reading_calibrator"]

HEADER = re.compile(rb"TRT-(\d{4,6})-EntropyCalibration2\r?\n")


def read_header(path: Path) -> tuple[int, int, int]:
    """Return the TensorRT version of a cache of entropy calibrator 2, the only one for a DLA; raise InputError for others."""
    try:
        with path.open("rb") as stream:
            line = stream.readline(80)
    except OSError as exc:
        raise InputError(f"{path}: cannot be read: {exc.strerror}", "check the path and its permissions") from exc
    match = HEADER.fullmatch(line)
    if match is None:
        raise InputError(
            f"{path}: is not a TensorRT entropy calibration cache",
            "write one with emca-deploy calibrate --backend tensorrt --cache",
        )
    number, thousands = int(match[1]), 10000 if len(match[1]) > 4 else 1000  # 8601 is 8.6.1, 100300 is 10.3.0
    return number // thousands, number % thousands // 100, number % 100


def check_cache(path: Path, version: str) -> None:
    """Raise InputError for a cache of another version: TensorRT would ignore it and ask for calibration images."""
    found, own = read_header(path), tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
    if found != own:
        wanted = ".".join(map(str, own))
        raise InputError(
            f"{path}: is for TensorRT {'.'.join(map(str, found))}, this is {wanted}",
            f"write it with emca-deploy calibrate --cache --tensorrt-version {wanted}",
        )


def reading_calibrator(trt: Any, path: Path) -> Any:
    """Return an entropy calibrator 2 that reads only the cache, as `check_cache` accepts it; it must outlive the build."""
    check_cache(path, str(trt.__version__))
    content = path.read_bytes()

    class Reader(trt.IInt8EntropyCalibrator2):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IInt8EntropyCalibrator2.__init__(self)

        def get_batch_size(self) -> int:
            return 1

        def get_batch(self, names: list[str]) -> None:
            """Return None: there are no images."""

        def read_calibration_cache(self) -> bytes:
            return content

        def write_calibration_cache(self, cache: Any) -> None:
            """Write nothing."""

    return Reader()
