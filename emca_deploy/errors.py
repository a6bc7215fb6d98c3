"""The errors that a user can act on, as one tree.

EmcaError                       exit 1
├── InputError                  exit 2: a file, a value or an option is wrong
│   ├── UnknownNameError            an unknown name of an architecture, backend, ...
│   ├── CheckpointError             a checkpoint that cannot be read, or fits no architecture
│   ├── ModelError                  an ONNX model that cannot be read or used
│   ├── DataError                   a data set, archive or image that cannot be read
│   ├── EngineError                 an engine that does not belong to this machine, or is damaged
│   ├── BundleError                 a bundle that is damaged, or cannot be made of these files
│   └── OutputError                 a place that cannot be written to
├── WorkerError                 exit 1: a measuring process crashed or hung
├── MissingError                exit 3: a backend, device or permission is missing
└── GateError                   exit 4: parity or accuracy is outside its gate
"""

import difflib
from collections.abc import Iterable

__all__ = [
    "BundleError",
    "CheckpointError",
    "DataError",
    "EmcaError",
    "EngineError",
    "GateError",
    "InputError",
    "MissingError",
    "ModelError",
    "OutputError",
    "UnknownNameError",
    "WorkerError",
]


class EmcaError(Exception):
    """An error a user can act on.

    Args:
        problem: one line that says what is wrong with which file or option.
        remedy: one line that says what to do.
    """

    exit_code = 1

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        """Return both lines as one."""
        return f"{self.problem} ({self.remedy})"


class InputError(EmcaError):
    """A file, a value or an option is wrong."""

    exit_code = 2


class UnknownNameError(InputError):
    """An architecture, backend or other thing has an unknown name."""

    @classmethod
    def of(cls, what: str, name: str, known: Iterable[str], remedy: str) -> "UnknownNameError":
        """Return the error for a `what` called `name`, with the nearest of the `known` names in its remedy."""
        near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
        hint = f"nearest: {', '.join(near)}; " if near else ""
        return cls(f"no {what} is called '{name}'", hint + remedy)


class CheckpointError(InputError):
    """A checkpoint cannot be read, or fits no architecture."""


class ModelError(InputError):
    """An ONNX model cannot be read or used."""


class DataError(InputError):
    """A data set, archive or image cannot be read."""


class EngineError(InputError):
    """An engine is for another machine, or is damaged."""


class BundleError(InputError):
    """A bundle is damaged, or cannot be made of these files."""


class OutputError(InputError):
    """A file or folder cannot be written."""


class WorkerError(EmcaError):
    """A measuring process crashed, hung or was killed, most likely because of its runtime and not the input."""


class MissingError(EmcaError):
    """A backend, device or permission is missing."""

    exit_code = 3


class GateError(EmcaError):
    """Parity or accuracy is outside its gate."""

    exit_code = 4
