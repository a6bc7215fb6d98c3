"""Where onnx, onnx-ir and their passes are handed a stranger's graph: whatever they raise is one error of ours."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from emca_deploy.errors import EmcaError, ModelError
from emca_deploy.onnx_file.header import REMEDY

__all__ = ["graph_errors"]

LONGEST_CAUSE = 200


@contextmanager
def graph_errors(path: Path) -> Iterator[None]:
    """Turn an exception of a library about a graph into one line about its file.

    They raise a dozen classes on graphs that are not well formed: ValueError, KeyError, TypeError, and several of their own.

    Raises:
        ModelError: the graph cannot be read.
    """
    logger = logging.getLogger("onnx_ir")  # it logs whole tracebacks of what it then does without
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
