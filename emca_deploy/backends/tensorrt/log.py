"""What the builder says: warnings and errors kept, the list of the engine's layers kept, the rest counted."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from emca_deploy.backends.tensorrt.dla_log import concerns_dla
from emca_deploy.errors import MissingError
from emca_deploy.onnx_file.refusal import library_reason

__all__ = ["BuildLog", "attach", "started"]

NAMES = ("internal error", "error", "warning", "info", "verbose")  # by TensorRT's severities, worst first
LAYER_LISTS = ("Layers:", "Engine Layer Information:")
MISREAD = re.compile(r"Defaulting to INT8")
# Every fp16 number is a float32 one: nothing is lost when TensorRT-RTX multiplies an INT8 convolution's fp16 scales in float32.
EXACT = re.compile(r"Converting conv (?:activation|weight) scales to fp32")
LOCATION = re.compile(r"^\[?[\w/]+\.(?:cpp|h):[:\w]*\]?:? *")


@dataclass
class BuildLog:
    """The log of one build.

    Attributes:
        errors: messages of errors, in order, without their place in TensorRT's sources.
        warnings: its warnings, each once.
        notes: warnings about what changes no number, each once.
        counts: messages by severity.
    """

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    _layer_lists: list[str] = field(default_factory=list)
    _about_dla: list[str] = field(default_factory=list)

    def add(self, severity: int, message: str) -> None:
        """Take one message of a severity in TensorRT's numbers: 0 and 1 errors, 2 a warning, 3 and 4 talk."""
        self.counts[NAMES[severity]] += 1
        text = LOCATION.sub("", message.strip())
        if concerns_dla(message):
            self._about_dla.append(text)
        if severity < 2:
            self.errors.append(text)
        elif severity == 2:
            kept = self.notes if EXACT.search(text) else self.warnings
            if text not in kept:
                kept.append(text)
        elif message.lstrip().startswith(LAYER_LISTS):
            self._layer_lists.append(message)

    def misreadings(self) -> list[str]:
        """Return the warnings that say a tensor was read as another type than the model's."""
        return [text for text in self.warnings if MISREAD.search(text)]

    def layer_lines(self) -> Iterator[str]:
        """Yield the lines that list the finished engine's layers; none before it is finished."""
        for message in self._layer_lists:
            yield from message.splitlines()

    def dla_lines(self) -> Iterator[str]:
        """Yield the lines that say what runs on a DLA and what does not."""
        for message in self._about_dla:
            yield from message.splitlines()

    def reason(self) -> str:
        """Return the first error in one line of at most 240 characters."""
        return " ".join((self.errors or ["it does not say why"])[0].split())[:240]


def attach(trt: Any, log: BuildLog) -> Any:
    """Return a logger of TensorRT's kind that hands everything to `log`. It must live as long as what was made with it."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            log.add(int(severity), message)

    return Logger()


def started(kind: Callable[[Any], Any], logger: Any, log: BuildLog, backend: str) -> Any:
    """Return a builder or runtime of TensorRT that writes to `logger`.

    Raises:
        MissingError: the library does not start, the driver is too old for it, for example.
    """
    try:
        return kind(logger)
    except (RuntimeError, TypeError) as exc:  # pybind raises TypeError where the library returns nothing
        reason = log.reason() if log.errors else library_reason(exc)
        raise MissingError(f"backend '{backend}' does not start: {reason}", "check the driver with nvidia-smi") from exc
