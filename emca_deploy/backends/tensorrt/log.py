"""The builder's log, of which errors, warnings and the list of the engine's layers are kept."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from emca_deploy.backends.tensorrt.dla_log import concerns_dla
from emca_deploy.errors import MissingError
from emca_deploy.harness.clock import no_garbage_collection
from emca_deploy.onnx_file.refusal import library_reason

__all__ = ["BuildLog", "attach", "started"]

LAYER_LISTS = ("Layers:", "Engine Layer Information:")
MISREAD = re.compile(r"Defaulting to INT8")
# TensorRT-RTX loses nothing when it multiplies an INT8 convolution's fp16 scales in float32, which holds every fp16 number.
EXACT = re.compile(r"Converting conv (?:activation|weight) scales to fp32")
LOCATION = re.compile(r"^\[?[\w/]+\.(?:cpp|h):[:\w]*\]?:? *")


@dataclass
class BuildLog:
    """The log of one build.

    Attributes:
        errors: Error messages in order, without their location in TensorRT's sources.
        warnings: Warnings, each once.
        notes: Warnings that concern no number, each once.
        layer_lines: Lines that list the layers of the finished engine.
        dla_lines: Lines about the placement on a DLA.
    """

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    layer_lines: list[str] = field(default_factory=list)
    dla_lines: list[str] = field(default_factory=list)

    def add(self, severity: int, message: str) -> None:
        """Take one message; TensorRT's severities are 0 and 1 for errors, 2 for warnings, 3 and 4 for information."""
        text = LOCATION.sub("", message.strip())
        if concerns_dla(message):
            self.dla_lines += text.splitlines()
        if severity < 2:
            self.errors.append(text)
        elif severity == 2:
            kept = self.notes if EXACT.search(text) else self.warnings
            if text not in kept:
                kept.append(text)
        elif message.lstrip().startswith(LAYER_LISTS):
            self.layer_lines += message.splitlines()

    def misreadings(self) -> list[str]:
        """Return the warnings that say a tensor was read as another type than the model's."""
        return [text for text in self.warnings if MISREAD.search(text)]

    def reason(self) -> str:
        """Return the first error in one line of at most 240 characters."""
        return " ".join((self.errors or ["it does not say why"])[0].split())[:240]


def attach(trt: Any, log: BuildLog) -> Any:
    """Return a TensorRT logger that passes all messages to `log`; it must outlive the objects made with it."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            log.add(int(severity), message)

    return Logger()


def started(kind: Callable[[Any], Any], logger: Any, log: BuildLog, backend: str) -> Any:
    """Return a builder or runtime of TensorRT; raise MissingError where it does not start, such as for an old driver."""
    try:
        # A collection in the logger would delete an older builder, which waits for a lock that TensorRT holds.
        with no_garbage_collection():
            return kind(logger)
    except (RuntimeError, TypeError) as exc:  # pybind raises TypeError where the library returns nothing
        reason = log.reason() if log.errors else library_reason(exc)
        raise MissingError(f"backend '{backend}' does not start: {reason}", "check the driver with nvidia-smi") from exc
