"""NVIDIA's management library: power, temperature, clocks and memory of a GPU. Jetsons do not have it."""

from collections.abc import Callable
from typing import Any

from emca_deploy._optional import import_optional
from emca_deploy.errors import MissingError
from emca_deploy.telemetry.source import Reading, TelemetrySource

__all__ = ["NvmlSource", "read_values"]

MIB = 2**20

READERS: dict[str, Callable[[Any, Any], float]] = {
    "power_w": lambda nvml, gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000,
    # Since the driver was loaded; on GPUs newer than Pascal. Power is a mean over up to a second on some GPUs, energy is exact.
    "energy_j": lambda nvml, gpu: nvml.nvmlDeviceGetTotalEnergyConsumption(gpu) / 1000,
    "power_limit_w": lambda nvml, gpu: nvml.nvmlDeviceGetEnforcedPowerLimit(gpu) / 1000,
    "temperature_c": lambda nvml, gpu: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU),
    "sm_clock_mhz": lambda nvml, gpu: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM),
    "sm_clock_max_mhz": lambda nvml, gpu: nvml.nvmlDeviceGetMaxClockInfo(gpu, nvml.NVML_CLOCK_SM),
    "memory_clock_mhz": lambda nvml, gpu: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_MEM),
    "memory_used_mib": lambda nvml, gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).used / MIB,
    "utilization_percent": lambda nvml, gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu,
    "throttle_reasons_bitmask": lambda nvml, gpu: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu),
}


def read_values(nvml: Any, gpu: Any) -> Reading:
    """Return a GPU's values; those that it does not support, or that this process may not read, are left out."""
    found: Reading = {}
    for name, reader in READERS.items():
        try:
            found[name] = float(reader(nvml, gpu))
        except nvml.NVMLError:
            continue
    return found


class NvmlSource(TelemetrySource):
    """A GPU's telemetry, by its PCI bus id as CUDA names it: indices of CUDA and NVML need not agree.

    Attributes:
        driver: Version of the driver, once open; None where NVML does not report it.
    """

    name = "nvml"

    def __init__(self, bus_id: str) -> None:
        self._bus_id = bus_id
        self._nvml: Any = None
        self._gpu: Any = None
        self.driver: str | None = None

    def __enter__(self) -> "NvmlSource":
        nvml = import_optional("pynvml")
        try:
            nvml.nvmlInit()
        except nvml.NVMLError as exc:
            raise MissingError(f"NVML does not start: {exc}", "install the NVIDIA driver; Jetsons have no NVML") from exc
        self._nvml = nvml
        try:
            self._gpu = nvml.nvmlDeviceGetHandleByPciBusId(self._bus_id.encode())
            version: str | bytes = nvml.nvmlSystemGetDriverVersion()
            self.driver = version.decode() if isinstance(version, bytes) else version
        except nvml.NVMLError as exc:
            self.__exit__()
            raise MissingError(f"NVML has no GPU {self._bus_id}: {exc}", "check the GPU with nvidia-smi") from exc
        return self

    def __exit__(self, *error: object) -> None:
        if self._nvml is not None:
            self._nvml.nvmlShutdown()
            self._nvml = None

    def read(self) -> Reading:
        """Return the GPU's values now."""
        return read_values(self._nvml, self._gpu)
