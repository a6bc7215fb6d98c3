"""A backend without a model: deterministic logits, a latency and failures on demand, to test what measures backends."""

import os
import time
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from emca_deploy.arrays import Float32Array
from emca_deploy.artifacts import TensorSpec
from emca_deploy.backends.base import Runner, RunOptions, Situation, check_batch, refuse_precision
from emca_deploy.errors import InputError, ModelError
from emca_deploy.results.tuning import Tunable

__all__ = ["FakeRunner", "FakeSettings", "tunables"]

BACKEND = "fake"
CRASH_CODE = 41
PACES = {"steady": 1.0, "quick": 0.5, "slow": 2.0}
"""Factors of `latency_ms` by the value of the setting `pace`, which tests tune."""
PRECISIONS = {"f32": 1.0, "bf16": 1.5}
"""Factors of `latency_ms` by precision: bf16 is slower, as on a processor without hardware for it."""


@dataclass(frozen=True)
class FakeSettings:
    """The settings in a fake artifact's name: "fake:latency_ms=2,classes=10,size=8,fail_at=5".

    Attributes:
        latency_ms: Time of each call.
        load_ms: Time that opening it takes.
        classes: Number of logits of an image.
        size: Height and width of its images, in pixels.
        seed: Random seed of the weights.
        fail_at: Number of the call that raises ModelError, counted from 1 since opening; 0 means none.
        crash_at: Number of the call that ends the process at once, as a crash does; 0 means none.
        hang_at: Number of the call that never returns; 0 means none.
    """

    latency_ms: float = 0.0
    load_ms: float = 0.0
    classes: int = 10
    size: int = 8
    seed: int = 0
    fail_at: int = 0
    crash_at: int = 0
    hang_at: int = 0

    @classmethod
    def parse(cls, artifact: str) -> "FakeSettings":
        """Read the settings from an artifact's name; raise InputError where one is unknown or not a number."""
        kinds: dict[str, Any] = {field.name: field.type for field in fields(cls)}
        values: dict[str, Any] = {}
        for pair in filter(None, artifact.removeprefix("fake").removeprefix(":").split(",")):
            name, _, value = pair.partition("=")
            try:
                values[name] = kinds[name](value)
            except (KeyError, ValueError) as exc:
                raise InputError(f"{artifact}: cannot read '{pair}'", f"give NAME=NUMBER of: {', '.join(kinds)}") from exc
        return cls(**values)


class FakeRunner(Runner):
    """A runner whose logits depend on the input only: column means of each image's pixels times fixed random weights."""

    def __init__(self, artifact: str, options: RunOptions) -> None:
        self._artifact = artifact
        self._options = options
        self._weights: Float32Array | None = None

    def open(self) -> None:
        """Draw the weights, and set `input` and `output`."""
        refuse_precision(BACKEND, self._options.precision, tuple(PRECISIONS))
        settings = self._settings = FakeSettings.parse(self._artifact)
        time.sleep(settings.load_ms / 1e3)
        pace = str(self._options.settings.get("pace", "steady"))
        if pace == "broken":
            raise ModelError(f"{self._artifact}: does not take this pace, as asked", "use another pace")
        self._latency_ms = settings.latency_ms * PACES[pace] * PRECISIONS[self._options.precision]
        batch = self._options.batch or "batch"
        self.input = TensorSpec("images", "float32", (batch, 3, settings.size, settings.size))
        self.output = TensorSpec("logits", "float32", (batch, settings.classes))
        random = np.random.default_rng(settings.seed)
        weights = random.standard_normal((3 * settings.size, settings.classes)).astype(np.float32)
        self._weights = weights if self._options.precision == "f32" else _as_bf16(weights)
        self._calls = 0

    def infer(self, batch: Float32Array) -> Float32Array:
        """Return logits (N, classes) float32 of a batch (N, 3, size, size) float32, after `latency_ms`."""
        if self._weights is None:
            raise RuntimeError("infer on a runner that is not open")
        check_batch(batch, self.input)
        self._calls += 1
        while self._calls == self._settings.hang_at:
            time.sleep(60)
        if self._calls == self._settings.crash_at:
            os._exit(CRASH_CODE)
        if self._calls == self._settings.fail_at:
            raise ModelError(f"{self._artifact}: call {self._calls} fails, as asked", "leave out fail_at")
        if self._latency_ms:
            time.sleep(self._latency_ms / 1e3)
        logits: Float32Array = batch.mean(axis=2).reshape(len(batch), -1) @ self._weights
        return logits

    def close(self) -> None:
        """Forget the weights."""
        self._weights = None

    def describe(self) -> dict[str, Any]:
        """Return the runtime and its threads."""
        return {"runtime": BACKEND, "threads": self._options.threads}


def _as_bf16(values: Float32Array) -> Float32Array:
    """Return values rounded towards zero to bfloat16, the upper half of a float32."""
    return (values.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def tunables(situation: Situation) -> list[Tunable]:
    """Return the settings worth trying: the pace, of which one value fails, and the requested precisions."""
    return [Tunable("pace", "steady", ("quick", "slow", "broken")), Tunable("precision", "f32", situation.precisions)]
