"""NVIDIA's management library: power, temperature, clocks and memory of a GPU. Jetsons do not have it."""

from collections.abc import Callable
from types import TracebackType
from typing import Any

from emca_deploy._optional import import_optional
from emca_deploy.errors import MissingError
from emca_deploy.telemetry.source import Reading

__all__ = ["NvmlSource", "read_values"]

MIB = 2**20

READERS: dict[str, Callable[[Any, Any], float]] = {
    "power_w": lambda nvml, gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000,
    # Since the driver was loaded; newer than Pascal. Power is a mean of up to a second on some GPUs, this misses nothing.
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
    """Return what a GPU tells; what it does not support, or this process may not know, is left out."""
    found: Reading = {}
    for name, reader in READERS.items():
        try:
            found[name] = float(reader(nvml, gpu))
        except nvml.NVMLError:
            continue
    return found


class NvmlSource:
    """A GPU's telemetry, by its bus id on PCI, as CUDA names it: indices of CUDA and NVML need not agree.

    Attributes:
        driver: the driver's version, once open; None where it does not say.
    """

    name = "nvml"

    def __init__(self, bus_id: str) -> None:
        self._bus_id = bus_id
        self._nvml: Any = None
        self._gpu: Any = None
        self.driver: str | None = None

    def __enter__(self) -> "NvmlSource":
        """Open it.

        Raises:
            MissingError: nvidia-ml-py, the driver's library or the GPU is missing.
        """
        nvml = import_optional("pynvml")
        try:
            nvml.nvmlInit()
        except nvml.NVMLError as exc:
            raise MissingError(f"NVML does not start: {exc}", "install the NVIDIA driver; Jetsons have no NVML") from exc
        self._nvml = nvml
        try:
            self._gpu = nvml.nvmlDeviceGetHandleByPciBusId(self._bus_id.encode())
            self.driver = _text(nvml.nvmlSystemGetDriverVersion())
        except nvml.NVMLError as exc:
            self._close()
            raise MissingError(f"NVML has no GPU {self._bus_id}: {exc}", "check the GPU with nvidia-smi") from exc
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close()

    def _close(self) -> None:
        if self._nvml is not None:
            self._nvml.nvmlShutdown()
            self._nvml = None

    def read(self) -> Reading:
        """Return what the GPU says now."""
        return read_values(self._nvml, self._gpu)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
