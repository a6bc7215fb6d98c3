"""The differences between the versions of TensorRT and TensorRT-RTX, in one table."""

from dataclasses import dataclass, replace

from emca_deploy.errors import MissingError

__all__ = ["TABLE", "Rules", "rules_of"]


@dataclass(frozen=True)
class Rules:
    """The features and needs of a version.

    Attributes:
        explicit_batch: Whether networks need the EXPLICIT_BATCH flag.
        strong_flag: Whether the STRONGLY_TYPED flag gives the network the types of the model.
        weak_typing: Whether the builder flags FP16 and INT8 let the builder choose types; else every type is the model's.
        calibration_cache: Whether INT8 ranges can come from a calibration cache, not only from Q/DQ.
        timing_cache: Whether measurements of kernels can be kept for the next build.
        progress: Whether builds call a progress monitor, which can also stop them.
        targets: Whether builds compile for given compute capabilities, rather than for the GPU they find.
        gpu_to_build: Whether builds time kernels on a GPU.
        dla: Whether layers can be placed on a DLA core.
        compatible: Whether engines can be made for later versions, and for all GPUs from Ampere on.
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
    # It has a timing cache, which does nothing since 1.2: builds time nothing. It also has VERSION_COMPATIBLE, which needs a lean
    # runtime that no package contains; its engines are portable among its GPUs without a flag.
    ("tensorrt-rtx", (1, 4), Rules(strong_flag=True, targets=True, gpu_to_build=False, compatible=False)),
)
"""Backend, first version, and the rules until the version in the next line. The interfaces of the memory pool, the optimization
level and the detailed profiling verbosity are the same in all versions."""


def rules_of(backend: str, version: str) -> Rules:
    """Return the rules of a backend's version ("10.3.0.30"); raise MissingError where it is older than all in the table."""
    numbers = [int(part) for part in version.split(".")[:2] if part.isdigit()]
    found = [rules for name, first, rules in TABLE if name == backend and (*numbers, 0)[:2] >= first]
    if not found:
        oldest = min(first for name, first, _ in TABLE if name == backend)
        wanted = f"{oldest[0]}.{oldest[1]}"
        raise MissingError(f"backend '{backend}': version {version} is too old", f"install {backend} {wanted} or newer")
    return found[-1]
