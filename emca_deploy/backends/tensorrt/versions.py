"""What differs among the versions of the TensorRT family, in one table."""

from dataclasses import dataclass, replace

from emca_deploy.errors import MissingError

__all__ = ["MODULES", "TABLE", "Rules", "rules_of"]

MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""Backend -> the module to import."""


@dataclass(frozen=True)
class Rules:
    """What a version has and wants.

    Attributes:
        explicit_batch: networks must be created with the EXPLICIT_BATCH flag.
        strong_flag: the STRONGLY_TYPED flag makes the network's types those of the model.
        weak_typing: the builder flags FP16 and INT8 let the builder choose types; without them every type is the model's.
        calibration_cache: takes INT8 ranges from a calibration cache, besides from Q/DQ.
        timing_cache: measurements of kernels can be kept for the next build.
        progress: calls a progress monitor, which can also stop the build.
        targets: compiles for compute capabilities that are named, not for the GPU it finds.
        gpu_to_build: times kernels on the GPU while building.
        dla: places layers on a DLA core.
        compatible: makes engines for later versions, and for all GPUs from Ampere on.
    """

    explicit_batch: bool = False
    strong_flag: bool = False
    weak_typing: bool = False
    calibration_cache: bool = False
    timing_cache: bool = False
    progress: bool = True
    targets: bool = False
    gpu_to_build: bool = True
    dla: bool = False
    compatible: bool = True


TEN = Rules(strong_flag=True, weak_typing=True, calibration_cache=True, timing_cache=True)

TABLE: tuple[tuple[str, tuple[int, int], Rules], ...] = (
    ("tensorrt", (8, 6), replace(TEN, explicit_batch=True, strong_flag=False, progress=False, dla=True)),
    ("tensorrt", (10, 0), replace(TEN, dla=True)),
    ("tensorrt", (10, 8), TEN),  # the last with DLA before 11.4 was 10.7
    ("tensorrt", (11, 0), Rules(timing_cache=True)),
    ("tensorrt", (11, 4), Rules(timing_cache=True, dla=True)),
    # Its timing cache is there but does nothing since 1.2: nothing is timed while building. VERSION_COMPATIBLE is there, too, but
    # needs a lean runtime that no package brings, and for its GPUs it is portable without a flag.
    ("tensorrt-rtx", (1, 4), Rules(strong_flag=True, targets=True, gpu_to_build=False, compatible=False)),
)
"""Backend, the first version, and its rules until the next line's version. The memory pool, optimization level and detailed
profiling verbosity interfaces are the same in all of them."""


def rules_of(backend: str, version: str) -> Rules:
    """Return the rules of a backend's version ("10.3.0.30").

    Raises:
        MissingError: the version is older than any in the table.
    """
    numbers = [int(part) for part in version.split(".")[:2] if part.isdigit()]
    found = [rules for name, first, rules in TABLE if name == backend and (*numbers, 0)[:2] >= first]
    if not found:
        oldest = min(first for name, first, _ in TABLE if name == backend)
        wanted = f"{oldest[0]}.{oldest[1]}"
        raise MissingError(f"backend '{backend}': version {version} is too old", f"install {backend} {wanted} or newer")
    return found[-1]
