"""Raw samples in a compact file: every call of every candidate, block by block, and the warm-up's windows.

A .npz of plain arrays, nothing pickled. `meta` is JSON in UTF-8: the schema version and, for each candidate, its name and builds.
Candidate i has `calls_ns_i` (calls,) uint32, or int64 where a call takes 4.3 s or more; `block_calls_i` (blocks,) int32, how many
of them each block has; `block_build_i` (blocks,) int16; `windows_ns_i` (blocks, 2) int64 of `time.monotonic_ns`; `warmup_ms_i`
(windows,) float64 and `warmup_build_i` (windows,) int16; and `device_ms_i` (calls,) float32 where there is a device's clock.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emca_deploy.arrays import Float64Array, Int64Array
from emca_deploy.artifacts import atomic_write
from emca_deploy.errors import InputError
from emca_deploy.harness.measure.candidate import Candidate
from emca_deploy.harness.measure.protocol import Protocol
from emca_deploy.npz import read_arrays

__all__ = ["RawCandidate", "RawSamples", "raw_of", "read_raw", "save_raw", "write_raw"]

RAW_VERSION = 1


@dataclass(frozen=True)
class RawCandidate:
    """All samples of one candidate.

    Attributes:
        calls_ns: nanoseconds of each call, in order, (calls,).
        block_calls: how many calls each block has, (blocks,).
        block_build: the index in `builds` that each block ran, (blocks,).
        windows_ns: when each block ran, (blocks, 2), `time.monotonic_ns` of the machine then.
        warmup_ms: the medians of the warm-up's windows, (windows,).
        warmup_build: the build of each window, (windows,).
        device_ms: milliseconds of each call by the accelerator's own clock, (calls,); None where it has none.
    """

    name: str
    builds: tuple[str, ...]
    calls_ns: Int64Array
    block_calls: Int64Array
    block_build: Int64Array
    windows_ns: Int64Array
    warmup_ms: Float64Array
    warmup_build: Int64Array
    device_ms: Float64Array | None = None

    def blocks_ms(self) -> list[Float64Array]:
        """Return the calls in milliseconds, one array a block."""
        return np.split(self.calls_ns / 1e6, np.cumsum(self.block_calls)[:-1])


@dataclass(frozen=True)
class RawSamples:
    """All samples of a run.

    Attributes:
        protocol: as it was asked for, field by field.
    """

    candidates: tuple[RawCandidate, ...]
    protocol: dict[str, Any]


def raw_of(candidates: Sequence[Candidate], protocol: Protocol) -> RawSamples:
    """Return the samples of measured candidates."""
    return RawSamples(tuple(_raw_candidate(candidate) for candidate in candidates), asdict(protocol))


def _raw_candidate(candidate: Candidate) -> RawCandidate:
    blocks, device_ms = candidate.blocks, candidate.device_ms
    warm = [(process.warm_up.medians_ms if process.warm_up else ()) for process in candidate.processes]
    return RawCandidate(
        name=candidate.name,
        builds=tuple(process.worker.spec.artifact or process.worker.spec.name for process in candidate.processes),
        calls_ns=np.rint(np.concatenate(candidate.calls_ms) * 1e6).astype(np.int64),
        block_calls=np.array([len(block.calls_ms) for block in blocks], np.int64),
        block_build=np.array([block.process for block in blocks], np.int64),
        windows_ns=np.array([block.window_ns for block in blocks], np.int64),
        warmup_ms=np.array([median for medians in warm for median in medians], np.float64),
        warmup_build=np.array([index for index, medians in enumerate(warm) for _ in medians], np.int64),
        device_ms=np.concatenate(device_ms) if len(device_ms) == len(blocks) else None,
    )


def write_raw(path: Path, raw: RawSamples) -> None:
    """Write all samples, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    with atomic_write(path) as temporary:
        save_raw(temporary, raw)


def save_raw(path: Path, raw: RawSamples) -> None:
    """Write all samples into a file that `atomic_write` gave.

    Raises:
        OSError: it cannot be written.
    """
    meta = {
        "raw_version": RAW_VERSION,
        "protocol": raw.protocol,
        "candidates": [{"name": one.name, "builds": list(one.builds)} for one in raw.candidates],
    }
    arrays: dict[str, npt.NDArray[Any]] = {"meta": np.frombuffer(json.dumps(meta).encode(), np.uint8)}
    for index, one in enumerate(raw.candidates):
        arrays.update({f"{name}_{index}": array for name, array in _compact(one).items()})
    with path.open("wb") as stream:
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]


def _compact(one: RawCandidate) -> dict[str, npt.NDArray[Any]]:
    short = one.calls_ns.max(initial=0) <= np.iinfo(np.uint32).max
    device = {} if one.device_ms is None else {"device_ms": one.device_ms.astype(np.float32)}
    return {
        "calls_ns": one.calls_ns.astype(np.uint32) if short else one.calls_ns,
        "block_calls": one.block_calls.astype(np.int32),
        "block_build": one.block_build.astype(np.int16),
        "windows_ns": one.windows_ns,
        "warmup_ms": one.warmup_ms,
        "warmup_build": one.warmup_build.astype(np.int16),
        **device,
    }


def read_raw(path: Path) -> RawSamples:
    """Return the samples in a file of `write_raw`.

    Raises:
        InputError: it cannot be read, or is no such file.
    """
    try:
        arrays = read_arrays(path)
        meta = json.loads(arrays["meta"].tobytes())
        _check_version(meta["raw_version"])
        candidates = tuple(_read_candidate(arrays, index, entry) for index, entry in enumerate(meta["candidates"]))
        return RawSamples(candidates, dict(meta["protocol"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as exc:
        raise InputError(f"{path}: not raw samples of ours: {exc}", "name a file that `profile --raw` wrote") from exc


def _check_version(version: Any) -> None:
    if version != RAW_VERSION:
        raise ValueError(f"raw version {version}; this emca-deploy reads {RAW_VERSION}")


def _read_candidate(archive: Mapping[str, npt.NDArray[Any]], index: int, entry: dict[str, Any]) -> RawCandidate:
    def whole(name: str) -> Int64Array:
        return np.asarray(archive[f"{name}_{index}"]).astype(np.int64)

    calls_ns, block_calls = whole("calls_ns"), whole("block_calls")
    if int(block_calls.sum()) != len(calls_ns):
        raise ValueError(f"the blocks of '{entry['name']}' have {int(block_calls.sum())} calls, not {len(calls_ns)}")
    device = f"device_ms_{index}"
    return RawCandidate(
        name=str(entry["name"]),
        builds=tuple(str(build) for build in entry["builds"]),
        calls_ns=calls_ns,
        block_calls=block_calls,
        block_build=whole("block_build"),
        windows_ns=whole("windows_ns"),
        warmup_ms=np.asarray(archive[f"warmup_ms_{index}"], np.float64),
        warmup_build=whole("warmup_build"),
        device_ms=np.asarray(archive[device], np.float64) if device in archive else None,
    )
