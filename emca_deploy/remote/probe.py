"""Probes a remote machine for a Python that runs the agent, runtimes, trtexec, free disk, and its clock."""

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from emca_deploy._optional import backend_packages
from emca_deploy.backends.tensorrt.tool.find import PLACES
from emca_deploy.errors import MissingError
from emca_deploy.remote.address import Address
from emca_deploy.remote.call import call, new_mark
from emca_deploy.remote.connection import Connection
from emca_deploy.remote.python_probe import OLDEST

__all__ = ["PYTHON_VARIABLE", "Facts", "check_python", "check_runtime", "look"]

PYTHON_VARIABLE = "EMCA_DEPLOY_REMOTE_PYTHON"
CLOCK_LIMIT_S = 5.0
PYTHONS = ("python3", "python3.13", "python3.12", "python3.11", "python3.10", "python")

# The first Python that runs the agent ends the search. Each describes itself, to explain why none fits.
_SCRIPT = """mark=$1 program=$2 packages=$3; shift 3
root=${XDG_CACHE_HOME:-$HOME/.cache}/emca-deploy
while [ "$1" != -- ]; do
  if found=$(command -v "$1" 2>/dev/null); then
    printf '\\n%s{"tried": "%s"}\\n' "$mark" "$found"
    "$1" -c "$program" "$mark" "$found" "$root" "$packages" </dev/null && break
  fi
  shift
done
while [ "$1" != -- ]; do shift; done
shift
for tool do
  found=$(command -v "$tool" 2>/dev/null) && printf '\\n%s{"trtexec": "%s"}\\n' "$mark" "$found" && break
done
printf '\\n%s{"end": true, "root": "%s"}\\n' "$mark" "$root"
"""


@dataclass(frozen=True)
class Facts:
    """Facts about a machine; None or empty is unknown.

    Attributes:
        python: Path of the interpreter that runs the agent; None if there is none.
        python_version: Version of that interpreter, else of the newest one found.
        broken: Why the first interpreter found does not work; None if one works, or if there is none.
        versions: Versions of numpy, PIL and the runtimes, by package; None if a package does not report its version.
        root: Remote folder with all files of emca-deploy.
        machine: Architecture.
        system: Name of the operating system.
        clock_offset_s: Time by which its clock is ahead of this machine's; None if no Python was run.
        free_mib: Free space on the disk of `root`.
        trtexec: Path of trtexec, if it is in a usual place.
        trip_s: Duration of the probe, with the connection.
    """

    python: str | None = None
    python_version: str | None = None
    broken: str | None = None
    versions: dict[str, str | None] = field(default_factory=dict)
    root: str = ""
    machine: str | None = None
    system: str | None = None
    clock_offset_s: float | None = None
    free_mib: float | None = None
    trtexec: str | None = None
    trip_s: float = 0.0

    @property
    def clock_is_off(self) -> bool:
        """Whether its clock is so far off that the user should know."""
        return abs(self.clock_offset_s or 0.0) > CLOCK_LIMIT_S

    @property
    def clock_difference(self) -> str:
        """How far its clock is off, such as "12 s ahead of"."""
        offset_s = self.clock_offset_s or 0.0
        return f"{abs(offset_s):.0f} s {'ahead of' if offset_s > 0 else 'behind'}"


def look(connection: Connection) -> Facts:
    """Return what the machine at the other end of a connection has.

    Raises:
        InputError: there is no host of that name, or ssh's configuration has an error.
        MissingError: the machine cannot be reached, its key is unknown or has changed, or it refuses the login.
    """
    mark, named = new_mark(), os.environ.get(PYTHON_VARIABLE)
    words = [mark, _program(), json.dumps(_packages()), *((named,) if named else PYTHONS), "--", *PLACES]
    started = time.time()
    answers: list[dict[str, Any]] = []
    with call(connection, ["sh", "-c", _SCRIPT, "emca-deploy", *words], mark) as running:
        running.close_input()
        while (message := running.message()) is not None:
            connection.reached = True
            message["seen"] = time.time()
            answers.append(message)
            if message.get("end"):
                break
        if not answers or not answers[-1].get("end"):
            raise running.trouble(running.wait())
        facts = _facts(answers, started)
        tried = next((str(answer["tried"]) for answer in answers if "tried" in answer), None)
        if facts.python_version or tried is None:
            return facts
        return replace(facts, broken=f"{tried} does not run: {running.last_lines(1)[0]}")


