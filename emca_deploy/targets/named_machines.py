"""Named machines: targets in a TOML file, which the user may edit."""

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from emca_deploy.artifacts import write_text
from emca_deploy.errors import InputError, OutputError, UnknownNameError
from emca_deploy.remote.address import SCHEME
from emca_deploy.requests import BuildRequest, LogitsRequest, ProfileRequest
from emca_deploy.targets.base import Target
from emca_deploy.targets.capabilities import Capabilities, Lack
from emca_deploy.targets.devices_file import DEVICES_VARIABLE, devices_file, read_devices
from emca_deploy.targets.registry import KINDS, parse

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "Machine",
    "add_machine",
    "find_machine",
    "open_target",
    "read_machines",
    "ready",
    "remove_machine",
]

Directed = TypeVar("Directed", ProfileRequest, LogitsRequest, BuildRequest)

_FORMS = "cpu, gpu, gpu:1, jetson or ssh://[user@]host[:port]"
_NAME = re.compile(r"[A-Za-z0-9_-]+")  # TOML's bare keys, which a shell does not need to quote either
_KEYS = ("target", "host", "kind", "power_mode", "notes")
_HEADER = "# Devices of emca-deploy: `emca-deploy devices add NAME TARGET` writes here, and you may edit it.\n"


@dataclass(frozen=True)
class Machine:
    """A machine with a name.

    Attributes:
        name: Name for `--target`, a bare key of TOML.
        target: Target: "cpu", "gpu", "gpu:1", "jetson" or "ssh://[user@]host[:port]".
        power_mode: Power mode of a board for runs that name no other; None leaves it unchanged.
        notes: Notes for people.
    """

    name: str
    target: str
    power_mode: str | None = None
    notes: str = ""

    def examine(self) -> Capabilities:
        """Return what the machine can do, with problems of its target and power mode.

        Raises:
            InputError: there is no host of that name, or ssh's configuration has an error.
            MissingError: the machine cannot be reached.
        """
        target = parse(self.target)
        found = target.capabilities()
        runs_on = None if target.on_host is None else parse(target.on_host)
        if found.board is not None:
            return found
        if runs_on is not None and runs_on.has_power_modes:
            lack = Lack("it is no Jetson board", "name the board: ssh://user@board")
        elif self.power_mode is not None:
            lack = Lack(f"power mode '{self.power_mode}': it is no Jetson board", "leave the device's power mode out")
        else:
            return found
        return replace(found, lacks=(*found.lacks, lack))

    def to_dict(self) -> dict[str, Any]:
        """Return its JSON."""
        target = parse(self.target)
        kind = target.on_host if target.is_remote else self.target
        where = {"target": self.target, "host": target.host, "kind": kind}
        return {"name": self.name, **where, "power_mode": self.power_mode, "notes": self.notes}

    def to_toml(self) -> str:
        """Return its table."""
        values = {"target": self.target, "power_mode": self.power_mode, "notes": self.notes}
        # A basic string of TOML is a string of JSON with DEL escaped, too.
        quoted = {key: json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f") for key, value in values.items() if value}
        lines = [f"{key} = {value}" for key, value in quoted.items()]
        return "\n".join([f"[{self.name}]", *lines]) + "\n"


def read_machines() -> dict[str, Machine]:
    """Return all named machines by name, in the file's order; none without a file.

    Raises:
        InputError: the file cannot be read, is not TOML, or contains something other than machines.
    """
    return _load()[2]


def _load() -> tuple[Path, str, dict[str, Machine]]:
    """Return the path of the file, its text, and the machines in it."""
    path = devices_file()
    text = read_devices(path)
    return path, text, _parse(path, text)


def find_machine(name: str) -> Machine:
    """Return the machine of a name.

    Raises:
        InputError: the file is wrong; see `read_machines`.
        UnknownNameError: no machine has that name.
    """
    machines = read_machines()
    if name not in machines:
        raise UnknownNameError.of("device", name, machines, "`emca-deploy devices` lists them")
    return machines[name]


def add_machine(machine: Machine) -> Path:
    """Append a machine to the file, and return the file.

    Raises:
        InputError: the machine is wrong, its name is taken, or the file cannot be read.
        OutputError: the file cannot be written.
    """
    _check(machine)
    path, before, machines = _load()
    if machine.name in machines:
        raise InputError(
            f"{path}: device '{machine.name}' already exists",
            f"`emca-deploy devices remove {machine.name}` first, or edit the file",
        )
    text = before or _HEADER
    _write(path, f"{text}{'' if text.endswith(chr(10)) else chr(10)}\n{machine.to_toml()}", {**machines, machine.name: machine})
    return path


def remove_machine(name: str) -> Path:
    """Remove a machine from the file, and return the file.

    Raises:
        InputError: the file cannot be read.
        OutputError: the file cannot be written.
        UnknownNameError: no machine has that name.
    """
    find_machine(name)
    path, before, machines = _load()
    del machines[name]
    # The table: its header and the lines after it, up to a comment, a blank line or another table.
    table = re.compile(rf"^[ \t]*\[[ \t]*{re.escape(name)}[ \t]*\].*\n(?:(?![ \t]*(?:\[|#|\n)).*\n)*\n?", re.MULTILINE)
    _write(path, table.sub("", before if before.endswith("\n") else before + "\n", count=1), machines)
    return path


def open_target(text: str | None, power_mode: str | None = None) -> tuple[Target, str | None]:
    """Return the target and power mode of a run.

    Args:
        text: Target, or name of a machine, whose file is read only then; None means cpu.
        power_mode: Power mode that the user chose; None means that of the named machine.

    Raises:
        InputError: the target or the file of named machines is wrong.
        UnknownNameError: the text is neither a target nor a named machine.
    """
    text = "cpu" if text is None else text
    if _is_target(text) or not _NAME.fullmatch(text):
        return parse(text), power_mode
    machines = read_machines()
    if text not in machines:
        own = "`emca-deploy devices` lists yours" if machines else "`emca-deploy devices add` gives a machine a name"
        raise UnknownNameError.of("target", text, (*KINDS, *machines), f"targets: cpu, gpu, jetson, ssh://HOST; {own}")
    machine = machines[text]
    return parse(machine.target), machine.power_mode if power_mode is None else power_mode


def ready(request: Directed) -> tuple[Target, Directed]:
    """Return the target of a request, and the request with the name of a machine replaced by its target and power mode.

    Raises:
        InputError: the target cannot run this request.
        UnknownNameError: no target or machine has this name.
    """
    target, power_mode = open_target(request.target, request.power_mode)
    request = replace(request, target=target.name, power_mode=power_mode)
    target.check(request)
    return target, request


def _is_target(text: str) -> bool:
    try:
        parse(text)
    except InputError:
        return False
    return True


def _check(machine: Machine) -> None:
    """Refuse a machine with a wrong name, target or power mode.

    Raises:
        InputError: one of them is wrong.
    """
    name, target = machine.name, machine.target
    if not _NAME.fullmatch(name):
        raise InputError(f"device '{name}': not a valid name", "use letters, digits, - and _ only, for example orin-nano")
    if _is_target(name.lower()):
        raise InputError(f"device '{name}': is the name of a target", f"choose another name, for example my-{name.lower()}")
    try:
        runs_on = parse(target)
    except InputError as exc:
        if target.startswith(SCHEME):
            raise
        raise InputError(f"device '{name}': '{target}' is no target", f"give {_FORMS}") from exc
    if machine.power_mode is not None and not runs_on.has_power_modes:
        raise InputError(f"device '{name}': target '{target}' has no power modes", "leave the power mode out")
    for key, value in (("power mode", machine.power_mode), ("notes", machine.notes)):
        if any("\ud800" <= char <= "\udfff" for char in value or ""):
            raise InputError(f"device '{name}': its {key} is not UTF-8 text", "type it in a terminal that is set to UTF-8")
    if machine.power_mode == "":
        raise InputError(f"device '{name}': its power mode is empty", "name one, or leave it out")


def _parse(path: Path, text: str) -> dict[str, Machine]:
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as exc:  # ValueError also of integers with thousands of digits
        raise InputError(
            f"{path}: not TOML: {exc or 'nested too deep'}", "fix that line, or move the file away and add the devices again"
        ) from exc
    return {name: _machine(path, name, table) for name, table in tables.items()}


def _machine(path: Path, name: str, table: Any) -> Machine:
    remedy = 'a device is [name] with target = "...", or host = "..." and kind = "...", and optionally power_mode and notes'
    if not isinstance(table, Mapping):
        raise InputError(f"{path}: '{name}' is no table", remedy)
    for key, value in table.items():
        if key not in _KEYS:
            raise UnknownNameError.of(f"setting of a device ({path}, [{name}])", key, _KEYS, remedy)
        if not isinstance(value, str):
            raise InputError(f"{path}: [{name}]: {key} is not text", f'write {key} = "{value}"')
    own = [key for key in ("host", "kind") if key in table]
    if "target" in table and own:
        raise InputError(f"{path}: [{name}]: has a target and also {' and '.join(own)}", "leave one of them out")
    if "target" not in table and not own:
        raise InputError(f"{path}: [{name}]: has no target", remedy)
    target = table["target"] if "target" in table else table.get("kind", "")
    if "host" in table:
        target = f"{SCHEME}{table['host']}" + (f"/{table['kind']}" if "kind" in table else "")
    machine = Machine(name, target, table.get("power_mode"), table.get("notes", ""))
    try:
        _check(machine)
    except InputError as exc:
        raise InputError(f"{path}: {exc.problem}", exc.remedy) from exc
    return machine


def _write(path: Path, text: str, machines: Mapping[str, Machine]) -> None:
    """Write an edited text if it defines these machines; else write the machines without the user's comments."""
    try:
        same = _parse(path, text) == machines
    except InputError:
        same = False
    if not same:
        text = "\n".join([_HEADER, *(machine.to_toml() for machine in machines.values())])
    try:
        file = path.resolve()  # a link to another file stays a link
        file.parent.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else exc
        raise OutputError(f"{path}: its folder cannot be made: {reason}", f"name another file with {DEVICES_VARIABLE}") from exc
    write_text(file, text)
