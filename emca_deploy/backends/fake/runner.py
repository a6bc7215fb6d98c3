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
"""The setting `pace` to try tuning with: how many times `latency_ms` a call takes."""
PRECISIONS = {"f32": 1.0, "bf16": 1.5}
"""Likewise the precision: it is a processor that computes in bf16, and slower."""


@dataclass(frozen=True)
class FakeSettings:
    """What a fake artifact's name says: "fake:latency_ms=2,classes=10,size=8,fail_at=5".

    Attributes:
        latency_ms: the time of every call.
        load_ms: the time of opening it.
        classes: width of the logits.
        size: height and width of its images.
        seed: another one gives other logits.
        fail_at: the call, counted from 1 since opening, that raises ModelError; 0 never.
        crash_at: the call on which the process ends at once, as a crash would end it; 0 never.
        hang_at: the call that never returns; 0 never.
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
        """Read the settings off an artifact's name.

        Raises:
            InputError: a setting is unknown or no number.
        """
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
    """Logits that depend on the input alone: column means of each image's pixels, mixed by fixed random weights."""

    def __init__(self, artifact: str, options: RunOptions) -> None:
        self._artifact = artifact
        self._options = options
        self._weights: Float32Array | None = None

    def open(self) -> None:
        """Draw the weights. Sets `input` and `output`.

        Raises:
            InputError: the artifact's name cannot be read.
        """
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
        """Return logits (N, classes) float32 of a batch (N, 3, size, size) float32, after `latency_ms`.

        Raises:
            InputError: the batch's shape or dtype does not fit.
            ModelError: it is the call that shall fail.
        """
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
        """Forget the weights; calling it twice is fine."""
        self._weights = None

    def describe(self) -> dict[str, Any]:
        """Return that it is a fake."""
        return {"runtime": BACKEND, "threads": self._options.threads}


def _as_bf16(values: Float32Array) -> Float32Array:
    """Return what bfloat16 holds of values: the upper half of a float32."""
    return (values.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def tunables(situation: Situation) -> list[Tunable]:
    """Return the settings worth trying: a pace, one of which fails, and the precisions asked for."""
    return [Tunable("pace", "steady", ("quick", "slow", "broken")), Tunable("precision", "f32", situation.precisions)]