def _packages() -> dict[str, tuple[str, ...]]:
    """Return the modules to look for, with the distributions that may contain each."""
    runtimes = {one.module: (one.distribution, *one.alternatives) for one in backend_packages()}
    return {"numpy": ("numpy",), "onnx": ("onnx",), **runtimes, "PIL": ("Pillow",)}


@cache
def _program() -> str:
    """Return the text of the program that each Python runs."""
    return Path(__file__).with_name("python_probe.py").read_text(encoding="utf-8")


def _facts(answers: list[dict[str, Any]], started: float) -> Facts:
    pythons = [answer for answer in answers if "python" in answer]
    trtexec = next((str(answer["trtexec"]) for answer in answers if "trtexec" in answer), None)
    trip_s = answers[-1]["seen"] - started
    if not pythons:
        return Facts(trtexec=trtexec, trip_s=trip_s)
    last = max(pythons, key=lambda answer: (_fits(answer), _numbers(answer["version"])))
    free = last["free_bytes"]
    return Facts(
        python=last["python"] if _fits(last) else None,
        python_version=last["version"],
        versions=dict(last["have"]),
        root=answers[-1]["root"],
        machine=last["machine"],
        system=last["system"],
        clock_offset_s=round(last["clock"] - last["seen"], 3),
        free_mib=None if free is None else free / 2**20,
        trtexec=trtexec,
        trip_s=trip_s,
    )


def _fits(answer: Mapping[str, Any]) -> bool:
    return _numbers(answer["version"])[:2] >= OLDEST and "numpy" in answer["have"]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split("."))


def check_python(address: Address, facts: Facts) -> str:
    """Return the path of the Python that runs the agent.

    Raises:
        MissingError: there is none.
    """
    if facts.python is not None:
        return facts.python
    by_trtexec = f"; or build and time with its {facts.trtexec}" if facts.trtexec else ""
    named = os.environ.get(PYTHON_VARIABLE)
    if facts.python_version is None:
        none = f"has no '{named}' ({PYTHON_VARIABLE}) and" if named else "has no Python and"
        what = f"{facts.broken}; it has" if facts.broken else none
        raise MissingError(
            f"{address}: {what} {'only trtexec' if facts.trtexec else 'no trtexec'}",
            f"install Python 3.10 or newer with numpy and a runtime on it, or name it with {PYTHON_VARIABLE}{by_trtexec}",
        )
    if _numbers(facts.python_version)[:2] < OLDEST:
        raise MissingError(
            f"{address}: its Python is {facts.python_version}, but 3.10 is needed",
            f"install a newer one on that machine, and name it with {PYTHON_VARIABLE}{by_trtexec}",
        )
    raise MissingError(
        f"{address}: its Python {facts.python_version} has no numpy",
        f"on that machine: python3 -m pip install numpy onnxruntime; or name another Python with {PYTHON_VARIABLE}{by_trtexec}",
    )


def check_runtime(address: Address, facts: Facts, package: str, purpose: str) -> None:
    """Refuse a machine that lacks a package. `purpose` needs it, such as "backend 'openvino'".

    Raises:
        MissingError: the package is not installed.
    """
    if package in facts.versions:
        return
    name = _packages()[package][0] if package in _packages() else package
    raise MissingError(
        f"{address}: {name} is not installed, but {purpose} needs it",
        f"on that machine: {facts.python} -m pip install {name}; or name a Python that has it with {PYTHON_VARIABLE}",
    )
