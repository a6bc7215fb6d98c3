"""Runners for the harness's tests, which a worker makes through their factory."""

import gc
import os
import sys
import time
from pathlib import Path

import numpy as np

from emca_deploy.artifacts import TensorSpec
from emca_deploy.errors import ModelError

CLASSES = 4
MOST_WALKED = 1000  # numpy alone has tens of thousands


class Runner:
    """Runner whose logits are the sums of the image's columns; `does` selects other behaviour."""

    calls = 0
    softmax = False
    task = "classification"

    def __init__(self, does="", batch="batch", latency_s=0.0, size=CLASSES, load_s=0.0):
        self.does, self.latency_s, self.load_s = does, latency_s, load_s
        self.input = TensorSpec("images", "float32", (batch, 3, size, size))
        self.output = TensorSpec("logits", "float32", (batch, size))

    def open(self):
        self.opened_ns = time.monotonic_ns()
        time.sleep(self.load_s)
        self.loaded_ns = time.monotonic_ns()
        if self.does == "refuse":
            raise ModelError("model.onnx: is not a model", "export it again")
        if self.does == "print":
            sys.stdout.write("a library says hello on stdout\n")
            os.write(1, b"\x00\x01 raw bytes on stdout\n")

    def to_native(self, batch):
        return batch

    def infer(self, batch):
        if self.does == "raise":
            raise ZeroDivisionError("a bug of the runtime")
        if self.does == "abort":
            os.write(2, b"not of interest\n" + b"x" * 5000 + b"\nbegin\nfree(): invalid pointer\n")
            os.abort()
        if self.does == "dislike garbage":
            self.calls += 1
            walked = len(gc.get_objects())
            assert self.calls == 1 or walked < MOST_WALKED, f"{walked:,} objects would be walked before a block"
        if self.does == "hang":
            time.sleep(600)
        time.sleep(self.latency_s)
        assert batch.flags.c_contiguous
        assert batch.dtype == np.float32
        return batch.sum(axis=(1, 2))

    def close(self):
        if self.does == "refuse to close":
            raise ModelError("model.onnx: cannot be closed", "close it again")

    def answers(self):
        return {}

    def describe(self):
        return {"version": "1.0", "stdout": sys.stdout.fileno(), "odd": {1, 2} and os, "files": standard_files(), **self._times()}

    def _times(self):
        return {name: getattr(self, name) for name in ("opened_ns", "loaded_ns") if hasattr(self, name)}


def standard_files():
    """Return where standard input, output and error lead; other files that lead nowhere are appended."""
    places = [str(Path(f"/proc/self/fd/{number}").resolve()) for number in range(12) if Path(f"/proc/self/fd/{number}").exists()]
    return places[:3] + [place for place in places[3:] if place == os.devnull]


class DeviceRunner(Runner):
    """Runner that reports n milliseconds of device time for its n-th call."""

    device_ms = None

    def infer(self, batch):
        self.calls += 1
        self.device_ms = None if self.does == "forget" else float(self.calls)
        return super().infer(batch)


def make(**kwargs):
    return Runner(**kwargs)


def make_device(**kwargs):
    return DeviceRunner(**kwargs)


class SaturableRunner(Runner):
    """Runner that handles four requests at once."""

    def start_offline(self, batch):
        self.batch = batch
        return 4

    def run_offline(self, seconds, min_calls, max_calls):
        from concurrent.futures import ThreadPoolExecutor

        end = time.perf_counter() + seconds
        with ThreadPoolExecutor(4) as pool:
            each = pool.map(lambda _: self.stream(end), range(4))
        return np.concatenate(list(each))[:max_calls]

    def stream(self, end):
        latencies_ns = []
        while not latencies_ns or time.perf_counter() < end:
            start_ns = time.perf_counter_ns()
            self.infer(self.batch)
            latencies_ns.append(time.perf_counter_ns() - start_ns)
        return np.array(latencies_ns, np.int64)


def make_saturable(**kwargs):
    return SaturableRunner(**kwargs)


def make_with_clock_going_back(**kwargs):
    steps = iter(range(1_000_000))
    time.time = lambda: 1e9 - next(steps) * 3600.0
    time.time_ns = lambda: int(time.time() * 1e9)
    return Runner(**kwargs)
