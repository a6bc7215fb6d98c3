"""Raw samples in a compact file: every call of every candidate, block by block, and the windows of the warm-up.

The file is an .npz of plain arrays, without pickles. `meta` is JSON in UTF-8: the version, the protocol, and the name and builds
of each candidate. The arrays of candidate i are the fields of `RawCandidate` with the suffix `_i`, in the types of `_types`:
uint32 nanoseconds hold calls of up to 4.3 s, `device_ms_i` exists where the accelerator has a clock, and `frames_ns_i`,
`frame_rates_i` and `frame_blocks_i` exist in the paced scenario.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from emca_deploy.results.codec import to_json

__all__ = ["RawCandidate", "RawSamples", "raw_of", "read_raw", "save_raw", "write_raw"]

RAW_VERSION = 1


@dataclass(frozen=True)
class RawCandidate:
    """All samples of one candidate.

    Attributes:
        calls_ns: Nanoseconds of each call, in order, (calls,).
        block_calls: Number of calls in each block, (blocks,).
        block_build: Index in `builds` of each block's process, (blocks,).
        windows_ns: Start and end of each block, (blocks, 2), by `time.monotonic_ns` of the machine.
        warmup_ms: Medians of the warm-up's windows, (windows,).
        warmup_build: Index in `builds` of each window's process, (windows,).
        device_ms: Milliseconds of each call by the accelerator's own clock, (calls,); None where it has none.
        frames_ns: When each frame came, its call started, and its answer was there, (frames, 3), by `time.perf_counter_ns` of its
            process; None outside the paced scenario, as the fields below.
        frame_rates: Frames per second that each frame belongs to, (frames,).
        frame_blocks: Number of each frame's block, (frames,).
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
    frames_ns: Int64Array | None = None
    frame_rates: Float64Array | None = None
    frame_blocks: Int64Array | None = None

    def blocks_ms(self) -> list[Float64Array]:
        """Return the calls in milliseconds, one array per block."""
        return np.split(self.calls_ns / 1e6, np.cumsum(self.block_calls)[:-1])


@dataclass(frozen=True)
class RawSamples:
    """All samples of a run, and its protocol as requested, field by field."""

    candidates: tuple[RawCandidate, ...]
    protocol: dict[str, Any]


def raw_of(candidates: Sequence[Candidate], protocol: Protocol) -> RawSamples:
    """Return the samples of measured candidates."""
    return RawSamples(tuple(_raw_candidate(candidate) for candidate in candidates), to_json(protocol))


def _raw_candidate(candidate: Candidate) -> RawCandidate:
    blocks, device_ms = candidate.blocks, candidate.device_ms
    paced = [(rate, block.frames) for rate in sorted(candidate.paced) for block in candidate.paced[rate]]
    times_ns = [np.stack((frames.due_ns, frames.start_ns, frames.end_ns), axis=1) for _, frames in paced]
    counts = [len(each) for each in times_ns]
    warm = [process.warmup_ms for process in candidate.processes]
    return RawCandidate(
        name=candidate.name,
        builds=tuple(process.artifact for process in candidate.processes),
        calls_ns=np.rint(np.concatenate(candidate.calls_ms) * 1e6).astype(np.int64),
        block_calls=np.array([len(block.calls_ms) for block in blocks], np.int64),
        block_build=np.array([block.process for block in blocks], np.int64),
        windows_ns=np.array([block.window_ns for block in blocks], np.int64),
        warmup_ms=np.array([median for medians in warm for median in medians], np.float64),
        warmup_build=np.array([index for index, medians in enumerate(warm) for _ in medians], np.int64),
        device_ms=np.concatenate(device_ms) if len(device_ms) == len(blocks) else None,
        frames_ns=np.concatenate(times_ns) if paced else None,
        frame_rates=np.repeat([rate for rate, _ in paced], counts) if paced else None,
        frame_blocks=np.repeat(np.arange(len(paced)), counts) if paced else None,
    )


def write_raw(path: Path, raw: RawSamples) -> None:
    """Write all samples, whole or not at all; OutputError where the file cannot be written."""
    with atomic_write(path) as temporary:
        save_raw(temporary, raw)


def save_raw(path: Path, raw: RawSamples) -> None:
    """Write all samples into a file that `atomic_write` gave."""
    named = [{"name": one.name, "builds": list(one.builds)} for one in raw.candidates]
    meta = {"raw_version": RAW_VERSION, "protocol": raw.protocol, "candidates": named}
    arrays: dict[str, npt.NDArray[Any]] = {"meta": np.frombuffer(json.dumps(meta).encode(), np.uint8)}
    for index, one in enumerate(raw.candidates):
        for name, kind in _types(one).items():
            arrays[f"{name}_{index}"] = getattr(one, name).astype(kind)
    with path.open("wb") as stream:
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]


_OPTIONAL: dict[str, type[np.generic]] = {
    "device_ms": np.float32,
    "frames_ns": np.int64,
    "frame_rates": np.float64,
    "frame_blocks": np.int32,
}
_FRAME_INTEGERS = ("frames_ns", "frame_blocks")


def _types(one: RawCandidate) -> dict[str, type[np.generic]]:
    """Return each array's type in the file."""
    short = one.calls_ns.max(initial=0) <= np.iinfo(np.uint32).max
    return {
        "calls_ns": np.uint32 if short else np.int64,
        "block_calls": np.int32,
        "block_build": np.int16,
        "windows_ns": np.int64,
        "warmup_ms": np.float64,
        "warmup_build": np.int16,
        **{name: kind for name, kind in _OPTIONAL.items() if getattr(one, name) is not None},
    }


def read_raw(path: Path) -> RawSamples:
    """Return the samples in a file of `write_raw`.

    Raises:
        InputError: the file cannot be read, or is not such a file.
    """
    try:
        return _samples(read_arrays(path))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as exc:
        raise InputError(f"{path}: not raw samples of emca-deploy: {exc}", "name a file that `profile --raw` wrote") from exc


def _samples(arrays: Mapping[str, npt.NDArray[Any]]) -> RawSamples:
    meta = json.loads(arrays["meta"].tobytes())
    if (version := meta["raw_version"]) != RAW_VERSION:
        raise ValueError(f"raw version {version}; this emca-deploy reads {RAW_VERSION}")
    candidates = tuple(_read_candidate(arrays, index, entry) for index, entry in enumerate(meta["candidates"]))
    return RawSamples(candidates, dict(meta["protocol"]))


def _read_candidate(archive: Mapping[str, npt.NDArray[Any]], index: int, entry: dict[str, Any]) -> RawCandidate:
    whole = ("calls_ns", "block_calls", "block_build", "windows_ns", "warmup_build")
    integers: dict[str, Any] = {name: np.asarray(archive[f"{name}_{index}"]).astype(np.int64) for name in whole}
    calls, in_blocks = len(integers["calls_ns"]), int(integers["block_calls"].sum())
    if in_blocks != calls:
        raise ValueError(f"the blocks of '{entry['name']}' have {in_blocks} calls, not {calls}")
    optional: dict[str, Any] = {name: archive[f"{name}_{index}"] for name in _OPTIONAL if f"{name}_{index}" in archive}
    return RawCandidate(
        name=str(entry["name"]),
        builds=tuple(str(build) for build in entry["builds"]),
        warmup_ms=np.asarray(archive[f"warmup_ms_{index}"], np.float64),
        **{name: each.astype(np.int64 if name in _FRAME_INTEGERS else np.float64) for name, each in optional.items()},
        **integers,
    )
