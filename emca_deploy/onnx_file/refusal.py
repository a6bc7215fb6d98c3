"""Errors of libraries that refuse a model, as one line with the cause and a fitting remedy."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from emca_deploy.errors import EmcaError, ModelError
from emca_deploy.onnx_file.header import REMEDY

__all__ = ["graph_errors", "library_reason", "refusal"]

LONGEST_CAUSE = 200
MOST_CHARACTERS = 480
SOURCE = "/onnxruntime_src/"


def library_reason(exc: BaseException) -> str:
    """Return the message of a library's exception in one line, without source locations.

    A long message keeps both ends, because runtimes put the node first and the cause last.
    """
    lines = [line.strip() for line in str(exc).splitlines()]
    text = " ".join(line for line in lines if line and not line.startswith(("Exception from ", "Check '")))
    text = _without_source(text) or type(exc).__name__
    return text if len(text) <= MOST_CHARACTERS else f"{text[:200]} ... {text[-275:]}"


def _without_source(text: str) -> str:
    """Remove ONNX Runtime's source file and the C++ signature that follows it from a text."""
    start = text.find(SOURCE)
    opened = text.find("(", start) if start >= 0 else -1
    if opened < 0:
        return text
    depth = 0
    for index in range(opened, len(text)):
        depth += (text[index] == "(") - (text[index] == ")")
        if depth == 0:
            return f"{text[:start]} {text[index + 1 :].strip()}".strip()
    return text


def refusal(label: str, runtime: str, exc: BaseException) -> ModelError:
    """Return the error for a model, with its path as the label, that a runtime refuses with an exception."""
    reason = library_reason(exc)
    remedy = "check the model with onnx.checker, or export it again"
    if "IR version" in reason or "opset" in reason.lower() or "under development" in reason:
        remedy = f"update {runtime}, or convert the model to an older version with onnx.version_converter"
    return ModelError(f"{label}: {runtime} does not take it: {reason}", remedy)


@contextmanager
def graph_errors(path: Path) -> Iterator[None]:
    """Turn any exception of a library about a graph into one line about its file.

    Libraries raise a dozen classes on graphs that are not well formed: ValueError, KeyError, TypeError, and their own.

    Raises:
        ModelError: the graph cannot be read.
    """
    logger = logging.getLogger("onnx_ir")  # it logs tracebacks of errors that it handles
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    except (EmcaError, MemoryError):
        raise
    except Exception as exc:
        cause = str(exc.__cause__ or exc).strip().splitlines() or [type(exc).__name__]
        raise ModelError(f"{path}: its graph is damaged: {cause[0][:LONGEST_CAUSE]}", REMEDY) from exc
    finally:
        logger.setLevel(level)
