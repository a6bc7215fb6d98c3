"""`devices`: named machines, and what each can do."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emca_deploy._progress import Progress
from emca_deploy.backends.registry import BACKENDS
from emca_deploy.errors import EmcaError
from emca_deploy.results.codec import version
from emca_deploy.targets import named_machines
from emca_deploy.targets.capabilities import Capabilities
from emca_deploy.targets.devices_file import devices_file
from emca_deploy.targets.named_machines import Machine

__all__ = ["DeviceCheck", "DevicesReport", "add_device", "check_devices", "devices", "remove_device"]

NOT_USABLE = 3


@dataclass(frozen=True, kw_only=True)
class DevicesReport:
    """The named machines, in the order of their file."""

    schema_version: int = version(1)
    file: Path
    devices: tuple[Machine, ...]


@dataclass(frozen=True)
class DeviceCheck:
    """Capabilities of one machine (`found`), or the reason why it was not reached (`error`)."""

    device: Machine
    found: Capabilities | None = None
    error: EmcaError | None = None

    @property
    def exit_code(self) -> int:
        """Exit code: 0 if the machine can be used."""
        if self.error is not None:
            return self.error.exit_code
        return 0 if self.found is not None and self.found.usable else NOT_USABLE

    @property
    def runtimes(self) -> tuple[str, ...]:
        """Backends of the machine, each with the version of its library."""
        if self.found is None:
            return ()
        versions = self.found.facts.versions
        return tuple(f"{name} {versions.get(str(BACKENDS[name].module)) or '(unknown version)'}" for name in self.found.backends)

    def to_dict(self) -> dict[str, Any]:
        """Return its JSON."""
        if self.found is not None:
            return {**self.device.to_dict(), "reached": True, **self.found.to_dict(), "error": None}
        error = self.error and {"problem": self.error.problem, "remedy": self.error.remedy}
        return {**self.device.to_dict(), "reached": False, "usable": False, "error": error}


def devices() -> DevicesReport:
    """Return the named machines.

    Raises:
        InputError: their file cannot be read, or is wrong.
    """
    return DevicesReport(file=devices_file(), devices=tuple(named_machines.read_machines().values()))


def add_device(name: str, target: str, power_mode: str | None = None, notes: str = "") -> Path:
    """Give a target a name, and return the file of names.

    Args:
        name: name of letters, digits, - and _.
        target: ssh://[user@]host[:port], or cpu, gpu, gpu:1 or jetson of this machine.
        power_mode: power mode of a Jetson for every run on it that names no other.
        notes: notes for people.

    Raises:
        InputError: the name or the target cannot be used, or the name is taken.
        OutputError: the file cannot be written.
    """
    return named_machines.add_machine(Machine(name, target, power_mode, notes))


def remove_device(name: str) -> Path:
    """Remove a name, and return the file of names; the machine itself is not changed.

    Raises:
        UnknownNameError: no machine has that name.
        OutputError: the file cannot be written.
    """
    return named_machines.remove_machine(name)


def check_devices(name: str | None = None, progress: Progress | None = None) -> tuple[DeviceCheck, ...]:
    """Examine the Python, runtimes, trtexec, disk, clock and Jetson board of machines.

    Args:
        name: name of a machine; None examines every one.
        progress: callback that gets (done, total).

    Returns:
        A check for each machine, also for one that was not reached.

    Raises:
        InputError: no machine has that name, or the file of names is wrong.
    """
    machines = devices().devices if name is None else (named_machines.find_machine(name),)
    found = []
    for done, device in enumerate(machines):
        if progress is not None:
            progress(done, len(machines))
        try:
            found.append(DeviceCheck(device, device.examine()))
        except EmcaError as exc:
            found.append(DeviceCheck(device, error=exc))
    return tuple(found)
